//! What a crash, a lost disk or a lost database may have left: rows without their directories,
//! directories without their rows. Damage becomes a cache miss, never a failed build (Z3).

use std::collections::HashSet;

use lease::Thing;
use snapshot::{KeptId, LayerId};

use crate::record::{Link, Record, Shape, remove_unused_links};
use crate::{Refs, Result};

impl Refs {
    /// Brings rows and disk into step. Sees only what no living process holds as lost.
    pub(crate) fn repair(&self) -> Result<()> {
        self.0.parts.leases.forget_departed()?;
        let removed = self.0.parts.db.write(|tx| -> Result<usize> {
            let layers: HashSet<LayerId> = self.0.parts.snapshots.layers()?.into_iter().collect();
            let kept: HashSet<KeptId> = self.0.parts.snapshots.kept()?.into_iter().collect();
            let blobs: HashSet<_> = self.0.parts.store.digests_on_disk()?.into_iter().collect();
            for column in ["skeleton", "unveiled"] {
                let sql = format!("SELECT DISTINCT {column} FROM refs_links WHERE {column} NOT NULL AND {column} != ''");
                for text in tx.rows(&sql, [], |row| row.get::<_, String>(0))? {
                    if text.parse().is_ok_and(|layer| !layers.contains(&layer)) {
                        let sql = format!("UPDATE refs_links SET {column} = NULL WHERE {column} = ?1");
                        tx.execute(&sql, [&text])?;
                    }
                }
            }
            let mut dead = Vec::new();
            let records = Record::all(tx)?;
            for record in &records {
                let alive = match (record.shape, record.link) {
                    (Shape::Kept, _) => record.kept.as_ref().is_some_and(|id| kept.contains(id)),
                    (Shape::Layer, Some(n)) => {
                        let link = Link::get(tx, n)?;
                        let layer = link.and_then(|link| link.layer);
                        let on_disk = layer.as_ref().is_some_and(|layer| layers.contains(layer));
                        if layer.is_some() && !on_disk {
                            tx.execute("UPDATE refs_links SET layer = NULL, settled_on = NULL, size = NULL, shared = NULL WHERE n = ?1", [n])?;
                        }
                        on_disk || Link::blobs(tx, n)?.iter().any(|b| b.from_outside || blobs.contains(&b.descriptor.digest))
                    }
                    (Shape::Layer, None) => false,
                    // Others are made again from what they were made of.
                    (Shape::Diff, Some(n)) => {
                        let layer = Link::get(tx, n)?.and_then(|link| link.layer);
                        if layer.is_some_and(|layer| !layers.contains(&layer)) {
                            tx.execute("UPDATE refs_links SET layer = NULL, size = NULL, shared = NULL WHERE n = ?1", [n])?;
                        }
                        true
                    }
                    _ => true,
                };
                if !alive {
                    dead.push(record.id.clone());
                }
            }
            let ours: HashSet<&KeptId> = records.iter().filter_map(|r| r.kept.as_ref()).collect();
            for id in kept.iter().filter(|id| !ours.contains(id)) {
                // In use means someone will yet write its row.
                let _ = self.0.parts.snapshots.remove_kept(id);
            }
            self.remove_with_children(tx, dead)
        })?;
        if removed > 0 {
            tracing::warn!(
                removed,
                "dropped records whose files are lost; their steps will run again"
            );
        }
        Ok(())
    }

    /// Removes records and everything built on them, but for what living processes hold.
    fn remove_with_children(&self, tx: &db::Tx<'_>, dead: Vec<String>) -> Result<usize> {
        let held = self.0.parts.leases.held(tx)?;
        let mut order = Vec::new();
        let mut todo = dead;
        let mut seen = HashSet::new();
        while let Some(id) = todo.pop() {
            if seen.insert(id.clone()) {
                todo.extend(Record::children(tx, &id)?);
                order.push(id);
            }
        }
        let mut removed = 0;
        // Children before parents: whoever still has a child when its turn comes is looked at again.
        loop {
            let before = order.len();
            let mut left = Vec::new();
            for id in order {
                if held.contains(&Thing::Record(id.clone()))
                    || !Record::children(tx, &id)?.is_empty()
                {
                    left.push(id);
                } else {
                    Record::remove(tx, &id)?;
                    removed += 1;
                }
            }
            order = left;
            if order.is_empty() || order.len() == before {
                break;
            }
        }
        remove_unused_links(tx)?;
        Ok(removed)
    }
}
