//! Reading on after a broken stream.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use oci::Descriptor;

use crate::{ByteStream, Error, Provider, Result};

/// How long to wait before each further try. What BuildKit does (core.md P31).
pub const RETRY_DELAYS: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];

/// After so many bytes without a fault the tries begin to count anew: a connection that breaks
/// once a minute should not fail a download of an hour.
const PROGRESS_THAT_FORGIVES: u64 = 1 << 20;

/// Bytes of a blob from some offset on. A transient fault is followed by a pause and a new read
/// at the place where it broke. Not verified.
pub struct Resuming<'p> {
    provider: &'p dyn Provider,
    blob: Descriptor,
    offset: u64,
    stream: Option<ByteStream>,
    faults: usize,
    offset_at_fault: u64,
}

/// Reads `blob` from `offset` on, taking up broken streams again.
pub fn resuming<'p>(provider: &'p dyn Provider, blob: &Descriptor, offset: u64) -> Resuming<'p> {
    Resuming {
        provider,
        blob: blob.clone(),
        offset,
        stream: None,
        faults: 0,
        offset_at_fault: offset,
    }
}

impl Resuming<'_> {
    /// The next bytes; `None` at the end of the blob.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            let stream = match &mut self.stream {
                Some(stream) => stream,
                None if self.offset == self.blob.size => return Ok(None),
                None => match self.provider.read(&self.blob, self.offset).await {
                    Ok(stream) => self.stream.insert(stream),
                    Err(error) => {
                        self.after(error).await?;
                        continue;
                    }
                },
            };
            let error = match stream.next().await {
                Some(Ok(bytes)) if bytes.is_empty() => continue,
                Some(Ok(bytes)) => {
                    self.offset += bytes.len() as u64;
                    return Ok(Some(bytes));
                }
                None if self.offset >= self.blob.size => return Ok(None),
                None => Error::Interrupted {
                    digest: self.blob.digest,
                    offset: self.offset,
                    reason: "the stream ended early".to_owned(),
                },
                Some(Err(error)) => error,
            };
            self.stream = None;
            self.after(error).await?;
        }
    }

    /// Where the next bytes belong.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Waits before another try, or gives the error back when there is no use in one.
    async fn after(&mut self, error: Error) -> Result<()> {
        if self.offset.saturating_sub(self.offset_at_fault) >= PROGRESS_THAT_FORGIVES {
            self.faults = 0;
        }
        self.offset_at_fault = self.offset;
        let delay = RETRY_DELAYS.get(self.faults);
        let Some(delay) = delay.filter(|_| error.is_worth_a_retry()) else {
            return Err(error);
        };
        self.faults += 1;
        tracing::debug!(digest = %self.blob.digest, offset = self.offset, %error, ?delay, "reading again after a fault");
        tokio::time::sleep(*delay).await;
        Ok(())
    }
}
