//! Images BuildKit made, made again from their files: manifest and config must be
//! the same bytes.

use std::io::Read;
use std::path::{Path, PathBuf};

use exporter::{ImageOptions, image};
use oci::DiffId;
use refs::LayerBlob;
use serde_json::Value;

use super::setup::{attrs, source, state};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden")
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn blob(digest: &str) -> PathBuf {
    golden()
        .join("base/blobs/sha256")
        .join(digest.trim_start_matches("sha256:"))
}

/// The base image: its layer, lazily, and its config.
fn base() -> (Vec<u8>, LayerBlob, Vec<u8>) {
    let index = json(&golden().join("base/index.json"));
    let manifest = json(&blob(index["manifests"][0]["digest"].as_str().unwrap()));
    let config = std::fs::read(blob(manifest["config"]["digest"].as_str().unwrap())).unwrap();
    let parsed: Value = serde_json::from_slice(&config).unwrap();
    let descriptor = serde_json::from_value(manifest["layers"][0].clone()).unwrap();
    let diff_id: DiffId = serde_json::from_value(parsed["rootfs"]["diff_ids"][0].clone()).unwrap();
    let layer = LayerBlob {
        descriptor,
        diff_id,
        description: "base".to_owned(),
        created: None,
    };
    let bytes = std::fs::read(blob(manifest["layers"][0]["digest"].as_str().unwrap())).unwrap();
    (bytes, layer, config)
}

/// What the frontend would have given: the golden config without what the exporter sets.
fn frontend_config(mut config: Value, base_entries: usize) -> Vec<u8> {
    let fields = config.as_object_mut().unwrap();
    fields.shift_remove("rootfs");
    fields.shift_remove("created");
    let history = fields["history"].as_array_mut().unwrap();
    for entry in &mut history[base_entries..] {
        // Later than the epoch, or missing: both must become the epoch.
        match entry["empty_layer"].as_bool() {
            Some(true) => entry["created"] = "2024-05-06T07:08:09.1234Z".into(),
            _ => drop(entry.as_object_mut().unwrap().shift_remove("created")),
        }
    }
    serde_json::to_vec_pretty(&config).unwrap()
}

fn layers(case: &Path) -> Vec<Vec<u8>> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(case)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(".tar.gz"))
        .collect();
    paths.sort();
    let plain = |path: &PathBuf| {
        let mut tar = Vec::new();
        let file = std::fs::File::open(path).unwrap();
        layer::decompress(file)
            .unwrap()
            .0
            .read_to_end(&mut tar)
            .unwrap();
        tar
    };
    paths.iter().map(plain).collect()
}

/// Rows: W12, W17, W19, W22, W23, W29, W30, W31, W32, W43, P07
#[tokio::test]
async fn privileged_golden_images_are_the_same_bytes() {
    let Some(state) = state() else { return };
    let (base_bytes, base_layer, base_config) = base();
    state
        .outside
        .add(&base_layer.descriptor.media_type, base_bytes);
    let mut seen = 0;
    for case in std::fs::read_dir(golden()).unwrap() {
        let case = case.unwrap().path();
        if !case.join("manifest.json").exists() {
            continue;
        }
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        let config = json(&case.join("config.json"));
        let tars = layers(&case);
        let count = config["rootfs"]["diff_ids"].as_array().unwrap().len();
        let on_base = count == tars.len() + 1;
        let mut result = if on_base {
            state.cx.refs.from_layers(vec![base_layer.clone()]).unwrap()
        } else {
            None
        };
        for tar in &tars {
            if let Some(parent) = &result {
                parent
                    .unpack(state.cx.provider.as_ref(), &state.cx.step)
                    .await
                    .unwrap();
            }
            result = Some(state.on(result.as_ref(), tar));
        }
        let config = frontend_config(config, usize::from(on_base));
        let mut facts = vec![("containerimage.config", &config[..])];
        if on_base {
            facts.push(("containerimage.base.config", &base_config));
        }
        let options = ImageOptions::parse(&attrs(&[
            ("compression", "uncompressed"),
            ("rewrite-timestamp", "true"),
            ("source-date-epoch", "1700000000"),
            ("oci-mediatypes", "true"),
        ]));
        let options = options.unwrap();
        let written = image::write(&source(result, &facts), &options, &state.cx)
            .await
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let golden = |file: &str| text(&std::fs::read(case.join(file)).unwrap());
        let made = written
            .document(&written.manifests[0].config)
            .await
            .unwrap();
        assert_eq!(text(&made), golden("config.json"), "{name}");
        let made = written.document(&written.descriptor).await.unwrap();
        assert_eq!(text(&made), golden("manifest.json"), "{name}");
        seen += 1;
    }
    assert!(seen >= 20, "only {seen} images found");
}
