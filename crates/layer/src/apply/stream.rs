//! Decompressing and hashing on one thread while another uses the bytes.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use oci::{Digest, Hasher};

use crate::{Error, Format, Result, decompress};

const CHUNK: usize = 256 << 10;
/// How many chunks may wait: bounds memory to a few MiB.
const WAITING: usize = 8;

/// What went by.
pub(super) struct Passed {
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) format: Format,
}

/// Runs `work` over the uncompressed bytes of `input`.
pub(super) fn beside<T>(
    input: impl Read + Send,
    work: impl FnOnce(Chunks) -> Result<T>,
) -> Result<(T, Passed)> {
    let (sender, receiver) = sync_channel(WAITING);
    std::thread::scope(|scope| {
        let reading = scope.spawn(move || read(input, &sender));
        let done = work(Chunks {
            receiver,
            current: io::Cursor::default(),
        });
        let passed = match reading.join() {
            Ok(passed) => passed,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        Ok((done?, passed.map_err(Error::Read)?))
    })
}

fn read(input: impl Read + Send, sender: &SyncSender<io::Result<Vec<u8>>>) -> io::Result<Passed> {
    let mut hasher = Hasher::default();
    let mut size = 0;
    let (mut input, format) = decompress::decompress(input).inspect_err(|error| {
        let _ = sender.send(Err(io::Error::from(error.kind())));
    })?;
    loop {
        let mut chunk = Vec::with_capacity(CHUNK);
        let read = (&mut input).take(CHUNK as u64).read_to_end(&mut chunk);
        hasher.update(&chunk);
        size += chunk.len() as u64;
        // A receiver that is gone has failed, and will say why.
        let gone = !chunk.is_empty() && sender.send(Ok(chunk)).is_err();
        match read {
            Ok(0) => {
                return Ok(Passed {
                    digest: hasher.finish(),
                    size,
                    format,
                });
            }
            Ok(_) if gone => {
                return Ok(Passed {
                    digest: hasher.finish(),
                    size,
                    format,
                });
            }
            Ok(_) => {}
            Err(error) => {
                let _ = sender.send(Err(io::Error::new(error.kind(), error.to_string())));
                return Err(error);
            }
        }
    }
}

/// The receiving end, as a reader.
pub(super) struct Chunks {
    receiver: Receiver<io::Result<Vec<u8>>>,
    current: io::Cursor<Vec<u8>>,
}

impl Read for Chunks {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.current.read(into)?;
            if read > 0 || into.is_empty() {
                return Ok(read);
            }
            match self.receiver.recv() {
                Ok(chunk) => self.current = io::Cursor::new(chunk?),
                Err(_) => return Ok(0),
            }
        }
    }
}
