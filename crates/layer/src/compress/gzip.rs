//! gzip in members of one mebibyte, compressed on all cores.
//!
//! Each block of input becomes a gzip member of its own (RFC 1952 allows many in
//! a file), so the output depends on the input alone. libdeflate needs whole
//! blocks and rewards that with half again zlib's speed at a better ratio.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use libdeflater::{CompressionLvl, Compressor};

const BLOCK: usize = 1 << 20;

struct Job {
    block: Vec<u8>,
    done: SyncSender<Result<Member, libdeflater::CompressionError>>,
}

struct Member {
    bytes: Vec<u8>,
    /// The block's buffer, to be filled again.
    spare: Vec<u8>,
}

/// Writes gzip members in the order of the input.
pub(super) struct Members<W: Write> {
    out: W,
    block: Vec<u8>,
    jobs: Option<Sender<Job>>,
    waiting: VecDeque<Receiver<Result<Member, libdeflater::CompressionError>>>,
    workers: Vec<JoinHandle<()>>,
    most_waiting: usize,
    spare: Vec<Vec<u8>>,
    any: bool,
}

impl<W: Write> Members<W> {
    pub(super) fn new(out: W, level: Option<i32>) -> Members<W> {
        Members::with(super::workers(), out, level)
    }

    fn with(count: usize, out: W, level: Option<i32>) -> Members<W> {
        let (jobs, queue) = channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        let level = compression_level(level);
        let workers = (0..count)
            .map(|_| {
                let queue = Arc::clone(&queue);
                std::thread::spawn(move || work(&queue, level))
            })
            .collect();
        Members {
            out,
            block: Vec::with_capacity(BLOCK),
            jobs: Some(jobs),
            waiting: VecDeque::new(),
            workers,
            most_waiting: count * 2,
            spare: Vec::new(),
            any: false,
        }
    }

    fn dispatch(&mut self) -> io::Result<()> {
        if self.waiting.len() >= self.most_waiting {
            self.collect()?;
        }
        let next = self
            .spare
            .pop()
            .unwrap_or_else(|| Vec::with_capacity(BLOCK));
        let block = std::mem::replace(&mut self.block, next);
        let (done, result) = sync_channel(1);
        self.waiting.push_back(result);
        self.any = true;
        let jobs = self.jobs.as_ref().expect("open until it is dropped");
        jobs.send(Job { block, done }).map_err(|_| gone())
    }

    /// Writes the oldest member.
    fn collect(&mut self) -> io::Result<()> {
        let Some(result) = self.waiting.pop_front() else {
            return Ok(());
        };
        let member = result
            .recv()
            .map_err(|_| gone())?
            .map_err(io::Error::other)?;
        self.out.write_all(&member.bytes)?;
        self.spare.push(member.spare);
        Ok(())
    }

    pub(super) fn finish(mut self) -> io::Result<W>
    where
        W: Sized,
    {
        // An empty file is one empty member.
        if !self.block.is_empty() || !self.any {
            self.dispatch()?;
        }
        while !self.waiting.is_empty() {
            self.collect()?;
        }
        drop(self.jobs.take());
        for worker in self.workers.drain(..) {
            worker.join().map_err(|_| gone())?;
        }
        self.out.flush()?;
        Ok(self.out)
    }
}

impl<W: Write> Write for Members<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = BLOCK - self.block.len();
        let taken = bytes.len().min(room);
        self.block.extend_from_slice(&bytes[..taken]);
        if self.block.len() == BLOCK {
            self.dispatch()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn gone() -> io::Error {
    io::Error::other("a compressing thread ended early")
}

fn work(queue: &Mutex<Receiver<Job>>, level: CompressionLvl) {
    let mut compressor = Compressor::new(level);
    loop {
        let next = queue.lock().expect("no one panics while holding it").recv();
        let Ok(Job { mut block, done }) = next else {
            return;
        };
        let mut bytes = vec![0; compressor.gzip_compress_bound(block.len())];
        let result = compressor.gzip_compress(&block, &mut bytes).map(|length| {
            bytes.truncate(length);
            block.clear();
            Member {
                bytes,
                spare: block,
            }
        });
        // The writer may have given up.
        let _ = done.send(result);
    }
}

/// libdeflate's levels mean much the same as zlib's; its 4 is faster than Go's 6
/// and smaller.
fn compression_level(level: Option<i32>) -> CompressionLvl {
    match level {
        Some(level @ 0..=9) => CompressionLvl::new(level),
        Some(10..) => CompressionLvl::new(9),
        _ => CompressionLvl::new(4),
    }
    .expect("0 to 9 are levels")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The blob of a layer has the same digest wherever it is made, and many blocks are on their
    /// way at once, but never more than a few for each thread, however large the layer.
    ///
    /// Rows: Q1, B19
    #[test]
    fn any_number_of_threads_gives_the_same_bytes_in_little_memory() {
        let block: Vec<u8> = (0..BLOCK).map(|n| (n * n / 777) as u8).collect();
        let packed = |threads: usize| {
            let mut members = Members::with(threads, Vec::new(), None);
            let mut most = 0;
            for number in 0..20_u8 {
                members.write_all(&block).unwrap();
                members.write_all(&[number]).unwrap();
                most = most.max(members.waiting.len());
                let blocks = members.waiting.len() + members.spare.len();
                assert!(
                    blocks <= 2 * threads + 1,
                    "{blocks} blocks for {threads} threads"
                );
            }
            assert_eq!(
                most,
                2 * threads,
                "all threads have work, and one more block each"
            );
            members.finish().unwrap()
        };
        let alone = packed(1);
        for threads in [2, 3, 8] {
            assert!(packed(threads) == alone, "{threads} threads");
        }
    }
}
