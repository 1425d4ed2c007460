//! Why an op could not be done.

use std::sync::Arc;

use solver::OpError;
use stdx::Kind;

use crate::NestedError;

/// A process ended with a code that is not allowed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("process {command:?} did not complete successfully: {how}")]
pub struct ExitError {
    /// What was run, as one line.
    pub command: String,
    /// Its exit code; 128 and the signal's number when a signal ended it.
    pub code: i32,
    /// `exit code: 2`, `exit code: 137 (killed by signal 9)`, `cannot allocate memory`.
    pub how: String,
    /// It was killed for lack of memory.
    pub oom: bool,
}

/// Why an op could not be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A source.
    #[error(transparent)]
    Source(#[from] ::source::Error),
    /// Results: fetching, unpacking, committing.
    #[error(transparent)]
    Refs(#[from] refs::Error),
    /// Digesting what is in a tree.
    #[error("failed to calculate checksum of {path}")]
    Contents {
        /// The path that was to be digested.
        path: String,
        /// Why it could not be.
        source: contenthash::Error,
    },
    /// The process could not be run at all.
    #[error(transparent)]
    Executor(#[from] executor::Error),
    /// The proxy of a step.
    #[error(transparent)]
    Proxy(#[from] netproxy::Error),
    /// The process ran and failed.
    #[error(transparent)]
    Exit(#[from] ExitError),
    /// A session did not have what the step needs.
    #[error("{what}")]
    Session {
        /// Like `secret token`.
        what: String,
        /// Why not.
        source: session::Error,
    },
    /// A path that must be there is not.
    #[error("{path}: no such file or directory")]
    NotFound {
        /// The path as it was written.
        path: String,
    },
    /// A path that must be there is not, and it is known where it was looked for.
    #[error("\"{path}\": not found in {place}")]
    NotFoundIn {
        /// The path as it was written.
        path: String,
        /// The build context, an image, the result of a step.
        place: String,
        /// What may be the reason.
        hint: Option<String>,
    },
    /// A path that must be there, of a tree without any files.
    #[error("{path}: no such file or directory: there are no files in {place}")]
    NotFoundInEmpty {
        /// The path as it was written.
        path: String,
        /// An image, the result of a step.
        place: String,
    },
    /// A wildcard that must match something does not.
    #[error("no file matches {pattern}")]
    NoMatch {
        /// The pattern as it was written.
        pattern: String,
    },
    /// Reading or changing files.
    #[error("{doing}")]
    Io {
        /// What was done, with the path.
        doing: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// Unpacking an archive.
    #[error("failed to unpack {path}")]
    Unpack {
        /// The archive.
        path: String,
        /// Why it failed.
        source: layer::Error,
    },
    /// A user or group that the tree's files do not know.
    #[error("no {what} {name:?} in {file}")]
    NoUser {
        /// `user` or `group`.
        what: &'static str,
        /// The name.
        name: String,
        /// Where it was looked for.
        file: &'static str,
    },
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// A vertex cannot be what its graph wants.
    #[error("{cause}")]
    Vertex {
        /// Which.
        vertex: oci::Digest,
        /// Why not.
        cause: Box<Error>,
    },
    /// The build is not allowed to.
    #[error("{what} is not allowed: {remedy}")]
    Denied {
        /// Like `network mode host`.
        what: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// The build is not allowed to use these devices.
    #[error(
        "{} requested by the build but not allowed: say --allow device; a daemon must allow it \
         in its configuration too",
        match &names[..] {
            [one] => format!("device {one} is"),
            names => format!("devices {} are", names.join(", ")),
        }
    )]
    DeniedDevices {
        /// By their full names.
        names: Vec<String>,
    },
    /// Programs of a platform do not run here.
    #[error(
        "cannot run programs of {wanted} on {host} without emulation; \
         an emulator is installed for example with \
         `docker run --privileged --rm tonistiigi/binfmt --install {}`",
        wanted.architecture
    )]
    Emulation {
        /// The platform.
        wanted: oci::Platform,
        /// This machine's.
        host: oci::Platform,
    },
    /// A build of a graph in a file of another step.
    #[error(transparent)]
    Nested(#[from] NestedError),
    /// What that graph asked for, or what became of it.
    #[error(transparent)]
    Frontend(Box<frontend::Error>),
    /// Understood, but not done.
    #[error("not supported yet: {0}")]
    Unsupported(String),
}

impl Error {
    /// Whether there was no room on the disk, or no more for us.
    pub(crate) fn is_full_disk(&self) -> bool {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = next {
            let io = error.downcast_ref::<std::io::Error>();
            if io.is_some_and(|io| matches!(io.kind(), StorageFull | QuotaExceeded)) {
                return true;
            }
            next = error.source();
        }
        false
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Error::Source(error) => error.kind(),
            Error::Refs(error) => error.kind(),
            Error::Contents { source, .. } => source.kind(),
            Error::Executor(error) => error.kind(),
            Error::Proxy(_) => Kind::Internal,
            Error::Session { source, .. } => source.kind(),
            Error::Unpack { source, .. } => source.kind(),
            Error::Exit(exit) if exit.oom => Kind::Unavailable,
            Error::Exit(_) => Kind::Internal,
            Error::NotFound { .. }
            | Error::NotFoundIn { .. }
            | Error::NotFoundInEmpty { .. }
            | Error::NoMatch { .. } => Kind::NotFound,
            Error::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                Kind::Unavailable
            }
            Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                Kind::NotFound
            }
            Error::Io { .. } => Kind::Internal,
            Error::NoUser { .. } | Error::Invalid(_) => Kind::InvalidInput,
            Error::Vertex { cause, .. } => cause.kind(),
            Error::Denied { .. } | Error::DeniedDevices { .. } => Kind::Denied,
            Error::Nested(error) => error.kind(),
            Error::Frontend(error) => error.kind(),
            Error::Emulation { .. } | Error::Unsupported(_) => Kind::Unsupported,
        }
    }

    /// A path that must be there, of the empty tree.
    pub(crate) fn in_nothing(path: String) -> Error {
        let place = "the empty tree".to_owned();
        Error::NotFoundInEmpty { path, place }
    }

    /// Something done with files failed.
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
        let doing = doing.into();
        move |source| Error::Io { doing, source }
    }
}

impl From<Error> for OpError {
    fn from(error: Error) -> OpError {
        Arc::new(error)
    }
}
