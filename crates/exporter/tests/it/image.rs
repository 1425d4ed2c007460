//! How an image is written: layers, times, names, and what is said on the way.

use std::collections::BTreeMap;

use exporter::{ImageOptions, Source, image};
use progress::{Event, Progress};
use refs::RecordMeta;
use serde_json::Value;

use super::setup::{State, attrs, source, state, tar};

fn options(pairs: &[(&str, &str)]) -> ImageOptions {
    ImageOptions::parse(&attrs(pairs)).unwrap()
}

async fn write(state: &State, source: &Source, pairs: &[(&str, &str)]) -> image::Written {
    let written = image::write(source, &options(pairs), &state.cx).await;
    written.unwrap()
}

async fn config(written: &image::Written) -> Value {
    serde_json::from_slice(
        &written
            .document(&written.manifests[0].config)
            .await
            .unwrap(),
    )
    .unwrap()
}

const CONFIG: &[u8] = br#"{"architecture":"amd64","os":"linux"}"#;

/// What a person sees of an export, in its order.
///
/// Rows: W14, W21, W45, P8
#[tokio::test]
async fn privileged_every_document_is_told() {
    let Some(mut state) = state() else { return };
    let progress = Progress::new(progress::Options::default());
    let step = progress.internal_step("exporting to image");
    step.start();
    state.cx.step = step.clone();
    let result = state.on(None, &tar(&[("hello", "world")]));
    let platforms =
        br#"{"Platforms":[{"ID":"a","Platform":{"architecture":"amd64","os":"linux"}}]}"#;
    let metadata = BTreeMap::from([("refs.platforms".to_owned(), (&platforms[..]).into())]);
    let by_id = BTreeMap::from([("a".to_owned(), Some(result))]);
    let mut source = Source::new(None, by_id, &metadata).unwrap();
    source.results[0].statements.push(exporter::Statement {
        predicate_type: "https://example.com/p".to_owned(),
        predicate: (&b"{}"[..]).into(),
        file_name: "p.json".to_owned(),
        ..exporter::Statement::default()
    });
    let pairs = [("rewrite-timestamp", "true"), ("source-date-epoch", "5")];
    let written = write(&state, &source, &pairs).await;
    step.complete(false);
    progress.close();
    let mut follower = progress.follow();
    let (mut told, mut started, mut completed) = (Vec::new(), 0, 0);
    for event in follower.ready(1000) {
        match event {
            Event::Status(status) if status.completed.is_some() => told.push(status.id),
            Event::Step(step) => {
                started += usize::from(step.started.is_some() && step.completed.is_none());
                completed += usize::from(step.completed.is_some());
            }
            _ => {}
        }
    }
    let [manifest, attestations] = &written.manifests[..] else {
        panic!("an image and its statements")
    };
    assert_eq!(
        told,
        [
            "exporting layers".to_owned(),
            "rewriting layers with source-date-epoch 5 (1970-01-01 00:00:05 +0000 UTC)".to_owned(),
            format!("exporting manifest {}", manifest.descriptor.digest),
            format!("exporting config {}", manifest.config.digest),
            format!(
                "exporting attestation manifest {}",
                attestations.descriptor.digest
            ),
            format!("exporting manifest list {}", written.descriptor.digest),
        ]
    );
    assert!(
        started >= 1 && completed == 1,
        "one pair: {started} {completed}"
    );
}

/// Rows: W13
#[tokio::test]
async fn privileged_the_epoch_is_the_options_else_the_frontends() {
    let Some(state) = state() else { return };
    let facts = [
        ("containerimage.config", CONFIG),
        ("source.date.epoch", &b"7"[..]),
    ];
    let result = state.on(None, &tar(&[("a", "a")]));
    let source = source(Some(result), &facts);
    let made = write(&state, &source, &[]).await;
    assert_eq!(
        config(&made).await["history"][0]["created"],
        "1970-01-01T00:00:07Z"
    );
    assert_eq!(made.epoch.unwrap().epoch(), 7);
    let made = write(&state, &source, &[("source-date-epoch", "5")]).await;
    assert_eq!(
        config(&made).await["history"][0]["created"],
        "1970-01-01T00:00:05Z"
    );
    assert_eq!(made.epoch.unwrap().epoch(), 5);
}

/// A tar of nothing as Go compresses it.
const EMPTY: [u8; 32] = [
    31, 139, 8, 0, 0, 0, 0, 0, 0, 255, 98, 24, 5, 163, 96, 20, 140, 88, 0, 8, 0, 0, 255, 255, 46,
    175, 181, 239, 0, 4, 0, 0,
];

/// Layers say what they are, whoever made them; none is taken away for being empty.
///
/// Rows: W16, W40, W41
#[tokio::test]
async fn privileged_each_layer_has_its_own_facts_even_an_empty_one() {
    let Some(state) = state() else { return };
    // The empty layer of old images: a gzipped tar of nothing.
    let empty = testkit::image::Blob::new(oci::media_type::OCI_LAYER_GZIP, EMPTY.to_vec());
    assert_eq!(
        empty.descriptor.digest.to_string(),
        "sha256:4f4fb700ef54461cfa02571ae0db9a0dc1e0cdb5577484a6d75e68dc38e8acc1"
    );
    state
        .outside
        .add(oci::media_type::OCI_LAYER_GZIP, empty.bytes.clone());
    let base = refs::LayerBlob {
        descriptor: empty.descriptor.clone(),
        diff_id: oci::DiffId(oci::Digest::of([0; 1024])),
        description: "old".to_owned(),
        created: Some(std::time::UNIX_EPOCH + std::time::Duration::from_secs(9)),
    };
    let refs = &state.cx.refs;
    let base = refs.from_layers(vec![base]).unwrap().unwrap();
    base.unpack(&*state.cx.provider, &state.cx.step)
        .await
        .unwrap();
    let named = |parent: Option<&refs::Ref>, name: &str| {
        let writing = refs.begin(parent, RecordMeta::new(name)).unwrap();
        writing.commit().unwrap()
    };
    let nothing = named(Some(&base), "nothing was done");
    let other = state.on(None, &tar(&[("x", "y")]));
    let merged = refs.merge(vec![nothing, other.clone()]).unwrap();
    let written = write(&state, &source(Some(merged), &[]), &[]).await;
    let history = config(&written).await["history"].clone();
    let by: Vec<&str> = history
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["created_by"].as_str().unwrap())
        .collect();
    assert_eq!(by, ["old", "nothing was done", "a step"]);
    assert_eq!(history[0]["created"], "1970-01-01T00:00:09Z");
    assert!(
        history
            .as_array()
            .unwrap()
            .iter()
            .all(|e| e.get("empty_layer").is_none())
    );
    let layers = &written.manifests[0].layers;
    assert_eq!(layers[0].digest, empty.descriptor.digest);
    for layer in layers {
        assert!(layer.size > 0 && layer.media_type == oci::media_type::OCI_LAYER_GZIP);
    }
    let scratch = write(&state, &source(None, &[]), &[]).await;
    assert!(
        config(&scratch).await["created"].is_null(),
        "nothing has no time"
    );
}

/// What was set back is marked, and not done again; what cannot be is kept as it is.
///
/// Rows: W24, W25
#[tokio::test]
async fn privileged_layers_are_set_back_once_or_left_alone() {
    let Some(state) = state() else { return };
    let pairs = [("rewrite-timestamp", "1"), ("source-date-epoch", "5")];
    let result = state.on(None, &tar(&[("a", "a")]));
    let first = write(&state, &source(Some(result), &[]), &pairs).await;
    let layer = first.manifests[0].sources[0].clone();
    let mark = "buildkit/rewritten-timestamp";
    assert_eq!(layer.annotations[mark], "5");
    assert_eq!(
        state.cx.refs.store().labels(&layer.digest).unwrap()[mark],
        "5"
    );
    // Met again as a layer of another image, by its label alone.
    let diff_ids = config(&first).await["rootfs"]["diff_ids"].clone();
    let again = refs::LayerBlob {
        descriptor: oci::Descriptor::new(layer.media_type.clone(), layer.digest, layer.size),
        diff_id: oci::DiffId(diff_ids[0].as_str().unwrap().parse().unwrap()),
        description: String::new(),
        created: None,
    };
    let again = state.cx.refs.from_layers(vec![again]).unwrap();
    let zstd = [&pairs[..], &[("compression", "zstd")]].concat();
    let second = write(&state, &source(again, &[]), &zstd).await;
    assert_eq!(second.manifests[0].layers[0].digest, layer.digest);
    assert_eq!(second.manifests[0].layers[0].annotations[mark], "5");
    // A layer nobody has cannot be read, and is pointed at as it is.
    let gone = oci::Descriptor::of(oci::media_type::OCI_LAYER_GZIP, b"nobody has it");
    let gone = refs::LayerBlob {
        descriptor: gone,
        diff_id: oci::DiffId(oci::Digest::of(b"nor this")),
        description: String::new(),
        created: None,
    };
    let digest = gone.descriptor.digest;
    let gone = state.cx.refs.from_layers(vec![gone]).unwrap();
    let third = write(&state, &source(gone, &[]), &pairs).await;
    assert_eq!(third.manifests[0].layers[0].digest, digest);
}

/// What an image points at stays while somebody holds it, without a name or a record.
///
/// Rows: W44, W46
#[tokio::test]
async fn privileged_documents_stay_until_the_export_is_over() {
    let Some(state) = state() else { return };
    let refs = &state.cx.refs;
    let written = write(&state, &source(None, &[]), &[]).await;
    refs.sweep(&[]).unwrap();
    let config = &written.manifests[0].config;
    written.document(&written.descriptor).await.unwrap();
    written.document(config).await.unwrap();
    let (manifest, config) = (written.descriptor.digest, config.digest);
    drop(written);
    refs.sweep(&[]).unwrap();
    for digest in [manifest, config] {
        assert!(!refs.store().contains(&digest).unwrap());
    }
}

/// Names are those of this call: an earlier one left nothing.
///
/// Rows: W55, W62
#[tokio::test]
async fn privileged_names_are_split_filled_in_and_not_remembered() {
    let Some(state) = state() else { return };
    let wish = options(&[("name", "a,*, b:2 ")]);
    for found in ["one:1", "two:2"] {
        let source = source(None, &[("image.name", found.as_bytes())]);
        let written = image::write(&source, &wish, &state.cx).await.unwrap();
        let names: Vec<String> = written.names.iter().map(|name| name.familiar()).collect();
        assert_eq!(names, ["a:latest", found, "b:2"]);
    }
    let nobody = source(None, &[]);
    let written = write(&state, &nobody, &[("dangling-name-prefix", "left")]).await;
    let digest = written.descriptor.digest;
    let names: Vec<String> = written.names.iter().map(ToString::to_string).collect();
    assert_eq!(names, [format!("docker.io/library/left@{digest}")]);
    let pairs = [
        ("name", "a"),
        ("name-canonical", "true"),
        ("dangling-name-prefix", "left"),
        ("danging-name-empty-only", "true"),
    ];
    let written = write(&state, &nobody, &pairs).await;
    let names: Vec<String> = written.names.iter().map(ToString::to_string).collect();
    let canonical = format!("docker.io/library/a@{digest}");
    assert_eq!(names, ["docker.io/library/a:latest", &canonical]);
}

/// What the frontend says about its image weighs more than what was asked for.
///
/// Rows: E07, W10
#[tokio::test]
async fn privileged_annotations_of_the_frontend_are_written_beside_those_asked_for() {
    let Some(state) = state() else { return };
    let facts: [(&str, &[u8]); 2] = [("annotation.both", b"found"), ("annotation.mine", b"1")];
    let source = source(None, &facts);
    let asked = [("annotation.both", "asked"), ("annotation.theirs", "2")];
    let asked = ImageOptions::parse(&attrs(&asked)).unwrap();
    let written = image::write(&source, &asked, &state.cx).await.unwrap();
    let manifest = written.document(&written.descriptor).await.unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(
        manifest["annotations"],
        serde_json::json!({ "both": "found", "mine": "1", "theirs": "2" })
    );
    let docker = ImageOptions::parse(&attrs(&[("oci-mediatypes", "false")])).unwrap();
    let error = image::write(&source, &docker, &state.cx)
        .await
        .err()
        .unwrap();
    assert_eq!(
        error.to_string(),
        "cannot export annotations with \"oci-mediatypes=false\""
    );
}
