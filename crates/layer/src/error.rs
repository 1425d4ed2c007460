//! What can go wrong between a tar and a directory.

use std::io;
use std::path::{Path, PathBuf};

use stdx::Kind;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a layer could not be read, applied or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes are no tar we understand.
    #[error("not a valid tar at byte {offset}: {reason}")]
    Tar {
        /// Where in the uncompressed stream the header begins.
        offset: u64,
        /// What is wrong there.
        reason: &'static str,
    },
    /// An entry wants to be outside of the directory.
    #[error("tar entry `{path}` leads out of the layer")]
    Escape {
        /// The name as the tar has it.
        path: String,
    },
    /// A whiteout that names nothing.
    #[error("`{path}` is not a valid whiteout")]
    Whiteout {
        /// The name as the tar has it.
        path: String,
    },
    /// A kind of tar entry that has no meaning in a layer.
    #[error("tar entry `{path}` has the unknown type {flag:?}")]
    EntryType {
        /// The name of the entry.
        path: String,
        /// The type byte.
        flag: char,
    },
    /// Devices are refused by the options.
    #[error("tar entry `{path}` is a device, which is not allowed here")]
    Device {
        /// The name of the entry.
        path: String,
    },
    /// A hard link whose target is not in this layer nor below it.
    #[error("hard link `{path}` points to `{target}`, which does not exist")]
    LinkTarget {
        /// The new name.
        path: String,
        /// The name that is missing.
        target: String,
    },
    /// A name or number that no tar header can carry.
    #[error("`{path}` cannot be written to a tar: {reason}")]
    Unwritable {
        /// The entry.
        path: String,
        /// Which field.
        reason: &'static str,
    },
    /// overlayfs moved a directory by reference; the upper directory alone does not say from where.
    #[error("`{path}` uses overlayfs {feature}, which a layer cannot express")]
    Overlay {
        /// Path below the upper directory.
        path: PathBuf,
        /// `redirect_dir` or `metacopy`.
        feature: &'static str,
    },
    /// A file had another length when it was read than when it was looked at.
    #[error("`{path}` changed while it was read")]
    Changed {
        /// Path below the upper directory.
        path: PathBuf,
    },
    /// A compression we know of but do not write.
    #[error("compression {0} is not supported yet")]
    Unsupported(&'static str),
    /// A compression nobody knows.
    #[error("unsupported compression type {0}")]
    UnknownCompression(String),
    /// A media type that is no layer.
    #[error("unsupported media type {0}")]
    MediaType(String),
    /// Reading or writing one file failed.
    #[error("{doing} `{path}`")]
    File {
        /// What we did, as in "creating".
        doing: &'static str,
        /// Path below the directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Reading the stream failed.
    #[error("reading the layer")]
    Read(#[source] io::Error),
    /// Writing the stream failed.
    #[error("writing the layer")]
    Write(#[source] io::Error),
}

impl Error {
    pub(crate) fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::File {
            doing,
            path,
            source,
        }
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Error::Tar { .. }
            | Error::Escape { .. }
            | Error::Whiteout { .. }
            | Error::EntryType { .. }
            | Error::Device { .. }
            | Error::LinkTarget { .. }
            | Error::Unwritable { .. }
            | Error::UnknownCompression(_)
            | Error::MediaType(_) => Kind::InvalidInput,
            Error::Unsupported(_) | Error::Overlay { .. } => Kind::Unsupported,
            Error::Changed { .. } => Kind::Internal,
            Error::File { source, .. } | Error::Read(source) | Error::Write(source) => {
                io_kind(source)
            }
        }
    }
}

fn io_kind(error: &io::Error) -> Kind {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Kind::Unavailable,
        io::ErrorKind::PermissionDenied => Kind::Denied,
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Kind::InvalidInput,
        _ => Kind::Internal,
    }
}
