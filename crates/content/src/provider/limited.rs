//! At most so many reads of one place at a time.

use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use oci::Descriptor;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{ByteStream, Error, Provider, Result};

/// Lets only so many streams of a place be open at once; the rest wait their turn. A stream
/// gives its turn back when it ends or is dropped.
pub struct Limited<P> {
    place: P,
    turns: Arc<Semaphore>,
}

impl<P: Provider> Limited<P> {
    /// At most `streams` at a time.
    pub fn new(place: P, streams: usize) -> Limited<P> {
        Limited {
            place,
            turns: Arc::new(Semaphore::new(streams)),
        }
    }

    async fn turn(&self) -> OwnedSemaphorePermit {
        let turns = Arc::clone(&self.turns);
        turns
            .acquire_owned()
            .await
            .expect("this semaphore is never closed")
    }
}

#[async_trait]
impl<P: Provider> Provider for Limited<P> {
    async fn size(&self, blob: &Descriptor) -> Result<u64, Error> {
        let _turn = self.turn().await;
        self.place.size(blob).await
    }

    async fn read(&self, blob: &Descriptor, offset: u64) -> Result<ByteStream> {
        let turn = self.turn().await;
        let stream = self.place.read(blob, offset).await?;
        Ok(Box::pin(stream.map(move |bytes| {
            let _held_until_the_stream_is_dropped = &turn;
            bytes
        })))
    }
}
