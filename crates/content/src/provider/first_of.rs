//! Several places as one.

use std::sync::Arc;

use async_trait::async_trait;
use oci::Descriptor;
use stdx::Kind;

use crate::{ByteStream, Error, Provider, Result};

/// Asks each place in turn; the first that has the blob answers. A place that fails is passed
/// over too, but when no other has the blob it is that failure one hears about, not `NotFound`.
pub struct FirstOf(pub Vec<Arc<dyn Provider>>);

#[async_trait]
impl Provider for FirstOf {
    async fn size(&self, blob: &Descriptor) -> Result<u64> {
        let mut failure = None;
        for place in &self.0 {
            match place.size(blob).await {
                Ok(size) => return Ok(size),
                Err(error) => worse(&mut failure, error),
            }
        }
        Err(failure.unwrap_or(Error::NotFound(blob.digest)))
    }

    async fn read(&self, blob: &Descriptor, offset: u64) -> Result<ByteStream> {
        let mut failure = None;
        for place in &self.0 {
            match place.read(blob, offset).await {
                Ok(stream) => return Ok(stream),
                Err(error) => worse(&mut failure, error),
            }
        }
        Err(failure.unwrap_or(Error::NotFound(blob.digest)))
    }
}

/// Keeps the first failure that says more than "not here".
fn worse(failure: &mut Option<Error>, error: Error) {
    if failure.is_none() && error.kind() != Kind::NotFound {
        *failure = Some(error);
    }
}
