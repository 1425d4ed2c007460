//! How much disk, by whom. Everything counted is counted once: what several records share
//! belongs to the oldest of them, so that the sum is what is on disk.

use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

use lease::Thing;
use snapshot::{LayerId, SharedFile, Usage};

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

/// What was counted for a record already.
#[derive(Default)]
struct Counted {
    things: HashSet<Thing>,
    /// Inodes of files that several layers share.
    files: HashSet<u64>,
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
        let mut counted = Counted::default();
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

    fn size(&self, record: &Record, own: Own, counted: &mut Counted) -> u64 {
        let mut size = 0;
        for layer in own.layers {
            if counted.things.insert(Thing::Layer(layer.clone())) {
                let usage = self.layer_usage(record, &layer).unwrap_or_default();
                size += counted.new_bytes(&usage);
            }
        }
        for digest in own.blobs {
            if counted.things.insert(Thing::Blob(digest)) {
                size += self.0.parts.store.disk_usage(&digest);
            }
        }
        if let Some(kept) = &record.kept {
            let usage = self.0.parts.snapshots.usage_of_kept(kept);
            size += counted.new_bytes(&usage.unwrap_or_default());
        }
        size
    }

    /// A layer never changes, so it is counted once in its life, or once after it lent files: those
    /// it shares from then on.
    fn layer_usage(&self, record: &Record, layer: &LayerId) -> Result<Usage> {
        let db = &self.0.parts.db;
        let sql = "SELECT size, shared FROM refs_links WHERE layer = ?1 AND size NOT NULL LIMIT 1";
        let known = db.read(|tx| {
            tx.row(sql, [layer.as_str()], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, Option<Vec<u8>>>(1)?))
            })
        })?;
        if let Some((bytes, shared)) = known {
            return Ok(Usage {
                bytes: bytes as u64,
                shared: unpacked(&shared.unwrap_or_default()),
                ..Usage::default()
            });
        }
        let before = self.loans().at_rest(&record.id);
        let usage = self.0.parts.snapshots.usage(layer)?;
        let shared = (!usage.shared.is_empty()).then(|| packed(&usage.shared));
        // Locked, so that who lends next finds the size and forgets it.
        let loans = self.loans();
        if before.is_some() && loans.at_rest(&record.id) == before {
            let sql = "UPDATE refs_links SET size = ?2, shared = ?3 WHERE layer = ?1";
            let row = db::params![layer.as_str(), usage.bytes as i64, shared];
            db.write(|tx| tx.execute(sql, row))?;
        }
        Ok(usage)
    }
}

impl Counted {
    /// What a directory adds.
    fn new_bytes(&mut self, usage: &Usage) -> u64 {
        let shared = usage.shared.iter();
        let new = shared.filter(|file| self.files.insert(file.ino));
        usage.bytes + new.map(|file| file.bytes).sum::<u64>()
    }
}

/// Allocated bytes come in blocks of this many (`st_blocks`).
const BLOCK: u64 = 512;

/// Shared files in few bytes, as results may have very many: for each how much its inode's number
/// is above the one before, and its blocks. Numbers are in groups of seven bits, lowest first, of
/// which all but the last have the eighth bit set.
fn packed(files: &[SharedFile]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut put = |mut number: u64| {
        while number >= 0x80 {
            bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        bytes.push(number as u8);
    };
    let mut before = 0;
    for file in files {
        put(file.ino - before);
        put(file.bytes / BLOCK);
        before = file.ino;
    }
    bytes
}

fn unpacked(bytes: &[u8]) -> Vec<SharedFile> {
    let mut numbers = Vec::new();
    let (mut number, mut shift) = (0_u64, 0);
    for byte in bytes {
        number |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        shift += 7;
        if byte & 0x80 == 0 {
            numbers.push(number);
            (number, shift) = (0, 0);
        }
    }
    let mut ino = 0_u64;
    let pairs = numbers.chunks_exact(2);
    let files = pairs.map(|pair| {
        ino = ino.wrapping_add(pair[0]);
        let bytes = pair[1].wrapping_mul(BLOCK);
        SharedFile { ino, bytes }
    });
    files.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_files_are_read_as_they_were_written() {
        let files: Vec<_> = [
            (1, 0),
            (2, 512),
            (127, 4096),
            (500, 1 << 40),
            (u64::MAX, 512),
        ]
        .map(|(ino, bytes)| SharedFile { ino, bytes })
        .into();
        assert_eq!(unpacked(&packed(&files)), files);
        assert_eq!(packed(&files[..3]), [1, 0, 1, 1, 125, 8]);
        assert_eq!(unpacked(&[]), []);
    }
}
