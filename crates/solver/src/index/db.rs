//! The index in the database: survives restarts, shared by processes.

use std::sync::Arc;

use db::Db;
use oci::Digest;
use rusqlite::params;

use super::{Entry, Index, IndexError};
use crate::key::{Created, KeyId, Link, ResultId};

const STEPS: &[&str] = &["
CREATE TABLE solver_link (
    parent   BLOB NOT NULL,
    input    INTEGER NOT NULL,
    record   BLOB NOT NULL,
    selector BLOB NOT NULL,
    child    BLOB NOT NULL,
    PRIMARY KEY (parent, input, record, selector, child)
) WITHOUT ROWID;
CREATE INDEX solver_link_child ON solver_link (child);
CREATE TABLE solver_record (
    key     BLOB NOT NULL,
    result  TEXT NOT NULL,
    created INTEGER NOT NULL,
    PRIMARY KEY (key, result)
) WITHOUT ROWID;
CREATE INDEX solver_record_result ON solver_record (result);
"];

/// An index in the database.
pub struct DbIndex(Arc<Db>);

impl DbIndex {
    /// Opens the index, making its tables if need be.
    pub fn open(db: Arc<Db>) -> Result<DbIndex, IndexError> {
        db.migrate("solver", STEPS)?;
        Ok(DbIndex(db))
    }
}

impl From<db::Error> for IndexError {
    fn from(error: db::Error) -> IndexError {
        IndexError(Arc::new(error))
    }
}

fn bytes(digest: &Digest) -> &[u8] {
    match digest {
        Digest::Sha256(bytes) => bytes,
        Digest::Sha512(bytes) => bytes,
    }
}

fn selector(link: &Link) -> &[u8] {
    link.selector.as_ref().map_or(&[], bytes)
}

fn digest(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Digest> {
    let blob = row.get_ref(column)?.as_blob()?;
    let wrong = || rusqlite::Error::IntegralValueOutOfRange(column, blob.len() as i64);
    match blob.len() {
        32 => Ok(Digest::Sha256(blob.try_into().map_err(|_| wrong())?)),
        64 => Ok(Digest::Sha512(blob.try_into().map_err(|_| wrong())?)),
        _ => Err(wrong()),
    }
}

fn link(row: &rusqlite::Row<'_>) -> rusqlite::Result<(KeyId, Link)> {
    let selector = match row.get_ref(3)?.as_blob()? {
        [] => None,
        _ => Some(digest(row, 3)?),
    };
    let link = Link {
        input: row.get(1)?,
        record: digest(row, 2)?,
        selector,
    };
    Ok((KeyId(digest(row, 0)?), link))
}

impl Index for DbIndex {
    fn children(&self, from: &KeyId, link: &Link) -> Result<Vec<KeyId>, IndexError> {
        self.0.read(|tx| {
            let sql = "SELECT child FROM solver_link \
                       WHERE parent = ?1 AND input = ?2 AND record = ?3 AND selector = ?4 \
                       ORDER BY child";
            let params = params![
                bytes(&from.0),
                link.input,
                bytes(&link.record),
                selector(link)
            ];
            Ok(tx.rows(sql, params, |row| digest(row, 0).map(KeyId))?)
        })
    }

    fn parents(&self, of: &KeyId) -> Result<Vec<(KeyId, Link)>, IndexError> {
        self.0.read(|tx| {
            let sql = "SELECT parent, input, record, selector FROM solver_link \
                       WHERE child = ?1 ORDER BY parent, input, record, selector";
            Ok(tx.rows(sql, [bytes(&of.0)], link)?)
        })
    }

    fn records(&self, of: &KeyId) -> Result<Vec<(ResultId, Created)>, IndexError> {
        self.0.read(|tx| {
            let sql = "SELECT result, created FROM solver_record WHERE key = ?1 ORDER BY result";
            let read = |row: &rusqlite::Row<'_>| Ok((ResultId(row.get(0)?), Created(row.get(1)?)));
            Ok(tx.rows(sql, [bytes(&of.0)], read)?)
        })
    }

    fn keys_of(&self, result: &ResultId) -> Result<Vec<KeyId>, IndexError> {
        self.0.read(|tx| {
            let sql = "SELECT key FROM solver_record WHERE result = ?1 ORDER BY key";
            Ok(tx.rows(sql, [&result.0], |row| digest(row, 0).map(KeyId))?)
        })
    }

    fn save(&self, entries: &[Entry]) -> Result<(), IndexError> {
        let links = "INSERT OR IGNORE INTO solver_link VALUES (?1, ?2, ?3, ?4, ?5)";
        let records = "INSERT OR REPLACE INTO solver_record VALUES (?1, ?2, ?3)";
        self.0.write(|tx| {
            for node in entries.iter().flat_map(|entry| &entry.nodes) {
                let child = bytes(&node.id.0);
                for (from, link) in &node.links {
                    let (record, selector) = (bytes(&link.record), selector(link));
                    let row = params![bytes(&from.0), link.input, record, selector, child];
                    tx.execute(links, row)?;
                }
            }
            for (result, created, keys) in entries.iter().filter_map(|e| e.result.as_ref()) {
                for key in keys {
                    tx.execute(records, params![bytes(&key.0), result.0, created.0])?;
                }
            }
            Ok(())
        })
    }

    fn release(&self, result: &ResultId) -> Result<(), IndexError> {
        self.0.write(|tx| {
            let sql = "DELETE FROM solver_record WHERE result = ?1 RETURNING key";
            let mut look: Vec<Digest> = tx.rows(sql, [&result.0], |row| digest(row, 0))?;
            while let Some(key) = look.pop() {
                let used = "SELECT 1 FROM solver_record WHERE key = ?1 \
                            UNION ALL SELECT 1 FROM solver_link WHERE parent = ?1";
                if tx.exists(used, [bytes(&key)])? {
                    continue;
                }
                let sql = "SELECT DISTINCT parent FROM solver_link WHERE child = ?1";
                look.extend(tx.rows(sql, [bytes(&key)], |row| digest(row, 0))?);
                // The index on `child` gives the rows; the table is keyed by all columns.
                tx.execute("DELETE FROM solver_link WHERE child = ?1", [bytes(&key)])?;
            }
            Ok(())
        })
    }

    fn results(&self) -> Result<Vec<ResultId>, IndexError> {
        self.0.read(|tx| {
            let sql = "SELECT DISTINCT result FROM solver_record ORDER BY result";
            Ok(tx.rows(sql, [], |row| Ok(ResultId(row.get(0)?)))?)
        })
    }
}
