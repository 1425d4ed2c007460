//! What can be wrong with a request for statements.

use stdx::Kind;

/// Why statements cannot be made as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A value that makes no sense.
    #[error("attestation {kind}: {key}={value}: {reason}")]
    Value {
        /// The attestation.
        kind: String,
        /// The setting.
        key: String,
        /// Its value.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Settings that are no comma-separated list.
    #[error("attestation {kind}: failed to parse {text:?}: {reason}")]
    List {
        /// The attestation.
        kind: String,
        /// All of its settings.
        text: String,
        /// What is wrong with them.
        reason: &'static str,
    },
    /// Statements nobody can make.
    #[error("unknown attestation type {0:?}: there are provenance and sbom")]
    Unknown(String),
    /// Understood, and not done.
    #[error("not supported yet: attestation {0}")]
    NotYet(String),
    /// The client wants to know everything a result was made of, and we do not.
    #[error("provenance with complete-materials was asked for, but materials are incomplete: {0}")]
    Incomplete(String),
}

impl Error {
    /// What a caller can do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Error::Value { .. } | Error::List { .. } | Error::Unknown(_) | Error::Incomplete(_) => {
                Kind::InvalidInput
            }
            Error::NotYet(_) => Kind::Unsupported,
        }
    }
}

/// The result of anything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;
