//! What can be wrong with a graph.

use oci::Digest;
use stdx::Kind;

/// A graph that cannot be built. The messages are read by people, through the
/// program that sent the graph.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes are no message at all.
    #[error("failed to parse llb proto op: {0}")]
    Decode(String),
    /// A digest is written wrongly.
    #[error("invalid digest in definition: {0}")]
    Digest(#[from] oci::InvalidDigest),
    /// An input names a step that is not there.
    #[error("invalid missing input digest {0}")]
    MissingInput(Digest),
    /// A definition has to end in an op that names the result.
    #[error("invalid definition: {0}")]
    Definition(&'static str),
    /// The op says nothing.
    #[error("invalid op {0}: no operation")]
    NoOperation(Digest),
    /// The op contradicts itself.
    #[error("invalid {kind} op: {what}")]
    Op {
        /// Which kind of op.
        kind: &'static str,
        /// What is wrong.
        what: String,
    },
    /// Steps that wait for each other.
    #[error("invalid definition: {0} depends on itself")]
    Cycle(Digest),
    /// More of something than anyone needs.
    #[error("invalid definition: {what}, at most {limit} are allowed")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How much there may be.
        limit: usize,
    },
    /// A step wants something this program cannot do.
    #[error("requested experimental feature or unknown capability {0}")]
    UnknownCap(String),
}

impl Error {
    /// What a caller can do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Error::UnknownCap(_) => Kind::Unsupported,
            _ => Kind::InvalidInput,
        }
    }

    pub(crate) fn op(kind: &'static str, what: impl Into<String>) -> Error {
        Error::Op {
            kind,
            what: what.into(),
        }
    }
}
