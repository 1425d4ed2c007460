//! Whether bytes were signed by a given key: OpenPGP and SSH signatures, of git objects too.
//!
//! Two questions are answered, each with `Ok(())` or the reason why not:
//!
//! - [`detached`]: is this OpenPGP signature one of these keys over what a reader gives?
//! - [`git_object`]: is this commit or tag signed by one of these keys?
//!
//! Keys and signatures are texts as `gpg --armor --export`, `gpg --armor --detach-sign`, `ssh-keygen`
//! and git write them. What is taken is what BuildKit takes: OpenPGP keys and signatures of version 4
//! with RSA, ECDSA over the NIST curves or Ed25519, and SSH signatures of the same, over SHA-256, SHA-384
//! or SHA-512. A text with more than one signature is refused: which of them counts would be a guess.
//!
//! ```
//! let policy = verify::Policy { reject_expired: false, now: 1_700_000_000 };
//! let unsigned = b"tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n\nmessage\n";
//! let id = verify::object_id(verify::ObjectKind::Commit, unsigned, false);
//! let checked = verify::git_object(verify::ObjectKind::Commit, unsigned, &id, b"", policy);
//! assert!(matches!(checked, Err(verify::Error::Unsigned)));
//! ```
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod armor;
mod bytes;
mod error;
mod git;
mod key;
mod pgp;
mod ssh;
#[cfg(test)]
mod testkey;

pub use error::{Error, Result};
pub use git::{ObjectKind, git_object, object_id};
pub use pgp::detached;

/// What is asked of a good signature beside being right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// A key or signature that has expired by now is refused. Otherwise the key need only have been
    /// valid when it signed.
    pub reject_expired: bool,
    /// The time now, in seconds since 1970.
    pub now: u64,
}

/// Texts larger than this are no keys or signatures of people.
const MAX_TEXT: usize = 1 << 20;
