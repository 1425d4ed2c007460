//! An index that lives as long as the process.

use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;

use super::{Entry, Index, IndexError};
use crate::key::{Created, KeyId, Link, ResultId};

/// An index in memory. For tests, and for records that were imported.
#[derive(Default)]
pub struct MemoryIndex(Mutex<Tables>);

#[derive(Default)]
struct Tables {
    down: HashMap<(KeyId, Link), BTreeSet<KeyId>>,
    /// How many links leave a node.
    leaving: HashMap<KeyId, usize>,
    up: HashMap<KeyId, BTreeSet<(KeyId, Link)>>,
    records: HashMap<KeyId, HashMap<ResultId, Created>>,
    keys_of: HashMap<ResultId, BTreeSet<KeyId>>,
}

impl MemoryIndex {
    /// An empty index.
    pub fn new() -> MemoryIndex {
        MemoryIndex::default()
    }

    fn tables(&self) -> std::sync::MutexGuard<'_, Tables> {
        self.0
            .lock()
            .expect("no one panics while holding the tables")
    }
}

impl Index for MemoryIndex {
    fn children(&self, from: &KeyId, link: &Link) -> Result<Vec<KeyId>, IndexError> {
        let tables = self.tables();
        Ok(tables
            .down
            .get(&(*from, *link))
            .into_iter()
            .flatten()
            .copied()
            .collect())
    }

    fn parents(&self, of: &KeyId) -> Result<Vec<(KeyId, Link)>, IndexError> {
        Ok(self
            .tables()
            .up
            .get(of)
            .into_iter()
            .flatten()
            .copied()
            .collect())
    }

    fn records(&self, of: &KeyId) -> Result<Vec<(ResultId, Created)>, IndexError> {
        let tables = self.tables();
        let mut records: Vec<_> = tables
            .records
            .get(of)
            .into_iter()
            .flatten()
            .map(|(r, c)| (r.clone(), *c))
            .collect();
        records.sort();
        Ok(records)
    }

    fn keys_of(&self, result: &ResultId) -> Result<Vec<KeyId>, IndexError> {
        Ok(self
            .tables()
            .keys_of
            .get(result)
            .into_iter()
            .flatten()
            .copied()
            .collect())
    }

    fn save(&self, entries: &[Entry]) -> Result<(), IndexError> {
        let mut tables = self.tables();
        for node in entries.iter().flat_map(|entry| &entry.nodes) {
            for (from, link) in &node.links {
                if tables
                    .down
                    .entry((*from, *link))
                    .or_default()
                    .insert(node.id)
                {
                    *tables.leaving.entry(*from).or_default() += 1;
                    tables.up.entry(node.id).or_default().insert((*from, *link));
                }
            }
        }
        for (result, created, keys) in entries.iter().filter_map(|entry| entry.result.as_ref()) {
            for key in keys {
                tables
                    .records
                    .entry(*key)
                    .or_default()
                    .insert(result.clone(), *created);
                tables
                    .keys_of
                    .entry(result.clone())
                    .or_default()
                    .insert(*key);
            }
        }
        Ok(())
    }

    fn release(&self, result: &ResultId) -> Result<(), IndexError> {
        let mut tables = self.tables();
        let mut look: Vec<KeyId> = tables
            .keys_of
            .remove(result)
            .into_iter()
            .flatten()
            .collect();
        for key in &look {
            if let Some(records) = tables.records.get_mut(key) {
                records.remove(result);
                if records.is_empty() {
                    tables.records.remove(key);
                }
            }
        }
        while let Some(key) = look.pop() {
            if tables.records.contains_key(&key) || tables.leaving.contains_key(&key) {
                continue;
            }
            for (from, link) in tables.up.remove(&key).into_iter().flatten() {
                if let Some(children) = tables.down.get_mut(&(from, link)) {
                    children.remove(&key);
                    if children.is_empty() {
                        tables.down.remove(&(from, link));
                    }
                }
                if let Some(count) = tables.leaving.get_mut(&from) {
                    *count -= 1;
                    if *count == 0 {
                        tables.leaving.remove(&from);
                    }
                }
                look.push(from);
            }
        }
        Ok(())
    }

    fn results(&self) -> Result<Vec<ResultId>, IndexError> {
        let mut results: Vec<_> = self.tables().keys_of.keys().cloned().collect();
        results.sort();
        Ok(results)
    }
}
