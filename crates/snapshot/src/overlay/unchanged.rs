//! Directories and files a layer has without having changed them.
//!
//! Overlayfs copies a directory up as soon as something is made in it. Where that is gone again,
//! as a mount point of a step is, the copy stays, and would be taken for a change: a difference of
//! two trees would show it. So it is with a file that was replaced for a while and put back.

use std::ffi::OsStr;
use std::io;
use std::path::{Component, Path};

use stdx::sys::{Root, Stat};

use crate::copies::change::{same_bytes, same_description, xattrs};
use crate::copies::lay::is_opaque;

/// Directories looked at: leaving a copy there harms little, a walk through a large layer would
/// cost.
const MOST: usize = 64;

/// Removes from `upper`, the change, directories with nothing in them that are as they are below.
/// `lowers` are the layers it is on, the uppermost first.
pub(super) fn drop_unchanged(upper: &Root, lowers: &[Root]) -> io::Result<()> {
    let mut left = MOST;
    look(upper, lowers, &mut left)
}

/// Removes from `upper` the file at `path` if it is as it is below, and then the directories it
/// is in if they hold nothing and are as they are below.
pub(super) fn drop_restored(upper: &Root, lowers: &[Root], path: &Path) -> io::Result<()> {
    let names = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name),
        _ => None,
    });
    drop_at(upper, lowers, &names.collect::<Vec<_>>())
}

fn drop_at(upper: &Root, lowers: &[Root], names: &[&OsStr]) -> io::Result<()> {
    let [name, inside @ ..] = names else {
        return Ok(());
    };
    let stat = match upper.lstat(name) {
        Ok(stat) => stat,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let before = upper.lstat(".")?;
    if inside.is_empty() {
        if !stat.is_file() || !is_file_below(upper, lowers, name, &stat)? {
            return Ok(());
        }
        upper.unlink(name)?;
    } else {
        if !stat.is_dir() {
            return Ok(());
        }
        let dir = upper.open_dir_nofollow(name)?;
        let below = match is_opaque(&dir)? {
            true => Vec::new(),
            false => merged(lowers, name)?,
        };
        let Some(lower) = below.first() else {
            return Ok(());
        };
        drop_at(&dir, &below, inside)?;
        if !dir.read_dir(".")?.is_empty() || !are_alike(&dir, &stat, lower)? {
            return Ok(());
        }
        upper.rmdir(name)?;
    }
    upper.set_times(".", before.atime, before.mtime)
}

/// Whether the file that overlayfs would show without this one is the same in everything.
fn is_file_below(upper: &Root, lowers: &[Root], name: &OsStr, stat: &Stat) -> io::Result<bool> {
    for lower in lowers {
        let other = match lower.lstat(name) {
            Ok(other) => other,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        return Ok(same_description(stat, &other)
            && stat.size == other.size
            && xattrs(upper, name)? == xattrs(lower, name)?
            && same_bytes(upper, lower, name)?);
    }
    Ok(false)
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
    let here = OsStr::new(".");
    Ok(facts(stat) == facts(&other) && xattrs(dir, here)? == xattrs(lower, here)?)
}
