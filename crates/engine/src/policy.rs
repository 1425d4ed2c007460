//! Which sources a build may use (rows P05, N08): rules that came with the request, and the
//! client's own decision. A source is allowed, denied, or another is used in its place.

use std::collections::BTreeMap;
use std::sync::Arc;

use frontend::SourceLocation;
use futures::future::BoxFuture;
use oci::Platform;
use regex::Regex;
use session::{PolicyAnswer, PolicyQuestion, Sessions};
use stdx::Kind;

use crate::bridge::Shared;
use crate::error::asked;

use crate::request::{Action, AttrTest, Match, Policy, Rule};

/// Rules may send a source on this often before they are thought to run in circles.
const MAX_CONVERSIONS: usize = 20;
/// Questions a client may answer with another question.
const MAX_QUESTIONS: usize = 10;
/// Bytes of a name that is converted, and of what it is converted into. One place of the latter
/// can bring in all of the former, so this bounds what is made before it is refused, too.
const MAX_NAME: usize = 8 << 10;
/// How long a session of the policy's may take to connect.
const WAIT: std::time::Duration = std::time::Duration::from_secs(5);

/// Why a source cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A rule or the client says no.
    #[error("source {identifier:?} denied by policy{}", reasons(.why))]
    Denied {
        /// The source.
        identifier: String,
        /// What the client said.
        why: Vec<String>,
    },
    /// A rule cannot be read.
    #[error("source policy: {0}")]
    BadRule(String),
    /// Rules send a source on and on.
    #[error("source policy: {0:?} is converted more than {MAX_CONVERSIONS} times")]
    Circle(String),
    /// An image is needed, and a rule names something else.
    #[error("source policy: {0:?} is converted into {1:?}, which is no image")]
    NoImage(String, String),
    /// The client wants to know more than we can tell.
    #[error("source policy: it asks for {1} of {0:?}, which cannot be given yet")]
    Unanswerable(String, &'static str),
    /// The client who decides is not there.
    #[error("asking the client's source policy")]
    Session(#[from] session::Error),
    /// What the client wants to know could not be found out.
    #[error("looking up {0:?} for the source policy")]
    Lookup(String, #[source] frontend::Error),
}

fn reasons(why: &[String]) -> String {
    match why.is_empty() {
        true => String::new(),
        false => format!(": {}", why.join("; ")),
    }
}

impl Error {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Error::Denied { .. } => Kind::Denied,
            Error::BadRule(_) | Error::Circle(_) | Error::NoImage(..) => Kind::InvalidInput,
            Error::Unanswerable(..) => Kind::Unsupported,
            Error::Session(error) => error.kind(),
            Error::Lookup(_, error) => error.kind(),
        }
    }
}

/// An image's digest and config, for the client to decide.
pub(crate) type Image = (String, bytes::Bytes);

/// Finds an image out.
pub(crate) type Look<'a> =
    Box<dyn Fn(llb::Source) -> BoxFuture<'a, frontend::Result<Image>> + Send + Sync + 'a>;

/// The policy of one build, its patterns read.
pub(crate) struct Policies {
    rules: Vec<Pattern>,
    session: Option<(Sessions, String)>,
}

struct Pattern {
    rule: Rule,
    identifier: Option<Regex>,
    attrs: Vec<Option<Regex>>,
}

impl Policies {
    pub(crate) fn new(policy: &Policy, sessions: &Sessions) -> Result<Policies, Error> {
        let rules = policy
            .rules
            .iter()
            .map(Pattern::new)
            .collect::<Result<_, Error>>()?;
        let session = Some(policy.session.clone()).filter(|id| !id.is_empty());
        Ok(Policies {
            rules,
            session: session.map(|id| (sessions.clone(), id)),
        })
    }

    /// Whether everything is allowed.
    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.session.is_none()
    }

    /// What to use for a source: `None` if it is fine as it is. `look` finds out
    /// about an image when the client wants to know.
    pub(crate) async fn decide(
        &self,
        source: &llb::Source,
        platform: Option<&Platform>,
        look: &Look<'_>,
    ) -> Result<Option<llb::Source>, Error> {
        let mut now = source.clone();
        for _ in 0..=MAX_CONVERSIONS {
            let changed = match self.by_rules(&now)? {
                Some(other) => Some(other),
                None => self.by_client(&now, platform, look).await?,
            };
            match changed {
                Some(other) => now = other,
                None => return Ok((now != *source).then_some(now)),
            }
        }
        Err(Error::Circle(source.identifier.clone()))
    }

    /// Of rules that match, the last one that allows or denies counts; the first that
    /// converts begins everything anew.
    fn by_rules(&self, source: &llb::Source) -> Result<Option<llb::Source>, Error> {
        let mut denied = false;
        for pattern in self.rules.iter().filter(|pattern| pattern.matches(source)) {
            match pattern.rule.action {
                Action::Allow => denied = false,
                Action::Deny => denied = true,
                Action::Convert => {
                    let other = pattern.convert(source)?;
                    if other != *source {
                        return Ok(Some(other));
                    }
                }
            }
        }
        match denied {
            true => Err(Error::Denied {
                identifier: source.identifier.clone(),
                why: Vec::new(),
            }),
            false => Ok(None),
        }
    }

    async fn by_client(
        &self,
        source: &llb::Source,
        platform: Option<&Platform>,
        look: &Look<'_>,
    ) -> Result<Option<llb::Source>, Error> {
        let Some((sessions, id)) = &self.session else {
            return Ok(None);
        };
        let client = sessions.get(id, WAIT).await?.policies()?;
        let identifier = source.identifier.clone();
        let mut question = PolicyQuestion {
            platform: platform.cloned(),
            identifier: identifier.clone(),
            attrs: source.attrs.clone(),
            ..PolicyQuestion::default()
        };
        for _ in 0..MAX_QUESTIONS {
            match client.check(&question).await? {
                PolicyAnswer::Allow => return Ok(None),
                PolicyAnswer::Deny(why) => return Err(Error::Denied { identifier, why }),
                PolicyAnswer::Convert { identifier, attrs } => {
                    let other = llb::Source { identifier, attrs };
                    return Ok((other != *source).then_some(other));
                }
                PolicyAnswer::More {
                    attestations: true, ..
                } => {
                    return Err(Error::Unanswerable(identifier, "the attestations"));
                }
                PolicyAnswer::More { commit: true, .. } => {
                    return Err(Error::Unanswerable(identifier, "the commit"));
                }
                PolicyAnswer::More { .. }
                    if question.image.is_none() && identifier.starts_with("docker-image://") =>
                {
                    let found = look(source.clone()).await;
                    question.image =
                        Some(found.map_err(|error| Error::Lookup(identifier.clone(), error))?);
                }
                PolicyAnswer::More { .. } => return Err(Error::Unanswerable(identifier, "more")),
            }
        }
        Err(Error::Unanswerable(identifier, "more and more"))
    }
}

fn regex(pattern: &str) -> Result<Regex, Error> {
    Regex::new(pattern)
        .map_err(|error| Error::BadRule(format!("invalid regex {pattern:?}: {error}")))
}

impl Pattern {
    fn new(rule: &Rule) -> Result<Pattern, Error> {
        let identifier = match rule.matching {
            Match::Exact => None,
            Match::Regex => Some(regex(&rule.identifier)?),
            Match::Wildcard if rule.identifier.contains("**") => {
                return Err(Error::BadRule(format!(
                    "invalid wildcard {:?}: it has **",
                    rule.identifier
                )));
            }
            Match::Wildcard => {
                let pattern = regex::escape(&rule.identifier).replace("\\*", "(.*)");
                Some(regex(&format!("(?s)^{pattern}$"))?)
            }
        };
        let attrs = rule
            .constraints
            .iter()
            .map(|constraint| match &constraint.test {
                AttrTest::Matches(pattern) => regex(pattern).map(Some),
                _ => Ok(None),
            });
        Ok(Pattern {
            identifier,
            attrs: attrs.collect::<Result<_, Error>>()?,
            rule: rule.clone(),
        })
    }

    fn matches(&self, source: &llb::Source) -> bool {
        let attrs = self
            .rule
            .constraints
            .iter()
            .zip(&self.attrs)
            .all(|(constraint, pattern)| {
                let value = source.attrs.get(&constraint.key).map_or("", String::as_str);
                match &constraint.test {
                    AttrTest::Equal(wanted) => value == wanted,
                    AttrTest::NotEqual(unwanted) => value != unwanted,
                    AttrTest::Matches(_) => pattern
                        .as_ref()
                        .is_some_and(|pattern| pattern.is_match(value)),
                }
            });
        let named = self.rule.identifier == source.identifier
            || self
                .identifier
                .as_ref()
                .is_some_and(|pattern| pattern.is_match(&source.identifier));
        attrs && named
    }

    /// The source to use instead. In its name `$1` is what the first star or group took;
    /// a wildcard's `$0` is the whole name.
    fn convert(&self, source: &llb::Source) -> Result<llb::Source, Error> {
        let Some(update) = &self.rule.update else {
            let problem = format!(
                "missing destination for convert rule of {:?}",
                self.rule.identifier
            );
            return Err(Error::BadRule(problem));
        };
        let mut other = source.clone();
        let into = match update.identifier.as_str() {
            "" => &self.rule.identifier,
            into => into,
        };
        other.identifier = match &self.identifier {
            Some(pattern) => self.expand(pattern, &source.identifier, into)?,
            None => into.to_owned(),
        };
        other.attrs.extend(update.attrs.clone());
        Ok(other)
    }
}

impl Pattern {
    /// `name` with `into` where the pattern fits, and in that what the pattern took. What is
    /// brought in is not looked at again.
    fn expand(&self, pattern: &Regex, name: &str, into: &str) -> Result<String, Error> {
        let rule = &self.rule.identifier;
        let bounded = |text: &str| match text.len() {
            length if length <= MAX_NAME => Ok(()),
            _ => Err(Error::BadRule(format!(
                "a name of more than {MAX_NAME} bytes is converted by the rule for {rule:?}"
            ))),
        };
        bounded(name)?;
        bounded(into)?;
        let (mut made, mut rest) = (String::new(), 0);
        for captures in pattern.captures_iter(name) {
            let whole = captures.get_match();
            made.push_str(&name[rest..whole.start()]);
            captures.expand(into, &mut made);
            bounded(&made)?;
            rest = whole.end();
        }
        made.push_str(&name[rest..]);
        bounded(&made)?;
        Ok(made)
    }
}

/// A definition with other sources in place of some, its places still at their steps.
pub(crate) fn replaced(
    definition: &llb::Definition,
    old: &llb::Graph,
    others: &BTreeMap<oci::Digest, llb::Source>,
) -> Result<(llb::Definition, llb::Graph), llb::Error> {
    let new = old.map(|vertex| {
        Ok::<_, llb::Error>(others.get(&vertex.digest).cloned().map(llb::OpKind::Source))
    })?;
    let mut changed = new.definition();
    changed.source = definition.source.clone();
    if let Some(map) = &mut changed.source {
        for (before, after) in old.vertices().iter().zip(new.vertices()) {
            if before.digest != after.digest
                && let Some(places) = map.locations.remove(&before.digest)
            {
                map.locations.insert(after.digest, places);
            }
        }
    }
    Ok((changed, new))
}

impl Shared {
    /// A graph as the policy wants it.
    pub(crate) async fn policed(
        &self,
        definition: llb::Definition,
        graph: llb::Graph,
    ) -> frontend::Result<(llb::Definition, llb::Graph)> {
        if self.policies.is_empty() {
            return Ok((definition, graph));
        }
        let mut others = BTreeMap::new();
        for vertex in graph.vertices() {
            let llb::OpKind::Source(source) = &vertex.op.kind else {
                continue;
            };
            let platform = vertex.op.platform.as_ref();
            let at = || crate::bridge::places(&definition, &vertex.digest);
            if let Some(other) = self.decide(source, platform, at).await? {
                others.insert(vertex.digest, other);
            }
        }
        if others.is_empty() {
            return Ok((definition, graph));
        }
        replaced(&definition, &graph, &others)
            .map_err(|error| asked("putting other sources into the graph", error.kind(), error))
    }

    /// An image's name as the policy wants it.
    pub(crate) async fn policed_image(
        &self,
        name: &str,
        platform: Option<&Platform>,
    ) -> frontend::Result<String> {
        if self.policies.is_empty() {
            return Ok(name.to_owned());
        }
        let Ok(parsed) = name.parse::<oci::ImageName>() else {
            return Ok(name.to_owned());
        };
        let source = llb::Source {
            identifier: format!("docker-image://{}", parsed.or_latest()),
            attrs: BTreeMap::new(),
        };
        let Some(other) = self.decide(&source, platform, Vec::new).await? else {
            return Ok(name.to_owned());
        };
        match other.identifier.strip_prefix("docker-image://") {
            Some(name) => Ok(name.to_owned()),
            None => Err(refused(
                Error::NoImage(source.identifier, other.identifier),
                Vec::new(),
            )),
        }
    }

    /// What to use for a source, `None` if it is fine as it is.
    pub(crate) async fn decide(
        &self,
        source: &llb::Source,
        platform: Option<&Platform>,
        at: impl FnOnce() -> Vec<SourceLocation>,
    ) -> frontend::Result<Option<llb::Source>> {
        // Boxed, or the compiler cannot see that the whole may cross threads.
        let look: Look<'_> =
            Box::new(move |source| Box::pin(self.look_up(source, platform.cloned())));
        let decided = self.policies.decide(source, platform, &look).await;
        decided.map_err(|error| refused(error, at()))
    }

    /// Digest and config of an image.
    async fn look_up(
        &self,
        source: llb::Source,
        platform: Option<Platform>,
    ) -> frontend::Result<Image> {
        let doing = || format!("resolving {}", source.identifier);
        let failed = |error: source::Error| asked(doing(), error.kind(), error);
        let identifier =
            source::Identifier::parse(&source.identifier, &source.attrs).map_err(failed)?;
        let platform = platform.unwrap_or_else(|| self.deeds.parts.platform.clone());
        let source::Source::Image(image) =
            source::Source::new(&self.deeds.parts.sources, identifier, &platform)
        else {
            let unknown = ops::Error::Unsupported(source.identifier.clone());
            return Err(asked(doing(), Kind::Unsupported, unknown));
        };
        let step = progress::StepProgress::none();
        let found = image
            .config(&self.deeds.build.source_context(&step))
            .await
            .map_err(failed)?;
        Ok((found.digest.to_string(), found.config))
    }
}

/// The error of a frontend's question, with the lines the source came from.
pub(crate) fn refused(error: Error, at: Vec<SourceLocation>) -> frontend::Error {
    let kind = error.kind();
    frontend::Error::Written {
        cause: Arc::new(error),
        kind,
        at,
        hints: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{Constraint, Update};

    fn rule(action: Action, matching: Match, identifier: &str) -> Rule {
        Rule {
            action,
            matching,
            identifier: identifier.into(),
            constraints: Vec::new(),
            update: None,
        }
    }

    fn to(identifier: &str) -> Option<Update> {
        Some(Update {
            identifier: identifier.into(),
            attrs: BTreeMap::new(),
        })
    }

    fn source(identifier: &str) -> llb::Source {
        llb::Source {
            identifier: identifier.into(),
            attrs: BTreeMap::new(),
        }
    }

    fn decide(rules: Vec<Rule>, identifier: &str) -> Result<Option<llb::Source>, Error> {
        let policy = Policy {
            rules,
            session: String::new(),
        };
        let policies = Policies::new(&policy, &Sessions::new())?;
        let look: Look<'_> =
            Box::new(|_| Box::pin(async { Ok((String::new(), bytes::Bytes::new())) }));
        futures::executor::block_on(policies.decide(&source(identifier), None, &look))
    }

    const ALPINE: &str = "docker-image://docker.io/library/alpine:latest";

    /// Rows: P05
    #[test]
    fn the_last_rule_that_matches_counts() {
        use Action::{Allow, Deny};
        use Match::{Exact, Regex, Wildcard};
        let all = || rule(Deny, Wildcard, "*");
        for (rules, allowed) in [
            (vec![], true),
            (vec![all()], false),
            (vec![all(), rule(Allow, Exact, ALPINE)], true),
            (vec![rule(Allow, Exact, ALPINE), all()], false),
            (vec![all(), rule(Allow, Regex, "alpine")], true),
            (
                vec![all(), rule(Allow, Wildcard, "docker-image://*/alpine:*")],
                true,
            ),
            (
                vec![all(), rule(Allow, Wildcard, "docker-image://*/alpine")],
                false,
            ),
            (vec![rule(Deny, Exact, "docker-image://*")], true),
        ] {
            let shown = format!("{rules:?}");
            match decide(rules, ALPINE) {
                Ok(other) => assert!(allowed && other.is_none(), "{shown}"),
                Err(error) => {
                    assert!(!allowed, "{shown}: {error}");
                    assert_eq!(
                        error.to_string(),
                        format!("source {ALPINE:?} denied by policy")
                    );
                    assert_eq!(error.kind(), Kind::Denied);
                }
            }
        }
    }

    /// Rows: P05
    #[test]
    fn sources_are_converted_until_no_rule_wants_more() {
        use Action::{Convert, Deny};
        let convert = |matching, from: &str, into: &str| Rule {
            update: to(into),
            ..rule(Convert, matching, from)
        };
        let wild = convert(
            Match::Wildcard,
            "docker-image://docker.io/*:*",
            "docker-image://mirror/${1}:$2",
        );
        let next = convert(
            Match::Regex,
            "^docker-image://mirror/(.*)$",
            "docker-image://last/$1",
        );
        let found = decide(vec![wild.clone(), next.clone()], ALPINE)
            .unwrap()
            .unwrap();
        assert_eq!(
            found.identifier,
            "docker-image://last/library/alpine:latest"
        );
        let denied = decide(
            vec![
                rule(Deny, Match::Wildcard, "docker-image://last/*"),
                wild,
                next,
            ],
            ALPINE,
        );
        assert_eq!(denied.unwrap_err().kind(), Kind::Denied);
        let there = convert(Match::Exact, "a", "b");
        let back = convert(Match::Exact, "b", "a");
        assert!(matches!(
            decide(vec![there, back], "a"),
            Err(Error::Circle(_))
        ));
        let mut pinned = rule(Convert, Match::Exact, "https://x/y");
        pinned.update = Some(Update {
            identifier: String::new(),
            attrs: [("http.checksum".into(), "sha256:1".into())].into(),
        });
        let found = decide(vec![pinned.clone()], "https://x/y")
            .unwrap()
            .unwrap();
        assert_eq!(
            (
                found.identifier.as_str(),
                found.attrs["http.checksum"].as_str()
            ),
            ("https://x/y", "sha256:1")
        );
        pinned.update = None;
        assert!(matches!(
            decide(vec![pinned], "https://x/y"),
            Err(Error::BadRule(_))
        ));
    }

    /// Rows: P05
    #[test]
    fn names_are_made_in_one_pass_and_bounded() {
        let convert = |matching, from: &str, into: &str| Rule {
            update: to(into),
            ..rule(Action::Convert, matching, from)
        };
        let into = |matching, from: &str, into: &str, name: &str| {
            let policy = convert(matching, from, into);
            let found = Pattern::new(&policy)?.convert(&source(name))?;
            Ok::<_, Error>(found.identifier)
        };
        for (matching, from, to, name, made) in [
            // What the first star took is no template.
            (
                Match::Wildcard,
                "https://*/*",
                "https://m/$1/$2",
                "https://$2/x",
                "https://m/$2/x",
            ),
            // Ten is not one and a nought.
            (Match::Wildcard, "*", "a/${1}0/$10/$0", "n", "a/n0//n"),
            (Match::Regex, "b(.)", "<$1>", "ab$b2", "a<$><2>"),
            (Match::Regex, "^a$", "<$1>", "b", "b"),
        ] {
            assert_eq!(into(matching, from, to, name).unwrap(), made, "{from} {to}");
        }
        for (matching, from) in [(Match::Wildcard, "*"), (Match::Regex, "(.*)")] {
            let long = "x".repeat(MAX_NAME);
            assert_eq!(into(matching, from, "$1", &long).unwrap().len(), MAX_NAME);
            for (template, name) in [
                ("$1$1".to_owned(), long.clone()),
                ("$1".repeat(MAX_NAME / 2), long.clone()),
                ("$1".to_owned(), format!("{long}x")),
                (format!("{long}x"), "x".to_owned()),
            ] {
                let error = into(matching, from, &template, &name).unwrap_err();
                assert!(
                    error.to_string().contains("more than 8192 bytes"),
                    "{error}"
                );
            }
        }
    }

    /// Rows: P05
    #[test]
    fn rules_may_ask_for_attributes_and_must_be_readable() {
        let with = |test: AttrTest| Rule {
            constraints: vec![Constraint {
                key: "git.keepgitdir".into(),
                test,
            }],
            ..rule(Action::Deny, Match::Wildcard, "git://*")
        };
        for (test, denied) in [
            (AttrTest::Equal("true".into()), false),
            (AttrTest::NotEqual("true".into()), true),
            (AttrTest::Matches("^$".into()), true),
        ] {
            assert_eq!(
                decide(vec![with(test.clone())], "git://a").is_err(),
                denied,
                "{test:?}"
            );
        }
        for wrong in [
            with(AttrTest::Matches("(".into())),
            rule(Action::Allow, Match::Regex, "("),
            rule(Action::Allow, Match::Wildcard, "a**"),
        ] {
            assert!(matches!(decide(vec![wrong], "x"), Err(Error::BadRule(_))));
        }
    }
}
