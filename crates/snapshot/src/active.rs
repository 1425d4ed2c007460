//! A directory state being written.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use stdx::sys::Root;

use crate::folder::Folder;
use crate::{Error, KeptId, LayerId, Result, Tree};

/// A directory state being written. [`crate::Snapshotter::commit`] makes it a layer; dropped
/// before that, a kept one stays as it is and any other is gone.
pub struct Active {
    pub(crate) folder: Arc<Folder>,
    /// The directory that holds `fs` and whatever the kind needs beside it.
    pub(crate) dir: PathBuf,
    /// The change itself is in `dir/fs` (overlay), or the whole tree is (copies).
    pub(crate) tree: Arc<Tree>,
    pub(crate) lowers: Vec<LayerId>,
    pub(crate) kept: Option<KeptId>,
    pub(crate) began: Began,
    /// Whether `dir/fs` holds only the change and is on the file system of the layers.
    pub(crate) takes_links: bool,
    pub(crate) finished: bool,
}

/// When writing began, by the file system's own clock (`ctime` of the directory).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Began(pub(crate) i64, pub(crate) u32);

impl Active {
    /// The tree to write in. Let go of it before committing.
    pub fn tree(&self) -> &Arc<Tree> {
        &self.tree
    }

    /// The layers it began with, bottom first.
    pub fn lowers(&self) -> &[LayerId] {
        &self.lowers
    }

    /// The directory that becomes the layer, in overlay form, for files to be linked into it from
    /// other layers; `None` where the kind cannot take any. What is put there must not be looked
    /// for in the tree any more: that may be a mount, which is not told of it. A directory is in
    /// there once it was made or changed in the tree.
    pub fn change(&self) -> Result<Option<Root>> {
        if !self.takes_links {
            return Ok(None);
        }
        let fs = fs_of(&self.dir);
        Ok(Some(Root::open(&fs).map_err(Error::io("opening", &fs))?))
    }

    /// Its name, when it stays after being dropped.
    pub fn kept(&self) -> Option<&KeptId> {
        self.kept.as_ref()
    }
}

pub(crate) fn fs_of(dir: &Path) -> PathBuf {
    dir.join("fs")
}

impl Drop for Active {
    fn drop(&mut self) {
        if !self.finished && self.kept.is_none() {
            self.folder.discard(&self.dir);
        }
    }
}
