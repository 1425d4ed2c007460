//! Laying one layer onto a tree: what overlayfs shows, made real.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;

use rustix::fs::AtFlags;
use stdx::sys::{FileKind, Root, Stat, copy_data};

/// What files become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Files {
    /// Files of their own, to be written.
    Copy,
    /// Further names of the layer's files, to be read.
    Link,
}

const OPAQUE: [&str; 2] = ["trusted.overlay.opaque", "user.overlay.opaque"];

/// Names of files with several, where the first of them was laid.
type Seen = HashMap<u64, (Root, OsString)>;

/// Lays what is in `from`, a layer in overlay form, onto `to`.
pub(super) fn lay(from: &Root, to: &Root, files: Files) -> io::Result<()> {
    lay_dir(from, to, files, &mut Seen::new())?;
    describe(from, &from.lstat(".")?, to, OsStr::new("."))
}

fn lay_dir(from: &Root, to: &Root, files: Files, seen: &mut Seen) -> io::Result<()> {
    for entry in from.read_dir(".")? {
        let name = entry.name.as_os_str();
        let stat = from.lstat(name)?;
        if stat.is_whiteout() {
            to.remove_tree(name)?;
        } else if stat.is_dir() {
            let dir = from.open_dir_nofollow(name)?;
            let there = to.lstat(name).ok();
            if there.is_some_and(|there| !there.is_dir()) || (there.is_some() && is_opaque(&dir)?) {
                to.remove_tree(name)?;
            }
            if to.lstat(name).is_err() {
                to.mkdir(name, 0o700)?;
            }
            let target = to.open_dir_nofollow(name)?;
            lay_dir(&dir, &target, files, seen)?;
            describe(&dir, &stat, to, name)?;
        } else {
            to.remove_tree(name)?;
            match files {
                Files::Link => rustix::fs::linkat(from, name, to, name, AtFlags::empty())?,
                Files::Copy => copy(from, name, &stat, to, seen)?,
            }
        }
    }
    Ok(())
}

fn copy(from: &Root, name: &OsStr, stat: &Stat, to: &Root, seen: &mut Seen) -> io::Result<()> {
    if stat.nlink > 1 {
        if let Some((dir, first)) = seen.get(&stat.ino) {
            rustix::fs::linkat(dir, first, to, name, AtFlags::empty())?;
            return Ok(());
        }
        seen.insert(stat.ino, (to.try_clone()?, name.to_owned()));
    }
    match stat.kind {
        FileKind::File => {
            let target = to.create_file(name, 0o600)?;
            copy_data(&from.open_file(name)?, &target)?;
        }
        FileKind::Symlink => to.symlink(from.read_link(name)?, name)?,
        // A socket means nothing without the process that listened on it.
        FileKind::Socket => return Ok(()),
        kind => to.mknod(name, kind, stat.mode, stat.device())?,
    }
    describe_from(from, name, stat, to, name)
}

/// Gives `to/name` what the directory `dir` is.
pub(super) fn describe(dir: &Root, stat: &Stat, to: &Root, name: &OsStr) -> io::Result<()> {
    describe_from(dir, OsStr::new("."), stat, to, name)
}

fn describe_from(
    from: &Root,
    what: &OsStr,
    stat: &Stat,
    to: &Root,
    name: &OsStr,
) -> io::Result<()> {
    let own = to.lstat(name)?;
    if (own.uid, own.gid) != (stat.uid, stat.gid) {
        to.chown(name, stat.uid, stat.gid)?;
    }
    if !stat.is_symlink() {
        to.chmod(name, stat.mode)?;
    }
    for (key, value) in from.xattrs(what)? {
        if !is_overlay(&key) {
            to.set_xattr(name, &key, &value)?;
        }
    }
    to.set_times(name, stat.atime, stat.mtime)
}

pub(crate) fn is_overlay(key: &OsStr) -> bool {
    let key = key.to_string_lossy();
    key.starts_with("trusted.overlay.") || key.starts_with("user.overlay.")
}

pub(crate) fn is_opaque(dir: &Root) -> io::Result<bool> {
    for key in OPAQUE {
        if dir.xattr(".", OsStr::new(key))?.as_deref() == Some(b"y") {
            return Ok(true);
        }
    }
    Ok(false)
}
