//! Content stores by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use content::ByteStream;
use oci::Descriptor;

use crate::{ContentStore, ContentStores};

/// Content stores by the names builds know them by.
#[derive(Clone, Default)]
pub struct Stores {
    by_id: BTreeMap<String, Arc<dyn ContentStore>>,
}

impl Stores {
    /// None yet.
    pub fn new() -> Stores {
        Stores::default()
    }

    /// With one more.
    pub fn with(mut self, id: impl Into<String>, store: Arc<dyn ContentStore>) -> Stores {
        self.by_id.insert(id.into(), store);
        self
    }
}

impl ContentStores for Stores {
    fn store(&self, id: &str) -> Arc<dyn ContentStore> {
        self.by_id
            .get(id)
            .cloned()
            .unwrap_or_else(|| Arc::new(Missing))
    }
}

/// A store nobody offers: it has nothing and takes nothing.
struct Missing;

#[async_trait]
impl content::Provider for Missing {
    async fn size(&self, blob: &Descriptor) -> content::Result<u64> {
        Err(content::Error::NotFound(blob.digest))
    }

    async fn read(&self, blob: &Descriptor, _offset: u64) -> content::Result<ByteStream> {
        Err(content::Error::NotFound(blob.digest))
    }
}

#[async_trait]
impl content::Sink for Missing {
    async fn has(&self, _blob: &Descriptor) -> content::Result<bool> {
        Ok(false)
    }

    async fn put(&self, _blob: &Descriptor, _bytes: ByteStream) -> content::Result<()> {
        let error = crate::Error::NotOffered("a content store of this name");
        Err(content::Error::place("the client", error.kind(), error))
    }
}
