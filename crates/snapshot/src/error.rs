//! What can go wrong with directory states.

use std::io;
use std::path::{Path, PathBuf};

use stdx::Kind;

use crate::{KeptId, LayerId};

/// What can go wrong with directory states.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The layer is not here: never made, removed, or lost with a machine.
    #[error("no layer {0}")]
    NoLayer(LayerId),
    /// The kept directory is not here.
    #[error("no kept directory {0}")]
    NoKept(KeptId),
    /// Another process is using the kept directory.
    #[error("the kept directory {0} is in use by another process")]
    KeptInUse(KeptId),
    /// The kernel cannot stack so many layers.
    #[error("{found} layers are more than the {limit} that can be stacked")]
    TooManyLayers {
        /// How many were asked for.
        found: usize,
        /// How many can be.
        limit: usize,
    },
    /// The kernel would not mount.
    #[error("mounting {layers} layers with overlayfs: {step}")]
    Mount {
        /// How many layers.
        layers: usize,
        /// Which step of it failed, with what the kernel says about it.
        step: String,
        /// Why.
        source: io::Error,
    },
    /// No kind of snapshotter of this name.
    #[error("unknown snapshotter `{0}`: use auto, overlayfs or native")]
    UnknownKind(String),
    /// A file operation failed.
    #[error("{doing} {path}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Error {
    /// What a caller can do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Error::NoLayer(_) | Error::NoKept(_) => Kind::NotFound,
            Error::KeptInUse(_) => Kind::Unavailable,
            Error::TooManyLayers { .. } => Kind::Unsupported,
            Error::UnknownKind(_) => Kind::InvalidInput,
            Error::Mount { source, .. } | Error::Io { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Kind::Unavailable,
                io::ErrorKind::PermissionDenied => Kind::Denied,
                _ => Kind::Internal,
            },
        }
    }

    /// For `map_err`: names what was being done, and to what.
    pub(crate) fn io(
        doing: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(io::Error) -> Error {
        let path = path.as_ref().to_path_buf();
        move |source| Error::Io {
            doing,
            path,
            source,
        }
    }
}
