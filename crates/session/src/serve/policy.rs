//! Decisions about sources.

use std::sync::Arc;

use proto::moby::buildkit::v1::sourcepolicy::PolicyAction;
use proto::moby::buildkit::v1::sourcepolicy::policysession as wire;
use proto::moby::buildkit::v1::sourcepolicy::policysession::policy_verifier_server as server;
use tonic::service::RoutesBuilder;
use tonic::{Request, Response, Status};

use crate::{Attachables, Policies, PolicyAnswer, PolicyQuestion, facts};

pub(super) fn add(routes: &mut RoutesBuilder, offers: &Attachables) {
    if let Some(policies) = &offers.policies {
        let service = server::PolicyVerifierServer::new(Verifier(policies.clone()));
        routes.add_service(service.max_decoding_message_size(proto::MAX_MESSAGE_SIZE));
    }
}

struct Verifier(Arc<dyn Policies>);

#[tonic::async_trait]
impl server::PolicyVerifier for Verifier {
    async fn check_policy(
        &self,
        call: Request<wire::CheckPolicyRequest>,
    ) -> Result<Response<wire::CheckPolicyResponse>, Status> {
        let request = call.into_inner();
        let platform = request.platform.map(facts::platform);
        let meta = request.source.unwrap_or_default();
        let facts = facts::facts(&meta).map_err(|error| error.to_status())?;
        let source = meta.source.unwrap_or_default();
        let question = PolicyQuestion {
            platform,
            identifier: source.identifier,
            attrs: source.attrs,
            facts,
        };
        let answer = self
            .0
            .check(&question)
            .await
            .map_err(|error| error.to_status())?;
        let decide = |action: PolicyAction| wire::DecisionResponse {
            action: action.into(),
            ..wire::DecisionResponse::default()
        };
        use wire::check_policy_response::Result as Answer;
        let result = match answer {
            PolicyAnswer::Allow => Answer::Decision(decide(PolicyAction::Allow)),
            PolicyAnswer::Deny(why) => Answer::Decision(wire::DecisionResponse {
                deny_messages: why
                    .into_iter()
                    .map(|message| wire::DenyMessage { message })
                    .collect(),
                ..decide(PolicyAction::Deny)
            }),
            PolicyAnswer::Convert { identifier, attrs } => {
                Answer::Decision(wire::DecisionResponse {
                    update: Some(proto::pb::SourceOp { identifier, attrs }),
                    ..decide(PolicyAction::Convert)
                })
            }
            PolicyAnswer::More(questions) => Answer::Request(facts::request(
                &questions,
                &question.identifier,
                &question.attrs,
            )),
        };
        Ok(Response::new(wire::CheckPolicyResponse {
            result: Some(result),
        }))
    }
}
