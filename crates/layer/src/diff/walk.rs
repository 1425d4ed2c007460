//! Two trees side by side, in the order of a tar: names of a directory sorted as
//! bytes, each followed by what is in it. The way down is kept in a list, so deep
//! trees cost memory and not stack.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use stdx::sys::{Root, Stat};

use super::Found;
use super::same::{Side, same};
use crate::{Error, Result};

/// Who is told what a walk meets. Nothing is told of what is the same because it is missing.
pub(super) trait Visit {
    /// A name that was below and is gone.
    fn deleted(&mut self, path: &[u8]) -> Result<()>;
    /// New, or not as it was below.
    fn changed(&mut self, found: &Found<'_>) -> Result<()>;
    /// As it was below. Of a whole tree that is nothing to wonder at; of changes it is.
    fn unchanged(&mut self, found: &Found<'_>, whole: bool) -> Result<()>;
    /// A removal of what never was.
    fn idle(&mut self) {}
    /// Whether nothing more need be told.
    fn has_enough(&self) -> bool {
        false
    }
}

/// How the tree above is to be read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Holds only changes: device 0/0 is a removal, what is missing is unchanged.
    Overlay,
    /// Holds everything: what is missing is removed.
    Whole,
}

/// A directory being walked.
struct Level {
    mode: Mode,
    path: Vec<u8>,
    above: Root,
    below: Option<Root>,
    /// Names still to come, last first.
    names: Vec<OsString>,
}

pub(super) fn overlay(visit: &mut impl Visit, upper: &Root, below: Option<&Root>) -> Result<()> {
    walk(visit, Mode::Overlay, upper, below)
}

pub(super) fn trees(visit: &mut impl Visit, new: &Root, old: Option<&Root>) -> Result<()> {
    walk(visit, Mode::Whole, new, old)
}

fn walk(visit: &mut impl Visit, mode: Mode, above: &Root, below: Option<&Root>) -> Result<()> {
    let failed = || Error::file("opening", Path::new(""));
    let above = above.try_clone().map_err(failed())?;
    let below = below.map(Root::try_clone).transpose().map_err(failed())?;
    let mut levels = vec![level(mode, Vec::new(), above, below)?];
    while let Some(here) = levels.last_mut() {
        let Some(name) = here.names.pop() else {
            levels.pop();
            continue;
        };
        let deeper = step(visit, here, &name)?;
        levels.extend(deeper);
        if visit.has_enough() {
            break;
        }
    }
    Ok(())
}

fn level(mode: Mode, path: Vec<u8>, above: Root, below: Option<Root>) -> Result<Level> {
    let failed = || Error::file("reading directory", Path::new(OsStr::from_bytes(&path)));
    let list = |dir: &Root| -> Result<Vec<OsString>> {
        let entries = dir.read_dir("").map_err(failed())?;
        Ok(entries.into_iter().map(|entry| entry.name).collect())
    };
    let mut names = list(&above)?;
    if mode == Mode::Whole
        && let Some(below) = &below
    {
        names.extend(list(below)?);
    }
    names.sort_unstable_by(|a, b| b.cmp(a));
    names.dedup();
    Ok(Level {
        mode,
        path,
        above,
        below,
        names,
    })
}

/// Handles one name; gives the directory to go into next.
fn step(visit: &mut impl Visit, here: &Level, name: &OsStr) -> Result<Option<Level>> {
    let path = join(&here.path, name);
    let shown = Path::new(OsStr::from_bytes(&path));
    let failed = || Error::file("looking at", shown);
    let below = match &here.below {
        Some(dir) => optional(dir.lstat(name)).map_err(failed())?,
        None => None,
    };
    let above = optional(here.above.lstat(name)).map_err(failed())?;
    let Some(stat) = above.filter(|stat| !stat.is_whiteout()) else {
        // Removed; or, in an overlay, a whiteout of something that never was.
        let gone = above.is_some() || here.mode == Mode::Whole;
        if gone && below.is_some() {
            visit.deleted(&path)?;
        } else if gone {
            visit.idle();
        }
        return Ok(None);
    };
    let notes = if here.mode == Mode::Overlay {
        notes(&here.above, name, &stat, shown)?
    } else {
        Notes::default()
    };
    let found = Found {
        path: &path,
        dir: &here.above,
        name,
        stat,
    };
    if is_same(here, name, &stat, below.as_ref()).map_err(failed())? {
        visit.unchanged(&found, here.mode == Mode::Whole)?;
    } else {
        visit.changed(&found)?;
    }
    if !stat.is_dir() {
        return Ok(None);
    }
    descend(here, name, path, below, notes).map(Some)
}

fn descend(
    here: &Level,
    name: &OsStr,
    path: Vec<u8>,
    below: Option<Stat>,
    notes: Notes,
) -> Result<Level> {
    let opened = |dir: &Root| -> Result<Root> {
        let shown = Path::new(OsStr::from_bytes(&path));
        dir.open_dir_nofollow(name)
            .map_err(Error::file("opening", shown))
    };
    let above = opened(&here.above)?;
    let below = match (&here.below, below) {
        (Some(dir), Some(stat)) if stat.is_dir() => Some(opened(dir)?),
        _ => None,
    };
    // In an opaque directory the lack of a name means that it was removed.
    let mode = if notes.opaque && below.is_some() {
        Mode::Whole
    } else {
        here.mode
    };
    level(mode, path, above, below)
}

fn is_same(here: &Level, name: &OsStr, above: &Stat, below: Option<&Stat>) -> io::Result<bool> {
    let (Some(dir), Some(below)) = (&here.below, below) else {
        return Ok(false);
    };
    let old = Side {
        dir,
        name,
        stat: below,
    };
    same(
        Side {
            dir: &here.above,
            name,
            stat: above,
        },
        old,
    )
}

/// What overlayfs wrote on a file for itself.
#[derive(Clone, Copy, Default)]
struct Notes {
    opaque: bool,
}

fn notes(dir: &Root, name: &OsStr, stat: &Stat, path: &Path) -> Result<Notes> {
    let mut notes = Notes::default();
    if !stat.is_dir() && !stat.is_file() {
        return Ok(notes);
    }
    let xattrs = dir
        .xattrs(name)
        .map_err(Error::file("reading attributes of", path))?;
    for (key, value) in xattrs {
        let key = key.as_bytes();
        let Some(note) = key
            .strip_prefix(b"trusted.overlay.")
            .or_else(|| key.strip_prefix(b"user.overlay."))
        else {
            continue;
        };
        let refused = match note {
            b"opaque" => {
                notes.opaque |= stat.is_dir() && value == b"y";
                None
            }
            b"redirect" if !value.is_empty() => Some("redirect_dir"),
            b"metacopy" => Some("metacopy"),
            _ => None,
        };
        if let Some(feature) = refused {
            return Err(Error::Overlay {
                path: path.to_owned(),
                feature,
            });
        }
    }
    Ok(notes)
}

fn optional(stat: io::Result<Stat>) -> io::Result<Option<Stat>> {
    match stat {
        Ok(stat) => Ok(Some(stat)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn join(dir: &[u8], name: &OsStr) -> Vec<u8> {
    if dir.is_empty() {
        return name.as_bytes().to_vec();
    }
    [dir, b"/", name.as_bytes()].concat()
}
