//! Names in a tar that stand for the lack of one (`.wh.name`, `.wh..wh..opq`).

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use stdx::sys::Root;

use super::entry::WHITEOUT;
use super::settle::opaque_name;
use super::{Applying, Whiteouts};
use crate::{Error, Result};

/// Notes AUFS left in its layers; nobody wants them.
const AUFS: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

impl Applying<'_> {
    pub(super) fn whiteout(&mut self, path: &Path, name: &OsStr) -> Result<()> {
        let parent_path = path.parent().unwrap_or(Path::new(""));
        if name.as_bytes() == OPAQUE {
            return self.opaque(parent_path);
        }
        if name.as_bytes().starts_with(AUFS) {
            return Ok(());
        }
        let hidden = OsStr::from_bytes(&name.as_bytes()[WHITEOUT.len()..]);
        if hidden.is_empty() || hidden == "." || hidden == ".." {
            return Err(Error::Whiteout {
                path: path.display().to_string(),
            });
        }
        let hidden_path = parent_path.join(hidden);
        if self.options.whiteouts == Whiteouts::Remove {
            return self.remove_below(&hidden_path);
        }
        let parent = self.parent_of(path)?;
        let failed = || Error::file("whiting out", &hidden_path);
        match parent.lstat(hidden) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                parent.whiteout(hidden).map_err(failed())?;
            }
            // Both in one layer: what is below goes, what this layer brings stays.
            Ok(stat) if stat.is_dir() => {
                self.mark_opaque(&parent, Path::new(hidden))
                    .map_err(failed())?;
            }
            Ok(_) => {}
            Err(error) => return Err(failed()(error)),
        }
        self.parent = Some((parent_path.to_owned(), parent));
        Ok(())
    }

    fn opaque(&mut self, dir: &Path) -> Result<()> {
        if self.options.whiteouts == Whiteouts::Remove {
            return self.empty_below(dir);
        }
        if dir.as_os_str().is_empty() {
            self.opaque_root = true;
            return Ok(());
        }
        let parent = self.parent_of(&dir.join("x"))?;
        let marked = self.mark_opaque(&parent, Path::new(""));
        self.parent = Some((dir.to_owned(), parent));
        marked.map_err(Error::file("marking", dir))
    }

    pub(super) fn mark_opaque(&self, parent: &Root, name: &Path) -> io::Result<()> {
        match self.options.whiteouts {
            Whiteouts::Overlay(namespace) => parent.set_xattr(name, opaque_name(namespace), b"y"),
            Whiteouts::Remove | Whiteouts::Literal => Ok(()),
        }
    }

    fn remove_below(&mut self, path: &Path) -> Result<()> {
        if self.made.iter().any(|made| made.starts_with(path)) {
            return match self.root.lstat(path) {
                Ok(stat) if stat.is_dir() => self.empty_below(path),
                _ => Ok(()),
            };
        }
        self.parent = None;
        self.root
            .remove_tree(path)
            .map_err(Error::file("removing", path))
    }

    /// Removes what this layer did not bring itself.
    fn empty_below(&mut self, dir: &Path) -> Result<()> {
        self.parent = None;
        let entries = match self.root.read_dir(dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Error::file("reading", dir)(error)),
        };
        for entry in entries {
            self.remove_below(&dir.join(entry.name))?;
        }
        Ok(())
    }
}
