//! The kind that needs neither mounts nor rights: trees are copied out, and what changed is
//! found by comparing. Slow, and it works anywhere.

use std::path::Path;
use std::sync::Arc;

use crate::folder::Folder;
use crate::{Active, KeptId, LayerId, Result, Snapshotter, Tree, Usage};

/// Trees copied out in full.
pub struct Copies {
    folder: Arc<Folder>,
}

impl Copies {
    /// Opens the snapshots in `dir`.
    pub fn open(dir: impl AsRef<Path>) -> Result<Copies> {
        Ok(Copies {
            folder: Folder::open(dir.as_ref())?,
        })
    }
}

impl Snapshotter for Copies {
    fn kind(&self) -> &'static str {
        "native"
    }
    fn marks_as_user(&self) -> bool {
        !rustix::process::geteuid().is_root()
    }
    fn begin(&self, _lowers: &[LayerId]) -> Result<Active> {
        todo!()
    }
    fn new_layer(&self) -> Result<Active> {
        todo!()
    }
    fn begin_kept(&self, _lowers: &[LayerId], _alone: bool) -> Result<Active> {
        todo!()
    }
    fn open_kept(&self, _id: &KeptId, _lowers: &[LayerId], _alone: bool) -> Result<Active> {
        todo!()
    }
    fn remove_kept(&self, id: &KeptId) -> Result<()> {
        self.folder.remove_kept(id)
    }
    fn commit(&self, _active: Active) -> Result<LayerId> {
        todo!()
    }
    fn thaw(&self, layer: &LayerId) -> Result<KeptId> {
        self.folder.thaw(layer)
    }
    fn view(&self, _lowers: &[LayerId]) -> Result<Arc<Tree>> {
        todo!()
    }
    fn layer(&self, _layer: &LayerId) -> Result<Arc<Tree>> {
        todo!()
    }
    fn contains(&self, layer: &LayerId) -> bool {
        self.folder.contains(layer)
    }
    fn remove(&self, layer: &LayerId) -> Result<()> {
        self.folder.remove(layer)
    }
    fn usage(&self, layer: &LayerId) -> Result<Usage> {
        self.folder.usage(layer)
    }
    fn usage_of_kept(&self, id: &KeptId) -> Result<Usage> {
        self.folder.usage_of_kept(id)
    }
    fn layers(&self) -> Result<Vec<LayerId>> {
        self.folder.layers()
    }
    fn kept(&self) -> Result<Vec<KeptId>> {
        self.folder.kept()
    }
    fn sync(&self) -> Result<()> {
        self.folder.sync()
    }
    fn settle(&self) {
        self.folder.settle();
    }
}
