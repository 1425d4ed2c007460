//! The two directions of a transfer, in memory.
//!
//! Most packets are far smaller than what it costs to wake another thread for them, so they are
//! handed over by the batch.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
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

/// A batch is full when it holds so many bytes of files. What we send is in pieces no larger than
/// this, so with [`IN_FLIGHT`] it bounds what a slow receiver lets wait: 2 MiB.
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
        let batches = Ready {
            packets: packets.fuse().boxed(),
            fault: None,
        };
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

/// Batches of the packets that are there already.
struct Ready {
    packets: BoxStream<'static, Result<Packet>>,
    /// What came before it still counts: it may be the last word.
    fault: Option<Error>,
}

impl Stream for Ready {
    type Item = Result<Batch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(fault) = self.fault.take() {
            return Poll::Ready(Some(Err(fault)));
        }
        let (mut batch, mut bytes) = (Batch::new(), 0);
        while batch.len() < PACKETS && bytes < BYTES {
            match self.packets.poll_next_unpin(context) {
                Poll::Ready(Some(Ok(packet))) => {
                    bytes += packet.data.len();
                    batch.push(packet);
                }
                Poll::Ready(Some(Err(fault))) if batch.is_empty() => {
                    return Poll::Ready(Some(Err(fault)));
                }
                Poll::Ready(Some(Err(fault))) => {
                    self.fault = Some(fault);
                    break;
                }
                Poll::Ready(None) if batch.is_empty() => return Poll::Ready(None),
                Poll::Pending if batch.is_empty() => return Poll::Pending,
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        Poll::Ready(Some(Ok(batch)))
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
