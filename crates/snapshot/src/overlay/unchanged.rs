//! Directories a layer has without having changed them.
//!
//! Overlayfs copies a directory up as soon as something is made in it. Where that is gone again,
//! as a mount point of a step is, the copy stays, and would be taken for a change: a difference of
//! two trees would show it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;

use stdx::sys::{Root, Stat};

use crate::copies::lay::{is_opaque, is_overlay};

/// Directories looked at: leaving a copy there harms little, a walk through a large layer would
/// cost.
const MOST: usize = 64;

/// Removes from `upper`, the change, directories with nothing in them that are as they are below.
/// `lowers` are the layers it is on, the uppermost first.
pub(super) fn drop_unchanged(upper: &Root, lowers: &[Root]) -> io::Result<()> {
    let mut left = MOST;
    look(upper, lowers, &mut left)
}

fn look(upper: &Root, lowers: &[Root], left: &mut usize) -> io::Result<()> {
    let before = upper.lstat(".")?;
    let mut removed = false;
    for entry in upper.read_dir(".")? {
        let name = entry.name.as_os_str();
        let stat = upper.lstat(name)?;
        if !stat.is_dir() {
            continue;
        }
        if *left == 0 {
            break;
        }
        *left -= 1;
        let dir = upper.open_dir_nofollow(name)?;
        if is_opaque(&dir)? {
            continue;
        }
        let below = merged(lowers, name)?;
        let Some(lower) = below.first() else {
            continue;
        };
        look(&dir, &below, left)?;
        if dir.read_dir(".")?.is_empty() && are_alike(&dir, &stat, lower)? {
            upper.rmdir(name)?;
            removed = true;
        }
    }
    if removed {
        upper.set_times(".", before.atime, before.mtime)?;
    }
    Ok(())
}

/// The directories of this name that overlayfs shows as one, the uppermost first.
fn merged(lowers: &[Root], name: &OsStr) -> io::Result<Vec<Root>> {
    let mut found = Vec::new();
    for lower in lowers {
        match lower.lstat(name) {
            Ok(stat) if stat.is_dir() => {
                let dir = lower.open_dir_nofollow(name)?;
                let last = is_opaque(&dir)?;
                found.push(dir);
                if last {
                    break;
                }
            }
            // A file or a whiteout hides what is further below.
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn are_alike(dir: &Root, stat: &Stat, lower: &Root) -> io::Result<bool> {
    let other = lower.lstat(".")?;
    let facts = |stat: &Stat| (stat.mode, stat.uid, stat.gid, stat.mtime);
    Ok(facts(stat) == facts(&other) && attributes(dir)? == attributes(lower)?)
}

fn attributes(dir: &Root) -> io::Result<BTreeMap<OsString, Vec<u8>>> {
    let all = dir.xattrs(".")?.into_iter();
    Ok(all.filter(|(name, _)| !is_overlay(name)).collect())
}
