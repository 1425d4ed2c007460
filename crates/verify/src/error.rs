//! Why a signature does not count.

use std::io;
use std::sync::Arc;

use stdx::Kind;

/// Short for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A signature does not count.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// There is no signature.
    #[error("git object is not signed")]
    Unsigned,
    /// The object is another one than its name says.
    #[error("checksum mismatch: expected {expected}, got {found}")]
    Checksum {
        /// The object's name.
        expected: String,
        /// The name its bytes have.
        found: String,
    },
    /// Bytes that are no key or no signature.
    #[error("malformed {what}: {reason}")]
    Malformed {
        /// What they should have been.
        what: &'static str,
        /// What is wrong with them.
        reason: String,
    },
    /// It is understood, and too weak or of a sort that is not taken.
    #[error("rejecting {0}")]
    Rejected(String),
    /// None of the keys made it.
    #[error("signature by {0}: signature made by unknown entity")]
    UnknownKey(String),
    /// It is by one of the keys, and over other bytes.
    #[error("signature by {0}: it does not match what is signed")]
    Wrong(String),
    /// The key or the signature had expired.
    #[error("{0} expired at {1} (seconds since 1970)")]
    Expired(&'static str, u64),
    /// The key was taken back.
    #[error("key revoked")]
    Revoked,
    /// What is signed could not be read.
    #[error("reading what is signed: {0}")]
    Read(Arc<io::Error>),
}

impl Error {
    /// What a caller can do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Error::Read(_) => Kind::Internal,
            _ => Kind::InvalidInput,
        }
    }
}

/// A signature with this wrong with it.
pub(crate) fn bad_signature(reason: impl Into<String>) -> Error {
    Error::Malformed {
        what: "signature",
        reason: reason.into(),
    }
}

/// A key with this wrong with it.
pub(crate) fn bad_key(reason: impl Into<String>) -> Error {
    Error::Malformed {
        what: "public key",
        reason: reason.into(),
    }
}
