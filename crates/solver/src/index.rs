//! From keys to records: which nodes are reached by which links, and which
//! results they have. [`MemoryIndex`] forgets with the process; [`DbIndex`]
//! lives in the database.

use oci::Digest;
use serde::{Deserialize, Serialize};

use crate::event::StoreId;
use crate::key::{Created, KeyId, Link, ResultId};

mod db;
mod memory;
#[cfg(test)]
mod tests;

pub use db::DbIndex;
pub use memory::MemoryIndex;

/// A result someone may load.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Where it is.
    pub store: StoreId,
    /// The node it belongs to.
    pub key: KeyId,
    /// Its name there.
    pub result: ResultId,
    /// When it was made: the newest is taken first.
    pub created: Created,
}

/// A node and ways to reach it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// The node.
    pub id: KeyId,
    /// From which nodes, by which links.
    pub links: Vec<(KeyId, Link)>,
}

/// What is added to an index together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Nodes and ways to reach them.
    pub nodes: Vec<Node>,
    /// A result, and the nodes it belongs to.
    pub result: Option<(ResultId, Created, Vec<KeyId>)>,
}

/// The index could not be read or written.
#[derive(Clone, Debug, thiserror::Error)]
#[error("reading or writing the index of cache keys")]
pub struct IndexError(#[source] pub std::sync::Arc<dyn std::error::Error + Send + Sync>);

/// What every index promises. Calls may block on the disk.
pub trait Index: Send + Sync {
    /// The nodes a link leads to.
    fn children(&self, from: &KeyId, link: &Link) -> Result<Vec<KeyId>, IndexError>;
    /// The links that lead to a node.
    fn parents(&self, of: &KeyId) -> Result<Vec<(KeyId, Link)>, IndexError>;
    /// The results of a node.
    fn records(&self, of: &KeyId) -> Result<Vec<(ResultId, Created)>, IndexError>;
    /// The nodes that have a result.
    fn keys_of(&self, result: &ResultId) -> Result<Vec<KeyId>, IndexError>;
    /// Adds nodes and results. All or nothing.
    fn save(&self, entries: &[Entry]) -> Result<(), IndexError>;
    /// Forgets a result, and every node that leads to no result any more.
    fn release(&self, result: &ResultId) -> Result<(), IndexError>;
    /// Every result, to find those that are gone.
    fn results(&self) -> Result<Vec<ResultId>, IndexError>;
}

/// The record digest of a node: what its links say, or its own name for a root.
pub fn record_digest(index: &dyn Index, key: &KeyId) -> Result<Digest, IndexError> {
    Ok(index
        .parents(key)?
        .first()
        .map_or(key.0, |(_, link)| link.record))
}
