//! What can go wrong between us and a daemon, and what a daemon tells of a failed
//! build (features A16).

use proto::details::{self, Detail};
use stdx::Kind;

use crate::convert;

/// What can go wrong.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address is none.
    #[error("{address:?} is no address of a daemon: {reason}")]
    Address {
        /// What was given.
        address: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Nobody answers there.
    #[error("could not connect to {address}: {reason}")]
    Connect {
        /// Where.
        address: String,
        /// What was said.
        reason: String,
    },
    /// The daemon said no.
    #[error("{0}")]
    Failed(Box<Failure>),
    /// Our own end of the session.
    #[error(transparent)]
    Session(#[from] session::Error),
}

/// A call that failed, with all the daemon tells about it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Failure {
    /// The message.
    pub message: String,
    /// What a caller can do about it; `None` when the daemon did not say.
    pub kind: Option<Kind>,
    /// Digest of the step it happened in.
    pub step: Option<String>,
    /// Lines it came from, the outermost first.
    pub excerpts: Vec<Excerpt>,
    /// How the process of the step ended.
    pub exit_code: Option<u32>,
    /// What may help, each a full sentence.
    pub hints: Vec<String>,
    /// Everything, as it came.
    pub details: Vec<Detail>,
}

/// A file with the lines that are meant.
#[derive(Debug, Clone, PartialEq)]
pub struct Excerpt {
    /// The file.
    pub source: progress::Source,
    /// The lines.
    pub ranges: Vec<progress::Range>,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error {
    /// What a caller can do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Error::Address { .. } => Kind::InvalidInput,
            Error::Connect { .. } => Kind::Unavailable,
            Error::Failed(failure) => failure.kind.unwrap_or(Kind::Internal),
            Error::Session(error) => error.kind(),
        }
    }

    /// What the daemon told, if it was the daemon that said no.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Error::Failed(failure) => Some(failure),
            _ => None,
        }
    }
}

impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Error {
        use tonic::Code;
        let kind = match status.code() {
            Code::NotFound => Some(Kind::NotFound),
            Code::AlreadyExists => Some(Kind::AlreadyExists),
            Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => {
                Some(Kind::InvalidInput)
            }
            Code::PermissionDenied | Code::Unauthenticated => Some(Kind::Denied),
            Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted => {
                Some(Kind::Unavailable)
            }
            Code::Cancelled => Some(Kind::Canceled),
            Code::Unimplemented => Some(Kind::Unsupported),
            Code::Internal | Code::DataLoss => Some(Kind::Internal),
            _ => None,
        };
        let details = details::of(&status);
        let mut failure = Failure {
            message: status.message().to_owned(),
            kind,
            ..Failure::default()
        };
        for detail in &details {
            match detail {
                Detail::Vertex(vertex) => failure.step = Some(vertex.digest.clone()),
                Detail::Source(source) => failure.excerpts.extend(convert::excerpt(source)),
                Detail::Hints(known) => failure.hints.extend(known.hints.iter().cloned()),
                Detail::Exit(exit) => failure.exit_code = Some(exit.code),
                _ => {}
            }
        }
        failure.details = details;
        Error::Failed(Box::new(failure))
    }
}
