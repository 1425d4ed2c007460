//! A damaged file is set aside, but never under the feet of another process: everyone who has
//! the database open holds a shared lock on `<path>.lock`, and setting aside asks for it alone.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// While this lives, the database file stays where it is.
pub(crate) struct Presence(File);

impl Presence {
    /// Tells others that we use the file.
    pub(crate) fn announce(path: &Path) -> Result<Presence> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|source| io_error(parent, source))?;
        }
        let lock = beside(path, ".lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock);
        let file = file.map_err(|source| io_error(&lock, source))?;
        file.lock_shared()
            .map_err(|source| io_error(&lock, source))?;
        Ok(Presence(file))
    }

    /// Moves the damaged file away, with its log, and forgets the mark.
    pub(crate) fn set_aside(self, path: &Path) -> Result<Presence> {
        let lock = beside(path, ".lock");
        self.0.unlock().map_err(|source| io_error(&lock, source))?;
        match self.0.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::DamagedInUse {
                    path: path.to_path_buf(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(io_error(&lock, source)),
        }
        let name = (1..)
            .map(|n| format!(".damaged-{n}"))
            .find(|n| !beside(path, n).exists());
        let name = name.expect("numbers do not end");
        for part in ["", "-wal", "-shm"] {
            let from = beside(path, part);
            let to = beside(path, &format!("{name}{part}"));
            match fs::rename(&from, &to) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(io_error(&from, error));
                }
                _ => {}
            }
        }
        let _ = fs::remove_file(beside(path, MARK));
        drop(self);
        Presence::announce(path)
    }
}

const MARK: &str = ".is-damaged";

/// Remembers that SQLite called the file broken while it was in use.
pub(crate) fn mark(path: &Path) {
    let mark = beside(path, MARK);
    if let Err(error) = File::create(&mark) {
        tracing::warn!(path = %mark.display(), %error, "could not remember that the database is damaged");
    }
}

pub(crate) fn is_marked(path: &Path) -> bool {
    beside(path, MARK).exists()
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

fn io_error(path: &Path, source: io::Error) -> Error {
    Error::Io {
        path: path.to_path_buf(),
        source,
    }
}
