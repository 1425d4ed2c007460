//! Where a build reads blobs from.

use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use content::{ByteStream, FirstOf, Provider};
use oci::Descriptor;

/// The store first, then wherever a blob says it came from, then what the build has
/// brought along since it began (a client's image layout, an imported cache).
pub(crate) struct Places(RwLock<Vec<Arc<dyn Provider>>>);

impl Places {
    pub(crate) fn new(fixed: Vec<Arc<dyn Provider>>) -> Places {
        Places(RwLock::new(fixed))
    }

    /// One more place, asked last.
    pub(crate) fn add(&self, place: Arc<dyn Provider>) {
        self.0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .push(place);
    }

    fn now(&self) -> FirstOf {
        FirstOf(
            self.0
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
        )
    }
}

#[async_trait]
impl Provider for Places {
    async fn size(&self, blob: &Descriptor) -> content::Result<u64> {
        self.now().size(blob).await
    }

    async fn read(&self, blob: &Descriptor, offset: u64) -> content::Result<ByteStream> {
        self.now().read(blob, offset).await
    }
}
