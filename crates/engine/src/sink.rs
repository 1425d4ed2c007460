//! A client's place for blobs, as a place of ours: image layouts and local caches.

use async_trait::async_trait;
use content::{ByteStream, Provider, Sink};
use oci::Descriptor;
use ops::Build;
use session::{ContentStore, Group, Sessions};
use std::sync::Arc;

/// One named store of whichever session of the build offers stores. Which one that is
/// shows when it is used: the client may connect later than its request arrives.
pub(crate) struct SessionStore {
    sessions: Sessions,
    group: Group,
    name: String,
}

impl SessionStore {
    pub(crate) fn new(build: &Build, name: String) -> SessionStore {
        SessionStore {
            sessions: build.sessions.clone(),
            group: build.group.clone(),
            name,
        }
    }

    async fn store(&self) -> content::Result<Arc<dyn ContentStore>> {
        let name = self.name.as_str();
        let found = self.group.any(&self.sessions, |session| async move {
            Ok(session.content()?.store(name))
        });
        found.await.map_err(|error| {
            content::Error::place(format!("the client's store {name}"), error.kind(), error)
        })
    }
}

#[async_trait]
impl Provider for SessionStore {
    async fn size(&self, blob: &Descriptor) -> content::Result<u64> {
        self.store().await?.size(blob).await
    }

    async fn read(&self, blob: &Descriptor, offset: u64) -> content::Result<ByteStream> {
        self.store().await?.read(blob, offset).await
    }
}

#[async_trait]
impl Sink for SessionStore {
    async fn has(&self, blob: &Descriptor) -> content::Result<bool> {
        self.store().await?.has(blob).await
    }

    async fn put(&self, blob: &Descriptor, bytes: ByteStream) -> content::Result<()> {
        self.store().await?.put(blob, bytes).await
    }
}
