//! Places blobs can be read from.

mod first_of;
mod limited;
mod memory;

use std::sync::Arc;

use async_trait::async_trait;
use oci::Descriptor;

use crate::{ByteStream, Result};

pub use first_of::FirstOf;
pub use limited::Limited;
pub use memory::Memory;

/// A place blobs can be read from: the local store, a registry, a client's disk.
#[async_trait]
pub trait Provider: Send + Sync {
    /// The blob's size, which also says that it is there: `NotFound` if not. Moves no bytes.
    async fn size(&self, blob: &Descriptor) -> Result<u64>;

    /// The blob's bytes from `offset` on, not verified. `NotFound` if it is not there.
    async fn read(&self, blob: &Descriptor, offset: u64) -> Result<ByteStream>;
}

#[async_trait]
impl<P: Provider + ?Sized> Provider for Arc<P> {
    async fn size(&self, blob: &Descriptor) -> Result<u64> {
        (**self).size(blob).await
    }

    async fn read(&self, blob: &Descriptor, offset: u64) -> Result<ByteStream> {
        (**self).read(blob, offset).await
    }
}
