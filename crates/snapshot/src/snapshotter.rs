//! What every kind of snapshotter can do.

use std::sync::Arc;

use crate::{Active, KeptId, LayerId, Result, Tree, Usage};

/// Shows lists of layers as directory trees, and makes what was written into them layers.
/// Lists are given bottom first. All methods block.
pub trait Snapshotter: Send + Sync {
    /// `overlayfs` or `native`: what the worker's labels say (row D18).
    fn kind(&self) -> &'static str;

    /// Whether opaque directories are marked in `user.overlay.*`, because we may not write
    /// `trusted.*`. Then we may not make devices either.
    fn marks_as_user(&self) -> bool;

    /// A tree to write in that begins as `lowers` stacked. With none it begins empty.
    fn begin(&self, lowers: &[LayerId]) -> Result<Active>;

    /// An empty directory to put a change into in overlay form (`layer::apply` does), which
    /// [`Snapshotter::commit`] takes as it is.
    fn new_layer(&self) -> Result<Active>;

    /// Like [`Snapshotter::begin`], but what is written stays until [`Snapshotter::remove_kept`].
    /// `alone` says that nobody else may open it meanwhile; with layers that is always so.
    fn begin_kept(&self, lowers: &[LayerId], alone: bool) -> Result<Active>;

    /// Opens what [`Snapshotter::begin_kept`] began, with the same layers under it. `KeptInUse`
    /// when someone has it open, here or in another process, and one of both wants to be alone.
    fn open_kept(&self, id: &KeptId, lowers: &[LayerId], alone: bool) -> Result<Active>;

    /// Removes a kept directory nobody has open.
    fn remove_kept(&self, id: &KeptId) -> Result<()>;

    /// Makes what was written a layer, whole or not at all. Nothing must write any more.
    fn commit(&self, active: Active) -> Result<LayerId>;

    /// Makes a layer that began without lowers a kept directory again, in place. Whoever does this
    /// knows that nobody reads the layer.
    fn thaw(&self, layer: &LayerId) -> Result<KeptId>;

    /// `lowers` stacked, to read.
    fn view(&self, lowers: &[LayerId]) -> Result<Arc<Tree>>;

    /// The layer's own directory, in overlay form.
    fn layer(&self, layer: &LayerId) -> Result<Arc<Tree>>;

    /// Whether the layer is here.
    fn contains(&self, layer: &LayerId) -> bool;

    /// Removes a layer; one that is not here is no error. Trees that show it stay readable.
    fn remove(&self, layer: &LayerId) -> Result<()>;

    /// Disk the layer takes, counted to the last block.
    fn usage(&self, layer: &LayerId) -> Result<Usage>;

    /// Disk a kept directory takes.
    fn usage_of_kept(&self, id: &KeptId) -> Result<Usage>;

    /// Every layer.
    fn layers(&self) -> Result<Vec<LayerId>>;

    /// Every kept directory.
    fn kept(&self) -> Result<Vec<KeptId>>;

    /// Flushes the disk, so that all layers made before survive a power cut. Without it they
    /// survive a killed process but are dropped after a crash of the machine.
    fn sync(&self) -> Result<()>;

    /// Waits until everything that was dropped or removed is off the disk.
    fn settle(&self);
}
