//! Where a process reads from and writes to, and moving bytes there without hoarding them.

use std::os::fd::OwnedFd;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

/// Most bytes in one message of an [`Output::Channel`].
const CHUNK: usize = 32 * 1024;

/// Standard streams of a process.
pub struct Io {
    /// What it reads.
    pub stdin: Input,
    /// What it writes (with a terminal: everything it writes).
    pub stdout: Output,
    /// What it complains about (unused with a terminal).
    pub stderr: Output,
}

/// Where standard input comes from.
pub enum Input {
    /// End of file at once.
    Empty,
    /// Bytes as they come; end of file when the sender is dropped.
    Channel(mpsc::Receiver<Bytes>),
    /// The process gets this file itself.
    Fd(OwnedFd),
}

/// Where output goes.
pub enum Output {
    /// Nowhere.
    Discard,
    /// Chunks as they come. A full channel makes the process wait (its memory, not
    /// ours); a dropped receiver discards the rest without breaking its pipe.
    Channel(mpsc::Sender<Bytes>),
    /// The process gets this file itself.
    Fd(OwnedFd),
}

impl Io {
    /// No input, output discarded.
    pub fn none() -> Io {
        Io {
            stdin: Input::Empty,
            stdout: Output::Discard,
            stderr: Output::Discard,
        }
    }

    /// No input, and a bounded channel each for output and errors.
    pub fn channels(bound: usize) -> (Io, mpsc::Receiver<Bytes>, mpsc::Receiver<Bytes>) {
        let (stdout_to, stdout) = mpsc::channel(bound);
        let (stderr_to, stderr) = mpsc::channel(bound);
        let io = Io {
            stdin: Input::Empty,
            stdout: Output::Channel(stdout_to),
            stderr: Output::Channel(stderr_to),
        };
        (io, stdout, stderr)
    }
}

/// Moves everything `from` gives to `to`, until end of file.
pub(crate) async fn drain(mut from: impl AsyncRead + Unpin, to: Option<mpsc::Sender<Bytes>>) {
    let mut to = to;
    let mut buffer = BytesMut::with_capacity(CHUNK);
    loop {
        buffer.reserve(CHUNK);
        match from.read_buf(&mut buffer).await {
            // A terminal whose last user is gone answers EIO: the same as end of file.
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let chunk = buffer.split().freeze();
        if let Some(sender) = &to
            && sender.send(chunk).await.is_err()
        {
            to = None;
        }
    }
}

/// Moves everything the channel gives to `to`, until either end closes.
pub(crate) async fn feed(mut from: mpsc::Receiver<Bytes>, mut to: impl AsyncWrite + Unpin) {
    while let Some(chunk) = from.recv().await {
        if to.write_all(&chunk).await.is_err() {
            return;
        }
    }
}
