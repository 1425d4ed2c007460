//! The side that wants the files.

mod hashes;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use contenthash::Contents;
use futures::StreamExt as _;
use prost::Message as _;
use proto::fsutil::types::{Packet, packet::PacketType};
use stdx::sys::Root;
use tokio::sync::{Semaphore, mpsc};

use self::writer::Writer;
use super::link::IN_FLIGHT;
use super::{Batch, Link, packet, sorry};
use crate::patterns::Patterns;
use crate::{Error, Observer, Result, Summary};

/// How many files are asked for at once.
const ASKED: usize = 256;

/// How many bytes of files wait for the disk. A packet that is larger waits alone.
const WAITING: u32 = 2 << 20;

/// Whose what comes becomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Owner {
    /// Everything belongs to these.
    Fixed(u32, u32),
    /// As it is said.
    AsSaid,
    /// Whoever receives.
    #[default]
    Ours,
}

/// How to receive.
#[derive(Clone, Default)]
pub struct Receive {
    /// Who owns what comes.
    pub owner: Owner,
    /// What is here and was not named is removed.
    pub delete: bool,
    /// Ask for all files, not only for those that differ.
    pub all: bool,
    /// Take names only, but for what matches these.
    pub metadata_only: Option<Patterns>,
    /// What is known of the directory by content, to be kept in step with it.
    pub known: Option<Contents>,
    /// Told how many bytes have come.
    pub observer: Option<Observer>,
    /// Kept until nothing is written any more, also when whoever receives goes away: what keeps
    /// others from the directory.
    pub hold: Option<Arc<dyn Send + Sync>>,
}

impl std::fmt::Debug for Receive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receive")
            .field("owner", &self.owner)
            .field("delete", &self.delete)
            .finish_non_exhaustive()
    }
}

/// Tells a thread that nobody waits for it any more.
struct Leaving(Arc<AtomicBool>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Makes `root` equal to what the other side has. Gives [`Receive::known`] back. When this comes back
/// nothing is written any more; dropped, the packet that is being written is the last.
pub async fn receive(
    link: Link,
    root: Root,
    options: Receive,
) -> Result<(Summary, Option<Contents>)> {
    let Link { out, mut incoming } = link;
    // Bounded, so a slow disk slows the sender down; while what we ask for is never
    // held up, or both sides could end up waiting for each other.
    let (to_disk, mut packets) = mpsc::channel(IN_FLIGHT);
    let room = Arc::new(Semaphore::new(WAITING as usize));
    let (ask, mut asked) = mpsc::unbounded_channel::<u32>();

    let asking = {
        let out = out.clone();
        async move {
            let mut ids = Vec::new();
            while asked.recv_many(&mut ids, ASKED).await > 0 {
                let requests = ids.drain(..).map(|id| Packet {
                    id,
                    ..packet(PacketType::PacketReq)
                });
                if out.send(requests.collect()).await.is_err() {
                    break;
                }
            }
            // Only the end of the disk's work ends the transfer.
            std::future::pending::<Result<_>>().await
        }
    };
    let left = Arc::new(AtomicBool::new(false));
    let _leaving = Leaving(left.clone());
    let disk = stdx::task::spawn(
        "write",
        stdx::task::blocking(move || {
            let _hold = options.hold.clone();
            let lost = || Error::Lost("the sender left before everything was here".into());
            let mut writer = Writer::new(root, options, ask)?;
            while !writer.is_done() {
                let (batch, _room): (Batch, _) = packets.blocking_recv().ok_or_else(lost)?;
                for packet in batch {
                    if writer.is_done() {
                        break;
                    }
                    if left.load(Ordering::Relaxed) {
                        return Err(lost());
                    }
                    writer.take(packet)?;
                }
            }
            writer.finish()
        }),
    );
    let mut fault = None;
    let listen = async {
        while let Some(batch) = incoming.next().await {
            let batch = match batch {
                Ok(batch) => batch,
                Err(error) => {
                    fault = Some(error);
                    break;
                }
            };
            let bytes: usize = batch.iter().map(|packet| packet.data.len()).sum();
            let bytes = u32::try_from(bytes).map_or(WAITING, |bytes| bytes.min(WAITING));
            let room = room.clone().acquire_many_owned(bytes).await;
            let room = room.expect("nobody closes it");
            if to_disk.send((batch, room)).await.is_err() {
                break;
            }
        }
        // What came before the end still counts: it may be the other side's reason, or all there is.
        drop(to_disk);
        std::future::pending::<Result<_>>().await
    };

    let result = tokio::select! {
        done = disk => done,
        failed = listen => failed,
        failed = asking => failed,
    };
    let result = match (result, fault) {
        (Err(Error::Lost(_)), Some(fault)) => Err(fault),
        (result, _) => result,
    };
    let last = match &result {
        Ok(_) => packet(PacketType::PacketFin),
        Err(error) => sorry(error),
    };
    // If the other side is gone it needs no goodbye.
    let _ = out.send(vec![last]).await;
    let (mut summary, known) = result?;
    summary.wire_bytes += wait_for_goodbye(&mut incoming).await?;
    Ok((summary, known))
}

/// The sender answers the end with its own, so that both know. Gives how long that was.
async fn wait_for_goodbye(
    incoming: &mut futures::stream::BoxStream<'static, Result<Batch>>,
) -> Result<u64> {
    while let Some(batch) = incoming.next().await {
        // Everything is here; how the line ends is not ours to judge.
        let Ok(batch) = batch else { break };
        for message in batch {
            match message.r#type() {
                PacketType::PacketFin => return Ok(message.encoded_len() as u64),
                PacketType::PacketErr => {
                    let said = String::from_utf8_lossy(&message.data).into_owned();
                    return Err(Error::Peer(said));
                }
                _ => {}
            }
        }
    }
    Ok(0)
}
