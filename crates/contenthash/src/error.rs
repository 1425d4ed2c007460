//! What can go wrong while a tree is hashed.

use std::io;
use std::path::PathBuf;

use stdx::Kind;
use stdx::patterns::InvalidPattern;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why there is no digest.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing has this name.
    #[error("{:?}: not found", .0)]
    NotFound(PathBuf),
    /// Links that lead in a circle, or too many in a row.
    #[error("{}: too many symbolic links", .0.display())]
    TooManyLinks(PathBuf),
    /// An include or exclude pattern.
    #[error(transparent)]
    Pattern(#[from] InvalidPattern),
    /// A wildcard that cannot be read.
    #[error("syntax error in pattern `{0}`")]
    Wildcard(String),
    /// What was stored earlier is damaged; hash again.
    #[error("stored content digests are damaged")]
    Stored,
    /// What is asked for is not known, and the tree was not given to look.
    #[error("a part of the tree was never looked at")]
    Unread,
    /// The disk said no.
    #[error("hashing {}", .path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        move |source| Error::Io { path, source }
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Error::NotFound(_) => Kind::NotFound,
            Error::TooManyLinks(_) | Error::Pattern(_) | Error::Wildcard(_) => Kind::InvalidInput,
            Error::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Kind::Denied
            }
            Error::Stored | Error::Unread | Error::Io { .. } => Kind::Internal,
        }
    }
}
