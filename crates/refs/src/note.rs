//! Small and not so small facts kept beside records (like the digests of all their files). They
//! move with a kept directory as it is frozen and thawed.

use db::Tx;

use crate::{Refs, Result};

impl Refs {
    pub(crate) fn note(&self, id: &str, key: &str) -> Result<Option<Vec<u8>>> {
        self.0.parts.db.read(|tx| get(tx, id, key))
    }

    pub(crate) fn set_note(&self, id: &str, key: &str, value: &[u8]) -> Result<()> {
        self.0.parts.db.write(|tx| set(tx, id, key, value))
    }
}

pub(crate) fn get(tx: &Tx<'_>, id: &str, key: &str) -> Result<Option<Vec<u8>>> {
    let sql = "SELECT v.value FROM refs_notes JOIN refs_note_values v ON v.n = refs_notes.value \
               WHERE record = ?1 AND key = ?2";
    Ok(tx.row(sql, [id, key], |row| row.get(0))?)
}

pub(crate) fn set(tx: &Tx<'_>, id: &str, key: &str, value: &[u8]) -> Result<()> {
    let sql = "UPDATE refs_note_values SET value = ?3 \
               WHERE n = (SELECT value FROM refs_notes WHERE record = ?1 AND key = ?2)";
    if tx.execute(sql, db::params![id, key, value])? > 0 {
        return Ok(());
    }
    let n = tx.insert("INSERT INTO refs_note_values (value) VALUES (?1)", [value])?;
    let sql = "INSERT INTO refs_notes VALUES (?1, ?2, ?3)";
    tx.execute(sql, db::params![id, key, n])?;
    Ok(())
}

/// All notes of a record are another's now.
pub(crate) fn hand_over(tx: &Tx<'_>, from: &str, to: &str) -> Result<()> {
    let sql = "UPDATE refs_notes SET record = ?2 WHERE record = ?1";
    tx.execute(sql, [from, to])?;
    Ok(())
}
