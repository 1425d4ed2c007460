//! Which sources a build may use (rows P05, N08): rules that came with the request or with a
//! frontend's question, and the client's own decision. A source is allowed, denied, or another
//! is used in its place.

mod pattern;

use std::collections::BTreeMap;
use std::sync::Arc;

use frontend::SourceLocation;
use frontend::policy::{Action, Rule, SourcePolicy};
use futures::future::BoxFuture;
use llb::attr;
use llb::facts::{Facts, Questions};
use oci::Platform;
use session::{PolicyAnswer, PolicyQuestion, Sessions};
use stdx::Kind;

use crate::bridge::Shared;
use crate::request::Policy;
use pattern::{Budget, Named, Pattern};

/// Rules may send a source on this often before they are thought to run in circles.
const MAX_CONVERSIONS: usize = 20;
/// Questions a client may answer with another question.
const MAX_QUESTIONS: usize = 10;
/// How long a session of the policy's may take to connect.
const WAIT: std::time::Duration = std::time::Duration::from_secs(5);

/// Why a source cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A rule or the client says no.
    #[error("source {identifier:?} denied by policy")]
    Denied {
        /// The source.
        identifier: String,
        /// Why.
        #[source]
        denial: Denial,
    },
    /// A rule cannot be read.
    #[error("source policy: {0}")]
    BadRule(String),
    /// There is more to read than is worth it.
    #[error("source policy: {0}")]
    TooMuch(&'static str),
    /// Rules send a source on and on.
    #[error("source policy: {0:?} is converted more than {MAX_CONVERSIONS} times")]
    Circle(String),
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

/// Clients of BuildKit look for these very words, whatever the source.
#[derive(Debug, Default, thiserror::Error)]
#[error("source denied by policy{}", reasons(.0))]
pub(crate) struct Denial(
    /// What the client said.
    pub(crate) Vec<String>,
);

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
            Error::BadRule(_) | Error::TooMuch(_) | Error::Circle(_) => Kind::InvalidInput,
            Error::Unanswerable(..) => Kind::Unsupported,
            Error::Session(error) => error.kind(),
            Error::Lookup(_, error) => error.kind(),
        }
    }
}

/// Finds out what the client wants to know about a source.
pub(crate) type Look<'a> = Box<
    dyn Fn(llb::Source, Questions) -> BoxFuture<'a, frontend::Result<Facts>> + Send + Sync + 'a,
>;

/// The policies that hold for a build or for one question of a frontend, their patterns read.
#[derive(Clone)]
pub(crate) struct Policies {
    /// Each decides on its own.
    lists: Vec<Arc<[Pattern]>>,
    /// What further ones may take.
    budget: Budget,
    /// The name of all rules.
    rules: Option<oci::Digest>,
    session: Option<(Sessions, String)>,
}

impl Policies {
    /// The client's. Reading patterns takes its time: not for where nothing may block.
    pub(crate) fn new(policy: &Policy, sessions: &Sessions) -> Result<Policies, Error> {
        let session = Some(policy.session.clone()).filter(|id| !id.is_empty());
        let mut policies = Policies {
            lists: Vec::new(),
            budget: Budget::default(),
            rules: None,
            session: session.map(|id| (sessions.clone(), id)),
        };
        policies.add(&policy.rules)?;
        Ok(policies)
    }

    fn add(&mut self, rules: &[Rule]) -> Result<(), Error> {
        if !rules.is_empty() {
            let mut patterns = Vec::with_capacity(rules.len());
            for rule in rules {
                patterns.push(Pattern::new(rule, &mut self.budget)?);
            }
            self.lists.push(patterns.into());
            // So written, texts are in quotes: only the same rules are written the same.
            let all = format!("{:?} {rules:?}", self.rules);
            self.rules = Some(oci::Digest::of(all));
        }
        Ok(())
    }

    /// These, and after them those that came with a question.
    pub(crate) async fn and(&self, more: Vec<SourcePolicy>) -> frontend::Result<Policies> {
        let mut all = self.clone();
        if more.is_empty() {
            return Ok(all);
        }
        let read = stdx::task::blocking(move || {
            more.iter().try_for_each(|policy| all.add(&policy.rules))?;
            Ok(all)
        });
        read.await.map_err(|error| refused(error, Vec::new()))
    }

    /// The name of all rules, and who decides beside them: where these are the same, so are the
    /// decisions.
    pub(crate) fn known_by(&self) -> (Option<oci::Digest>, Option<&str>) {
        let session = self.session.as_ref();
        (self.rules, session.map(|(_, id)| id.as_str()))
    }

    /// Whether everything is allowed.
    pub(crate) fn is_empty(&self) -> bool {
        self.lists.is_empty() && self.session.is_none()
    }

    /// What to use for a source: `None` if it is fine as it is. `look` finds out
    /// about an image when the client wants to know. A bundle that git reads in
    /// place of its remote is a blob of some registry, and decided on as such.
    pub(crate) async fn decide(
        &self,
        source: &llb::Source,
        platform: Option<&Platform>,
        look: &Look<'_>,
    ) -> Result<Option<llb::Source>, Error> {
        let other = self.decide_one(source, platform, look).await?;
        let now = other.as_ref().unwrap_or(source);
        let Some(bundle) = bundle_of(now) else {
            return Ok(other);
        };
        match self.decide_one(&bundle, platform, look).await? {
            None => Ok(other),
            Some(bundle) => Ok(Some(with_bundle(now, bundle))),
        }
    }

    async fn decide_one(
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

    /// The first list that converts begins everything anew, and none may deny.
    fn by_rules(&self, source: &llb::Source) -> Result<Option<llb::Source>, Error> {
        for list in &self.lists {
            if let Some(other) = by_list(list, source)? {
                return Ok(Some(other));
            }
        }
        Ok(None)
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
        let named = Named::of(source);
        let identifier = source.identifier.clone();
        let mut question = PolicyQuestion {
            platform: platform.cloned(),
            identifier: named.name.clone(),
            attrs: source.attrs.clone(),
            ..PolicyQuestion::default()
        };
        for _ in 0..MAX_QUESTIONS {
            match client.check(&question).await? {
                PolicyAnswer::Allow => return Ok(None),
                PolicyAnswer::Deny(why) => {
                    let denial = Denial(why);
                    return Err(Error::Denied { identifier, denial });
                }
                PolicyAnswer::Convert { identifier, attrs } => {
                    let identifier = named.renamed(identifier);
                    let other = llb::Source { identifier, attrs };
                    return Ok((other != *source).then_some(other));
                }
                PolicyAnswer::More(questions) => {
                    let found = look(source.clone(), questions).await;
                    question.facts =
                        found.map_err(|error| Error::Lookup(identifier.clone(), error))?;
                    if question.facts == Facts::Nothing {
                        return Err(Error::Unanswerable(identifier, "more"));
                    }
                }
            }
        }
        Err(Error::Unanswerable(identifier, "more and more"))
    }
}

/// Which of a git source's attributes are its bundle's.
const OF_BUNDLES: [&str; 2] = [attr::OCI_SESSION, attr::OCI_STORE];

/// The blob that a git source reads in place of its remote.
fn bundle_of(source: &llb::Source) -> Option<llb::Source> {
    let locator = source.attrs.get(attr::GIT_BUNDLE)?;
    if locator.is_empty() || !source.identifier.starts_with("git://") {
        return None;
    }
    let attrs = source.attrs.iter();
    let attrs = attrs.filter(|(name, _)| OF_BUNDLES.contains(&name.as_str()));
    Some(llb::Source {
        identifier: locator.clone(),
        attrs: attrs.map(|(k, v)| (k.clone(), v.clone())).collect(),
    })
}

/// A git source with another bundle.
fn with_bundle(source: &llb::Source, bundle: llb::Source) -> llb::Source {
    let mut source = source.clone();
    source
        .attrs
        .retain(|name, _| !OF_BUNDLES.contains(&name.as_str()));
    source.attrs.extend(bundle.attrs);
    source
        .attrs
        .insert(attr::GIT_BUNDLE.to_owned(), bundle.identifier);
    source
}

/// Of rules that match, the last one that allows or denies counts; the first that
/// converts begins everything anew.
fn by_list(list: &[Pattern], source: &llb::Source) -> Result<Option<llb::Source>, Error> {
    let (mut denied, named) = (false, Named::of(source));
    for pattern in list.iter().filter(|pattern| pattern.matches(&named)) {
        match pattern.rule.action {
            Action::Allow => denied = false,
            Action::Deny => denied = true,
            Action::Convert => {
                let other = pattern.convert(&named)?;
                if other != *source {
                    return Ok(Some(other));
                }
            }
        }
    }
    match denied {
        true => Err(Error::Denied {
            identifier: source.identifier.clone(),
            denial: Denial::default(),
        }),
        false => Ok(None),
    }
}

impl Shared {
    /// What the policies want in place of sources of a graph, by the steps' digests.
    pub(crate) async fn policed(
        &self,
        policies: &Policies,
        definition: &llb::Definition,
        graph: &llb::Graph,
    ) -> frontend::Result<BTreeMap<oci::Digest, llb::Source>> {
        let mut others = BTreeMap::new();
        if policies.is_empty() {
            return Ok(others);
        }
        for vertex in graph.vertices() {
            let llb::OpKind::Source(source) = &vertex.op.kind else {
                continue;
            };
            let platform = vertex.op.platform.as_ref();
            let at = || crate::bridge::places(definition, &vertex.digest);
            if let Some(other) = self.decide(policies, source, platform, at).await? {
                others.insert(vertex.digest, other);
            }
        }
        Ok(others)
    }

    /// The source of an image that is looked up as the policies want it.
    pub(crate) async fn policed_image(
        &self,
        policies: &Policies,
        source: llb::Source,
        platform: Option<&Platform>,
    ) -> frontend::Result<llb::Source> {
        let decided = self.decide(policies, &source, platform, Vec::new).await?;
        let Some(mut other) = decided else {
            return Ok(source);
        };
        let scheme = |one: &llb::Source| {
            let split = one.identifier.split_once("://");
            split.map(|(scheme, _)| scheme.to_owned())
        };
        match scheme(&other) == scheme(&source) {
            true => Ok(other),
            false => {
                // How the image was to be looked up says nothing about anything else.
                let own =
                    |name: &str, value: &str| source.attrs.get(name).is_some_and(|it| it == value);
                other.attrs.retain(|name, value| !own(name, value));
                Err(frontend::Error::NotAnImage {
                    image: source.identifier,
                    instead: Box::new(other),
                })
            }
        }
    }

    /// What to use for a source, `None` if it is fine as it is.
    pub(crate) async fn decide(
        &self,
        policies: &Policies,
        source: &llb::Source,
        platform: Option<&Platform>,
        at: impl FnOnce() -> Vec<SourceLocation>,
    ) -> frontend::Result<Option<llb::Source>> {
        // Boxed, or the compiler cannot see that the whole may cross threads.
        let look: Look<'_> = Box::new(move |source, questions| {
            Box::pin(async move {
                let found = self.facts(&source, platform, &questions).await?;
                Ok(found.0)
            })
        });
        let decided = policies.decide(source, platform, &look).await;
        decided.map_err(|error| refused(error, at()))
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
mod tests;
