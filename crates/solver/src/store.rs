//! Where results are kept, and other places that have some.

use std::sync::Arc;

use async_trait::async_trait;

use crate::index::Index;
use crate::key::ResultId;
use crate::op::{OpContext, OpError};

/// The place on this machine where results outlive a build.
#[async_trait]
pub trait ResultStore<O>: Send + Sync {
    /// Makes sure the output can be loaded later, and says by which name. The
    /// same output saved again gives the same name. `None`: it cannot be kept.
    async fn save(&self, output: &O) -> Result<Option<ResultId>, OpError>;
    /// The output of that name; nothing when it is gone.
    async fn load(&self, cx: &OpContext, result: &ResultId) -> Result<Option<O>, OpError>;
    /// Whether it is there. May block on the disk.
    fn exists(&self, result: &ResultId) -> bool;
}

/// Another place with records: an imported cache.
#[async_trait]
pub trait RecordStore<O>: Send + Sync {
    /// Its keys. Waits until the import is done; an import that failed has an
    /// empty index.
    async fn index(&self) -> Arc<dyn Index>;
    /// Makes the output of a record; lazily if that is possible. Nothing when
    /// it is gone.
    async fn load(&self, cx: &OpContext, result: &ResultId) -> Result<Option<O>, OpError>;
}
