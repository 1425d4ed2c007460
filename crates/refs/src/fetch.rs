//! A layer fetched and unpacked in one go: what comes from the network is hashed and written to
//! the content store, and the same bytes go on to be decompressed and unpacked. Nothing is read
//! back from disk, and a bounded number of pieces is in memory.

use std::io::{self, Read};
use std::sync::mpsc as blocking_channel;

use bytes::Bytes;
use content::{Ingest, Provider, resuming};
use layer::{Applied, ApplyOptions};
use oci::Descriptor;
use progress::Transfer;
use stdx::sys::Root;
use stdx::task::{Task, blocking, spawn};
use tokio::sync::mpsc;

use crate::{Error, Result};

/// Pieces between network, disk and unpacking.
const PIECES_BETWEEN: usize = 16;

/// What of an earlier try is read at once.
const PIECE: usize = 256 << 10;

/// Fetches `blob` into `ingest` and unpacks it into `dir`.
pub(crate) async fn fetch_and_apply(
    provider: &dyn Provider,
    blob: &Descriptor,
    ingest: Ingest,
    dir: Root,
    options: ApplyOptions,
    transfer: &Transfer,
) -> Result<Applied> {
    let mut reading = resuming(provider, blob, ingest.written());
    let (to_disk, from_network) = mpsc::channel(PIECES_BETWEEN);
    let (to_apply, from_disk) = blocking_channel::sync_channel(PIECES_BETWEEN);
    let media_type = blob.media_type.clone();
    let writing: Task<Result<()>> = spawn(
        "write blob",
        blocking(move || write(ingest, from_network, to_apply, &media_type)),
    );
    let applying = spawn(
        "unpack layer",
        blocking(move || layer::apply(Pieces::new(from_disk), &dir, &options)),
    );
    transfer.set(reading.offset(), blob.size);
    loop {
        let bytes = match reading.next().await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => {
                let _ = to_disk.send(Piece::End).await;
                break;
            }
            Err(error) => {
                drop(to_disk);
                // Both end by themselves when nothing more comes; the ingest keeps what it has.
                let _ = (writing.await, applying.await);
                return Err(error.into());
            }
        };
        transfer.set(reading.offset(), blob.size);
        if to_disk.send(Piece::Bytes(bytes)).await.is_err() {
            break;
        }
    }
    // A false blob explains a tar that cannot be read, so it is told first.
    let written = writing.await;
    let applied = applying.await;
    written?;
    applied.map_err(|source| Error::Unpack {
        blob: blob.digest,
        source,
    })
}

enum Piece {
    Bytes(Bytes),
    /// Only this commits; without it the blob stays an unfinished one.
    End,
}

fn write(
    mut ingest: Ingest,
    mut from_network: mpsc::Receiver<Piece>,
    to_apply: blocking_channel::SyncSender<Bytes>,
    media_type: &str,
) -> Result<()> {
    // When unpacking fails it stops taking pieces; the blob is still fetched to the end, to know
    // whether it or the tar in it is wrong.
    let mut to_apply = Some(to_apply);
    let mut pass_on = |bytes: Bytes| {
        if to_apply.as_ref().is_some_and(|to| to.send(bytes).is_err()) {
            to_apply = None;
        }
    };
    if ingest.written() > 0 {
        let mut before = ingest.reader()?;
        let mut buffer = vec![0; PIECE];
        loop {
            match before.read(&mut buffer)? {
                0 => break,
                count => pass_on(Bytes::copy_from_slice(&buffer[..count])),
            }
        }
    }
    while let Some(piece) = from_network.blocking_recv() {
        match piece {
            Piece::Bytes(bytes) => {
                io::Write::write_all(&mut ingest, &bytes).map_err(|error| match error
                    .downcast::<content::Error>()
                {
                    Ok(ours) => Error::Content(ours),
                    Err(error) => Error::Io(error),
                })?;
                pass_on(bytes);
            }
            Piece::End => {
                ingest.commit(media_type)?;
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Pieces from a channel, to read.
struct Pieces {
    from: blocking_channel::Receiver<Bytes>,
    current: Bytes,
}

impl Pieces {
    fn new(from: blocking_channel::Receiver<Bytes>) -> Pieces {
        Pieces {
            from,
            current: Bytes::new(),
        }
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.from.recv() {
                Ok(bytes) => self.current = bytes,
                Err(_) => return Ok(0),
            }
        }
        let count = self.current.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.current.split_to(count));
        Ok(count)
    }
}
