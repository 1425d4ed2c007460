//! A client's decisions about sources (features N08, P06).

use async_trait::async_trait;
use proto::moby::buildkit::v1::sourcepolicy::PolicyAction;
use proto::moby::buildkit::v1::sourcepolicy::policysession as wire;
use tonic::transport::Channel;

use crate::{Error, Policies, PolicyAnswer, PolicyQuestion, Result, facts};

/// The method that decides.
pub(crate) const METHOD: &str =
    "/moby.buildkit.v1.sourcepolicy.policysession.PolicyVerifier/CheckPolicy";

pub(super) struct RemotePolicies(pub(super) Channel);

#[async_trait]
impl Policies for RemotePolicies {
    async fn check(&self, question: &PolicyQuestion) -> Result<PolicyAnswer> {
        let mut client = wire::policy_verifier_client::PolicyVerifierClient::new(self.0.clone());
        let answer = client.check_policy(ask(question)).await?.into_inner();
        let decision = match answer.result {
            Some(wire::check_policy_response::Result::Decision(decision)) => decision,
            Some(wire::check_policy_response::Result::Request(request)) => {
                let asked = request.source.as_ref();
                if asked.is_some_and(|source| {
                    source.identifier != question.identifier || source.attrs != question.attrs
                }) {
                    let why = "the policy asks about another source than it was asked about";
                    return Err(Error::Protocol(why.into()));
                }
                return Ok(PolicyAnswer::More(facts::questions(&request)?));
            }
            None => return Err(Error::Protocol("a policy without a decision".into())),
        };
        match (decision.action(), decision.update) {
            (PolicyAction::Allow, _) => Ok(PolicyAnswer::Allow),
            (PolicyAction::Deny, _) => {
                let why = decision
                    .deny_messages
                    .into_iter()
                    .map(|m| m.message)
                    .collect();
                Ok(PolicyAnswer::Deny(why))
            }
            (PolicyAction::Convert, Some(to)) => Ok(PolicyAnswer::Convert {
                identifier: to.identifier,
                attrs: to.attrs,
            }),
            (PolicyAction::Convert, None) => Err(Error::Protocol(
                "a source is to be converted into nothing".into(),
            )),
        }
    }
}

fn ask(question: &PolicyQuestion) -> wire::CheckPolicyRequest {
    wire::CheckPolicyRequest {
        platform: question.platform.as_ref().map(facts::to_platform),
        source: Some(facts::response(
            &question.identifier,
            &question.attrs,
            &question.facts,
        )),
        caps: Default::default(),
    }
}
