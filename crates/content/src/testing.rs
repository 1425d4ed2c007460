//! What every [`Provider`] and [`Sink`] promises, as tests. A new place proves itself with
//! `content::provider_suite!(my_place_with)` and `content::sink_suite!(my_empty_place)`, where
//! `async fn my_place_with(blobs: Vec<Bytes>) -> Box<dyn Provider>` and
//! `async fn my_empty_place() -> Box<dyn Place>`; [`Place`] is both in one.

use bytes::Bytes;
use futures::{StreamExt, stream};
use oci::Descriptor;
use stdx::Kind;

use crate::{ByteStream, Error, Provider, Sink, Verified, collect, once};

/// A place one can put to and read back from.
pub trait Place: Provider + Sink {}
impl<T: Provider + Sink> Place for T {}

const SIZES: [usize; 4] = [0, 1, 70_000, 3_000_000];

fn blob(bytes: &[u8]) -> Descriptor {
    Descriptor::of("application/octet-stream", bytes)
}

/// Bytes that differ from place to place, so that a shifted read is noticed.
pub fn bytes(len: usize) -> Bytes {
    (0..len)
        .map(|i| (i ^ (i >> 8).wrapping_mul(31)) as u8)
        .collect::<Vec<_>>()
        .into()
}

/// A blob reads back as it was, in any size.
pub async fn returns_what_was_put(place_with: impl AsyncFn(Vec<Bytes>) -> Box<dyn Provider>) {
    let blobs: Vec<Bytes> = SIZES.map(bytes).into();
    let place = place_with(blobs.clone()).await;
    for expected in blobs {
        let blob = blob(&expected);
        assert_eq!(place.size(&blob).await.unwrap(), blob.size);
        let stream = place.read(&blob, 0).await.unwrap();
        assert_eq!(collect(stream, &blob, u64::MAX).await.unwrap(), expected);
    }
}

/// A blob that is not there is `NotFound`, for both questions.
pub async fn says_not_found(place_with: impl AsyncFn(Vec<Bytes>) -> Box<dyn Provider>) {
    let place = place_with(vec![bytes(5)]).await;
    let absent = blob(b"absent");
    assert_eq!(
        place.size(&absent).await.unwrap_err().kind(),
        Kind::NotFound
    );
    let error = match place.read(&absent, 0).await {
        Err(error) => error,
        Ok(mut stream) => stream.next().await.expect("not an empty blob").unwrap_err(),
    };
    assert_eq!(error.kind(), Kind::NotFound);
}

/// A read may begin anywhere.
pub async fn reads_from_an_offset(place_with: impl AsyncFn(Vec<Bytes>) -> Box<dyn Provider>) {
    let whole = bytes(700_000);
    let place = place_with(vec![whole.clone()]).await;
    for offset in [1, 4096, 262_144, 699_999] {
        let mut stream = place.read(&blob(&whole), offset as u64).await.unwrap();
        let mut rest = Vec::new();
        while let Some(bytes) = stream.next().await {
            rest.extend_from_slice(&bytes.unwrap());
        }
        assert!(rest == whole[offset..], "offset {offset}");
    }
}

/// What was put can be read, and putting it again is no error.
pub async fn keeps_what_is_put(empty: impl AsyncFn() -> Box<dyn Place>) {
    let place = empty().await;
    for size in SIZES {
        let bytes = bytes(size);
        let blob = blob(&bytes);
        assert!(!place.has(&blob).await.unwrap());
        place.put(&blob, once(bytes.clone())).await.unwrap();
        assert!(place.has(&blob).await.unwrap());
        place.put(&blob, once(bytes.clone())).await.unwrap();
        let stream = place.read(&blob, 0).await.unwrap();
        assert_eq!(collect(stream, &blob, u64::MAX).await.unwrap(), bytes);
    }
}

/// False, short, long and broken streams leave nothing visible.
pub async fn refuses_what_is_not_the_blob(empty: impl AsyncFn() -> Box<dyn Place>) {
    let place = empty().await;
    let right = bytes(100_000);
    let blob = blob(&right);
    let mut false_bytes = right.to_vec();
    false_bytes[99_999] ^= 1;
    let broken = stream::iter([
        Ok(right.slice(..50_000)),
        Err(Error::Interrupted {
            digest: blob.digest,
            offset: 50_000,
            reason: "test".into(),
        }),
    ]);
    let longer = [right.clone(), Bytes::from_static(b"more")].map(Ok);
    let streams: [ByteStream; 4] = [
        once(false_bytes),
        once(right.slice(..99_999)),
        Box::pin(stream::iter(longer)),
        Box::pin(broken),
    ];
    for (n, stream) in streams.into_iter().enumerate() {
        assert!(place.put(&blob, stream).await.is_err(), "stream {n}");
        assert!(!place.has(&blob).await.unwrap(), "stream {n}");
        assert!(place.size(&blob).await.is_err(), "stream {n}");
    }
    place.put(&blob, once(right)).await.unwrap();
    assert!(place.has(&blob).await.unwrap());
}

/// Many putting the same blob at once all succeed.
pub async fn lets_many_put_the_same(empty: impl AsyncFn() -> Box<dyn Place>) {
    let place = empty().await;
    let bytes = bytes(300_000);
    let blob = blob(&bytes);
    let puts = (0..8).map(|_| {
        let pieces: Vec<_> = bytes
            .chunks(10_000)
            .map(|c| Ok(Bytes::copy_from_slice(c)))
            .collect();
        let stream = Box::pin(stream::iter(pieces).then(|piece| async {
            tokio::task::yield_now().await;
            piece
        }));
        place.put(&blob, stream)
    });
    for put in futures::future::join_all(puts).await {
        put.unwrap();
    }
    let stream = place.read(&blob, 0).await.unwrap();
    let mut verified = Verified::new(stream, &blob);
    while let Some(piece) = verified.next().await {
        piece.unwrap();
    }
}

/// Makes a test of each promise of a provider.
#[macro_export]
macro_rules! provider_suite {
    ($place_with:path) => {
        $crate::provider_suite!($place_with: returns_what_was_put, says_not_found, reads_from_an_offset);
    };
    ($place_with:path: $($test:ident),*) => {
        $(#[tokio::test] async fn $test() { $crate::testing::$test($place_with).await })*
    };
}

/// Makes a test of each promise of a sink.
#[macro_export]
macro_rules! sink_suite {
    ($empty:path) => {
        $crate::sink_suite!($empty: keeps_what_is_put, refuses_what_is_not_the_blob, lets_many_put_the_same);
    };
    ($empty:path: $($test:ident),*) => {
        $(#[tokio::test] async fn $test() { $crate::testing::$test($empty).await })*
    };
}
