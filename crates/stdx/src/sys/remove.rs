//! Removing a whole tree, however deep, without following anything out of it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::Root;

/// One directory on the way down. Only the deepest is held open, so depth costs
/// memory for names and nothing else.
struct Level {
    name: OsString,
    id: (u64, u64),
    dirs: Vec<OsString>,
}

impl Root {
    /// Removes what is at `path`, a directory with all that is in it. A missing
    /// path is no error. Links are removed, not followed.
    pub fn remove_tree(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let at = match self.at(path.as_ref()) {
            Ok(at) => at,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        if at.name == "." {
            return empty(at.dir().try_clone_to_owned()?);
        }
        match rustix::fs::unlinkat(at.dir(), &at.name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
        empty(enter(at.dir(), &at.name)?)?;
        match rustix::fs::unlinkat(at.dir(), &at.name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes everything in this directory, and leaves the directory.
    pub fn remove_contents(&self) -> io::Result<()> {
        empty(self.as_fd().try_clone_to_owned()?)
    }
}

fn enter(dir: impl AsFd, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(&dir, name, flags, Mode::empty()) {
        Err(Errno::ACCESS) => {
            // Without root's rights a directory of ours may be closed to us.
            rustix::fs::chmodat(&dir, name, Mode::RWXU, AtFlags::empty())?;
            Ok(rustix::fs::openat(&dir, name, flags, Mode::empty())?)
        }
        other => Ok(other?),
    }
}

fn identity(dir: impl AsFd) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::fstat(dir)?;
    #[allow(
        clippy::unnecessary_cast,
        reason = "field widths differ between machines"
    )]
    Ok((stat.st_dev as u64, stat.st_ino as u64))
}

/// Unlinks the files of `dir` and gives the names of its directories.
fn clear_files(dir: &OwnedFd) -> io::Result<Vec<OsString>> {
    let mut dirs = Vec::new();
    for entry in Root::borrow_entries(dir.as_fd())? {
        match rustix::fs::unlinkat(dir, &entry, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR | Errno::PERM) => dirs.push(entry),
            Err(Errno::ACCESS) => {
                rustix::fs::fchmod(dir, Mode::RWXU)?;
                match rustix::fs::unlinkat(dir, &entry, AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(Errno::ISDIR | Errno::PERM) => dirs.push(entry),
                    Err(error) => return Err(error.into()),
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(dirs)
}

fn empty(top: OwnedFd) -> io::Result<()> {
    let mut here = top;
    let level = |dir: &OwnedFd, name: OsString| -> io::Result<Level> {
        Ok(Level {
            name,
            id: identity(dir)?,
            dirs: clear_files(dir)?,
        })
    };
    let mut levels = vec![level(&here, OsString::new())?];
    while let Some(last) = levels.last_mut() {
        if let Some(name) = last.dirs.pop() {
            here = enter(&here, &name)?;
            levels.push(level(&here, name)?);
            continue;
        }
        let done = levels.pop().expect("there was a last one");
        let Some(parent) = levels.last() else { break };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        here = rustix::fs::openat(&here, "..", flags, Mode::empty())?;
        if identity(&here)? != parent.id {
            // Someone moved the directory away while we were in it.
            return Err(Errno::STALE.into());
        }
        match rustix::fs::unlinkat(&here, &done.name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
