//! Source policies, as frontends send them.

use proto::moby::buildkit::v1::control_client::ControlClient;
use proto::moby::buildkit::v1::frontend as gateway;
use proto::moby::buildkit::v1::frontend::llb_bridge_client::LlbBridgeClient;
use proto::moby::buildkit::v1::sourcepolicy::{
    AttrConstraint, AttrMatch, MatchType, Policy, PolicyAction, Rule, Selector, Update,
};
use proto::pb;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::pretender::{daemon, for_build, solve};

fn policy(change: impl FnOnce(&mut Policy)) -> Vec<Policy> {
    let selector = Selector {
        identifier: "https://*".into(),
        match_type: MatchType::Regex.into(),
        constraints: vec![AttrConstraint {
            key: "http.checksum".into(),
            value: "x".into(),
            condition: AttrMatch::Notequal.into(),
        }],
    };
    let mut policy = Policy {
        version: 1,
        rules: vec![Rule {
            action: PolicyAction::Convert.into(),
            selector: Some(selector),
            updates: Some(Update {
                identifier: "https://mirror".into(),
                attrs: [("http.checksum".to_owned(), "y".to_owned())].into(),
            }),
        }],
    };
    change(&mut policy);
    vec![policy]
}

/// Why each question of a frontend that takes policies is refused with these.
async fn refused(bridge: &mut LlbBridgeClient<Channel>, policies: &[Policy]) -> [Status; 4] {
    let source_policies = policies.to_vec();
    let graph = gateway::SolveRequest {
        source_policies: source_policies.clone(),
        ..gateway::SolveRequest::default()
    };
    let nested = gateway::SolveRequest {
        frontend: "dockerfile.v0".into(),
        ..graph.clone()
    };
    let image = gateway::ResolveImageConfigRequest {
        r#ref: "a".into(),
        source_policies: source_policies.clone(),
        ..gateway::ResolveImageConfigRequest::default()
    };
    let source = gateway::ResolveSourceMetaRequest {
        source: Some(pb::SourceOp {
            identifier: "https://a".into(),
            ..pb::SourceOp::default()
        }),
        source_policies,
        ..gateway::ResolveSourceMetaRequest::default()
    };
    [
        bridge.solve(for_build("b1", graph)).await.unwrap_err(),
        bridge.solve(for_build("b1", nested)).await.unwrap_err(),
        bridge
            .resolve_image_config(for_build("b1", image))
            .await
            .unwrap_err(),
        bridge
            .resolve_source_meta(for_build("b1", source))
            .await
            .unwrap_err(),
    ]
}

/// They reach whoever answers, whole; one that cannot be understood is refused before.
///
/// Rows: P05, G02, G03
#[tokio::test]
async fn policies_of_a_frontend_are_passed_on() {
    let (channel, _daemon) = daemon("").await;
    let mut bridge = LlbBridgeClient::new(channel.clone());
    let mut control = ControlClient::new(channel);
    let building = stdx::task::spawn("solve", async move { control.solve(solve("b1", "")).await });
    for status in refused(&mut bridge, &policy(|_| ())).await {
        assert_eq!(
            status.message(),
            "option policies is \"\" but should be [SourcePolicy { rules: [Rule { \
             action: Convert, matching: Regex, identifier: \"https://*\", \
             constraints: [Constraint { key: \"http.checksum\", test: NotEqual(\"x\") }], \
             update: Some(Update { identifier: \"https://mirror\", \
             attrs: {\"http.checksum\": \"y\"} }) }] }]"
        );
    }
    for (wrong, code, says) in [
        (
            policy(|policy| policy.version = 2),
            Code::Unimplemented,
            "source policies of version 2 are unknown",
        ),
        (
            policy(|policy| policy.rules[0].selector = None),
            Code::InvalidArgument,
            "invalid nil selector in policy",
        ),
        (
            policy(|policy| policy.rules[0].action = 9000),
            Code::InvalidArgument,
            "unknown type of action: 9000",
        ),
    ] {
        for status in refused(&mut bridge, &wrong).await {
            assert_eq!(status.code(), code, "{status:?}");
            assert!(status.message().contains(says), "{status:?}");
        }
    }
    drop(building);
}
