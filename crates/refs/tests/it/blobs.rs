//! Results as blobs: made once, kept in several compressions; merges and differences.

use layer::{Algorithm, Compression};
use oci::media_type;
use progress::StepProgress;
use refs::{BlobOptions, Create, LayerBlob, Ref};
use stdx::Kind;

use crate::setup::{Outside, files, names, state, step};

async fn layers(of: &Ref, algorithm: Algorithm, force: bool, outside: &Outside) -> Vec<LayerBlob> {
    let options = BlobOptions {
        compression: Compression::from(algorithm),
        force,
    };
    of.layers(&options, Create::Yes, outside, &StepProgress::none())
        .await
        .unwrap()
}

/// Rows: B7, B10, B35, Q7
#[tokio::test(flavor = "multi_thread")]
async fn privileged_only_new_layers_become_blobs_and_the_chain_is_found_again() {
    let Some(state) = state() else { return };
    let outside = Outside::default();
    let base = outside.layer(&[("base", Some("b"))], Algorithm::Gzip);
    let image = state.refs.from_layers(vec![base.clone()]).unwrap().unwrap();
    let made = step(
        &state.refs,
        Some(&image),
        &outside,
        &[("new", Some("n")), ("base", None)],
    )
    .await;
    let none = made
        .layers(
            &BlobOptions::default(),
            Create::No,
            &outside,
            &StepProgress::none(),
        )
        .await;
    let error = none.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert_eq!(
        error.to_string(),
        format!("no blobs for snapshot {}", made.id())
    );
    assert_eq!(made.chain_id().unwrap(), None);
    let blobs = layers(&made, Algorithm::Zstd, false, &outside).await;
    assert_eq!(blobs[0].descriptor, base.descriptor);
    assert_eq!(blobs[1].descriptor.media_type, media_type::OCI_LAYER_ZSTD);
    assert_eq!(blobs[1].description, "step");
    let chain = oci::chain_id(&[blobs[0].diff_id, blobs[1].diff_id]);
    assert_eq!(made.chain_id().unwrap(), chain);
    assert_eq!(
        state.refs.from_layers(blobs.clone()).unwrap().unwrap(),
        made
    );
    // Asked again, and by many at once, nothing is packed anew.
    let again = futures::future::join_all(
        (0..100).map(|_| layers(&made, Algorithm::Gzip, false, &outside)),
    )
    .await;
    assert!(again.iter().all(|again| *again == blobs));
    assert_eq!(state.refs.store().list().unwrap().len(), 2);
}

/// A base that no step read is pushed without being fetched.
///
/// Rows: B30, W17
#[tokio::test(flavor = "multi_thread")]
async fn privileged_lazy_layers_are_given_without_being_fetched() {
    let Some(state) = state() else { return };
    let outside = Outside::default();
    let base = outside.layer(&[("base", Some("b"))], Algorithm::Gzip);
    let image = state.refs.from_layers(vec![base.clone()]).unwrap().unwrap();
    assert_eq!(
        layers(&image, Algorithm::Zstd, false, &outside).await,
        [LayerBlob {
            created: Some(image.created()),
            ..base
        }]
    );
    assert_eq!(outside.reads(), 0);
}

/// Rows: P08, B28, B29, B31, B32, B38
#[tokio::test(flavor = "multi_thread")]
async fn privileged_forced_compressions_are_kept_beside_each_other() {
    let Some(state) = state() else { return };
    let outside = Outside::default();
    let base = outside.layer(&[("base", Some("b"))], Algorithm::Gzip);
    let image = state.refs.from_layers(vec![base.clone()]).unwrap().unwrap();
    let top = step(&state.refs, Some(&image), &outside, &[("new", Some("n"))]).await;
    let plain = layers(&top, Algorithm::Gzip, false, &outside).await;
    for algorithm in [
        Algorithm::Zstd,
        Algorithm::Uncompressed,
        Algorithm::Gzip,
        Algorithm::Zstd,
    ] {
        let blobs = layers(&top, algorithm, true, &outside).await;
        let ids: Vec<_> = blobs.iter().map(|b| b.diff_id).collect();
        assert_eq!(ids, plain.iter().map(|b| b.diff_id).collect::<Vec<_>>());
        for blob in &blobs {
            let mut bytes = Vec::new();
            let file = state
                .refs
                .store()
                .open_file(&blob.descriptor.digest)
                .unwrap();
            let (mut tar, _) = layer::decompress(file).unwrap();
            std::io::Read::read_to_end(&mut tar, &mut bytes).unwrap();
            assert_eq!(oci::Digest::of(bytes), blob.diff_id.0);
        }
        if algorithm == Algorithm::Uncompressed {
            assert_eq!(blobs[1].descriptor.digest, blobs[1].diff_id.0);
        }
        if algorithm == Algorithm::Gzip {
            assert_eq!(blobs, plain);
        }
    }
    assert_eq!(state.refs.store().list().unwrap().len(), 6, "three of each");
    assert_eq!(
        top.known_blobs()
            .unwrap()
            .iter()
            .map(Vec::len)
            .collect::<Vec<_>>(),
        [3, 3]
    );
    // The main ones are still what everybody gets who asks for nothing.
    assert_eq!(layers(&top, Algorithm::Zstd, false, &outside).await, plain);
}

/// Rows: C12, B4, B5
#[tokio::test(flavor = "multi_thread")]
async fn privileged_merges_lay_chains_on_each_other() {
    let Some(state) = state() else { return };
    let (outside, refs) = (Outside::default(), &state.refs);
    let image = outside.layer(&[("base", Some("b")), ("both", Some("0"))], Algorithm::Gzip);
    let image = refs.from_layers(vec![image]).unwrap().unwrap();
    let a = step(
        refs,
        Some(&image),
        &outside,
        &[("a", Some("a")), ("both", Some("a"))],
    )
    .await;
    let b = step(
        refs,
        Some(&image),
        &outside,
        &[("b", Some("b")), ("base", None)],
    )
    .await;
    let merged = refs.merge(vec![a.clone(), b.clone()]).unwrap();
    let found = files(&merged, &outside).await;
    assert_eq!(names(&found), ["a", "b", "both"]);
    assert_eq!(
        found["both"], "0",
        "the second input has the base's file again"
    );
    let blobs = layers(&merged, Algorithm::Gzip, false, &outside).await;
    assert_eq!(blobs.len(), 4);
    assert_eq!(
        merged.chain_id().unwrap(),
        oci::chain_id(&blobs.iter().map(|b| b.diff_id).collect::<Vec<_>>())
    );
    let copy = refs.from_layers(blobs).unwrap().unwrap();
    assert_eq!(files(&copy, &outside).await, found);
    assert_eq!(refs.merge(vec![a.clone()]).unwrap(), a);
    assert!(matches!(refs.merge(vec![]), Err(refs::Error::EmptyMerge)));
    // Steps can be built on it.
    let on_top = step(
        refs,
        Some(&merged),
        &outside,
        &[("c", Some("c")), ("a", None)],
    )
    .await;
    assert_eq!(names(&files(&on_top, &outside).await), ["b", "both", "c"]);
}

/// Rows: C12, B4, B5, B11
#[tokio::test(flavor = "multi_thread")]
async fn privileged_differences_reuse_layers_or_compare() {
    let Some(state) = state() else { return };
    let (outside, refs) = (Outside::default(), &state.refs);
    let image = outside.layer(&[("base", Some("b")), ("old", Some("o"))], Algorithm::Gzip);
    let image = refs.from_layers(vec![image]).unwrap().unwrap();
    let one = step(refs, Some(&image), &outside, &[("one", Some("1"))]).await;
    let two = step(
        refs,
        Some(&one),
        &outside,
        &[("two", Some("2")), ("old", None)],
    )
    .await;
    let before = refs.snapshots().layers().unwrap().len();
    let diff = refs.diff(Some(&image), Some(&two)).unwrap().unwrap();
    assert_eq!(names(&files(&diff, &outside).await), ["one", "two"]);
    assert_eq!(
        refs.snapshots().layers().unwrap().len(),
        before,
        "its layers are those of its input"
    );
    let of_two = layers(&two, Algorithm::Gzip, false, &outside).await;
    assert_eq!(
        layers(&diff, Algorithm::Gzip, false, &outside).await,
        of_two[1..]
    );
    assert_eq!(refs.diff(None, Some(&two)).unwrap().unwrap(), two);
    assert_eq!(refs.diff(Some(&two), Some(&two)).unwrap(), None);
    // What there is no more of is removed where the difference is merged, and nothing else.
    let removal = refs.diff(Some(&two), None).unwrap().unwrap();
    assert_eq!(names(&files(&removal, &outside).await), [""; 0]);
    let more = step(refs, Some(&two), &outside, &[("more", Some("m"))]).await;
    let merged = refs.merge(vec![more, removal]).unwrap();
    assert_eq!(names(&files(&merged, &outside).await), ["more"]);
    assert_eq!(refs.diff(None, None).unwrap(), None);
    // Deletions of a difference delete where it is merged.
    let other = step(
        refs,
        None,
        &outside,
        &[("old", Some("x")), ("three", Some("3"))],
    )
    .await;
    let merged = refs.merge(vec![other.clone(), diff]).unwrap();
    assert_eq!(
        names(&files(&merged, &outside).await),
        ["one", "three", "two"]
    );
    // Things with nothing in common are compared.
    let diff = refs.diff(Some(&two), Some(&other)).unwrap().unwrap();
    assert_eq!(names(&files(&diff, &outside).await), ["old", "three"]);
    let merged = refs.merge(vec![two, diff.clone()]).unwrap();
    assert_eq!(
        files(&merged, &outside).await,
        files(&other, &outside).await
    );
    assert_eq!(
        layers(&diff, Algorithm::Gzip, false, &outside).await.len(),
        1
    );
}

/// A directory that overlayfs made opaque hides what its own layers had there, and nothing of
/// others it is laid on: so say the blobs, and so must the view.
///
/// Rows: C12, B18, B4
#[tokio::test(flavor = "multi_thread")]
async fn privileged_an_opaque_directory_hides_as_much_as_its_blob_does() {
    for state in [state(), super::setup::state_of_copies()] {
        let Some(state) = state else { return };
        hides_as_much_as_its_blob(&state).await;
    }
}

async fn hides_as_much_as_its_blob(state: &super::setup::State) {
    let (outside, refs) = (Outside::default(), &state.refs);
    let other = [
        ("d/other", Some("o")),
        ("d/sub/other", Some("o")),
        ("n/other", Some("o")),
    ];
    let other = step(refs, None, &outside, &other).await;
    let own = [
        ("d/old", Some("1")),
        ("d/sub/old", Some("1")),
        ("k", Some("k")),
    ];
    let own = step(refs, None, &outside, &own).await;
    own.unpack(&outside, &StepProgress::none()).await.unwrap();
    // Removed and made again in one step, and made where its parent is merged: both are opaque.
    let writing = refs
        .begin(Some(&own), refs::RecordMeta::new("again"))
        .unwrap();
    let tree = writing.tree();
    let root = tree.root();
    root.remove_tree("d").unwrap();
    for (path, text) in [("d/sub/new", "2"), ("n/new", "2")] {
        snapshot::testing::write(root, path, text);
    }
    let again = writing.commit().unwrap();
    assert_eq!(
        names(&files(&again, &outside).await),
        ["d", "d/sub", "d/sub/new", "k", "n", "n/new"]
    );
    let diff = refs.diff(Some(&own), Some(&again)).unwrap().unwrap();
    for upper in [diff, again.clone()] {
        let merged = refs.merge(vec![other.clone(), upper]).unwrap();
        let view = files(&merged, &outside).await;
        let found = names(&view);
        for kept in ["d/other", "d/sub/other", "n/other", "d/sub/new", "n/new"] {
            assert!(found.contains(&kept.to_owned()), "{kept}: {found:?}");
        }
        assert!(!found.contains(&"d/old".to_owned()), "{found:?}");
        let exported = layers(&merged, Algorithm::Gzip, false, &outside).await;
        for layer in &exported {
            let bytes = refs
                .store()
                .read_all(&layer.descriptor.digest, 1 << 20)
                .unwrap();
            outside.blobs.add(&layer.descriptor.media_type, bytes);
        }
        // Elsewhere, with nothing but the blobs.
        let elsewhere = super::setup::state().unwrap();
        let copy = elsewhere.refs.from_layers(exported).unwrap().unwrap();
        assert_eq!(files(&copy, &outside).await, view);
        // A step on it sees the same.
        let on_top = step(refs, Some(&merged), &outside, &[("top", Some("t"))]).await;
        let mut found = files(&on_top, &outside).await;
        found.remove("top");
        assert_eq!(found, view);
    }
    // On its own layers nothing changed.
    let found = names(&files(&again, &outside).await);
    assert_eq!(found, ["d", "d/sub", "d/sub/new", "k", "n", "n/new"]);
}

/// A file that was moved away and back is no change, though overlayfs wrote it once more: the
/// layer leaves it out, and so does the view of a difference.
///
/// Rows: C12, B18, B4
#[tokio::test(flavor = "multi_thread")]
async fn privileged_a_file_that_was_moved_and_is_back_is_no_difference() {
    let Some(state) = state() else { return };
    let (outside, refs) = (Outside::default(), &state.refs);
    let own = [("moved", Some("m")), ("d/moved", Some("m"))];
    let own = step(refs, None, &outside, &own).await;
    own.unpack(&outside, &StepProgress::none()).await.unwrap();
    let writing = refs
        .begin(Some(&own), refs::RecordMeta::new("moves"))
        .unwrap();
    let tree = writing.tree();
    let root = tree.root();
    for (from, to) in [("moved", "away"), ("d/moved", "d/away")] {
        root.rename(from, to).unwrap();
        root.rename(to, from).unwrap();
    }
    snapshot::testing::write(root, "new", "n");
    let moves = writing.commit().unwrap();
    let diff = refs.diff(Some(&own), Some(&moves)).unwrap().unwrap();
    assert_eq!(names(&files(&diff, &outside).await), ["new"]);
    let all = ["d", "d/moved", "moved", "new"];
    assert_eq!(names(&files(&moves, &outside).await), all);
    let other = step(refs, None, &outside, &[("moved", Some("other"))]).await;
    let merged = refs.merge(vec![other, diff]).unwrap();
    let found = files(&merged, &outside).await;
    assert_eq!(names(&found), ["moved", "new"]);
    assert!(
        format!("{:?}", found["moved"]).contains("other"),
        "{found:?}"
    );
}

/// What a result's layers are made of stays as long as somebody holds the result, and goes with
/// it: blobs, their variants, and what they need in between.
///
/// Rows: B1, B8, B24, B26
#[tokio::test(flavor = "multi_thread")]
async fn privileged_blobs_live_as_long_as_their_result() {
    let Some(state) = state() else { return };
    let (outside, refs) = (Outside::default(), &state.refs);
    let made = step(refs, None, &outside, &[("new", Some("n"))]).await;
    let size = || refs.usage(&refs::Filter::default()).unwrap()[0].size;
    let before = size();
    let main = layers(&made, Algorithm::Gzip, false, &outside).await;
    let with_main = size();
    let variant = layers(&made, Algorithm::Zstd, true, &outside).await;
    assert!(before < with_main && with_main < size(), "variants count");
    let everything = refs::PrunePolicy {
        all: true,
        ..refs::PrunePolicy::default()
    };
    for prune in [false, true] {
        if prune {
            let policy = std::slice::from_ref(&everything);
            refs.prune(policy, &[]).unwrap();
        } else {
            refs.sweep(&[]).unwrap();
        }
        for blob in [&main[0], &variant[0]] {
            let digest = &blob.descriptor.digest;
            let bytes = refs.store().read_all(digest, 1 << 20).unwrap();
            assert_eq!(bytes.len() as u64, blob.descriptor.size);
        }
    }
    drop(made);
    refs.prune(&[everything], &[]).unwrap();
    assert_eq!(refs.store().list().unwrap().len(), 0);
}

/// The first blob of a layer stays its main one; whoever asks without force gets it.
///
/// Rows: B22, B25, B27, B34
#[tokio::test(flavor = "multi_thread")]
async fn privileged_variants_are_found_from_each_other_and_made_again_when_lost() {
    let Some(state) = state() else { return };
    let (outside, refs) = (Outside::default(), &state.refs);
    let made = step(refs, None, &outside, &[("new", Some("n"))]).await;
    let plain = layers(&made, Algorithm::Uncompressed, false, &outside).await;
    assert_eq!(plain[0].descriptor.digest, plain[0].diff_id.0);
    let gzip = layers(&made, Algorithm::Gzip, true, &outside).await;
    let zstd = layers(&made, Algorithm::Zstd, true, &outside).await;
    assert_eq!(layers(&made, Algorithm::Zstd, false, &outside).await, plain);
    let known = made.known_blobs().unwrap();
    assert_eq!(known[0][0], plain[0].descriptor, "the main one first");
    for variant in [&gzip, &zstd] {
        let found = known[0].iter().filter(|one| **one == variant[0].descriptor);
        assert_eq!(found.count(), 1, "each once");
        assert_eq!(variant[0].diff_id, plain[0].diff_id);
    }
    refs.store().remove(&gzip[0].descriptor.digest).unwrap();
    assert_eq!(layers(&made, Algorithm::Gzip, true, &outside).await, gzip);
    assert!(refs.store().contains(&gzip[0].descriptor.digest).unwrap());
}

/// Rows: B6
#[tokio::test(flavor = "multi_thread")]
async fn privileged_who_waits_gets_the_blob_though_the_first_one_left() {
    let Some(state) = state() else { return };
    let (outside, refs) = (Outside::default(), &state.refs);
    let text = "a line that says little\n".repeat(200_000);
    let made = step(refs, None, &outside, &[("big", Some(&text))]).await;
    for delay in [0, 1, 5] {
        let mut first = Box::pin(layers(&made, Algorithm::Gzip, false, &outside));
        let delay = std::time::Duration::from_millis(delay);
        let left = tokio::time::timeout(delay, &mut first).await;
        let second = layers(&made, Algorithm::Gzip, false, &outside);
        drop((left, first));
        let second = tokio::time::timeout(std::time::Duration::from_secs(20), second).await;
        assert_eq!(second.expect("nobody waits for ever").len(), 1);
    }
    assert_eq!(refs.store().list().unwrap().len(), 1, "made once");
}

/// Rows: B9, B30, B33
#[tokio::test(flavor = "multi_thread")]
async fn privileged_a_conversion_that_fails_says_so_and_leaves_nothing() {
    let Some(state) = state() else { return };
    let (outside, refs) = (Outside::default(), &state.refs);
    let base = outside.layer(&[("base", Some("b"))], Algorithm::Gzip);
    let image = refs.from_layers(vec![base.clone()]).unwrap().unwrap();
    // What fits already is not even fetched.
    let same = layers(&image, Algorithm::Gzip, true, &outside).await;
    assert_eq!(same[0].descriptor, base.descriptor);
    assert_eq!(outside.reads(), 0);
    let nowhere = Outside::default();
    let options = BlobOptions {
        compression: Compression::from(Algorithm::Zstd),
        force: true,
    };
    let step = StepProgress::none();
    let failed = image.layers(&options, Create::Yes, &nowhere, &step).await;
    let error = failed.unwrap_err();
    assert_eq!(
        error.to_string(),
        "failed to ensure compression type of \"zstd\""
    );
    assert_eq!(error.kind(), Kind::NotFound);
    assert_eq!(refs.store().list().unwrap().len(), 0);
    image
        .layers(&options, Create::Yes, &outside, &step)
        .await
        .unwrap();
}

/// A layer that cannot be written down leaves no blob, and no half of one.
///
/// Rows: B20
#[tokio::test(flavor = "multi_thread")]
async fn privileged_a_layer_that_cannot_be_packed_leaves_nothing() {
    let Some(state) = state() else { return };
    let (outside, refs) = (Outside::default(), &state.refs);
    let made = step(refs, None, &outside, &[("dir/file", Some("x"))]).await;
    let id = made.unpacked_layers().unwrap().remove(0);
    let layer = refs.snapshots().layer(&id).unwrap();
    let redirect = std::ffi::OsStr::new("trusted.overlay.redirect");
    layer.root().set_xattr("dir", redirect, b"/other").unwrap();
    let options = BlobOptions::default();
    let quiet = StepProgress::none();
    let failed = made.layers(&options, Create::Yes, &outside, &quiet);
    let error = failed.await.unwrap_err();
    assert!(matches!(error, refs::Error::Pack { .. }), "{error:?}");
    assert_eq!(refs.store().list().unwrap().len(), 0);
    assert_eq!(
        refs.store().sweep_all_ingests().unwrap(),
        0,
        "no half of one"
    );
}

/// Rows: B36
#[tokio::test(flavor = "multi_thread")]
async fn privileged_a_blob_without_media_type_is_looked_at() {
    let Some(state) = state() else { return };
    let (outside, refs) = (Outside::default(), &state.refs);
    for (algorithm, expected) in [
        (Algorithm::Gzip, media_type::OCI_LAYER_GZIP),
        (Algorithm::Zstd, media_type::OCI_LAYER_ZSTD),
        (Algorithm::Uncompressed, media_type::OCI_LAYER),
    ] {
        let mut blob = outside.layer(&[("f", Some(expected))], algorithm);
        blob.descriptor.media_type.clear();
        let image = refs.from_layers(vec![blob]).unwrap().unwrap();
        for _ in 0..2 {
            let found = layers(&image, Algorithm::Gzip, false, &outside).await;
            assert_eq!(found[0].descriptor.media_type, expected);
        }
    }
    assert_eq!(outside.reads(), 3, "each once");
}

/// Rows: B37
#[tokio::test(flavor = "multi_thread")]
async fn privileged_a_layer_met_in_several_places_names_them_all() {
    let Some(state) = state() else { return };
    let (outside, refs) = (Outside::default(), &state.refs);
    let key = "containerd.io/distribution.source.reg.example";
    let base = outside.layer(&[("base", Some("b"))], Algorithm::Gzip);
    let mut image = None;
    for place in ["team/a", "team/b", "team/a"] {
        let mut met = base.clone();
        met.descriptor.annotations.insert(key.into(), place.into());
        image = refs.from_layers(vec![met]).unwrap();
    }
    let found = layers(&image.unwrap(), Algorithm::Gzip, false, &outside).await;
    assert_eq!(found[0].descriptor.annotations[key], "team/a,team/b");
}

/// However a snapshotter keeps a change, its blob is the same: by the directory that overlayfs
/// wrote it into, or by comparing.
///
/// Rows: B13, B15
#[tokio::test(flavor = "multi_thread")]
async fn privileged_every_snapshotter_gives_the_same_layers() {
    let below = super::setup::tar(&[
        ("d/old", Some("1")),
        ("d/sub/gone", Some("2")),
        ("k", Some("3")),
    ]);
    let above = super::setup::tar(&[("d/new", Some("4")), ("d/sub/gone", None), ("k", Some("5"))]);
    let mut all = Vec::new();
    for state in [state(), super::setup::state_of_copies()] {
        let Some(state) = state else { return };
        let outside = Outside::default();
        let mut top: Option<Ref> = None;
        for tar in [&below, &above] {
            let writing = state
                .refs
                .begin(top.as_ref(), refs::RecordMeta::new("step"))
                .unwrap();
            let options = layer::ApplyOptions {
                whiteouts: layer::Whiteouts::Remove,
                ..layer::ApplyOptions::default()
            };
            layer::apply(&tar[..], writing.tree().root(), &options).unwrap();
            top = Some(writing.commit().unwrap());
        }
        let top = top.unwrap();
        let ids = |blobs: &[LayerBlob]| blobs.iter().map(|b| b.diff_id).collect::<Vec<_>>();
        let made = ids(&layers(&top, Algorithm::Gzip, false, &outside).await);
        for algorithm in [Algorithm::Zstd, Algorithm::Uncompressed] {
            assert_eq!(ids(&layers(&top, algorithm, true, &outside).await), made);
        }
        all.push(made);
    }
    assert_eq!(all[0], all[1]);
    assert_eq!(all[0].len(), 2);
}
