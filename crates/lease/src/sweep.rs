//! Removing what nothing reaches.

use std::collections::HashSet;

use content::Store;
use db::{Db, Tx};
use snapshot::Snapshotter;

use crate::{Leases, Result, Thing};

/// Someone who keeps blobs and layers by having rows that point at them.
pub trait Roots: Send + Sync {
    /// Everything its rows point at, and what the given records point at.
    fn reached(&self, tx: &Tx<'_>) -> db::Result<Vec<Thing>>;
}

/// What a sweep removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Blobs.
    pub blobs: usize,
    /// Layers.
    pub layers: usize,
    /// Disk freed by the blobs.
    pub blob_bytes: u64,
}

/// Removes blobs and layers that no lease, pin or root reaches. Layers go out of the way at once
/// and off the disk soon after ([`Snapshotter::settle`] waits for it).
pub fn sweep(
    db: &Db,
    leases: &Leases,
    store: &Store,
    snapshots: &dyn Snapshotter,
    roots: &[&dyn Roots],
) -> Result<Swept> {
    leases.forget_departed()?;
    db.write(|tx| {
        let mut kept: HashSet<Thing> = leases.held(tx)?;
        for root in roots {
            kept.extend(root.reached(tx)?);
        }
        let mut swept = Swept::default();
        for digest in store.digests_on_disk()? {
            if !kept.contains(&Thing::Blob(digest)) {
                swept.blob_bytes += store.disk_usage(&digest);
                store.remove_in(tx, &digest)?;
                swept.blobs += 1;
            }
        }
        for layer in snapshots.layers()? {
            if !kept.contains(&Thing::Layer(layer.clone())) {
                snapshots.remove(&layer)?;
                swept.layers += 1;
            }
        }
        Ok(swept)
    })
}
