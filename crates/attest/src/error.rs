//! What can be wrong with what is asked for or said in statements.

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
    /// What should be facts is no object in JSON.
    #[error("it is no JSON object: {0}")]
    NoFacts(String),
    /// A fact the builder tells itself.
    #[error("key {0:?} is builtin: the builder itself says what it is")]
    OwnFact(String),
}

impl Error {
    /// What a caller can do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Error::Value { .. }
            | Error::List { .. }
            | Error::Unknown(_)
            | Error::Incomplete(_)
            | Error::NoFacts(_)
            | Error::OwnFact(_) => Kind::InvalidInput,
            Error::NotYet(_) => Kind::Unsupported,
        }
    }
}

/// The result of anything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;
