//! What can go wrong with the database.

use std::io;
use std::path::PathBuf;

use rusqlite::ErrorCode;
use stdx::Kind;

/// What can go wrong with the database.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// SQLite says no.
    #[error("the state database refused: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// A file beside the database could not be used.
    #[error("using {path}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is damaged and another process still has it open, so it stays where it is.
    #[error("{path} is damaged and in use by another process: stop it and try again")]
    DamagedInUse {
        /// Which file.
        path: PathBuf,
    },
    /// A newer program wrote tables this one does not know.
    #[error(
        "tables `{tables}` are of version {found}, this program knows {known}: use the newer program or another state directory"
    )]
    FromTheFuture {
        /// Whose tables.
        tables: String,
        /// Version in the file.
        found: usize,
        /// Version we know.
        known: usize,
    },
}

impl Error {
    /// What a caller can do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Error::Sqlite(error) => match error.sqlite_error_code() {
                Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::DiskFull) => {
                    Kind::Unavailable
                }
                Some(ErrorCode::ConstraintViolation) => Kind::AlreadyExists,
                Some(ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => Kind::Denied,
                _ => Kind::Internal,
            },
            Error::Io { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Kind::Denied,
                io::ErrorKind::StorageFull => Kind::Unavailable,
                _ => Kind::Internal,
            },
            Error::DamagedInUse { .. } => Kind::Unavailable,
            Error::FromTheFuture { .. } => Kind::Unsupported,
        }
    }

    /// Whether SQLite found the file itself to be broken.
    pub(crate) fn is_damage(&self) -> bool {
        let Error::Sqlite(error) = self else {
            return false;
        };
        matches!(
            error.sqlite_error_code(),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
        )
    }
}
