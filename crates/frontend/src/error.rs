//! What can go wrong while a frontend works.

use std::sync::Arc;

use stdx::Kind;

use crate::SourceLocation;

/// The result of asking a bridge or of running a frontend.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a frontend could not give a result.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// An option has a value that makes no sense.
    #[error("option {name} is {value:?} but should be {expected}")]
    BadOption {
        /// The option.
        name: String,
        /// What it was.
        value: String,
        /// What it may be.
        expected: String,
    },
    /// Nobody knows a frontend of this name.
    #[error("no frontend {0:?}: there are dockerfile.v0 and gateway.v0")]
    UnknownFrontend(String),
    /// An image was looked up in whose place a source policy puts something else.
    #[error(
        "source policy: {image:?} is converted into {:?}, which cannot be looked up as an image",
        .instead.identifier
    )]
    NotAnImage {
        /// The image, as a source.
        image: String,
        /// What is used instead.
        instead: Box<llb::Source>,
    },
    /// A file a result was asked for is not in it.
    #[error("no file {path}")]
    NoFile {
        /// The path as it was asked for.
        path: String,
    },
    /// A ref that this build never gave out, or that is gone.
    #[error("no result {0} in this build")]
    NoRef(String),
    /// The frontend does not understand something the client needs.
    #[error("unsupported frontend capability {0}")]
    NoCapability(String),
    /// No container of this name, or it was released.
    #[error("no container {0:?} in this build")]
    NoContainer(String),
    /// A frontend outside of this process said so itself.
    #[error("{message}")]
    Said {
        /// Its sentence.
        message: String,
        /// What a caller can do about it.
        kind: Kind,
        /// Where, the most telling place first.
        at: Vec<SourceLocation>,
        /// The whole of it, as it came over the wire: for those who pass it on.
        wire: bytes::Bytes,
    },
    /// What was written cannot be built: the frontend's own error, with its place.
    #[error("{cause}")]
    Written {
        /// What is wrong.
        #[source]
        cause: Arc<dyn std::error::Error + Send + Sync>,
        /// What a caller can do about it.
        kind: Kind,
        /// Where, the most telling place first.
        at: Vec<SourceLocation>,
        /// What to try next, each a full sentence.
        hints: Vec<String>,
    },
    /// The engine could not do what it was asked.
    #[error("{doing}")]
    Engine {
        /// What it was doing: `solving`, `resolving alpine:3`.
        doing: String,
        /// What a caller can do about it.
        kind: Kind,
        /// Why.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    /// An option with a senseless value.
    pub fn bad_option(name: &str, value: &str, expected: impl Into<String>) -> Error {
        Error::BadOption {
            name: name.into(),
            value: value.into(),
            expected: expected.into(),
        }
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Error::BadOption { .. } | Error::UnknownFrontend(_) | Error::NotAnImage { .. } => {
                Kind::InvalidInput
            }
            Error::NoFile { .. } | Error::NoRef(_) | Error::NoContainer(_) => Kind::NotFound,
            Error::NoCapability(_) => Kind::Unsupported,
            Error::Written { kind, .. } | Error::Engine { kind, .. } | Error::Said { kind, .. } => {
                *kind
            }
        }
    }

    /// Where in which file, when the trouble was written somewhere.
    pub fn locations(&self) -> &[SourceLocation] {
        match self {
            Error::Written { at, .. } | Error::Said { at, .. } => at,
            _ => &[],
        }
    }

    /// What to try next.
    pub fn hints(&self) -> &[String] {
        match self {
            Error::Written { hints, .. } => hints,
            _ => &[],
        }
    }
}
