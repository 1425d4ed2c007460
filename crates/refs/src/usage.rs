//! How much disk, by whom. Everything counted is counted once: what several records share
//! belongs to the oldest of them, so that the sum is what is on disk.

use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

use lease::Thing;
use snapshot::LayerId;

use crate::record::{Record, Shape};
use crate::{Filter, RecordType, Refs, Result};

/// One record, as people and clients see it (row A10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageRecord {
    /// Its name.
    pub id: String,
    /// Whether it stays writable.
    pub mutable: bool,
    /// Whether a build has it now.
    pub in_use: bool,
    /// Bytes on disk that are its own.
    pub size: u64,
    /// What it is nothing without.
    pub parents: Vec<String>,
    /// When it was made.
    pub created: SystemTime,
    /// When it was last used, if ever.
    pub last_used: Option<SystemTime>,
    /// How often.
    pub usage_count: u64,
    /// What made it.
    pub description: String,
    /// What it is for.
    pub record_type: RecordType,
    /// Whether another store has it too.
    pub shared: bool,
}

/// What a record has on disk.
#[derive(Default)]
struct Own {
    layers: Vec<LayerId>,
    blobs: Vec<oci::Digest>,
}

impl Refs {
    /// All records a filter means, oldest first. Counts what was not counted before.
    pub fn usage(&self, filter: &Filter) -> Result<Vec<UsageRecord>> {
        self.write_uses()?;
        self.0.parts.leases.forget_departed()?;
        let (records, held) = self.0.parts.db.write(|tx| -> Result<_> {
            let held = self.0.parts.leases.held(tx)?;
            let records = Record::all(tx)?;
            let with_parents = records.into_iter().map(|record| {
                let mut parents = Record::inputs(tx, &record.id)?;
                parents.extend(record.parent.clone());
                Ok((record, parents))
            });
            Ok((with_parents.collect::<Result<Vec<_>>>()?, held))
        })?;
        let mut own = self.own()?;
        let mut counted = HashSet::new();
        let mut usage = Vec::with_capacity(records.len());
        for (record, parents) in records {
            let own = own.remove(&record.id).unwrap_or_default();
            let in_use = held.contains(&Thing::Record(record.id.clone()));
            let size = self.size(&record, own, &mut counted);
            usage.push(UsageRecord {
                mutable: record.shape == Shape::Kept,
                in_use,
                size,
                parents,
                created: record.created,
                last_used: record.last_used,
                usage_count: record.uses,
                description: record.description,
                record_type: record.record_type,
                shared: false,
                id: record.id,
            });
        }
        usage.retain(|record| filter.matches(record));
        Ok(usage)
    }

    /// Layers and blobs of each record, in a few queries.
    fn own(&self) -> Result<HashMap<String, Own>> {
        let mut own: HashMap<String, Own> = HashMap::new();
        self.0.parts.db.read(|tx| -> Result<()> {
            let pair = |row: &db::Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?));
            let sql = "SELECT r.id, l.layer FROM refs_records r JOIN refs_links l ON l.n = r.link WHERE l.layer NOT NULL \
                       UNION ALL SELECT r.id, l.skeleton FROM refs_records r JOIN refs_links l ON l.n = r.link WHERE l.skeleton NOT NULL \
                       UNION ALL SELECT r.id, l.unveiled FROM refs_records r JOIN refs_links l ON l.n = r.link WHERE l.unveiled NOT NULL";
            for (id, layer) in tx.rows(sql, [], pair)? {
                own.entry(id).or_default().layers.extend(layer.parse::<LayerId>());
            }
            let sql = "SELECT r.id, b.digest FROM refs_records r JOIN refs_blobs b ON b.link = r.link \
                       UNION ALL SELECT record, digest FROM refs_attached";
            for (id, digest) in tx.rows(sql, [], pair)? {
                own.entry(id).or_default().blobs.extend(digest.parse::<oci::Digest>());
            }
            Ok(())
        })?;
        Ok(own)
    }

    fn size(&self, record: &Record, own: Own, counted: &mut HashSet<Thing>) -> u64 {
        let mut size = 0;
        for layer in own.layers {
            if counted.insert(Thing::Layer(layer.clone())) {
                size += self.layer_size(&layer).unwrap_or(0);
            }
        }
        for digest in own.blobs {
            if counted.insert(Thing::Blob(digest)) {
                size += self.0.parts.store.disk_usage(&digest);
            }
        }
        if let Some(kept) = &record.kept {
            size += self
                .0
                .parts
                .snapshots
                .usage_of_kept(kept)
                .map_or(0, |usage| usage.bytes);
        }
        size
    }

    /// A layer never changes, so it is counted once in its life.
    fn layer_size(&self, layer: &LayerId) -> Result<u64> {
        let sql = "SELECT size FROM refs_links WHERE layer = ?1 AND size NOT NULL LIMIT 1";
        let known = self
            .0
            .parts
            .db
            .read(|tx| tx.row(sql, [layer.as_str()], |row| row.get::<_, i64>(0)))?;
        if let Some(known) = known {
            return Ok(known as u64);
        }
        let size = self.0.parts.snapshots.usage(layer)?.bytes;
        let sql = "UPDATE refs_links SET size = ?2 WHERE layer = ?1";
        self.0
            .parts
            .db
            .write(|tx| tx.execute(sql, db::params![layer.as_str(), size as i64]))?;
        Ok(size)
    }
}
