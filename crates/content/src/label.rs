//! Small facts kept beside a blob, like where it was pulled from. They go when the blob goes.

use std::collections::BTreeMap;

use db::Tx;
use oci::Digest;

use crate::{Result, Store};

impl Store {
    /// The labels of a blob; none when the blob is not here.
    pub fn labels(&self, digest: &Digest) -> Result<BTreeMap<String, String>> {
        let sql = "SELECT key, value FROM content_labels WHERE digest = ?1";
        let rows = self.db().read(|tx| {
            tx.rows(sql, [digest.to_string()], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
        })?;
        Ok(rows.into_iter().collect())
    }

    /// Sets a label of a blob that is here; `false` when it is not.
    pub fn set_label(&self, digest: &Digest, key: &str, value: &str) -> Result<bool> {
        Ok(self.db().write(|tx| set_label(tx, digest, key, value))?)
    }

    /// Adds `item` to a label that holds a comma-separated list, like the repositories of
    /// `containerd.io/distribution.source.<host>`. `false` when the blob is not here.
    pub fn add_to_label(&self, digest: &Digest, key: &str, item: &str) -> Result<bool> {
        let sql = "SELECT value FROM content_labels WHERE digest = ?1 AND key = ?2";
        Ok(self.db().write(|tx| {
            let name = digest.to_string();
            let list: String = tx
                .row(sql, [&name, key], |row| row.get(0))?
                .unwrap_or_default();
            let mut items: Vec<&str> = list.split(',').filter(|i| !i.is_empty()).collect();
            if !items.contains(&item) {
                items.push(item);
                items.sort_unstable();
            }
            set_label(tx, digest, key, &items.join(","))
        })?)
    }
}

fn set_label(tx: &Tx<'_>, digest: &Digest, key: &str, value: &str) -> db::Result<bool> {
    let sql = "INSERT INTO content_labels \
               SELECT digest, ?2, ?3 FROM content_blobs WHERE digest = ?1 \
               ON CONFLICT (digest, key) DO UPDATE SET value = excluded.value";
    Ok(tx.execute(sql, [&digest.to_string(), key, value])? > 0)
}
