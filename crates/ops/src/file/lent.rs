//! Files that are linked into the layer instead of copied ([`refs::Ref::lend`]).

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::sync::Arc;

use refs::{MutableRef, Ref};
use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;
use snapshot::Tree;
use stdx::sys::{Root, Stat};

use crate::Result;

/// Who may lend, and to whom.
pub(super) struct Lender<'a> {
    pub(super) from: &'a Ref,
    /// Made final as soon as the copy is done: nobody looks into its tree meanwhile.
    pub(super) to: &'a MutableRef,
}

/// Files lent for one copy.
pub(super) struct Lent {
    files: Arc<Tree>,
    change: Root,
}

/// A directory that is copied into, as it is in the layer.
pub(super) struct Beneath {
    dir: Root,
    /// Names that are taken, perhaps by something below the layer.
    taken: HashSet<OsString>,
}

impl Lender<'_> {
    /// What the directory `from` lends to the directory `to`.
    pub(super) fn lend(&self, from: &Path, to: &Path) -> Result<Option<Lent>> {
        let Some(change) = self.to.change()? else {
            return Ok(None);
        };
        let files = self.from.lend(from, to, self.to)?;
        Ok(files.map(|files| Lent { files, change }))
    }
}

impl Lent {
    /// The directory the files are in.
    pub(super) fn root(&self) -> &Root {
        self.files.root()
    }

    /// The directory `at` of the target, which is there and open as `dir`.
    pub(super) fn beneath(&self, at: &Path, dir: &Root, is_new: bool) -> io::Result<Beneath> {
        Beneath::open(&self.change, at, dir, is_new)
    }
}

impl Beneath {
    fn open(change: &Root, at: &Path, dir: &Root, is_new: bool) -> io::Result<Beneath> {
        let opened = match change.open_dir_nofollow(at) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Of a lower layer. Any change brings it into this one.
                let mode = Stat::from(rustix::fs::fstat(dir)?).mode;
                rustix::fs::fchmod(dir, Mode::from_raw_mode(mode))?;
                change.open_dir_nofollow(at)
            }
            opened => opened,
        };
        let taken = match is_new {
            true => HashSet::new(),
            false => dir
                .read_dir(".")?
                .into_iter()
                .map(|entry| entry.name)
                .collect(),
        };
        Ok(Beneath {
            dir: opened?,
            taken,
        })
    }

    /// A directory in it.
    pub(super) fn child(&self, name: &OsStr, dir: &Root, is_new: bool) -> io::Result<Beneath> {
        Beneath::open(&self.dir, Path::new(name), dir, is_new)
    }

    /// Whether nothing is in the way of anything.
    pub(super) fn is_free(&self) -> bool {
        self.taken.is_empty()
    }

    /// Whether a name is taken.
    pub(super) fn is_taken(&self, name: &OsStr) -> bool {
        self.taken.contains(name)
    }

    /// Links a file here. Tells whether that was done; otherwise it has to be copied, which also
    /// finds out what is wrong, if something is.
    pub(super) fn link(&self, from: (&Root, &OsStr), name: &OsStr) -> io::Result<bool> {
        match rustix::fs::linkat(from.0, from.1, &self.dir, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            // Too many names already, or the mark of something removed is in the way.
            Err(Errno::MLINK | Errno::EXIST | Errno::XDEV | Errno::PERM) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
