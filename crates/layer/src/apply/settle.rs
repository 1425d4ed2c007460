//! Setting right what a layer could not know while it was unpacked by itself.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use stdx::sys::{FileKind, Root, copy_data};

use super::Applied;
use crate::{Error, Result};

/// Gives directories the tar did not describe the owner, mode, times and
/// attributes they have below, and makes hard links to files from below (as a
/// copy, which is what overlayfs does too). `below` is the tree of all layers
/// under this one; without one the directories stay as they are.
pub fn settle(dir: &Root, applied: &Applied, below: Option<&Root>) -> Result<()> {
    for path in &applied.implied {
        if let Some(below) = below {
            take_after(dir, below, path).map_err(Error::file("describing", path))?;
        }
    }
    for link in &applied.foreign_links {
        let missing = || Error::LinkTarget {
            path: link.path.display().to_string(),
            target: link.target.display().to_string(),
        };
        let below = below.ok_or_else(missing)?;
        match copy_from_below(dir, below, &link.target, &link.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing()),
            other => other.map_err(Error::file("linking", &link.path))?,
        }
    }
    Ok(())
}

fn take_after(dir: &Root, below: &Root, path: &Path) -> io::Result<()> {
    match below.lstat(path) {
        Ok(stat) if stat.is_dir() => describe(dir, path, below, path),
        Ok(_) => Ok(()),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Owner, attributes, mode and times of `from` for `to`.
fn describe(dir: &Root, to: &Path, below: &Root, from: &Path) -> io::Result<()> {
    let stat = below.lstat(from)?;
    dir.chown(to, stat.uid, stat.gid)?;
    for (name, value) in below.xattrs(from)? {
        if !is_overlay(name.as_bytes()) {
            dir.set_xattr(to, &name, &value)?;
        }
    }
    dir.chmod(to, stat.mode)?;
    dir.set_times(to, stat.atime, stat.mtime)
}

/// Attributes in which overlayfs keeps its own notes.
pub(crate) fn is_overlay(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
}

fn copy_from_below(dir: &Root, below: &Root, target: &Path, path: &Path) -> io::Result<()> {
    let stat = below.lstat(target)?;
    // The target's name must be the same file, so it comes up as well.
    match dir.lstat(target) {
        Ok(there) if !there.is_whiteout() => return dir.link(target, path),
        Ok(_) => return Err(io::ErrorKind::NotFound.into()),
        Err(_) => {}
    }
    let parent = target.parent().unwrap_or(Path::new(""));
    for made in dir.create_dir_all(parent, 0o755)? {
        take_after(dir, below, &made)?;
    }
    match stat.kind {
        FileKind::File => {
            let from = below.open_file(target)?;
            let to = dir.create_file(target, 0o600)?;
            copy_data(&from, &to)?;
        }
        FileKind::Symlink => dir.symlink(below.read_link(target)?, target)?,
        FileKind::Dir => return Err(io::ErrorKind::IsADirectory.into()),
        kind => dir.mknod(target, kind, stat.mode, stat.device())?,
    }
    describe(dir, target, below, target)?;
    dir.link(target, path)
}

/// The attribute that marks an opaque directory.
pub(crate) fn opaque_name(namespace: super::Namespace) -> &'static OsStr {
    OsStr::new(match namespace {
        super::Namespace::Trusted => "trusted.overlay.opaque",
        super::Namespace::User => "user.overlay.opaque",
    })
}
