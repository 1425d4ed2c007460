//! Copying a tree. Nothing here recurses, and nothing follows a link: every name is met
//! through the directory it is in, held open.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use stdx::patterns::{Above, Filter, Judged};
use stdx::sys::{DirEntry, FileKind, Root, Stat, copy_data};

use super::Cancelled;
use super::describe::{Describe, Habit};
use super::lent::{Beneath, Lent};
use crate::{Error, Result};

/// Directories nested deeper cannot even be named.
const MAX_DEPTH: usize = 2048;
/// Up to this size a file is read and written at once.
const SMALL: u64 = 64 << 10;

/// One copy of a path into a tree.
pub(super) struct Walk<'a> {
    pub(super) from: &'a Root,
    /// Set when `from` is the lent directory, whose files need not be copied.
    pub(super) lent: Option<&'a Lent>,
    pub(super) to: &'a Root,
    pub(super) describe: Describe,
    pub(super) filter: Filter,
    pub(super) always_replace: bool,
    pub(super) cancelled: &'a Cancelled,
    /// Where files with several names went.
    pub(super) links: HashMap<(u64, u64), PathBuf>,
    /// Whether something is in the target already that files may replace.
    pub(super) meets_names: bool,
    pub(super) buffer: Vec<u8>,
}

/// A directory one is in.
struct Level {
    from: Root,
    /// Where it goes; made once something in it is copied.
    into: Option<Into>,
    to: PathBuf,
    stat: Stat,
    entries: std::vec::IntoIter<DirEntry>,
    /// Its path as patterns see it.
    relative: String,
    above: Above,
    end: End,
}

/// A directory that is copied into.
struct Into {
    dir: Root,
    habit: Habit,
    /// Set when files are lent.
    beneath: Option<Beneath>,
}

/// What is left to do for a directory when all in it is copied.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Nothing,
    Times,
    Everything,
}

impl Walk<'_> {
    /// Copies what is at `from` to be `to`; both have no links in them but at their end.
    pub(super) fn copy(&mut self, from: &Path, to: &Path, stat: &Stat) -> Result<()> {
        let result = match (stat.is_dir(), from.file_name(), to.file_name()) {
            (true, _, _) => return self.tree(from, to, stat),
            (false, Some(name), Some(to_name)) => self.file(from, name, to, to_name, stat),
            (false, ..) => Err(io::ErrorKind::IsADirectory.into()),
        };
        result.map_err(copying(to))
    }

    fn file(
        &mut self,
        from: &Path,
        name: &OsStr,
        to: &Path,
        to_name: &OsStr,
        stat: &Stat,
    ) -> io::Result<()> {
        let (from_dir, _) = self.from.parent(from)?;
        let (to_dir, _) = self.to.parent(to)?;
        // Parents are resolved without the right to read them; this one is written through.
        let dir = to_dir.open_dir(".")?;
        let into = Into {
            habit: Habit::of(&dir)?,
            dir,
            beneath: None,
        };
        self.entry((&from_dir, name), (&into, to_name), to, stat.kind)
    }

    fn tree(&mut self, from: &Path, to: &Path, stat: &Stat) -> Result<()> {
        let top = self.top(from, to, stat).map_err(copying(to))?;
        let mut levels = vec![top];
        while let Some(level) = levels.last_mut() {
            let Some(entry) = level.entries.next() else {
                let done = levels.pop().expect("there is a last one");
                self.leave(&done).map_err(copying(&done.to))?;
                continue;
            };
            let to = level.to.join(&entry.name);
            self.step(&mut levels, &entry, &to).map_err(copying(&to))?;
        }
        Ok(())
    }

    /// One entry of the innermost directory.
    fn step(&mut self, levels: &mut Vec<Level>, entry: &DirEntry, to: &Path) -> io::Result<()> {
        self.cancelled.check()?;
        let level = levels.last().expect("one is in a directory");
        let relative = self.relative(level, entry);
        let judged = self.filter.judge(&relative, &level.above);
        let kind = match entry.kind {
            Some(kind) => kind,
            None => level.from.lstat(&entry.name)?.kind,
        };
        if !judged.taken() && (kind != FileKind::Dir || self.filter.nothing_in(&relative, &judged))
        {
            return Ok(());
        }
        if judged.taken() {
            self.make_pending(levels)?;
        }
        let level = levels.last().expect("one is in a directory");
        if kind == FileKind::Dir {
            if levels.len() >= MAX_DEPTH {
                return Err(io::Error::other(format!(
                    "directories are nested deeper than {MAX_DEPTH}"
                )));
            }
            let deeper = self.enter(level, entry, to, relative, judged)?;
            levels.push(deeper);
            return Ok(());
        }
        let into = level.into.as_ref().expect("made just now");
        let from = (&level.from, entry.name.as_os_str());
        self.entry(from, (into, &entry.name), to, kind)
    }

    fn relative(&self, level: &Level, entry: &DirEntry) -> String {
        if self.filter.is_empty() {
            return String::new();
        }
        let name = entry.name.to_string_lossy();
        match level.relative.as_str() {
            "" => name.into_owned(),
            above => format!("{above}/{name}"),
        }
    }

    /// The directory that is copied itself.
    fn top(&mut self, from: &Path, to: &Path, stat: &Stat) -> io::Result<Level> {
        let here = |path: &Path| {
            if path.as_os_str().is_empty() {
                PathBuf::from(".")
            } else {
                path.to_owned()
            }
        };
        let (at, from) = (here(to), self.from.open_dir_nofollow(here(from))?);
        let mut end = End::Times;
        match self.to.lstat(&at) {
            Ok(there) if there.is_dir() => {}
            Ok(_) if self.always_replace => {
                self.to.remove_tree(&at)?;
                self.to.mkdir(&at, 0o700)?;
                end = End::Everything;
            }
            Ok(_) => return Err(not_a_directory()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.to.mkdir(&at, 0o700)?;
                end = End::Everything;
            }
            Err(error) => return Err(error),
        }
        let dir = self.to.open_dir_nofollow(&at)?;
        let is_new = end == End::Everything;
        let beneath = self.lent.map(|lent| lent.beneath(&at, &dir, is_new));
        let beneath = beneath.transpose()?;
        self.meets_names = beneath.as_ref().is_some_and(|beneath| !beneath.is_free());
        Ok(Level {
            entries: from.read_dir_sorted(".")?.into_iter(),
            from,
            into: Some(Into {
                habit: Habit::of(&dir)?,
                dir,
                beneath,
            }),
            to: to.to_owned(),
            stat: *stat,
            relative: String::new(),
            above: Above::default(),
            end,
        })
    }

    fn enter(
        &self,
        level: &Level,
        entry: &DirEntry,
        to: &Path,
        relative: String,
        judged: Judged,
    ) -> io::Result<Level> {
        let from = level.from.open_dir_nofollow(&entry.name)?;
        let stat = Stat::from(rustix::fs::fstat(&from)?);
        let (mut into, mut end) = (None, End::Nothing);
        if judged.taken() {
            let parent = level.into.as_ref().expect("made just now");
            into = Some(self.make_dir(parent, &entry.name)?.0);
            end = End::Everything;
        }
        Ok(Level {
            entries: from.read_dir_sorted(".")?.into_iter(),
            from,
            into,
            to: to.to_owned(),
            stat,
            relative,
            above: judged.here,
            end,
        })
    }

    /// Makes a directory, or opens the one that is there. Tells whether it is new.
    fn make_dir(&self, parent: &Into, name: &OsStr) -> io::Result<(Into, bool)> {
        let mut new = true;
        if let Err(error) = parent.dir.mkdir(name, 0o700) {
            if error.kind() != io::ErrorKind::AlreadyExists {
                return Err(error);
            }
            new = !parent.dir.lstat(name)?.is_dir();
            if new && !self.always_replace {
                return Err(not_a_directory());
            }
            if new {
                parent.dir.remove_tree(name)?;
                parent.dir.mkdir(name, 0o700)?;
            }
        }
        let dir = parent.dir.open_dir_nofollow(name)?;
        let habit = if new { parent.habit } else { Habit::of(&dir)? };
        let beneath = parent.beneath.as_ref();
        let beneath = beneath
            .map(|beneath| beneath.child(name, &dir, new))
            .transpose()?;
        let into = Into {
            dir,
            habit,
            beneath,
        };
        Ok((into, new))
    }

    /// Makes the directories one is in that no pattern took by themselves.
    fn make_pending(&self, levels: &mut [Level]) -> io::Result<()> {
        // The one that is copied itself is there; missing ones are the innermost.
        for at in 1..levels.len() {
            let (outer, inner) = levels.split_at_mut(at);
            let (Some(outer), Some(level)) = (outer.last(), inner.first_mut()) else {
                continue;
            };
            if level.into.is_some() {
                continue;
            }
            let parent = outer.into.as_ref().expect("made from the outside in");
            let name = level.to.file_name().unwrap_or_default();
            let (mut into, new) = self.make_dir(parent, name)?;
            if new {
                self.describe
                    .opened(level.from.as_fd(), into.dir.as_fd(), &level.stat, None)?;
                into.habit = Habit::of(&into.dir)?;
                // What is put into it changes its time again, but a wanted time is wanted.
                level.end = if self.describe.time.is_some() {
                    End::Times
                } else {
                    End::Nothing
                };
            } else {
                rustix::fs::fchmod(&into.dir, Mode::from_raw_mode(level.stat.mode))?;
            }
            level.into = Some(into);
        }
        Ok(())
    }

    /// All in a directory is copied.
    fn leave(&self, level: &Level) -> io::Result<()> {
        let Some(into) = &level.into else {
            return Ok(());
        };
        match level.end {
            End::Nothing => Ok(()),
            End::Times => self.describe.opened_times(into.dir.as_fd(), &level.stat),
            End::Everything => {
                self.describe
                    .opened(level.from.as_fd(), into.dir.as_fd(), &level.stat, None)
            }
        }
    }

    /// Copies something that is no directory.
    fn entry(
        &mut self,
        from: (&Root, &OsStr),
        to: (&Into, &OsStr),
        path: &Path,
        kind: FileKind,
    ) -> io::Result<()> {
        if kind == FileKind::File {
            return match self.linked(from, to, path)? {
                true => Ok(()),
                false => self.regular(from, to, path),
            };
        }
        let stat = from.0.lstat(from.1)?;
        if self.lent.is_some() && stat.is_whiteout() {
            return Ok(());
        }
        self.clearing(to, || match stat.kind {
            FileKind::Symlink => to.0.dir.symlink(from.0.read_link(from.1)?, to.1),
            FileKind::CharDevice | FileKind::BlockDevice => {
                to.0.dir.mknod(to.1, stat.kind, 0o600, stat.device())
            }
            FileKind::Fifo => to.0.dir.mknod(to.1, stat.kind, 0o600, (0, 0)),
            // Nobody listens on the copy of a socket: a file holds its place.
            FileKind::Socket => to.0.dir.create_file(to.1, 0o600).map(drop),
            FileKind::File | FileKind::Dir => Err(changed()),
        })?;
        self.describe.named(from, (&to.0.dir, to.1), &stat)
    }

    /// Links a lent file, if it can be.
    fn linked(
        &mut self,
        from: (&Root, &OsStr),
        to: (&Into, &OsStr),
        path: &Path,
    ) -> io::Result<bool> {
        let Some(beneath) = &to.0.beneath else {
            return Ok(false);
        };
        // A default access list of the directory would be on a copy.
        if to.0.habit.acl || beneath.is_taken(to.1) {
            return Ok(false);
        }
        let stat = from.0.lstat(from.1)?;
        if !stat.is_file() || !self.describe.leaves(from, &stat)? {
            return Ok(false);
        }
        // Its other names come to be links by themselves, but for those that are in the way of
        // something and so are not what is lent.
        let id = (stat.dev, stat.ino);
        let several = self.meets_names && stat.nlink > 1;
        if several && self.links.contains_key(&id) || !beneath.link(from, to.1)? {
            return Ok(false);
        }
        if several {
            self.links.insert(id, path.to_owned());
        }
        Ok(true)
    }

    fn regular(
        &mut self,
        from: (&Root, &OsStr),
        to: (&Into, &OsStr),
        path: &Path,
    ) -> io::Result<()> {
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let source = File::from(rustix::fs::openat(from.0, from.1, flags, Mode::empty())?);
        let stat = Stat::from(rustix::fs::fstat(&source)?);
        if !stat.is_file() {
            return Err(changed());
        }
        let id = (stat.dev, stat.ino);
        if stat.nlink > 1
            && let Some(first) = self.links.get(&id).filter(|first| *first != path)
        {
            let (dir, name) = self.to.parent(first)?;
            let linked = self.clearing(to, || {
                let flags = rustix::fs::AtFlags::empty();
                Ok(rustix::fs::linkat(&dir, &name, &to.0.dir, to.1, flags)?)
            });
            match linked {
                Err(error) if error.kind() == io::ErrorKind::TooManyLinks => {}
                linked => return linked,
            }
        }
        let mode = self.describe.mode(&stat) & 0o777;
        let target = self.clearing(to, || create(&to.0.dir, to.1, mode))?;
        self.contents(&source, &target, stat.size)?;
        self.describe
            .opened(source.as_fd(), target.as_fd(), &stat, Some(to.0.habit))?;
        if stat.nlink > 1 {
            self.links.insert(id, path.to_owned());
        }
        Ok(())
    }

    fn contents(&mut self, mut source: &File, mut target: &File, size: u64) -> io::Result<()> {
        if size > SMALL {
            return copy_data(source, target).map(drop);
        }
        self.buffer.resize(SMALL as usize, 0);
        let mut left = size as usize;
        while left > 0 {
            match source.read(&mut self.buffer[..left])? {
                0 => break,
                read => {
                    target.write_all(&self.buffer[..read])?;
                    left -= read;
                }
            }
        }
        Ok(())
    }

    /// Makes a name, in place of what has it if that may be replaced.
    fn clearing<T>(&self, to: (&Into, &OsStr), make: impl Fn() -> io::Result<T>) -> io::Result<T> {
        match make() {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made,
        }
        if !to.0.dir.lstat(to.1)?.is_dir() {
            to.0.dir.unlink(to.1)?;
        } else if self.always_replace {
            to.0.dir.remove_tree(to.1)?;
        } else {
            return Err(io::Error::new(
                io::ErrorKind::IsADirectory,
                "cannot replace a directory with a file",
            ));
        }
        make()
    }
}

fn create(dir: &Root, name: &OsStr, mode: u32) -> io::Result<File> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::openat(
        dir,
        name,
        flags,
        Mode::from_raw_mode(mode),
    )?))
}

fn not_a_directory() -> io::Error {
    io::Error::new(io::ErrorKind::NotADirectory, "cannot copy to non-directory")
}

fn changed() -> io::Error {
    io::Error::other("the file changed while it was copied")
}

fn copying(to: &Path) -> impl FnOnce(io::Error) -> Error {
    Error::io(format!("copying to {}", Path::new("/").join(to).display()))
}
