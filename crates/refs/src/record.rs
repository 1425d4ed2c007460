//! Rows: what is known of each filesystem result.
//!
//! A *record* is one result. Its own change, if it has one, is a *link*: a layer directory, a
//! diff ID, blobs, any of which may be missing while another is there. A record's file system is
//! its chain of links. Links of different records may name the same layer directory.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use db::{Row, SqlError, Tx};
use oci::{Descriptor, DiffId, Digest};
use snapshot::{KeptId, LayerId};

use crate::{Error, Result};

pub(crate) const TABLES: &[&str] = &[
    "
    CREATE TABLE refs_links (
        n INTEGER PRIMARY KEY,
        layer TEXT,
        diff_id TEXT,
        settled_on TEXT,
        skeleton TEXT,
        size INTEGER
    );
    CREATE INDEX refs_links_by_diff_id ON refs_links (diff_id);
    CREATE INDEX refs_links_by_layer ON refs_links (layer);
    CREATE TABLE refs_blobs (
        link INTEGER NOT NULL REFERENCES refs_links (n) ON DELETE CASCADE,
        digest TEXT NOT NULL,
        main INTEGER NOT NULL,
        from_outside INTEGER NOT NULL,
        descriptor TEXT NOT NULL,
        PRIMARY KEY (link, digest)
    ) WITHOUT ROWID;
    CREATE INDEX refs_blobs_by_digest ON refs_blobs (digest);
    CREATE TABLE refs_records (
        id TEXT PRIMARY KEY,
        kind TEXT NOT NULL,
        parent TEXT REFERENCES refs_records (id),
        link INTEGER REFERENCES refs_links (n),
        kept TEXT,
        name TEXT,
        chain TEXT,
        blob_chain TEXT,
        description TEXT NOT NULL,
        record_type TEXT NOT NULL,
        created INTEGER NOT NULL,
        last_used INTEGER,
        uses INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID;
    CREATE INDEX refs_records_by_chain ON refs_records (chain);
    CREATE INDEX refs_records_by_blob_chain ON refs_records (blob_chain);
    CREATE INDEX refs_records_by_parent ON refs_records (parent);
    CREATE INDEX refs_records_by_link ON refs_records (link);
    CREATE INDEX refs_records_by_name ON refs_records (name);
    CREATE TABLE refs_inputs (
        record TEXT NOT NULL REFERENCES refs_records (id) ON DELETE CASCADE,
        n INTEGER NOT NULL,
        input TEXT NOT NULL REFERENCES refs_records (id),
        PRIMARY KEY (record, n)
    ) WITHOUT ROWID;
    CREATE INDEX refs_inputs_by_input ON refs_inputs (input);
    CREATE TABLE refs_attached (
        record TEXT NOT NULL REFERENCES refs_records (id) ON DELETE CASCADE,
        digest TEXT NOT NULL,
        PRIMARY KEY (record, digest)
    ) WITHOUT ROWID;
    CREATE TABLE refs_notes (
        record TEXT NOT NULL REFERENCES refs_records (id) ON DELETE CASCADE,
        key TEXT NOT NULL,
        value BLOB NOT NULL,
        PRIMARY KEY (record, key)
    ) WITHOUT ROWID;
",
    "
    ALTER TABLE refs_links ADD COLUMN unveiled TEXT;
    UPDATE refs_links SET skeleton = NULL;
",
    "
    -- Apart, so that a note of megabytes stays where it is when it changes hands. What was noted
    -- before is only a cache.
    CREATE TABLE refs_note_values (
        n INTEGER PRIMARY KEY,
        value BLOB NOT NULL
    );
    DROP TABLE refs_notes;
    CREATE TABLE refs_notes (
        record TEXT NOT NULL REFERENCES refs_records (id) ON DELETE CASCADE,
        key TEXT NOT NULL,
        value INTEGER NOT NULL REFERENCES refs_note_values (n),
        PRIMARY KEY (record, key)
    ) WITHOUT ROWID;
    CREATE INDEX refs_notes_by_value ON refs_notes (value);
    CREATE TRIGGER refs_notes_leave AFTER DELETE ON refs_notes
    BEGIN
        DELETE FROM refs_note_values WHERE n = old.value;
    END;
",
    "
    -- Files a layer shares with others are in `shared`, not in `size`, which counted them.
    ALTER TABLE refs_links ADD COLUMN shared BLOB;
    UPDATE refs_links SET size = NULL;
    -- See `lend.rs`. Who borrowed was not written down before; what lent then lends no more.
    CREATE TABLE refs_lent (
        lender TEXT NOT NULL REFERENCES refs_records (id) ON DELETE CASCADE,
        source BLOB NOT NULL,
        target BLOB NOT NULL,
        borrower TEXT NOT NULL,
        PRIMARY KEY (lender, source, target, borrower)
    ) WITHOUT ROWID;
    CREATE INDEX refs_lent_by_borrower ON refs_lent (borrower);
    CREATE TRIGGER refs_lent_link_leaves AFTER DELETE ON refs_links WHEN old.layer NOT NULL
    BEGIN
        DELETE FROM refs_lent WHERE borrower = old.layer
            AND NOT EXISTS (SELECT 1 FROM refs_links WHERE layer = old.layer);
    END;
    CREATE TRIGGER refs_lent_link_changes AFTER UPDATE OF layer ON refs_links WHEN old.layer NOT NULL
    BEGIN
        DELETE FROM refs_lent WHERE borrower = old.layer
            AND NOT EXISTS (SELECT 1 FROM refs_links WHERE layer = old.layer);
    END;
    UPDATE refs_records SET name = NULL WHERE id IN (SELECT record FROM refs_notes WHERE key = 'lent');
    DELETE FROM refs_notes WHERE key = 'lent';
",
];

/// What a result is for: decides what is pruned first (row A10).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RecordType {
    /// The result of a step.
    #[default]
    Regular,
    /// Something the engine needs, not the user.
    Internal,
    /// The image of a frontend.
    Frontend,
    /// A client's folder.
    LocalSource,
    /// A git checkout.
    GitCheckout,
    /// A cache mount.
    CacheMount,
}

impl RecordType {
    const ALL: [RecordType; 6] = [
        RecordType::Regular,
        RecordType::Internal,
        RecordType::Frontend,
        RecordType::LocalSource,
        RecordType::GitCheckout,
        RecordType::CacheMount,
    ];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            RecordType::Regular => "regular",
            RecordType::Internal => "internal",
            RecordType::Frontend => "frontend",
            RecordType::LocalSource => "source.local",
            RecordType::GitCheckout => "source.git.checkout",
            RecordType::CacheMount => "exec.cachemount",
        }
    }

    pub(crate) fn read(word: &str) -> RecordType {
        RecordType::ALL
            .into_iter()
            .find(|t| t.as_str() == word)
            .unwrap_or_default()
    }
}

/// What to remember about a new result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordMeta {
    /// For people: the step that made it.
    pub description: String,
    /// What it is for.
    pub record_type: RecordType,
}

impl RecordMeta {
    /// The result of a step.
    pub fn new(description: impl Into<String>) -> RecordMeta {
        RecordMeta {
            description: description.into(),
            record_type: RecordType::Regular,
        }
    }
}

/// A layer as a blob, with what its image says about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerBlob {
    /// Names the bytes. Its annotations say where they can be fetched.
    pub descriptor: Descriptor,
    /// Names the tar inside.
    pub diff_id: DiffId,
    /// For people: what made it.
    pub description: String,
    /// When it was made, if known.
    pub created: Option<SystemTime>,
}

/// What a record is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A change, on a parent or on nothing (*base*).
    Layer,
    /// Several chains, one on top of the other.
    Merge,
    /// What the second input changes on the first; with one input all of it.
    Diff,
    /// A directory that stays writable.
    Kept,
}

impl Shape {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Shape::Layer => "layer",
            Shape::Merge => "merge",
            Shape::Diff => "diff",
            Shape::Kept => "kept",
        }
    }

    fn read(word: &str) -> Shape {
        match word {
            "merge" => Shape::Merge,
            "diff" => Shape::Diff,
            "kept" => Shape::Kept,
            _ => Shape::Layer,
        }
    }
}

/// A row of `refs_records`.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) shape: Shape,
    pub(crate) parent: Option<String>,
    pub(crate) link: Option<i64>,
    pub(crate) kept: Option<KeptId>,
    pub(crate) name: Option<String>,
    pub(crate) chain: Option<Digest>,
    pub(crate) blob_chain: Option<Digest>,
    pub(crate) description: String,
    pub(crate) record_type: RecordType,
    pub(crate) created: SystemTime,
    pub(crate) last_used: Option<SystemTime>,
    pub(crate) uses: u64,
}

const COLUMNS: &str = "id, kind, parent, link, kept, name, chain, blob_chain, description, \
                       record_type, created, last_used, uses";

impl Record {
    pub(crate) fn new(shape: Shape, meta: &RecordMeta) -> Record {
        Record {
            id: new_id(),
            shape,
            parent: None,
            link: None,
            kept: None,
            name: None,
            chain: None,
            blob_chain: None,
            description: meta.description.clone(),
            record_type: meta.record_type,
            created: SystemTime::now(),
            last_used: None,
            uses: 0,
        }
    }

    fn read(row: &Row<'_>) -> Result<Record, SqlError> {
        Ok(Record {
            id: row.get(0)?,
            shape: Shape::read(&row.get::<_, String>(1)?),
            parent: row.get(2)?,
            link: row.get(3)?,
            kept: parsed(row.get(4)?),
            name: row.get(5)?,
            chain: parsed(row.get(6)?),
            blob_chain: parsed(row.get(7)?),
            description: row.get(8)?,
            record_type: RecordType::read(&row.get::<_, String>(9)?),
            created: time(row.get(10)?),
            last_used: row.get::<_, Option<i64>>(11)?.map(time),
            uses: row.get::<_, i64>(12)? as u64,
        })
    }

    pub(crate) fn get(tx: &Tx<'_>, id: &str) -> db::Result<Option<Record>> {
        tx.row(
            &format!("SELECT {COLUMNS} FROM refs_records WHERE id = ?1"),
            [id],
            Record::read,
        )
    }

    pub(crate) fn need(tx: &Tx<'_>, id: &str) -> Result<Record> {
        Record::get(tx, id)?.ok_or_else(|| Error::NoRecord(id.to_owned()))
    }

    pub(crate) fn all(tx: &Tx<'_>) -> db::Result<Vec<Record>> {
        tx.rows(
            &format!("SELECT {COLUMNS} FROM refs_records ORDER BY created, id"),
            [],
            Record::read,
        )
    }

    pub(crate) fn named(tx: &Tx<'_>, name: &str) -> db::Result<Vec<Record>> {
        let sql =
            format!("SELECT {COLUMNS} FROM refs_records WHERE name = ?1 ORDER BY created, id");
        tx.rows(&sql, [name], Record::read)
    }

    /// It is no longer found by its name.
    pub(crate) fn forget_name(tx: &Tx<'_>, id: &str) -> db::Result<()> {
        tx.execute("UPDATE refs_records SET name = NULL WHERE id = ?1", [id])?;
        Ok(())
    }

    /// The record of a chain, looked up in `column` (`chain` or `blob_chain`).
    pub(crate) fn by_chain(
        tx: &Tx<'_>,
        column: &str,
        digest: Digest,
    ) -> db::Result<Option<Record>> {
        let sql = format!(
            "SELECT {COLUMNS} FROM refs_records WHERE {column} = ?1 AND kind = 'layer' ORDER BY created, id LIMIT 1"
        );
        tx.row(&sql, [digest.to_string()], Record::read)
    }

    pub(crate) fn insert(&self, tx: &Tx<'_>) -> db::Result<()> {
        let sql = format!(
            "INSERT INTO refs_records ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)"
        );
        tx.execute(
            &sql,
            db::params![
                self.id,
                self.shape.as_str(),
                self.parent,
                self.link,
                self.kept.as_ref().map(KeptId::as_str),
                self.name,
                self.chain.map(|c| c.to_string()),
                self.blob_chain.map(|c| c.to_string()),
                self.description,
                self.record_type.as_str(),
                nanos(self.created),
                self.last_used.map(nanos),
                self.uses as i64
            ],
        )?;
        Ok(())
    }

    /// Removes the row. Its link stays until [`remove_unused_links`].
    pub(crate) fn remove(tx: &Tx<'_>, id: &str) -> db::Result<()> {
        tx.execute("DELETE FROM refs_records WHERE id = ?1", [id])?;
        Ok(())
    }

    pub(crate) fn inputs(tx: &Tx<'_>, id: &str) -> db::Result<Vec<String>> {
        tx.rows(
            "SELECT input FROM refs_inputs WHERE record = ?1 ORDER BY n",
            [id],
            |row| row.get(0),
        )
    }

    pub(crate) fn set_inputs(tx: &Tx<'_>, id: &str, inputs: &[&str]) -> db::Result<()> {
        for (n, input) in inputs.iter().enumerate() {
            let sql = "INSERT INTO refs_inputs VALUES (?1, ?2, ?3)";
            tx.execute(sql, db::params![id, n as i64, input])?;
        }
        Ok(())
    }

    /// Records that are nothing without this one.
    pub(crate) fn children(tx: &Tx<'_>, id: &str) -> db::Result<Vec<String>> {
        let sql = "SELECT id FROM refs_records WHERE parent = ?1 UNION \
                   SELECT record FROM refs_inputs WHERE input = ?1";
        tx.rows(sql, [id], |row| row.get(0))
    }
}

/// A row of `refs_links`.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) n: i64,
    pub(crate) layer: Option<LayerId>,
    pub(crate) diff_id: Option<DiffId>,
    /// See `skeleton.rs`: not looked for yet, none needed, or a layer to put under it.
    pub(crate) skeleton: Option<Option<LayerId>>,
    /// See `unveil.rs`: not looked for yet, none needed, or the layer to use where it stands
    /// on others than it was made on.
    pub(crate) unveiled: Option<Option<LayerId>>,
}

impl Link {
    pub(crate) fn get(tx: &Tx<'_>, n: i64) -> db::Result<Option<Link>> {
        let sql = "SELECT n, layer, diff_id, skeleton, unveiled FROM refs_links WHERE n = ?1";
        let found = |text: Option<String>| text.map(|text| text.parse().ok());
        tx.row(sql, [n], |row| {
            Ok(Link {
                n: row.get(0)?,
                layer: parsed(row.get(1)?),
                diff_id: parsed(row.get(2)?).map(DiffId),
                skeleton: found(row.get(3)?),
                unveiled: found(row.get(4)?),
            })
        })
    }

    /// What was found to be needed under the link's layer where it stands alone.
    pub(crate) fn set_skeleton(tx: &Tx<'_>, n: i64, skeleton: Option<&LayerId>) -> db::Result<()> {
        let sql = "UPDATE refs_links SET skeleton = ?2 WHERE n = ?1";
        tx.execute(sql, db::params![n, skeleton.map_or("", LayerId::as_str)])?;
        Ok(())
    }

    /// What is to be used where the link stands on other layers than it was made on.
    pub(crate) fn set_unveiled(tx: &Tx<'_>, n: i64, layer: Option<&LayerId>) -> db::Result<()> {
        let sql = "UPDATE refs_links SET unveiled = ?2 WHERE n = ?1";
        tx.execute(sql, db::params![n, layer.map_or("", LayerId::as_str)])?;
        Ok(())
    }

    pub(crate) fn insert(
        tx: &Tx<'_>,
        layer: Option<&LayerId>,
        diff_id: Option<DiffId>,
    ) -> db::Result<i64> {
        let sql = "INSERT INTO refs_links (layer, diff_id) VALUES (?1, ?2)";
        tx.insert(
            sql,
            db::params![layer.map(LayerId::as_str), diff_id.map(|d| d.to_string())],
        )
    }

    /// The link now has this layer directory. `settled_on` names the chain below when the
    /// directory holds things taken from there, so that other chains do not share it.
    pub(crate) fn set_layer(
        tx: &Tx<'_>,
        n: i64,
        layer: &LayerId,
        settled_on: Option<&str>,
    ) -> db::Result<()> {
        let sql = "UPDATE refs_links SET layer = ?2, settled_on = ?3, size = NULL, shared = NULL WHERE n = ?1";
        tx.execute(sql, db::params![n, layer.as_str(), settled_on])?;
        Ok(())
    }

    pub(crate) fn set_diff_id(tx: &Tx<'_>, n: i64, diff_id: DiffId) -> db::Result<()> {
        let sql = "UPDATE refs_links SET diff_id = ?2 WHERE n = ?1";
        tx.execute(sql, db::params![n, diff_id.to_string()])?;
        Ok(())
    }

    /// A layer directory of another link with the same contents.
    pub(crate) fn same_layer(
        tx: &Tx<'_>,
        diff_id: DiffId,
        below: &str,
    ) -> db::Result<Option<(LayerId, Option<String>)>> {
        let sql = "SELECT layer, settled_on FROM refs_links WHERE diff_id = ?1 AND layer NOT NULL \
                   AND (settled_on IS NULL OR settled_on = ?2) LIMIT 1";
        let found = tx.row(sql, [&diff_id.to_string(), below], |row| {
            Ok((parsed::<LayerId>(row.get(0)?), row.get(1)?))
        })?;
        Ok(found.and_then(|(layer, settled_on)| Some((layer?, settled_on))))
    }

    pub(crate) fn blobs(tx: &Tx<'_>, n: i64) -> Result<Vec<LinkBlob>> {
        let sql = "SELECT main, from_outside, descriptor FROM refs_blobs WHERE link = ?1 ORDER BY main DESC, digest";
        let rows = tx.rows(sql, [n], |row| {
            Ok((
                row.get::<_, bool>(0)?,
                row.get::<_, bool>(1)?,
                row.get::<_, String>(2)?,
            ))
        })?;
        let read = |(main, from_outside, json): (bool, bool, String)| {
            let descriptor = serde_json::from_str(&json).map_err(|source| Error::Row {
                record: format!("link {n}"),
                source,
            })?;
            Ok(LinkBlob {
                descriptor,
                main,
                from_outside,
            })
        };
        rows.into_iter().map(read).collect()
    }

    pub(crate) fn put_blob(tx: &Tx<'_>, n: i64, blob: &LinkBlob) -> Result<()> {
        let json = serde_json::to_string(&blob.descriptor).map_err(|source| Error::Row {
            record: format!("link {n}"),
            source,
        })?;
        let sql = "INSERT INTO refs_blobs (link, digest, main, from_outside, descriptor) VALUES (?1, ?2, ?3, ?4, ?5) \
                   ON CONFLICT (link, digest) DO UPDATE SET descriptor = excluded.descriptor, \
                   from_outside = max(from_outside, excluded.from_outside), main = max(main, excluded.main)";
        let digest = blob.descriptor.digest.to_string();
        tx.execute(
            sql,
            db::params![n, digest, blob.main, blob.from_outside, json],
        )?;
        Ok(())
    }
}

/// Removes links no record has any more, with the rows of their blobs.
pub(crate) fn remove_unused_links(tx: &Tx<'_>) -> db::Result<()> {
    let sql =
        "DELETE FROM refs_links WHERE n NOT IN (SELECT link FROM refs_records WHERE link NOT NULL)";
    tx.execute(sql, [])?;
    Ok(())
}

/// A row of `refs_blobs`.
#[derive(Clone, Debug)]
pub(crate) struct LinkBlob {
    pub(crate) descriptor: Descriptor,
    /// The one to export when nobody asks for another compression.
    pub(crate) main: bool,
    /// It was pulled or imported, so it can be had again from where it was.
    pub(crate) from_outside: bool,
}

fn parsed<T: std::str::FromStr>(text: Option<String>) -> Option<T> {
    text.and_then(|text| text.parse().ok())
}

pub(crate) fn nanos(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_nanos() as i64
}

fn time(nanos: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(nanos.max(0) as u64)
}

/// An id no other record has or had, here or in another process.
fn new_id() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let now = nanos(SystemTime::now());
    let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), number);
    let seed = format!("{now} {} {number} {random}", std::process::id());
    Digest::of(seed).hex()[..25].to_owned()
}
