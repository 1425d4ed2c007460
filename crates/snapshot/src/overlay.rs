//! The kind that mounts: layers stacked by overlayfs. Beginning and committing cost two
//! directories and a mount, whatever the size of what lies below.

mod mount;
mod unchanged;

use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Gid, Mode, Uid};
use stdx::sys::Root;

use crate::active::{Began, fs_of};
use crate::folder::{Folder, KeptLock};
use crate::{Active, Error, KeptId, LayerId, Result, Snapshotter, Tree, Usage};
use mount::{Stack, Upper};

/// Layers stacked by overlayfs.
pub struct Overlay {
    folder: Arc<Folder>,
    stack: Stack,
}

impl Overlay {
    /// Opens the snapshots in `dir`. Fails when overlayfs does not work there: no right to mount,
    /// a kernel without it, a file system it cannot write on.
    pub fn open(dir: impl AsRef<Path>) -> Result<Overlay> {
        let folder = Folder::open(dir.as_ref())?;
        let stack = Stack::probe(&folder)?;
        Ok(Overlay { folder, stack })
    }

    /// Mounts as on kernels that know neither `lowerdir+` nor overlays over detached mounts, and
    /// cannot copy these.
    #[doc(hidden)]
    pub fn open_as_on_old_kernels(dir: impl AsRef<Path>) -> Result<Overlay> {
        let mut overlay = Overlay::open(dir)?;
        overlay.stack.pretend_old_kernel();
        Ok(overlay)
    }

    fn tree_of(&self, dir: &Path, lowers: &[LayerId]) -> Result<Tree> {
        let fs = fs_of(dir);
        if lowers.is_empty() {
            let root = Root::open(&fs).map_err(Error::io("opening", &fs))?;
            return Ok(Tree::plain(root, false));
        }
        let paths = lowers
            .iter()
            .map(|layer| self.folder.layer_fs(layer))
            .collect::<Result<Vec<_>>>()?;
        let top = paths.last().expect("not empty");
        inherit_root(top, &fs).map_err(Error::io("setting owner and mode of", &fs))?;
        // A fresh one for each mount: a `volatile` overlay refuses a used one.
        let work = dir.join("work");
        let root = Root::open(dir).map_err(Error::io("opening", dir))?;
        root.remove_tree("work")
            .map_err(Error::io("removing", &work))?;
        std::fs::create_dir(&work).map_err(Error::io("making", &work))?;
        let upper = Upper { fs, work };
        self.stack.mount(&self.folder, &paths, Some(&upper))
    }

    fn active(
        &self,
        dir: std::path::PathBuf,
        lowers: &[LayerId],
        kept: Option<(KeptId, KeptLock)>,
    ) -> Result<Active> {
        let tree = self.tree_of(&dir, lowers)?;
        let (kept, tree) = match kept {
            Some((id, lock)) => (Some(id), tree.holding(lock)),
            None => (None, tree),
        };
        let is_kept = kept.is_some();
        Ok(Active {
            folder: Arc::clone(&self.folder),
            dir,
            tree: Arc::new(tree),
            lowers: lowers.to_vec(),
            kept,
            began: Began::default(),
            takes_links: !is_kept,
            finished: false,
        })
    }
}

impl Overlay {
    fn drop_unchanged(&self, active: &Active) -> Result<()> {
        let fs = fs_of(&active.dir);
        let lowers = active.lowers.iter().rev().map(|layer| {
            let fs = self.folder.layer_fs(layer)?;
            Root::open(&fs).map_err(Error::io("opening", &fs))
        });
        let lowers = lowers.collect::<Result<Vec<_>>>()?;
        Root::open(&fs)
            .and_then(|upper| {
                for path in active.tree.restored() {
                    unchanged::drop_restored(&upper, &lowers, &path)?;
                }
                unchanged::drop_unchanged(&upper, &lowers)
            })
            .map_err(Error::io("tidying", &fs))
    }
}

impl Snapshotter for Overlay {
    fn kind(&self) -> &'static str {
        "overlayfs"
    }

    fn marks_as_user(&self) -> bool {
        self.stack.marks_as_user()
    }

    fn begin(&self, lowers: &[LayerId]) -> Result<Active> {
        let dir = self.folder.new_active()?;
        self.active(dir.clone(), lowers, None)
            .inspect_err(|_| self.folder.discard(&dir))
    }

    fn new_layer(&self) -> Result<Active> {
        self.begin(&[])
    }

    fn begin_kept(&self, lowers: &[LayerId], alone: bool) -> Result<Active> {
        let (id, dir) = self.folder.new_kept()?;
        let lock = KeptLock::take(&dir, &id, alone || !lowers.is_empty())?;
        self.active(dir.clone(), lowers, Some((id, lock)))
            .inspect_err(|_| self.folder.discard(&dir))
    }

    fn open_kept(&self, id: &KeptId, lowers: &[LayerId], alone: bool) -> Result<Active> {
        let dir = self.folder.kept_dir(id);
        let lock = KeptLock::take(&dir, id, alone || !lowers.is_empty())?;
        self.active(dir, lowers, Some((id.clone(), lock)))
    }

    fn remove_kept(&self, id: &KeptId) -> Result<()> {
        self.folder.remove_kept(id)
    }

    fn commit(&self, mut active: Active) -> Result<LayerId> {
        if !active.lowers.is_empty() {
            self.drop_unchanged(&active)?;
        }
        let layer = self.folder.publish(&active.dir)?;
        active.finished = true;
        let dir = self.folder.layer_dir(&layer);
        // The lock of a kept directory and the overlay's scratch have done their work. Scratch has
        // a directory or two in it, which is not worth a trip through the trash.
        let _ = std::fs::remove_file(dir.join("lock"));
        if !active.lowers.is_empty() {
            let tidy = Root::open(&dir).and_then(|root| root.remove_tree("work"));
            tidy.map_err(Error::io("tidying", &dir))?;
        }
        Ok(layer)
    }

    fn thaw(&self, layer: &LayerId) -> Result<KeptId> {
        self.folder.thaw(layer)
    }

    fn view(&self, lowers: &[LayerId]) -> Result<Arc<Tree>> {
        let mut paths = lowers
            .iter()
            .map(|layer| self.folder.layer_fs(layer))
            .collect::<Result<Vec<_>>>()?;
        if paths.is_empty() {
            let empty = self.folder.empty();
            let root = Root::open(&empty).map_err(Error::io("opening", &empty))?;
            return Ok(Arc::new(Tree::plain(root, true)));
        }
        if paths.len() == 1 {
            // Overlayfs wants two to stack, and a layer alone may have whiteouts to hide.
            paths.insert(0, self.folder.empty());
        }
        Ok(Arc::new(self.stack.mount(&self.folder, &paths, None)?))
    }

    fn layer(&self, layer: &LayerId) -> Result<Arc<Tree>> {
        let fs = self.folder.layer_fs(layer)?;
        let root = Root::open(&fs).map_err(Error::io("opening", &fs))?;
        Ok(Arc::new(Tree::plain(root, true)))
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

/// The root directory of an overlay is the upper one, so it must look like the one below.
fn inherit_root(lower: &Path, upper: &Path) -> std::io::Result<()> {
    let stat = rustix::fs::stat(lower)?;
    let own = rustix::fs::stat(upper)?;
    if (stat.st_uid, stat.st_gid) != (own.st_uid, own.st_gid) {
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        rustix::fs::chown(upper, Some(uid), Some(gid))?;
    }
    if stat.st_mode != own.st_mode {
        rustix::fs::chmod(upper, Mode::from_raw_mode(stat.st_mode))?;
    }
    Ok(())
}
