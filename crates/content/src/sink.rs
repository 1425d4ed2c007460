//! Places blobs can be put.

use std::sync::Arc;

use async_trait::async_trait;
use oci::Descriptor;

use crate::{ByteStream, Result};

/// A place blobs can be put. A blob is there whole and verified or not at all.
#[async_trait]
pub trait Sink: Send + Sync {
    /// Whether the blob is there already.
    async fn has(&self, blob: &Descriptor) -> Result<bool>;

    /// Puts the blob. `bytes` begins at its first byte; when it ends early, fails, or is not what
    /// the digest says, nothing becomes visible. Putting what is there is no error. A sink that
    /// lets writers wait for each other reads from `bytes` only when the wait is over: from then
    /// on they may take a place that others need.
    async fn put(&self, blob: &Descriptor, bytes: ByteStream) -> Result<()>;
}

#[async_trait]
impl<S: Sink + ?Sized> Sink for Arc<S> {
    async fn has(&self, blob: &Descriptor) -> Result<bool> {
        (**self).has(blob).await
    }

    async fn put(&self, blob: &Descriptor, bytes: ByteStream) -> Result<()> {
        (**self).put(blob, bytes).await
    }
}
