//! Lazy refs: found again, fetched once, unpacked once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use content::{ByteStream, Memory, Provider};
use futures::StreamExt;
use layer::Algorithm;
use oci::{Descriptor, chain_id};
use progress::{Event, Progress, StepProgress};
use stdx::Kind;

use crate::setup::{Outside, files, names, open, state, step};

/// Rows: P21, Q5, Q6
#[tokio::test(flavor = "multi_thread")]
async fn privileged_layers_stay_lazy_until_read_and_are_found_again() {
    let Some(state) = state() else { return };
    let outside = Outside::default();
    let layers = vec![
        outside.layer(
            &[("etc/os", Some("a")), ("gone", Some("x"))],
            Algorithm::Gzip,
        ),
        outside.layer(&[("gone", None), ("bin/tool", Some("t"))], Algorithm::Zstd),
    ];
    let image = state.refs.from_layers(layers.clone()).unwrap().unwrap();
    assert!(!image.is_unpacked().unwrap());
    assert_eq!(outside.reads(), 0, "nothing is fetched to make a ref");
    let expected = chain_id(&[layers[0].diff_id, layers[1].diff_id]);
    assert_eq!(image.chain_id().unwrap(), expected);
    let again = state.refs.from_layers(layers.clone()).unwrap().unwrap();
    assert_eq!(again, image);
    assert_eq!(
        names(&files(&image, &outside).await),
        ["bin", "bin/tool", "etc", "etc/os"]
    );
    assert_eq!(outside.reads(), 2);
    drop((image, again));
    // Another process finds it unpacked.
    let dir = state.dir.unwrap();
    drop(state.refs);
    let refs = open(dir.path());
    let image = refs.from_layers(layers).unwrap().unwrap();
    assert!(image.is_unpacked().unwrap());
    assert_eq!(files(&image, &outside).await.len(), 4);
    assert_eq!(outside.reads(), 2);
}

/// Rows: Q5, C12, B39
#[tokio::test(flavor = "multi_thread")]
async fn privileged_many_builds_fetch_and_unpack_each_layer_once() {
    let Some(state) = state() else { return };
    let outside = Outside::default();
    let layers: Vec<_> = (0..6)
        .map(|n| outside.layer(&[(&format!("file-{n}"), Some("text"))], Algorithm::Gzip))
        .collect();
    let builds = (0..12).map(|_| {
        let (refs, layers, outside) = (state.refs.clone(), layers.clone(), outside.clone());
        async move {
            let image = refs.from_layers(layers).unwrap().unwrap();
            files(&image, &outside).await.len()
        }
    });
    let counts = futures::future::join_all(builds).await;
    assert_eq!(counts, [6; 12]);
    assert_eq!(outside.reads(), 6);
    assert_eq!(state.refs.snapshots().layers().unwrap().len(), 6);
}

/// The same diff ID under two images is one directory.
#[tokio::test(flavor = "multi_thread")]
async fn privileged_the_same_layer_in_two_images_is_unpacked_once() {
    let Some(state) = state() else { return };
    let outside = Outside::default();
    let common = outside.layer(&[("common", Some("c"))], Algorithm::Gzip);
    let (a, b) = (
        outside.layer(&[("a", Some("a"))], Algorithm::Gzip),
        outside.layer(&[("b", Some("b"))], Algorithm::Gzip),
    );
    for bottom in [a, b] {
        let image = state
            .refs
            .from_layers(vec![bottom, common.clone()])
            .unwrap()
            .unwrap();
        assert_eq!(files(&image, &outside).await.len(), 2);
    }
    assert_eq!(state.refs.snapshots().layers().unwrap().len(), 3);
}

/// A provider that fails or lies.
struct Faulty {
    inner: Memory,
    fault: fn(usize, ByteStream) -> ByteStream,
    reads: Arc<AtomicUsize>,
}

#[async_trait]
impl Provider for Faulty {
    async fn size(&self, blob: &Descriptor) -> content::Result<u64> {
        self.inner.size(blob).await
    }

    async fn read(&self, blob: &Descriptor, offset: u64) -> content::Result<ByteStream> {
        let nth = self.reads.fetch_add(1, Ordering::SeqCst);
        Ok((self.fault)(nth, self.inner.read(blob, offset).await?))
    }
}

fn cut(stream: ByteStream, after: usize) -> ByteStream {
    let pieces = stream.map(move |bytes| bytes.map(|b| b.slice(..after.min(b.len()))));
    Box::pin(pieces)
}

/// A broken stream is taken up where it broke; a failed fetch leaves what came for the next one.
/// Rows: P31
#[tokio::test(flavor = "multi_thread")]
async fn privileged_a_broken_fetch_goes_on() {
    let Some(state) = state() else { return };
    let outside = Outside::default();
    let text = "incompressible? no matter: ".repeat(1000);
    let layer = outside.layer(&[("file", Some(&text))], Algorithm::Uncompressed);
    let image = state.refs.from_layers(vec![layer]).unwrap().unwrap();
    let reads = Arc::new(AtomicUsize::new(0));
    let once = Faulty {
        inner: outside.blobs.clone(),
        fault: |nth, stream| if nth == 0 { cut(stream, 9000) } else { stream },
        reads: Arc::clone(&reads),
    };
    assert_eq!(files(&image, &once).await["file"], text);
    assert_eq!(reads.load(Ordering::SeqCst), 2);
}

/// Rows: Z3
#[tokio::test(flavor = "multi_thread")]
async fn privileged_false_blobs_never_become_layers() {
    let Some(state) = state() else { return };
    let outside = Outside::default();
    let layer = outside.layer(&[("file", Some("text"))], Algorithm::Uncompressed);
    let image = state
        .refs
        .from_layers(vec![layer.clone()])
        .unwrap()
        .unwrap();
    let liar = Faulty {
        inner: outside.blobs.clone(),
        fault: |_, stream| {
            Box::pin(stream.map(|bytes| {
                bytes.map(|bytes| {
                    let mut bytes = bytes.to_vec();
                    bytes[512] ^= 1; // in the file's contents, so the tar can be read
                    bytes.into()
                })
            }))
        },
        reads: Arc::default(),
    };
    let error = image.tree(&liar, &StepProgress::none()).await.unwrap_err();
    assert!(
        matches!(error, refs::Error::Content(content::Error::Corrupt { .. })),
        "{error:?}"
    );
    state.refs.snapshots().settle();
    assert_eq!(state.refs.snapshots().layers().unwrap(), []);
    assert_eq!(state.refs.store().list().unwrap(), []);
    // Asked again with an honest provider it works.
    assert_eq!(files(&image, &outside).await["file"], "text");
    // An image whose config lies about a layer is refused.
    let mut false_id = outside.layer(&[("other", Some("text"))], Algorithm::Gzip);
    false_id.diff_id = oci::DiffId(oci::Digest::of("nothing"));
    let lie = state.refs.from_layers(vec![false_id]).unwrap().unwrap();
    let error = lie.tree(&outside, &StepProgress::none()).await.unwrap_err();
    assert!(
        matches!(error, refs::Error::WrongDiffId { .. }),
        "{error:?}"
    );
    let gone = outside.layer(&[("gone", Some("text"))], Algorithm::Gzip);
    let image = state.refs.from_layers(vec![gone]).unwrap().unwrap();
    let error = image
        .tree(&Memory::default(), &StepProgress::none())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
}

/// What the person at the terminal sees (core.md §5.3).
///
/// Rows: P6
#[tokio::test(flavor = "multi_thread")]
async fn privileged_pulling_is_shown_by_layer() {
    let Some(state) = state() else { return };
    let outside = Outside::default();
    let layer = outside.layer(&[("file", Some("text"))], Algorithm::Gzip);
    let (digest, size) = (layer.descriptor.digest, layer.descriptor.size);
    let image = state.refs.from_layers(vec![layer]).unwrap().unwrap();
    let progress = Progress::new(progress::Options::default());
    let step = progress.step(digest, "load", &[]);
    image.tree(&outside, &step).await.unwrap();
    progress.close();
    let mut follower = progress.follow();
    let mut seen = Vec::new();
    for event in follower.ready(1000) {
        if let Event::Status(status) = event
            && status.completed.is_some()
        {
            seen.push((status.id, status.current, status.total));
        }
    }
    assert_eq!(
        seen,
        [
            (digest.to_string(), size, size),
            (format!("extracting {digest}"), 0, 0)
        ]
    );
}

/// A layer is fetched when a step reads it; the person sees that at the step that named the image,
/// which is open again as long as it takes. Who does not see that step sees it at the reader.
///
/// Rows: B39, P20
#[tokio::test(flavor = "multi_thread")]
async fn privileged_pulling_is_shown_where_the_layer_came_in() {
    let Some(state) = state() else { return };
    let outside = Outside::default();
    let seen = |progress: &Progress| {
        progress.close();
        let (mut statuses, mut steps) = (Vec::new(), Vec::new());
        for event in progress.follow().ready(1000) {
            match event {
                Event::Status(status) if status.completed.is_some() => statuses.push(status.step),
                Event::Step(step) => steps.push((step.digest, step.completed.is_some())),
                _ => {}
            }
        }
        (statuses, steps)
    };
    for shared in [true, false] {
        let text = if shared { "one" } else { "two" };
        let layer = outside.layer(&[("file", Some(text))], Algorithm::Gzip);
        let image = state
            .refs
            .from_layers(vec![layer.clone()])
            .unwrap()
            .unwrap();
        let builds = [(); 2].map(|()| Progress::new(progress::Options::default()));
        let [named, reading] = ["FROM", "RUN"].map(oci::Digest::of);
        let from = builds[0].step(named, "FROM", &[]);
        from.start();
        state.refs.introduced(&[layer], &from);
        from.complete(true);
        let reader = &builds[usize::from(!shared)];
        let run = reader.step(reading, "RUN", &[]);
        run.start();
        image.tree(&outside, &run).await.unwrap();
        let (statuses, steps) = seen(reader);
        let at = if shared { named } else { reading };
        assert_eq!(statuses, [at, at], "fetched and extracted");
        let of_from: Vec<bool> = steps
            .iter()
            .filter_map(|(step, ended)| (*step == named).then_some(*ended))
            .collect();
        if shared {
            assert!(of_from.ends_with(&[true, false, true]), "{of_from:?}");
        } else {
            assert!(of_from.is_empty(), "{of_from:?}");
        }
    }
}

/// A step on a lazy parent says what to do first.
#[tokio::test(flavor = "multi_thread")]
async fn privileged_a_lazy_parent_must_be_unpacked_before_a_step() {
    let Some(state) = state() else { return };
    let outside = Outside::default();
    let layer = outside.layer(&[("file", Some("text"))], Algorithm::Gzip);
    let image = state.refs.from_layers(vec![layer]).unwrap().unwrap();
    let begun = state.refs.begin(Some(&image), refs::RecordMeta::default());
    assert!(matches!(begun.err().unwrap(), refs::Error::NotUnpacked(_)));
    let made = step(
        &state.refs,
        Some(&image),
        &outside,
        &[("file", None), ("new", Some("n"))],
    )
    .await;
    assert_eq!(names(&files(&made, &outside).await), ["new"]);
    assert_eq!(state.refs.get(made.id()).unwrap().unwrap(), made);
    assert_eq!(state.refs.get("nobody").unwrap(), None);
}

/// Builds are tasks that move between threads; this compiles only if they can.
#[test]
fn futures_may_cross_threads() {
    fn crosses<T: Send>(
        _: impl FnOnce(&'static refs::Ref, &'static Memory, &'static StepProgress) -> T,
    ) {
    }
    crosses(|of, from, step| of.tree(from, step));
    static PLAIN: refs::BlobOptions = refs::BlobOptions {
        compression: layer::Compression {
            algorithm: Algorithm::Gzip,
            level: None,
        },
        force: false,
    };
    crosses(|of, from, step| of.layers(&PLAIN, refs::Create::Yes, from, step));
}
