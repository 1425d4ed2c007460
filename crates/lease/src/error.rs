//! What can go wrong with leases and sweeps.

use std::io;
use std::path::PathBuf;

use stdx::Kind;

/// What can go wrong with leases and sweeps.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The tables said no.
    #[error("the lease tables")]
    Db(#[from] db::Error),
    /// The content store said no.
    #[error("sweeping blobs")]
    Content(#[from] content::Error),
    /// The snapshotter said no.
    #[error("sweeping layers")]
    Snapshot(#[from] snapshot::Error),
    /// The folder of lock files said no.
    #[error("using {path}")]
    Io {
        /// Which path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Error {
    /// What a caller can do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Error::Db(error) => error.kind(),
            Error::Content(error) => error.kind(),
            Error::Snapshot(error) => error.kind(),
            Error::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Kind::Unavailable
            }
            Error::Io { .. } => Kind::Internal,
        }
    }
}
