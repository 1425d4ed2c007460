//! Which processes are still alive, told by file locks.
//!
//! Several processes may share one folder. What belongs to a process (a directory it writes in,
//! a lease) carries its owner's name; the kernel lets go of the lock when the process ends,
//! however it ends, and whoever comes next finds the name without a lock and clears up.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// One living owner: this process, or one of several stores in it.
#[derive(Debug)]
pub struct Owner {
    name: String,
    path: PathBuf,
    _lock: File,
}

/// An owner whose process is gone. Clear up what carries its name, then call [`Departed::forget`].
/// While this lives nobody else clears up the same.
#[derive(Debug)]
pub struct Departed {
    name: String,
    path: PathBuf,
    _lock: File,
}

impl Owner {
    /// Makes a new owner known in the folder `dir`.
    pub fn announce(dir: impl AsRef<Path>) -> io::Result<Owner> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let dir = dir.as_ref();
        fs::create_dir_all(dir)?;
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("{}-{number}-{:x}", std::process::id(), now.as_nanos());
            let path = dir.join(&name);
            if let Some(lock) = lock_alone(&path, true)? {
                return Ok(Owner {
                    name,
                    path,
                    _lock: lock,
                });
            }
        }
    }

    /// The name to put on what belongs to this owner.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // Left behind it only costs the next process a look.
        let _ = fs::remove_file(&self.path);
    }
}

impl Departed {
    /// The name on what is to be cleared up.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All is cleared up.
    pub fn forget(self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }
}

/// Owners in the folder `dir` whose process is gone.
pub fn departed(dir: impl AsRef<Path>) -> io::Result<Vec<Departed>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut departed = Vec::new();
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        if let Some(lock) = lock_alone(&path, false)? {
            let name = entry.file_name().to_string_lossy().into_owned();
            departed.push(Departed {
                name,
                path,
                _lock: lock,
            });
        }
    }
    Ok(departed)
}

/// Locks the file at `path`; `None` when another holds it, or it went away meanwhile.
fn lock_alone(path: &Path, create: bool) -> io::Result<Option<File>> {
    let file = match OpenOptions::new()
        .write(true)
        .create(create)
        .truncate(false)
        .open(path)
    {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    // Someone may have cleared up and removed the file between open and lock.
    let still_there = fs::symlink_metadata(path).is_ok_and(|there| {
        file.metadata()
            .is_ok_and(|here| (here.ino(), here.dev()) == (there.ino(), there.dev()))
    });
    Ok(still_there.then_some(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_living_are_left_alone_and_the_departed_found_once() {
        let dir = tempfile::tempdir().unwrap();
        let alive = Owner::announce(dir.path()).unwrap();
        fs::write(dir.path().join("left-behind"), "").unwrap();
        let found = departed(dir.path()).unwrap();
        assert_eq!(
            found.iter().map(Departed::name).collect::<Vec<_>>(),
            ["left-behind"]
        );
        assert!(
            departed(dir.path()).unwrap().is_empty(),
            "held by the first finder"
        );
        for one in found {
            one.forget().unwrap();
        }
        assert!(departed(dir.path()).unwrap().is_empty());
        drop(alive);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
