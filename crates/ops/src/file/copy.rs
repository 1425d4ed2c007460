//! The copy action (row L10): which paths are copied where, and which are unpacked instead.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use layer::{ApplyOptions, Devices, Whiteouts};
use llb::Copy;
use stdx::patterns::{Filter, clean};
use stdx::sys::{Root, Time};

use super::change::{make_dirs, set_times};
use super::describe::{Describe, failed, time};
use super::lent::{Lender, Lent};
use super::mode::Change;
use super::owner::Owner;
use super::walk::Walk;
use super::{Cancelled, inputs, wildcard};
use crate::{Error, Result};

/// Copies as the action says.
pub(super) fn copy(
    from: &Root,
    to: &Root,
    wanted: &Copy,
    owner: Option<Owner>,
    lender: Option<Lender<'_>>,
    cancelled: &Cancelled,
) -> Result<()> {
    let copying = Copying {
        from,
        lender,
        to,
        wanted,
        owner,
        mode: Change::of(&wanted.mode)?,
        time: wanted.timestamp.map(time),
        cancelled,
    };
    inputs::check_required(from, &wanted.required_paths)?;
    if !wanted.create_dest_path {
        let at = copying.dest()?;
        let parent = at.parent().unwrap_or(Path::new(""));
        to.lstat(parent)
            .map_err(failed("looking for the directory of", &wanted.dest))?;
    }
    let paths = match wanted.allow_wildcard {
        true => wildcard::matches(from, &wanted.src, wanted.follow_symlink)?,
        false => vec![PathBuf::from(&wanted.src)],
    };
    if paths.is_empty() && !wanted.allow_empty_wildcard {
        return Err(Error::NoMatch {
            pattern: wanted.src.clone(),
        });
    }
    for path in &paths {
        if !wanted.attempt_unpack || !copying.unpack(path)? {
            copying.one(path)?;
        }
    }
    Ok(())
}

struct Copying<'a> {
    from: &'a Root,
    /// Who lends the files of directories in `from`, if somebody does.
    lender: Option<Lender<'a>>,
    to: &'a Root,
    wanted: &'a Copy,
    owner: Option<Owner>,
    mode: Change,
    time: Option<Time>,
    cancelled: &'a Cancelled,
}

impl Copying<'_> {
    /// The place the destination stands for, all links in it followed.
    fn dest(&self) -> Result<PathBuf> {
        let dest = clean(&format!("/{}", self.wanted.dest));
        self.to
            .canonical(dest)
            .map_err(failed("resolving", &self.wanted.dest))
    }

    /// Makes the directories on the way, and gives those that were missing.
    fn make_dirs(&self, at: &Path, mode: u32) -> Result<Vec<PathBuf>> {
        let made = make_dirs(self.to, at, mode, self.owner, self.time);
        made.map_err(failed("making the directory of", &self.wanted.dest))
    }

    /// Copies one path, a directory with what is in it.
    fn one(&self, path: &Path) -> Result<()> {
        let shown = self.shown(path);
        let from = wildcard::resolve(self.from, path, self.wanted.follow_symlink)
            .map_err(failed("resolving", &shown))?;
        let stat = match from.as_os_str().is_empty() {
            true => self.from.stat("."),
            false => self.from.lstat(&from),
        };
        let stat = stat.map_err(failed("looking for", &shown))?;
        let mode = self.mode.of_parents();
        let mut made = self.make_dirs(&self.above()?, mode)?;
        let mut to = self.dest()?;
        let there = self.there(&to)?;
        let into = match there {
            Some(_) if stat.is_dir() => !self.wanted.dir_copy_contents,
            Some(is_dir) => is_dir,
            None => false,
        };
        if into && let Some(name) = name(path) {
            to.push(name);
        }
        let contents_only = self.wanted.dir_copy_contents && stat.is_dir() && there.is_none();
        let wanted = if contents_only {
            to.as_path()
        } else {
            to.parent().unwrap_or(Path::new(""))
        };
        made.extend(self.make_dirs(wanted, mode)?);
        let describe = Describe::new(self.owner, self.mode.clone(), self.time);
        let lent = match &self.lender {
            Some(lender) if stat.is_dir() => lender.lend(&from, &to)?,
            _ => None,
        };
        let mut walk = Walk {
            from: lent.as_ref().map_or(self.from, Lent::root),
            lent: lent.as_ref(),
            to: self.to,
            describe,
            filter: Filter::new(&self.wanted.include, &self.wanted.exclude)
                .map_err(|error| Error::Invalid(error.to_string()))?,
            always_replace: self.wanted.always_replace,
            cancelled: self.cancelled,
            links: Default::default(),
            meets_names: false,
            buffer: Vec::new(),
        };
        walk.copy(&from, &to, &stat)?;
        set_times(self.to, &made, self.time)
            .map_err(failed("setting times above", &self.wanted.dest))
    }

    /// The directory that has to be there before the destination is looked at.
    fn above(&self) -> Result<PathBuf> {
        let dest = &self.wanted.dest;
        let dir = match dest.rsplit_once('/') {
            _ if dest.is_empty() || dest.ends_with('/') || dest.ends_with("/.") || dest == "." => {
                dest
            }
            Some((dir, _)) => dir,
            None => "",
        };
        self.to
            .canonical(clean(&format!("/{dir}")))
            .map_err(failed("resolving", dest))
    }

    /// Whether the destination is a directory, if it is there.
    fn there(&self, to: &Path) -> Result<Option<bool>> {
        if to.as_os_str().is_empty() {
            return Ok(Some(true));
        }
        match self.to.lstat(to) {
            Ok(stat) => Ok(Some(stat.is_dir())),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(failed("looking at", &self.wanted.dest)(error)),
        }
    }

    /// Unpacks the path into the destination if it is an archive (row F26).
    fn unpack(&self, path: &Path) -> Result<bool> {
        let shown = self.shown(path);
        let Ok(from) = self.from.canonical(Path::new("/").join(path)) else {
            return Ok(false);
        };
        let is_file = self.from.lstat(&from).is_ok_and(|stat| stat.is_file());
        if !is_file
            || !is_archive(
                self.from
                    .open_file(&from)
                    .map_err(failed("reading", &shown))?,
            )
        {
            return Ok(false);
        }
        let to = self.dest()?;
        self.make_dirs(&to, 0o755)?;
        let at = if to.as_os_str().is_empty() {
            Path::new(".")
        } else {
            &to
        };
        let dir = self
            .to
            .open_dir_nofollow(at)
            .map_err(failed("opening", &self.wanted.dest))?;
        let archive = self
            .from
            .open_file(&from)
            .map_err(failed("reading", &shown))?;
        let options = ApplyOptions {
            whiteouts: Whiteouts::Literal,
            devices: Devices::Create,
            owner: self.owner,
            keep_our_owner: false,
        };
        let archive = Stoppable(archive, self.cancelled);
        layer::apply(archive, &dir, &options).map_err(|source| Error::Unpack {
            path: shown,
            source,
        })?;
        Ok(true)
    }

    /// A source path as people know it.
    fn shown(&self, path: &Path) -> String {
        match Path::new(&self.wanted.src).file_name() == path.file_name() {
            true => self.wanted.src.clone(),
            false => Path::new("/").join(path).display().to_string(),
        }
    }
}

/// The name a path is copied under; none if it means what is in a directory.
fn name(path: &Path) -> Option<&OsStr> {
    let contents = path.as_os_str() == "." || path.as_os_str().as_bytes().ends_with(b"/.");
    path.file_name().filter(|_| !contents)
}

/// Whether the file begins with an entry of a tar, compressed or not.
fn is_archive(file: File) -> bool {
    let Ok((bytes, _)) = layer::decompress(file) else {
        return false;
    };
    matches!(layer::tar::Reader::new(bytes).entry(), Ok(Some(_)))
}

/// Stops in the middle of an archive when nobody waits for it any more.
struct Stoppable<'a>(File, &'a Cancelled);

impl Read for Stoppable<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.1.check().map_err(io::Error::other)?;
        self.0.read(into)
    }
}
