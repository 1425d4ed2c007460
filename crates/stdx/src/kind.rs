//! What a caller can *do* about an error.

/// The kind of an error. Every crate's error type answers `kind()`; retry loops,
/// fallbacks and the gRPC rim ask it, and nothing in between needs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The thing asked for is not there. Another place may have it.
    NotFound,
    /// The thing to be made is there already.
    AlreadyExists,
    /// What was given is wrong; trying again gives the same answer.
    InvalidInput,
    /// The caller may not do this, or must log in first.
    Denied,
    /// It may work later: network, disk space, a busy peer.
    Unavailable,
    /// Nobody waits for it any more.
    Canceled,
    /// Understood, but this program does not do it (yet).
    Unsupported,
    /// A fault on our side, or bytes that are not what their digest says.
    Internal,
}

impl Kind {
    /// Whether another attempt may succeed without anyone changing anything.
    pub fn is_transient(self) -> bool {
        self == Kind::Unavailable
    }
}
