//! Rules about sources (row P05), of clients and of frontends.

use engine::Policy;
use frontend::policy::{Action, AttrTest, Constraint, Match, Rule, SourcePolicy, Update};
use proto::moby::buildkit::v1 as control;
use tonic::Status;

/// Which sources a build may use.
pub(super) fn of_client(
    message: Option<control::sourcepolicy::Policy>,
    session: String,
) -> Result<Policy, Status> {
    Ok(Policy {
        rules: rules(message.unwrap_or_default())?,
        session,
    })
}

/// Which sources answering a frontend's question may use.
pub(crate) fn source_policies(
    messages: Vec<control::sourcepolicy::Policy>,
) -> Result<Vec<SourcePolicy>, Status> {
    let policy = |message| {
        Ok(SourcePolicy {
            rules: rules(message)?,
        })
    };
    messages.into_iter().map(policy).collect()
}

fn rules(message: control::sourcepolicy::Policy) -> Result<Vec<Rule>, Status> {
    if !message.rules.is_empty() && message.version > 1 {
        return Err(Status::unimplemented(format!(
            "source policies of version {} are unknown: there is version 1",
            message.version
        )));
    }
    message.rules.into_iter().map(rule).collect()
}

fn rule(message: control::sourcepolicy::Rule) -> Result<Rule, Status> {
    use control::sourcepolicy::{AttrMatch, MatchType, PolicyAction};
    let unknown = |what: &str, number: i32| {
        Status::invalid_argument(format!("source policy: unknown type of {what}: {number}"))
    };
    let action = match PolicyAction::try_from(message.action) {
        Ok(PolicyAction::Allow) => Action::Allow,
        Ok(PolicyAction::Deny) => Action::Deny,
        Ok(PolicyAction::Convert) => Action::Convert,
        Err(_) => return Err(unknown("action", message.action)),
    };
    let selector = message.selector.ok_or_else(|| {
        Status::invalid_argument(
            "source policy: invalid nil selector in policy: a rule must say of which source it is",
        )
    })?;
    let matching = match MatchType::try_from(selector.match_type) {
        Ok(MatchType::Wildcard) => Match::Wildcard,
        Ok(MatchType::Exact) => Match::Exact,
        Ok(MatchType::Regex) => Match::Regex,
        Err(_) => return Err(unknown("match type", selector.match_type)),
    };
    let constraint = |one: control::sourcepolicy::AttrConstraint| {
        let test = match AttrMatch::try_from(one.condition) {
            Ok(AttrMatch::Equal) => AttrTest::Equal(one.value),
            Ok(AttrMatch::Notequal) => AttrTest::NotEqual(one.value),
            Ok(AttrMatch::Matches) => AttrTest::Matches(one.value),
            Err(_) => return Err(unknown("attribute condition", one.condition)),
        };
        Ok(Constraint { key: one.key, test })
    };
    let constraints = selector.constraints.into_iter().map(constraint);
    Ok(Rule {
        action,
        matching,
        identifier: selector.identifier,
        constraints: constraints.collect::<Result<_, Status>>()?,
        update: message.updates.map(|update| Update {
            identifier: update.identifier,
            attrs: update.attrs,
        }),
    })
}
