//! Why a build gave no result: the step, the lines in the file, the cause, what to do.
//! The wording of the product is on this page.

use std::error::Error as StdError;
use std::sync::Arc;

use frontend::SourceLocation;
use oci::Digest;
use ops::ExitError;
use solver::{Doing, VertexError};
use stdx::Kind;

use crate::Compatibility;
use crate::policy::Denial;

/// Why a build gave no result, with what clients show of it (row A16).
#[derive(Clone, Debug, Default)]
pub struct Failure {
    /// What a caller can do about it.
    pub kind: Option<Kind>,
    /// The whole sentence, causes included.
    pub message: String,
    /// The step it happened in.
    pub vertex: Option<Digest>,
    /// The lines it came from.
    pub places: Vec<SourceLocation>,
    /// How the process ended, if one did.
    pub exit_code: Option<u32>,
    /// What to try next, each a full sentence.
    pub hints: Vec<String>,
    /// What is left of the step that failed, for a frontend to look at.
    pub step: Option<Box<frontend::FailedStep>>,
    /// What was asked for and is not there.
    pub lacks: Option<Lack>,
    /// Why the client's policy denies a source, in its own words.
    pub denied: Vec<String>,
    /// A frontend outside of this process said all of this: its status, as it came.
    pub said: Option<bytes::Bytes>,
    /// What was asked for was understood; building it failed.
    pub of_a_build: bool,
}

/// What is not there, so that the build cannot be done as asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lack {
    /// A capability of ours that a frontend needs.
    Capability(String),
    /// What the output's older version does not have.
    Feature(Compatibility, String),
    /// The frontend has no answer to this question.
    Subrequest(String),
}

impl Failure {
    /// A failure of which only the sentence is known.
    pub fn new(kind: Kind, message: impl Into<String>) -> Failure {
        Failure {
            kind: Some(kind),
            message: message.into(),
            ..Failure::default()
        }
    }

    /// Something is asked for that the output's older version does not have.
    pub(crate) fn lacks_feature(version: Compatibility, feature: String) -> Failure {
        let number = version.number();
        let message = format!("unsupported compatibility-version {number} feature {feature}");
        Failure {
            lacks: Some(Lack::Feature(version, feature)),
            of_a_build: true,
            ..Failure::new(Kind::InvalidInput, message)
        }
    }

    /// Any error, by its chain of causes.
    pub(crate) fn of(kind: Kind, error: &(dyn StdError + 'static)) -> Failure {
        let mut failure = Failure::new(kind, chain(error));
        failure.look_into(error);
        failure
    }

    /// An error of a frontend.
    pub fn of_frontend(error: &frontend::Error) -> Failure {
        let mut failure = Failure::of(error.kind(), error);
        failure.of_a_build = !matches!(
            error,
            frontend::Error::NoRef(_)
                | frontend::Error::NoFile { .. }
                | frontend::Error::UnknownFrontend(_)
        );
        failure.places = error.locations().to_vec();
        failure.hints.extend(error.hints().iter().cloned());
        failure
    }

    /// Picks up what the causes know: the step, the exit code, hints.
    fn look_into(&mut self, error: &(dyn StdError + 'static)) {
        for error in causes(error) {
            if let Some(vertex) = vertex_in(error) {
                self.vertex = Some(vertex.vertex);
            }
            if let Some(exit) = exit_in(error) {
                self.exit_code = u32::try_from(exit.code).ok();
            }
            self.said = self.said.take().or_else(|| said_in(error));
            self.lacks = self.lacks.take().or_else(|| lack_in(error));
            if let Some(denial) = error.downcast_ref::<Denial>() {
                self.denied.extend(denial.0.iter().cloned());
            }
            self.hints.extend(hint(error));
        }
    }
}

// The enums around these are transparent: they stand in their place in a chain.

fn vertex_in<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a VertexError> {
    let wrapped = error.downcast_ref::<solver::Error>();
    wrapped
        .and_then(solver::Error::vertex)
        .or_else(|| error.downcast_ref())
}

fn frontend_in<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a frontend::Error> {
    match error.downcast_ref::<ops::Error>() {
        Some(ops::Error::Frontend(error)) => Some(error),
        _ => error.downcast_ref(),
    }
}

/// The lines that the causes of an error know, the innermost first.
pub(crate) fn places_in(error: &(dyn StdError + 'static)) -> Vec<SourceLocation> {
    let inner = causes(error).find_map(frontend_in);
    inner.map_or_else(Vec::new, |error| error.locations().to_vec())
}

/// What a frontend outside of this process said.
fn said_in(error: &(dyn StdError + 'static)) -> Option<bytes::Bytes> {
    match frontend_in(error) {
        Some(frontend::Error::Said { wire, .. }) => Some(wire.clone()),
        _ => None,
    }
}

fn lack_in(error: &(dyn StdError + 'static)) -> Option<Lack> {
    if let Some(frontend::Error::NoCapability(name)) = frontend_in(error) {
        return Some(Lack::Capability(name.clone()));
    }
    match error.downcast_ref::<dockerfile::Error>() {
        Some(dockerfile::Error::UnknownRequest { name }) => Some(Lack::Subrequest(name.clone())),
        _ => None,
    }
}

fn exit_in<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a ExitError> {
    match error.downcast_ref::<ops::Error>() {
        Some(ops::Error::Exit(exit)) => Some(exit),
        _ => error.downcast_ref(),
    }
}

/// What is left of the step an error is about.
pub(crate) fn remains(error: &frontend::Error) -> Option<&Arc<ops::Remains>> {
    let step = causes(error).find_map(|error| error.downcast_ref::<ops::StepError>())?;
    Some(&step.remains)
}

/// An error and its causes. One that is shared is looked at itself, not its handle.
fn causes<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    fn itself<'a>(error: &'a (dyn StdError + 'static)) -> &'a (dyn StdError + 'static) {
        match error.downcast_ref::<Arc<dyn StdError + Send + Sync>>() {
            Some(shared) => &**shared,
            None => error,
        }
    }
    let mut next = Some(itself(error));
    std::iter::from_fn(move || {
        let now = next?;
        next = now.source().map(itself);
        Some(now)
    })
}

fn source_in<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a source::Error> {
    match error.downcast_ref::<ops::Error>() {
        Some(ops::Error::Source(error)) => Some(error),
        _ => error.downcast_ref(),
    }
}

/// What may help with this very error.
fn hint(error: &(dyn StdError + 'static)) -> Option<String> {
    if let Some(error) = source_in(error) {
        return error.hint();
    }
    if let Some(ops::Error::NotFoundIn { hint, .. }) = error.downcast_ref() {
        return hint.clone();
    }
    if let Some(exit) = exit_in(error) {
        return match exit.code {
            _ if exit.oom => Some("The step used more memory than it may: raise --memory or make it use less.".into()),
            126 => Some("The program is there but cannot be executed: is it for this platform, and is its mode executable?".into()),
            // No exit code is told when the program itself could not be started.
            127 if exit.how.starts_with("exec ") => Some("There is no such file in the image: is the path right, is the program in an earlier stage only, and are its interpreter and libraries there?".into()),
            127 => Some("The shell did not find the program: is it installed in the base image, and is it in PATH?".into()),
            137 => Some("Something killed the step from outside: the machine may be short of memory.".into()),
            _ => None,
        };
    }
    if let Some(error) = error.downcast_ref::<std::io::Error>()
        && error.kind() == std::io::ErrorKind::StorageFull
    {
        return Some("The disk of the state directory is full: `kiln du` shows what is used, `kiln prune` frees it.".into());
    }
    None
}

/// An error and its causes as one line. A cause that its parent repeats is said once,
/// and a step's name is left out: clients show it beside the message.
pub(crate) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut parts: Vec<String> = Vec::new();
    for error in causes(error) {
        let said = match vertex_in(error) {
            Some(vertex) if vertex.doing == Doing::Run => String::new(),
            Some(_) => "failed to compute cache key".to_owned(),
            // It says what its cause says.
            None if is_written(error) => String::new(),
            None => error.to_string(),
        };
        match parts.last() {
            Some(last) if said.is_empty() || last.contains(&said) => {}
            Some(last) if said.contains(last.as_str()) => {
                parts.pop();
                parts.push(said);
            }
            _ if said.is_empty() => {}
            _ => parts.push(said),
        }
    }
    parts.join(": ")
}

fn is_written(error: &(dyn StdError + 'static)) -> bool {
    matches!(frontend_in(error), Some(frontend::Error::Written { .. }))
}

/// What the engine could not do for a frontend.
pub(crate) fn asked(
    doing: impl Into<String>,
    kind: Kind,
    source: impl StdError + Send + Sync + 'static,
) -> frontend::Error {
    frontend::Error::Engine {
        doing: doing.into(),
        kind,
        source: Arc::new(source),
    }
}

/// The kind of a failed solve: what its cause says, if we know the cause.
pub(crate) fn kind_of(error: &solver::Error) -> Kind {
    let Some(vertex) = error.vertex() else {
        return error.kind();
    };
    let known = causes(&*vertex.cause).find_map(|error| error.downcast_ref::<ops::Error>());
    known.map_or(Kind::Internal, ops::Error::kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Said(&'static str, #[source] Option<Box<Said>>);

    /// What a frontend was told by a registry reaches the person, through all that holds it.
    ///
    /// Rows: A16, S01
    #[test]
    fn hints_and_causes_are_found_behind_what_shares_them() {
        let cause = registry::Error::Status {
            host: "r.example".into(),
            what: "r.example/a:1".into(),
            status: 404,
            message: String::new(),
            retry_after: None,
        };
        let doing = "failed to resolve source metadata for r.example/a:1";
        let asked = asked(doing, Kind::NotFound, source::Error::Registry(cause));
        #[derive(Debug, thiserror::Error)]
        #[error("r.example/a:1")]
        struct Base(#[source] Box<frontend::Error>);
        let written = frontend::Error::Written {
            cause: Arc::new(Base(Box::new(asked))),
            kind: Kind::NotFound,
            at: Vec::new(),
            hints: Vec::new(),
        };
        let failure = Failure::of_frontend(&written);
        assert_eq!(
            failure.message,
            format!("{doing}: r.example/a:1: not found: registry r.example answered 404")
        );
        assert_eq!(failure.hints.len(), 1, "{:?}", failure.hints);
        assert!(failure.hints[0].contains("spelling") && failure.of_a_build);
        assert!(!Failure::of_frontend(&frontend::Error::NoRef("x".into())).of_a_build);
    }

    /// Clients ask whether that is it, and go another way.
    ///
    /// Rows: A16, F07
    #[test]
    fn a_question_without_an_answer_is_named() {
        let name = "frontend.dream".to_owned();
        let unknown = dockerfile::Error::UnknownRequest { name };
        let written = frontend::Error::Written {
            kind: unknown.kind(),
            cause: Arc::new(unknown),
            at: Vec::new(),
            hints: Vec::new(),
        };
        let failure = Failure::of_frontend(&written);
        let lack = Lack::Subrequest("frontend.dream".to_owned());
        assert_eq!(failure.lacks, Some(lack));
        assert_eq!(failure.message, "unsupported request \"frontend.dream\"");
    }

    /// Rows: A16, P06
    #[test]
    fn what_a_policy_says_is_kept_in_its_words() {
        let why = ["too old".to_owned(), "not signed".to_owned()];
        let denied = crate::policy::Error::Denied {
            identifier: "docker-image://a".to_owned(),
            denial: Denial(why.to_vec()),
        };
        let failure = Failure::of_frontend(&crate::policy::refused(denied, Vec::new()));
        assert_eq!(failure.denied, why);
        assert!(failure.message.ends_with("too old; not signed"));
    }

    #[test]
    fn a_chain_reads_as_one_line_and_says_nothing_twice() {
        let inner = Said("no such file", None);
        let outer = Said("reading a: no such file", Some(Box::new(inner)));
        assert_eq!(chain(&outer), "reading a: no such file");
        let cause = ExitError {
            command: "x".into(),
            code: 127,
            how: "exit code: 127".into(),
            oom: false,
        };
        let vertex = VertexError {
            vertex: Digest::of("v"),
            name: "[1/1] RUN x".into(),
            doing: Doing::Run,
            cause: Arc::new(ops::Error::from(cause)),
        };
        let failure = Failure::of(Kind::Internal, &solver::Error::from(vertex));
        assert_eq!(
            failure.message,
            "process \"x\" did not complete successfully: exit code: 127"
        );
        assert_eq!(
            (failure.exit_code, failure.vertex),
            (Some(127), Some(Digest::of("v")))
        );
        assert!(failure.hints[0].contains("PATH"), "{:?}", failure.hints);
        let written = frontend::Error::Written {
            cause: Arc::new(solver::Error::from(VertexError {
                vertex: Digest::of("v"),
                name: "[1/1] RUN x".into(),
                doing: Doing::Run,
                cause: Arc::new(Said("no disk", None)),
            })),
            kind: Kind::Internal,
            at: Vec::new(),
            hints: Vec::new(),
        };
        let failure = Failure::of_frontend(&written);
        assert_eq!(failure.message, "no disk");
        assert_eq!(failure.vertex, Some(Digest::of("v")));
    }
}
