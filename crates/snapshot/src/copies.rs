//! The kind that needs neither mounts nor rights: trees are copied out, and what changed is
//! found by comparing. Slow, and it works anywhere. Trees to read are made of hard links.

pub(crate) mod change;
pub(crate) mod lay;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use stdx::sys::Root;

use crate::active::{Began, fs_of};
use crate::folder::{Folder, KeptLock};
use crate::{Active, Error, KeptId, LayerId, Result, Snapshotter, Tree, Usage};
use lay::Files;

/// Trees copied out in full.
pub struct Copies {
    folder: Arc<Folder>,
}

/// Gone when the tree that shows it is.
struct Scratch {
    folder: Arc<Folder>,
    dir: PathBuf,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.folder.discard(&self.dir);
    }
}

impl Copies {
    /// Opens the snapshots in `dir`.
    pub fn open(dir: impl AsRef<Path>) -> Result<Copies> {
        Ok(Copies {
            folder: Folder::open(dir.as_ref())?,
        })
    }

    /// Lays the layers into a directory, bottom first.
    fn lay(&self, lowers: &[LayerId], fs: &Path, files: Files) -> Result<()> {
        let to = open(fs)?;
        for layer in lowers {
            let from = self.folder.layer_fs(layer)?;
            lay::lay(&open(&from)?, &to, files).map_err(Error::io("copying", &from))?;
        }
        Ok(())
    }

    /// The layers as a tree of hard links, which nobody may write.
    fn linked(&self, lowers: &[LayerId]) -> Result<Tree> {
        let dir = self.folder.new_active()?;
        let scratch = Scratch {
            folder: Arc::clone(&self.folder),
            dir: dir.clone(),
        };
        self.lay(lowers, &fs_of(&dir), Files::Link)?;
        Ok(Tree::plain(open(&fs_of(&dir))?, true).holding(scratch))
    }

    fn active(
        &self,
        dir: PathBuf,
        lowers: &[LayerId],
        kept: Option<(KeptId, KeptLock)>,
    ) -> Result<Active> {
        let tree = Tree::plain(open(&fs_of(&dir))?, false);
        let (kept, tree) = match kept {
            Some((id, lock)) => (Some(id), tree.holding(lock)),
            None => (None, tree),
        };
        Ok(Active {
            folder: Arc::clone(&self.folder),
            began: began(&dir)?,
            dir,
            tree: Arc::new(tree),
            lowers: lowers.to_vec(),
            kept,
            takes_links: false,
            finished: false,
        })
    }

    /// Finds what changed and gives a directory with that alone.
    fn change(&self, active: &Active) -> Result<PathBuf> {
        let below = self.linked(&active.lowers)?;
        let dir = self.folder.new_active()?;
        let (now, change) = (open(&fs_of(&active.dir))?, open(&fs_of(&dir))?);
        let found = change::take(
            below.root(),
            &now,
            &change,
            active.began,
            self.marks_as_user(),
        );
        if let Err(error) = found {
            self.folder.discard(&dir);
            return Err(Error::io("comparing", &active.dir)(error));
        }
        Ok(dir)
    }
}

impl Snapshotter for Copies {
    fn kind(&self) -> &'static str {
        "native"
    }

    fn marks_as_user(&self) -> bool {
        !rustix::process::geteuid().is_root()
    }

    fn begin(&self, lowers: &[LayerId]) -> Result<Active> {
        let dir = self.folder.new_active()?;
        let laid = self.lay(lowers, &fs_of(&dir), Files::Copy);
        laid.and_then(|()| self.active(dir.clone(), lowers, None))
            .inspect_err(|_| self.folder.discard(&dir))
    }

    fn new_layer(&self) -> Result<Active> {
        self.begin(&[])
    }

    fn begin_kept(&self, lowers: &[LayerId], alone: bool) -> Result<Active> {
        let (id, dir) = self.folder.new_kept()?;
        let lock = KeptLock::take(&dir, &id, alone || !lowers.is_empty())?;
        let laid = self.lay(lowers, &fs_of(&dir), Files::Copy);
        laid.and_then(|()| self.active(dir.clone(), lowers, Some((id, lock))))
            .inspect_err(|_| self.folder.discard(&dir))
    }

    fn open_kept(&self, id: &KeptId, lowers: &[LayerId], alone: bool) -> Result<Active> {
        let dir = self.folder.kept_dir(id);
        let lock = KeptLock::take(&dir, id, alone || !lowers.is_empty())?;
        // What was copied when it began is there with its changes: nothing to lay.
        self.active(dir, lowers, Some((id.clone(), lock)))
    }

    fn remove_kept(&self, id: &KeptId) -> Result<()> {
        self.folder.remove_kept(id)
    }

    fn commit(&self, mut active: Active) -> Result<LayerId> {
        let layer = if active.lowers.is_empty() {
            let _ = std::fs::remove_file(active.dir.join("lock"));
            let layer = self.folder.publish(&active.dir)?;
            active.finished = true;
            layer
        } else {
            let change = self.change(&active)?;
            let layer = self.folder.publish(&change);
            layer.inspect_err(|_| self.folder.discard(&change))?
        };
        let dir = self.folder.layer_dir(&layer);
        let _ = std::fs::remove_file(dir.join(BEGAN));
        Ok(layer)
    }

    fn thaw(&self, layer: &LayerId) -> Result<KeptId> {
        self.folder.thaw(layer)
    }

    fn view(&self, lowers: &[LayerId]) -> Result<Arc<Tree>> {
        if lowers.is_empty() {
            return Ok(Arc::new(Tree::plain(open(&self.folder.empty())?, true)));
        }
        Ok(Arc::new(self.linked(lowers)?))
    }

    fn layer(&self, layer: &LayerId) -> Result<Arc<Tree>> {
        Ok(Arc::new(Tree::plain(
            open(&self.folder.layer_fs(layer)?)?,
            true,
        )))
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

/// A file beside `fs` whose time says when writing began.
const BEGAN: &str = "began";

/// Now, by the file system's own clock, which runs in steps of milliseconds.
fn began(dir: &Path) -> Result<Began> {
    let path = dir.join(BEGAN);
    std::fs::write(&path, "").map_err(Error::io("writing", &path))?;
    let stat = std::fs::metadata(&path).map_err(Error::io("reading", &path))?;
    Ok(Began(stat.ctime(), stat.ctime_nsec() as u32))
}

fn open(path: &Path) -> Result<Root> {
    Root::open(path).map_err(Error::io("opening", path))
}
