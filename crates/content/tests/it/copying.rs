//! Copying over connections that break. Time is paused: waits cost nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use content::testing::bytes;
use content::{ByteStream, Copied, Error, Memory, Provider, Sink, copy};
use futures::{StreamExt, stream};
use oci::Descriptor;
use stdx::Kind;
use tokio::time::Instant;

/// Gives only so many bytes at each read, then breaks off in one of two ways.
struct Breaking {
    inner: Memory,
    bytes_each: usize,
    politely: bool,
    offsets: std::sync::Mutex<Vec<u64>>,
}

impl Breaking {
    fn new(inner: &Memory, bytes_each: usize, politely: bool) -> Breaking {
        Breaking {
            inner: inner.clone(),
            bytes_each,
            politely,
            offsets: Default::default(),
        }
    }
}

#[async_trait]
impl Provider for Breaking {
    async fn size(&self, blob: &Descriptor) -> content::Result<u64> {
        self.inner.size(blob).await
    }

    async fn read(&self, blob: &Descriptor, offset: u64) -> content::Result<ByteStream> {
        self.offsets.lock().unwrap().push(offset);
        let whole = self
            .inner
            .get(&blob.digest)
            .ok_or(Error::NotFound(blob.digest))?;
        let rest = whole.slice(offset as usize..);
        let piece = rest.slice(..self.bytes_each.min(rest.len()));
        let breaks = piece.len() < rest.len() && !self.politely;
        let error = Error::Interrupted {
            digest: blob.digest,
            offset,
            reason: "test".into(),
        };
        let end = breaks.then_some(Err(error));
        Ok(stream::iter(std::iter::once(Ok(piece)).chain(end)).boxed())
    }
}

/// Rows: P31
#[tokio::test(start_paused = true)]
async fn reads_on_where_a_stream_broke() {
    for politely in [false, true] {
        let (from, to) = (Memory::default(), Memory::default());
        let blob = from.add("text/plain", bytes(1000));
        let breaking = Breaking::new(&from, 400, politely);
        let began = Instant::now();
        assert_eq!(copy(&breaking, &to, &blob).await.unwrap(), Copied::Moved);
        assert_eq!(*breaking.offsets.lock().unwrap(), [0, 400, 800]);
        assert_eq!(began.elapsed().as_secs(), 3, "one second, then two");
        assert_eq!(copy(&breaking, &to, &blob).await.unwrap(), Copied::WasThere);
    }
}

/// Rows: P31
#[tokio::test(start_paused = true)]
async fn gives_up_after_three_tries_without_progress() {
    let (from, to) = (Memory::default(), Memory::default());
    let blob = from.add("text/plain", bytes(1000));
    let stuck = Breaking::new(&from, 0, true);
    let began = Instant::now();
    let error = copy(&stuck, &to, &blob).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert_eq!(began.elapsed(), Duration::from_secs(7));
    assert!(!to.has(&blob).await.unwrap());
    // Much progress between faults forgives them.
    let blob = from.add("text/plain", bytes(12 << 20));
    let slow = Breaking::new(&from, 2 << 20, false);
    copy(&slow, &to, &blob).await.unwrap();
}

/// A sink that is busy at first.
struct Busy(Memory, AtomicUsize);

#[async_trait]
impl Sink for Busy {
    async fn has(&self, blob: &Descriptor) -> content::Result<bool> {
        self.0.has(blob).await
    }

    async fn put(&self, blob: &Descriptor, bytes: ByteStream) -> content::Result<()> {
        if self.1.fetch_add(1, Ordering::SeqCst) < 2 {
            let source = std::io::Error::other("503");
            return Err(Error::place("a registry", Kind::Unavailable, source));
        }
        self.0.put(blob, bytes).await
    }
}

#[tokio::test(start_paused = true)]
async fn begins_again_when_the_sink_was_busy_but_not_when_it_refuses() {
    let from = Memory::default();
    let blob = from.add("text/plain", bytes(100_000));
    let busy = Busy(Memory::default(), AtomicUsize::new(0));
    copy(&from, &busy, &blob).await.unwrap();
    assert_eq!(busy.1.load(Ordering::SeqCst), 3);
    // Bytes that are false stay false.
    let lying = Memory::default();
    let false_blob = Descriptor {
        digest: oci::Digest::of("other"),
        ..blob.clone()
    };
    struct Lie(Memory, Descriptor);
    #[async_trait]
    impl Provider for Lie {
        async fn size(&self, _: &Descriptor) -> content::Result<u64> {
            self.0.size(&self.1).await
        }
        async fn read(&self, _: &Descriptor, offset: u64) -> content::Result<ByteStream> {
            self.0.read(&self.1, offset).await
        }
    }
    let began = Instant::now();
    let error = copy(&Lie(from, blob), &lying, &false_blob)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }));
    assert_eq!(began.elapsed(), Duration::ZERO);
}

/// A hundred copies of the same blob to one store, of which all succeed.
#[tokio::test(flavor = "multi_thread")]
async fn many_copies_at_once_leave_one_blob() {
    let dir = tempfile::tempdir().unwrap();
    let store = content::Store::open(dir.path(), Arc::new(db::Db::memory().unwrap())).unwrap();
    let from = Memory::default();
    let blob = from.add("text/plain", Bytes::from(vec![7; 200_000]));
    let copies = (0..100).map(|_| copy(&from, &store, &blob));
    for copied in futures::future::join_all(copies).await {
        copied.unwrap();
    }
    assert_eq!(store.list().unwrap().len(), 1);
    assert_eq!(
        std::fs::read_dir(dir.path().join("ingest"))
            .unwrap()
            .count(),
        0
    );
}
