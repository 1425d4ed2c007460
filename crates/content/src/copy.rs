//! From a provider to a sink.

use bytes::Bytes;
use futures::channel::{mpsc, oneshot};
use futures::{SinkExt, StreamExt};
use oci::Descriptor;

use crate::{Error, Provider, RETRY_DELAYS, Result, Sink, lazy, resuming};

/// Pieces on their way between the two ends of a copy.
const PIECES_BETWEEN: usize = 8;

/// What a copy had to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copied {
    /// The sink had the blob.
    WasThere,
    /// The bytes were moved.
    Moved,
}

/// Copies one blob. Skips what is there, reads on after a broken stream, and begins again when
/// the sink had a transient fault. Memory stays the same however large the blob is.
pub async fn copy(provider: &dyn Provider, sink: &dyn Sink, blob: &Descriptor) -> Result<Copied> {
    let mut delays = RETRY_DELAYS.iter();
    loop {
        if sink.has(blob).await? {
            return Ok(Copied::WasThere);
        }
        let error = match copy_once(provider, sink, blob).await {
            Ok(()) => return Ok(Copied::Moved),
            Err(Side::Provider(error)) => return Err(error),
            Err(Side::Sink(error)) => error,
        };
        match delays.next() {
            Some(delay) if error.is_worth_a_retry() => {
                tracing::debug!(digest = %blob.digest, %error, ?delay, "putting again after a fault");
                tokio::time::sleep(*delay).await;
            }
            _ => return Err(error),
        }
    }
}

/// Whose error it was: the provider's was retried already, piece by piece.
enum Side {
    Provider(Error),
    Sink(Error),
}

async fn copy_once(
    provider: &dyn Provider,
    sink: &dyn Sink,
    blob: &Descriptor,
) -> Result<(), Side> {
    let (mut to_sink, from_provider) = mpsc::channel::<Result<Bytes>>(PIECES_BETWEEN);
    let (want, wanted) = oneshot::channel();
    let pump = async move {
        if wanted.await.is_err() {
            // The sink came by it in another way, or failed and says why.
            return Ok(());
        }
        let mut reading = resuming(provider, blob, 0);
        loop {
            match reading.next().await {
                Ok(Some(bytes)) => {
                    if to_sink.send(Ok(bytes)).await.is_err() {
                        // A sink that wants no more has its reasons and tells them itself.
                        return Ok(());
                    }
                }
                Ok(None) => return Ok(()),
                Err(error) => {
                    let _ = to_sink.send(Err(error.clone())).await;
                    return Err(error);
                }
            }
        }
    };
    // While the sink waits for its turn, nothing is held open at the provider.
    let stream = lazy(async move {
        let _ = want.send(());
        Ok(from_provider.boxed())
    });
    match futures::join!(pump, sink.put(blob, stream)) {
        (_, Ok(())) => Ok(()),
        (Err(error), Err(_)) => Err(Side::Provider(error)),
        (Ok(()), Err(error)) => Err(Side::Sink(error)),
    }
}
