//! Taking out of a written tree what changed, as a layer in overlay form. Changed files are
//! moved, not copied: the tree is thrown away afterwards.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read};

use stdx::sys::{FileKind, Root, Stat};

use super::lay::{describe, is_overlay};
use crate::active::Began;

/// Files are compared in pieces of this size.
const PIECE: usize = 128 << 10;

/// Moves what `now` has other than `below` into `change`, and marks what it has no more.
pub(super) fn take(
    below: &Root,
    now: &Root,
    change: &Root,
    began: Began,
    as_user: bool,
) -> io::Result<()> {
    take_dir(below, now, change, began, as_user)?;
    describe(now, &now.lstat(".")?, change, OsStr::new("."))
}

/// Whether anything in the directory changed.
fn take_dir(
    below: &Root,
    now: &Root,
    change: &Root,
    began: Began,
    as_user: bool,
) -> io::Result<bool> {
    let (before, after) = (entries(below)?, entries(now)?);
    let mut changed = false;
    for name in before.keys().filter(|name| !after.contains_key(*name)) {
        change.whiteout(name)?;
        changed = true;
    }
    for (name, stat) in &after {
        let moved = match before.get(name) {
            Some(old) if old.is_dir() && stat.is_dir() => {
                let dirs = (below.open_dir_nofollow(name)?, now.open_dir_nofollow(name)?);
                change.mkdir(name, 0o700)?;
                let inner = change.open_dir_nofollow(name)?;
                let inside = take_dir(&dirs.0, &dirs.1, &inner, began, as_user)?;
                if inside
                    || !same_description(old, stat)
                    || xattrs(below, name)? != xattrs(now, name)?
                {
                    describe(&dirs.1, stat, change, name)?;
                    changed = true;
                } else {
                    change.rmdir(name)?;
                }
                false
            }
            Some(old) => !is_same(below, now, name, old, stat, began)?,
            None => true,
        };
        if moved {
            rustix::fs::renameat(now, name, change, name).map_err(io::Error::from)?;
            let replaced = before.get(name).is_some_and(|old| !old.is_dir());
            if stat.is_dir() && replaced {
                // What lies further down shall not show through where a file was.
                let key = if as_user {
                    "user.overlay.opaque"
                } else {
                    "trusted.overlay.opaque"
                };
                change.set_xattr(name, OsStr::new(key), b"y")?;
            }
            changed = true;
        }
    }
    Ok(changed)
}

fn entries(dir: &Root) -> io::Result<BTreeMap<OsString, Stat>> {
    let entries = dir.read_dir(".")?.into_iter();
    entries
        .map(|entry| Ok((entry.name.clone(), dir.lstat(&entry.name)?)))
        .collect()
}

/// Nothing of a file changes without its `ctime`, so one that is older than our beginning is as it
/// was copied. The clock runs in steps: in doubt everything is compared.
fn is_same(
    below: &Root,
    now: &Root,
    name: &OsStr,
    old: &Stat,
    new: &Stat,
    began: Began,
) -> io::Result<bool> {
    if Began(new.ctime.seconds, new.ctime.nanos) < began {
        return Ok(true);
    }
    if !same_description(old, new) || old.size != new.size || old.rdev != new.rdev {
        return Ok(false);
    }
    if xattrs(below, name)? != xattrs(now, name)? {
        return Ok(false);
    }
    match new.kind {
        FileKind::File => same_bytes(below, now, name),
        FileKind::Symlink => Ok(below.read_link(name)? == now.read_link(name)?),
        _ => Ok(true),
    }
}

pub(crate) fn same_description(a: &Stat, b: &Stat) -> bool {
    (a.kind, a.mode, a.uid, a.gid, a.mtime) == (b.kind, b.mode, b.uid, b.gid, b.mtime)
}

pub(crate) fn xattrs(dir: &Root, name: &OsStr) -> io::Result<BTreeMap<OsString, Vec<u8>>> {
    Ok(dir
        .xattrs(name)?
        .into_iter()
        .filter(|(key, _)| !is_overlay(key))
        .collect())
}

pub(crate) fn same_bytes(a: &Root, b: &Root, name: &OsStr) -> io::Result<bool> {
    let (mut a, mut b) = (a.open_file(name)?, b.open_file(name)?);
    let (mut left, mut right) = (vec![0; PIECE], vec![0; PIECE]);
    loop {
        let count = a.read(&mut left)?;
        if count == 0 {
            return Ok(b.read(&mut right[..1])? == 0);
        }
        match b.read_exact(&mut right[..count]) {
            Ok(()) if left[..count] == right[..count] => {}
            Ok(()) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}
