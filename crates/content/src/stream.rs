//! Bytes on their way: the stream type, and the check that ends a false one.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use oci::{Descriptor, Digest, Hasher};

use crate::{Error, Result};

/// Bytes of a blob in order, in pieces of any size.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, Error>> + Send>>;

/// A stream of bytes already here.
pub fn once(bytes: impl Into<Bytes>) -> ByteStream {
    let bytes = bytes.into();
    Box::pin(stream::iter([Ok(bytes)]))
}

/// A stream that is opened when it is first read from.
pub fn lazy(open: impl Future<Output = Result<ByteStream>> + Send + 'static) -> ByteStream {
    stream::once(open).try_flatten().boxed()
}

/// A small document, whole and verified. Refuses more than `limit` bytes before reading any.
pub async fn collect(stream: ByteStream, blob: &Descriptor, limit: u64) -> Result<Bytes> {
    if blob.size > limit {
        return Err(Error::TooLarge {
            digest: blob.digest,
            size: blob.size,
            limit,
        });
    }
    let mut stream = Verified::new(stream, blob);
    let mut whole = BytesMut::with_capacity(blob.size as usize);
    while let Some(bytes) = stream.next().await {
        whole.extend_from_slice(&bytes?);
    }
    Ok(whole.freeze())
}

/// Passes a blob's bytes on and counts and hashes them. Ends in an error when they are too few,
/// too many or not the ones the digest names, so a reader that came to the end without error
/// has the right bytes; one that acts before the end must be able to take it back.
pub struct Verified {
    inner: ByteStream,
    digest: Digest,
    size: u64,
    seen: u64,
    hasher: Option<Hasher>,
}

impl Verified {
    /// Checks `stream`, which begins at the first byte of `blob`.
    pub fn new(stream: ByteStream, blob: &Descriptor) -> Verified {
        Verified {
            inner: stream,
            digest: blob.digest,
            size: blob.size,
            seen: 0,
            hasher: Some(blob.digest.algorithm().hasher()),
        }
    }

    /// The same as a boxed stream.
    pub fn boxed(self) -> ByteStream {
        Box::pin(self)
    }

    fn wrong_size(&self) -> Error {
        Error::WrongSize {
            digest: self.digest,
            expected: self.size,
            found: self.seen,
        }
    }
}

impl Stream for Verified {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.hasher.is_none() {
            return Poll::Ready(None);
        }
        match self.inner.as_mut().poll_next(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(bytes))) => {
                self.seen += bytes.len() as u64;
                if self.seen > self.size {
                    self.hasher = None;
                    return Poll::Ready(Some(Err(self.wrong_size())));
                }
                if let Some(hasher) = &mut self.hasher {
                    hasher.update(&bytes);
                }
                Poll::Ready(Some(Ok(bytes)))
            }
            Poll::Ready(Some(Err(error))) => {
                self.hasher = None;
                Poll::Ready(Some(Err(error)))
            }
            Poll::Ready(None) => {
                let found = self.hasher.take().expect("looked at above").finish();
                if self.seen != self.size {
                    return Poll::Ready(Some(Err(self.wrong_size())));
                }
                if found != self.digest {
                    let expected = self.digest;
                    return Poll::Ready(Some(Err(Error::Corrupt { expected, found })));
                }
                Poll::Ready(None)
            }
        }
    }
}
