//! A repository keeps the promises of every place for blobs.

use bytes::Bytes;
use content::{ByteStream, Provider, Sink};
use oci::Descriptor;
use testkit::image::Blob;
use testkit::registry::Server;

/// A repository together with the server it lives in.
struct Living {
    repository: registry::Repository,
    _server: Server,
}

#[async_trait::async_trait]
impl Provider for Living {
    async fn size(&self, blob: &Descriptor) -> content::Result<u64> {
        self.repository.size(blob).await
    }
    async fn read(&self, blob: &Descriptor, offset: u64) -> content::Result<ByteStream> {
        self.repository.read(blob, offset).await
    }
}

#[async_trait::async_trait]
impl Sink for Living {
    async fn has(&self, blob: &Descriptor) -> content::Result<bool> {
        self.repository.has(blob).await
    }
    async fn put(&self, blob: &Descriptor, bytes: ByteStream) -> content::Result<()> {
        self.repository.put(blob, bytes).await
    }
}

async fn living(blobs: Vec<Bytes>) -> Living {
    let server = Server::start().await;
    for bytes in blobs {
        server.add_blob("a", &Blob::new("application/octet-stream", bytes));
    }
    Living {
        repository: crate::at(&server, "a"),
        _server: server,
    }
}

async fn with_blobs(blobs: Vec<Bytes>) -> Box<dyn Provider> {
    Box::new(living(blobs).await)
}

async fn empty() -> Box<dyn content::testing::Place> {
    Box::new(living(Vec::new()).await)
}

content::provider_suite!(with_blobs);
content::sink_suite!(empty);
