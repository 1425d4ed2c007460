//! The two directions of a transfer, in memory.
//!
//! Most packets are far smaller than what it costs to wake another thread for them, so they are
//! handed over by the batch.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use proto::fsutil::types::Packet;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::{Error, Result};

/// Packets that are handed over at once, in their order.
pub type Batch = Vec<Packet>;

/// How many batches wait between two tasks.
pub(super) const IN_FLIGHT: usize = 16;

/// A batch has no more packets than this.
const PACKETS: usize = 64;

/// A batch is full when it holds so many bytes of files. With [`IN_FLIGHT`] this bounds what a
/// slow side lets wait: below 2 MiB.
const BYTES: usize = 64 << 10;

/// Both directions of a transfer.
pub struct Link {
    /// To the other side.
    pub out: mpsc::Sender<Batch>,
    /// From the other side.
    pub incoming: BoxStream<'static, Result<Batch>>,
}

impl Link {
    /// Two ends in memory.
    pub fn pair() -> (Link, Link) {
        let (here, there) = (mpsc::channel(IN_FLIGHT), mpsc::channel(IN_FLIGHT));
        let incoming =
            |receiver: mpsc::Receiver<Batch>| ReceiverStream::new(receiver).map(Ok).boxed();
        (
            Link {
                out: here.0,
                incoming: incoming(there.1),
            },
            Link {
                out: there.0,
                incoming: incoming(here.1),
            },
        )
    }

    /// An end whose packets come one by one, as from a call. What is there already comes as one
    /// batch.
    pub fn new(
        out: mpsc::Sender<Batch>,
        packets: impl Stream<Item = Result<Packet>> + Send + 'static,
    ) -> Link {
        let batches = packets.try_ready_chunks(PACKETS).flat_map(|batch| {
            let (batch, error) = match batch {
                Ok(batch) => (batch, None),
                // What came before the fault still counts: it may be the last word.
                Err(futures::stream::TryReadyChunksError(batch, error)) => (batch, Some(error)),
            };
            let batch = Some(batch).filter(|batch| !batch.is_empty()).map(Ok);
            futures::stream::iter(batch.into_iter().chain(error.map(Err)))
        });
        Link {
            out,
            incoming: batches.boxed(),
        }
    }

    /// For [`Link::new`]: where batches go in, and their packets come out one by one, as a call
    /// wants them.
    pub fn outgoing() -> (mpsc::Sender<Batch>, Outgoing) {
        let (out, batches) = mpsc::channel(IN_FLIGHT);
        let batch = Batch::new().into_iter();
        (out, Outgoing { batches, batch })
    }
}

/// The packets of batches, one by one.
#[derive(Debug)]
pub struct Outgoing {
    batches: mpsc::Receiver<Batch>,
    batch: std::vec::IntoIter<Packet>,
}

impl Stream for Outgoing {
    type Item = Packet;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Packet>> {
        loop {
            if let Some(packet) = self.batch.next() {
                return Poll::Ready(Some(packet));
            }
            match ready!(self.batches.poll_recv(context)) {
                Some(batch) => self.batch = batch.into_iter(),
                None => return Poll::Ready(None),
            }
        }
    }
}

/// Makes batches of the packets of a thread that may wait. What was put and not flushed when this
/// is dropped is lost.
pub(super) struct Batches {
    out: mpsc::Sender<Batch>,
    waiting: Batch,
    bytes: usize,
}

impl Batches {
    pub(super) fn new(out: mpsc::Sender<Batch>) -> Batches {
        Batches {
            out,
            waiting: Batch::new(),
            bytes: 0,
        }
    }

    /// Adds a packet, and hands over what is full.
    pub(super) fn put(&mut self, packet: Packet) -> Result<()> {
        self.bytes += packet.data.len();
        self.waiting.push(packet);
        match self.waiting.len() >= PACKETS || self.bytes >= BYTES {
            true => self.flush(),
            false => Ok(()),
        }
    }

    /// Hands over what there is. To be called before waiting for the other side.
    pub(super) fn flush(&mut self) -> Result<()> {
        self.bytes = 0;
        if self.waiting.is_empty() {
            return Ok(());
        }
        let batch = std::mem::take(&mut self.waiting);
        self.out
            .blocking_send(batch)
            .map_err(|_| Error::Lost("the receiver left".into()))
    }
}
