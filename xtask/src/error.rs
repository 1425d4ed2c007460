//! Why a chore ended early.

use std::path::PathBuf;

/// Result of a chore.
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// Why a chore ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{}: {source}", path.display())]
    File {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("cannot start `{command}`: {source}")]
    Start {
        command: String,
        source: std::io::Error,
    },
    #[error("`{command}` ended with {status}")]
    Failed { command: String, status: String },
    #[error("missing: {0}")]
    Missing(String),
    #[error("{0}")]
    Chore(String),
}

impl Error {
    /// For `map_err`: names the file an operation was about.
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.into();
        move |source| Error::File { path, source }
    }
}
