//! Our own places keep what places promise.

use std::sync::Arc;

use bytes::Bytes;
use content::testing::Place;
use content::{ByteStream, FirstOf, Limited, Memory, Provider, Sink, Store};
use oci::Descriptor;

/// A store with the folder it is in.
struct Stored {
    store: Store,
    _dir: tempfile::TempDir,
}

fn stored() -> Stored {
    let dir = tempfile::tempdir().unwrap();
    let db = Arc::new(db::Db::memory().unwrap());
    Stored {
        store: Store::open(dir.path(), db).unwrap(),
        _dir: dir,
    }
}

#[async_trait::async_trait]
impl Provider for Stored {
    async fn size(&self, blob: &Descriptor) -> content::Result<u64> {
        self.store.size(blob).await
    }
    async fn read(&self, blob: &Descriptor, offset: u64) -> content::Result<ByteStream> {
        self.store.read(blob, offset).await
    }
}

#[async_trait::async_trait]
impl Sink for Stored {
    async fn has(&self, blob: &Descriptor) -> content::Result<bool> {
        self.store.has(blob).await
    }
    async fn put(&self, blob: &Descriptor, bytes: ByteStream) -> content::Result<()> {
        self.store.put(blob, bytes).await
    }
}

mod store {
    use super::*;

    async fn with(blobs: Vec<Bytes>) -> Box<dyn Provider> {
        let stored = stored();
        for bytes in blobs {
            stored
                .store
                .write_all("application/octet-stream", &bytes)
                .unwrap();
        }
        Box::new(stored)
    }

    async fn empty() -> Box<dyn Place> {
        Box::new(stored())
    }

    content::provider_suite!(with);
    content::sink_suite!(empty);
}

mod memory {
    use super::*;

    fn filled(blobs: Vec<Bytes>) -> Memory {
        let memory = Memory::default();
        for bytes in blobs {
            memory.add("application/octet-stream", bytes);
        }
        memory
    }

    async fn with(blobs: Vec<Bytes>) -> Box<dyn Provider> {
        Box::new(filled(blobs))
    }

    async fn empty() -> Box<dyn Place> {
        Box::new(Memory::default())
    }

    content::provider_suite!(with);
    content::sink_suite!(empty);

    mod first_of {
        use super::*;

        async fn with(blobs: Vec<Bytes>) -> Box<dyn Provider> {
            let places: Vec<Arc<dyn Provider>> =
                vec![Arc::new(Memory::default()), Arc::new(filled(blobs))];
            Box::new(FirstOf(places))
        }

        content::provider_suite!(with);
    }

    mod limited {
        use super::*;

        async fn with(blobs: Vec<Bytes>) -> Box<dyn Provider> {
            Box::new(Limited::new(filled(blobs), 1))
        }

        content::provider_suite!(with);
    }
}
