//! Blobs in memory: small documents made on the spot, and tests.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use oci::{Descriptor, Digest};

use crate::{ByteStream, Error, Provider, Result, Sink, collect, once};

/// Blobs in memory. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<BTreeMap<Digest, Bytes>>>);

impl Memory {
    /// Adds bytes under their own digest.
    pub fn add(&self, media_type: &str, bytes: impl Into<Bytes>) -> Descriptor {
        let bytes = bytes.into();
        let blob = Descriptor::of(media_type, &bytes);
        self.blobs().insert(blob.digest, bytes);
        blob
    }

    /// The bytes of a blob.
    pub fn get(&self, digest: &Digest) -> Option<Bytes> {
        self.blobs().get(digest).cloned()
    }

    fn blobs(&self) -> std::sync::MutexGuard<'_, BTreeMap<Digest, Bytes>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Provider for Memory {
    async fn size(&self, blob: &Descriptor) -> Result<u64> {
        let bytes = self.get(&blob.digest).ok_or(Error::NotFound(blob.digest))?;
        Ok(bytes.len() as u64)
    }

    async fn read(&self, blob: &Descriptor, offset: u64) -> Result<ByteStream> {
        let bytes = self.get(&blob.digest).ok_or(Error::NotFound(blob.digest))?;
        let from = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        Ok(once(bytes.slice(from..)))
    }
}

#[async_trait]
impl Sink for Memory {
    async fn has(&self, blob: &Descriptor) -> Result<bool> {
        Ok(self.get(&blob.digest).is_some())
    }

    async fn put(&self, blob: &Descriptor, bytes: ByteStream) -> Result<()> {
        let bytes = collect(bytes, blob, u64::MAX).await?;
        self.blobs().insert(blob.digest, bytes);
        Ok(())
    }
}
