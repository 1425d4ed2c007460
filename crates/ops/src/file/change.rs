//! The small changes: a file, a directory, a link is made, something is removed.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use llb::{Mkdir, Mkfile, Rm, Symlink};
use stdx::patterns::clean;
use stdx::sys::{Root, Time};

use super::describe::{failed, time};
use super::owner::Owner;
use super::wildcard;
use crate::{Error, Result};

/// The place a path stands for, all links in it followed.
fn place(root: &Root, path: &str) -> Result<PathBuf> {
    root.canonical(clean(&format!("/{path}")))
        .map_err(failed("resolving", path))
}

fn describe(root: &Root, at: &Path, owner: Option<Owner>, stamp: Option<i64>) -> io::Result<()> {
    if let Some((uid, gid)) = owner {
        root.chown(at, uid, gid)?;
    }
    match stamp.map(time) {
        Some(stamp) => root.set_times(at, stamp, stamp),
        None => Ok(()),
    }
}

pub(super) fn mkfile(root: &Root, mkfile: &Mkfile, owner: Option<Owner>) -> Result<()> {
    let failed = || failed("writing", &mkfile.path);
    let at = place(root, &mkfile.path)?;
    if at.as_os_str().is_empty() {
        return Err(Error::Invalid(format!(
            "cannot write a file at {:?}: it is the root",
            mkfile.path
        )));
    }
    // A new file, so that other names of the old one and devices stay what they are.
    match root.lstat(&at) {
        Ok(there) if there.is_dir() => return Err(failed()(io::ErrorKind::IsADirectory.into())),
        Ok(_) => root.unlink(&at).map_err(failed())?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed()(error)),
    }
    let mode = if mkfile.mode < 0 {
        0o644
    } else {
        mkfile.mode as u32 & 0o777
    };
    let mut file = root.create_file(&at, mode).map_err(failed())?;
    file.write_all(&mkfile.data).map_err(failed())?;
    drop(file);
    describe(root, &at, owner, mkfile.timestamp).map_err(failed())
}

pub(super) fn mkdir(root: &Root, mkdir: &Mkdir, owner: Option<Owner>) -> Result<()> {
    let failed = || failed("making directory", &mkdir.path);
    let at = place(root, &mkdir.path)?;
    let mode = if mkdir.mode < 0 {
        0o755
    } else {
        mkdir.mode as u32 & 0o777
    };
    if mkdir.make_parents {
        return match make_dirs(root, &at, mode, owner, mkdir.timestamp.map(time)) {
            Ok(_) => Ok(()),
            Err(error) => Err(failed()(error)),
        };
    }
    match root.mkdir(&at, mode) {
        Ok(()) => describe(root, &at, owner, mkdir.timestamp).map_err(failed()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(failed()(error)),
    }
}

/// Makes a directory and those above it, and gives those it made.
pub(super) fn make_dirs(
    root: &Root,
    at: &Path,
    mode: u32,
    owner: Option<Owner>,
    stamp: Option<Time>,
) -> io::Result<Vec<PathBuf>> {
    if !at.as_os_str().is_empty() && root.lstat(at).is_ok_and(|there| !there.is_dir()) {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    let made = root.create_dir_all(at, mode)?;
    for dir in &made {
        if let Some((uid, gid)) = owner {
            root.chown(dir, uid, gid)?;
        }
    }
    set_times(root, &made, stamp)?;
    Ok(made)
}

/// Sets the times of directories that were made on the way, innermost first.
pub(super) fn set_times(root: &Root, made: &[PathBuf], stamp: Option<Time>) -> io::Result<()> {
    let Some(stamp) = stamp else { return Ok(()) };
    made.iter()
        .rev()
        .try_for_each(|dir| root.set_times(dir, stamp, stamp))
}

pub(super) fn symlink(root: &Root, link: &Symlink, owner: Option<Owner>) -> Result<()> {
    let failed = || failed("making link", &link.path);
    let at = place(root, &link.path)?;
    root.symlink(&link.target, &at).map_err(failed())?;
    describe(root, &at, owner, link.timestamp).map_err(failed())
}

pub(super) fn rm(root: &Root, rm: &Rm) -> Result<()> {
    if !rm.allow_wildcard {
        return remove(root, Path::new(&rm.path), &rm.path, rm.allow_not_found);
    }
    for path in wildcard::matches(root, &rm.path, false)? {
        remove(root, &path, &rm.path, rm.allow_not_found)?;
    }
    Ok(())
}

/// Removes what has this name, not what it leads to.
fn remove(root: &Root, path: &Path, written: &str, allow_not_found: bool) -> Result<()> {
    if path.file_name().is_none() {
        return Err(Error::Invalid(format!(
            "cannot remove {written:?}: it names no file"
        )));
    }
    match root.lstat(path) {
        Ok(_) => root.remove_tree(path).map_err(failed("removing", written)),
        Err(error) if allow_not_found && is_missing(&error) => Ok(()),
        Err(error) => Err(failed("removing", written)(error)),
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}
