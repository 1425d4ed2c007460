//! What a client writes to a process, on its way there. It waits beside the stream it came
//! on, so that a process which does not read holds up nobody else.

use std::sync::Arc;

use bytes::Bytes;
use stdx::task::{Task, spawn};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Bytes that may wait for one process. When there are more, the stream waits, and all that
/// comes behind: nothing may be lost, and memory is bounded.
const AHEAD: usize = 1 << 20;
/// Chunks that may wait for one process.
const CHUNKS: usize = 256;

/// The client's end of a process's input. Dropped, the input ends after what was written.
pub(super) struct Stdin {
    queue: mpsc::Sender<(Bytes, OwnedSemaphorePermit)>,
    room: Arc<Semaphore>,
}

/// An input that leads to `process`, and the task that carries it there. Without the task,
/// what is written is lost.
pub(super) fn lead(process: mpsc::Sender<Bytes>) -> (Stdin, Task<()>) {
    let (queue, mut waiting) = mpsc::channel::<(Bytes, OwnedSemaphorePermit)>(CHUNKS);
    let carrying = async move {
        while let Some((data, room)) = waiting.recv().await {
            // It reads no more: what a pipe nobody reads from does is the process's matter.
            if process.send(data).await.is_err() {
                return;
            }
            drop(room);
        }
    };
    let room = Arc::new(Semaphore::new(AHEAD));
    (Stdin { queue, room }, spawn("exec-input", carrying))
}

impl Stdin {
    /// Waits only while there is no room. What nobody reads any more is lost.
    pub(super) async fn write(&self, data: Bytes) {
        let size = u32::try_from(data.len().min(AHEAD)).expect("AHEAD is no larger");
        let room = self.room.clone().acquire_many_owned(size).await;
        let room = room.expect("it is never closed");
        let _ = self.queue.send((data, room)).await;
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    /// Rows: G09
    #[tokio::test]
    async fn a_process_that_does_not_read_is_waited_for_only_when_much_waits() {
        let chunk = Bytes::from(vec![b'x'; AHEAD / 4]);
        let (process, mut reads) = mpsc::channel(1);
        let (stdin, carrying) = lead(process);
        for _ in 0..4 {
            let written = stdin.write(chunk.clone()).now_or_never();
            written.expect("there is room");
        }
        // One is in its hands; a chunk as large as all the room goes in alone.
        let whole = Bytes::from(vec![b'y'; 2 * AHEAD]);
        let mut write = Box::pin(stdin.write(whole.clone()));
        let now = write.as_mut().now_or_never();
        assert!(now.is_none(), "there is no room");
        for _ in 0..4 {
            assert_eq!(reads.recv().await.unwrap(), chunk);
        }
        write.await;
        drop(stdin);
        assert_eq!(reads.recv().await.unwrap(), whole);
        assert!(reads.recv().await.is_none(), "the input ended");
        carrying.await;
    }

    /// Rows: G09
    #[tokio::test]
    async fn input_nobody_reads_any_more_holds_nobody_up() {
        let chunk = Bytes::from(vec![b'x'; AHEAD]);
        let (process, reads) = mpsc::channel(1);
        let (stdin, _carrying) = lead(process);
        stdin.write(chunk.clone()).await;
        stdin.write(chunk.clone()).await;
        drop(reads);
        for _ in 0..CHUNKS + 2 {
            stdin.write(chunk.clone()).await;
        }
    }
}
