//! What can go wrong with blobs.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use oci::Digest;
use stdx::Kind;

/// What can go wrong with blobs. Cheap to clone, because several readers may wait for one fetch.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The place does not have the blob. Another may.
    #[error("no blob {0} there")]
    NotFound(Digest),
    /// The bytes are not the ones the digest names.
    #[error("{expected} was asked for, but the bytes are {found}")]
    Corrupt {
        /// What was asked for.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// There are fewer or more bytes than the descriptor says.
    #[error("{digest} should have {expected} bytes, not {found}")]
    WrongSize {
        /// The blob.
        digest: Digest,
        /// What the descriptor says.
        expected: u64,
        /// What came; when there were too many, how many had come when we stopped.
        found: u64,
    },
    /// The stream broke before its end, and may be taken up again from `offset`.
    #[error("reading {digest} broke off after {offset} bytes: {reason}")]
    Interrupted {
        /// The blob.
        digest: Digest,
        /// Bytes that had come.
        offset: u64,
        /// What the transport said.
        reason: String,
    },
    /// A document that is read whole into memory is larger than it may be.
    #[error("blob {digest} is too large ({size} > {limit})")]
    TooLarge {
        /// The blob.
        digest: Digest,
        /// Its size.
        size: u64,
        /// What is allowed.
        limit: u64,
    },
    /// The store's disk said no.
    #[error("using {path}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: Arc<io::Error>,
    },
    /// The store's tables said no.
    #[error("the content store's tables")]
    Db(#[source] Arc<db::Error>),
    /// The place behind a provider or sink said no, in its own words (a registry, a client).
    #[error("{place}")]
    Place {
        /// Which place, for people.
        place: String,
        /// What a caller can do about it.
        kind: Kind,
        /// Its own error.
        source: Arc<dyn std::error::Error + Send + Sync>,
        /// Whether the place tried often enough itself, so that nobody waits twice over.
        retried: bool,
    },
}

impl Error {
    /// What a caller can do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Error::NotFound(_) => Kind::NotFound,
            Error::Corrupt { .. } | Error::WrongSize { .. } => Kind::Internal,
            Error::Interrupted { .. } => Kind::Unavailable,
            Error::TooLarge { .. } => Kind::InvalidInput,
            Error::Io { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Kind::Unavailable,
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Kind::Denied,
                _ => Kind::Internal,
            },
            Error::Db(error) => error.kind(),
            Error::Place { kind, .. } => *kind,
        }
    }

    /// Wraps the error of a place: a registry, a client's content store.
    pub fn place(
        place: impl Into<String>,
        kind: Kind,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Error {
        Error::Place {
            place: place.into(),
            kind,
            source: Arc::new(source),
            retried: false,
        }
    }

    /// The same error, of a place that already tried as often as one should.
    pub fn after_retries(self) -> Error {
        match self {
            Error::Place {
                place,
                kind,
                source,
                ..
            } => Error::Place {
                place,
                kind,
                source,
                retried: true,
            },
            other => other,
        }
    }

    pub(crate) fn io(path: impl Into<PathBuf>, source: io::Error) -> Error {
        Error::Io {
            path: path.into(),
            source: Arc::new(source),
        }
    }

    /// Whether asking the same place again may help. A full disk is worth no second try within
    /// seconds, though a later build may find room.
    pub(crate) fn is_worth_a_retry(&self) -> bool {
        self.kind().is_transient()
            && !matches!(
                self,
                Error::Io { .. } | Error::Db(_) | Error::Place { retried: true, .. }
            )
    }
}

impl From<db::Error> for Error {
    fn from(error: db::Error) -> Error {
        Error::Db(Arc::new(error))
    }
}
