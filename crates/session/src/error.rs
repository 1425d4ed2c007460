//! What can go wrong with a client.

use std::io;
use std::sync::Arc;

use stdx::Kind;

/// What can go wrong with a client. Cheap to clone: several steps may wait for one
/// answer.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nobody with this id is there, or not any more.
    #[error("no active session for {0}")]
    NoSession(String),
    /// The client is there and does not offer this.
    #[error("the client does not offer {0}")]
    NotOffered(&'static str),
    /// The client does not have this one.
    #[error("{what} {name} not found")]
    NotFound {
        /// What kind of thing.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// The client said no, in its own words.
    #[error("{message}")]
    Refused {
        /// What a caller can do about it.
        kind: Kind,
        /// The client's words.
        message: String,
    },
    /// The line broke.
    #[error("lost the connection to the client: {0}")]
    Lost(String),
    /// What the other side sent makes no sense.
    #[error("the other side broke the protocol: {0}")]
    Protocol(String),
    /// A path that leads out of where it belongs, or is no path.
    #[error("refused path {0:?}")]
    Path(String),
    /// A pattern that cannot be read.
    #[error("invalid pattern {pattern:?}: {reason}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Our own disk said no.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why not.
        source: Arc<io::Error>,
    },
    /// Another side of the transfer failed and said so.
    #[error("{0}")]
    Peer(String),
}

impl Error {
    /// What a caller can do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Error::NoSession(_) | Error::Lost(_) => Kind::Unavailable,
            Error::NotOffered(_) => Kind::Unsupported,
            Error::NotFound { .. } => Kind::NotFound,
            Error::Refused { kind, .. } => *kind,
            Error::Protocol(_) | Error::Path(_) | Error::Pattern { .. } | Error::Peer(_) => {
                Kind::InvalidInput
            }
            Error::Io { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => Kind::NotFound,
                io::ErrorKind::PermissionDenied => Kind::Denied,
                io::ErrorKind::AlreadyExists => Kind::AlreadyExists,
                _ => Kind::Internal,
            },
        }
    }

    pub(crate) fn io(what: impl Into<String>, source: io::Error) -> Error {
        Error::Io {
            what: what.into(),
            source: Arc::new(source),
        }
    }

    /// The error as the other side of a call gets it.
    pub(crate) fn to_status(&self) -> tonic::Status {
        let code = match self.kind() {
            Kind::NotFound => tonic::Code::NotFound,
            Kind::AlreadyExists => tonic::Code::AlreadyExists,
            Kind::InvalidInput => tonic::Code::InvalidArgument,
            Kind::Denied => tonic::Code::PermissionDenied,
            Kind::Unavailable => tonic::Code::Unavailable,
            Kind::Canceled => tonic::Code::Cancelled,
            Kind::Unsupported => tonic::Code::Unimplemented,
            Kind::Internal => tonic::Code::Internal,
        };
        tonic::Status::new(code, self.to_string())
    }
}

impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Error {
        let kind = match status.code() {
            tonic::Code::NotFound => Kind::NotFound,
            tonic::Code::AlreadyExists => Kind::AlreadyExists,
            tonic::Code::InvalidArgument
            | tonic::Code::FailedPrecondition
            | tonic::Code::OutOfRange => Kind::InvalidInput,
            tonic::Code::PermissionDenied | tonic::Code::Unauthenticated => Kind::Denied,
            tonic::Code::Unavailable => return Error::Lost(status.message().to_owned()),
            tonic::Code::Cancelled => Kind::Canceled,
            tonic::Code::Unimplemented => Kind::Unsupported,
            _ => Kind::Internal,
        };
        Error::Refused {
            kind,
            message: status.message().to_owned(),
        }
    }
}
