//! Manifests, indexes and configs of images, as registries serve them.

use oci::{Descriptor, Platform, media_type};
use source::documents::{Document, choose, layers};

use super::Target;
use crate::mutate::Shape;

pub(super) const TARGET: Target = Target {
    name: "documents",
    run,
    seeds,
    shape: Shape::Bytes,
    words: &[
        "\"schemaVersion\":2,",
        "\"manifests\":[",
        "\"layers\":[",
        "\"config\":{",
        "\"mediaType\":\"\",",
        "\"digest\":\"sha256:",
        "\"size\":-1,",
        "\"size\":18446744073709551615",
        "\"platform\":null,",
        "null",
        "[]",
        "{}",
        "\"fsLayers\":[]",
        "\"urls\":[\"\"]",
        "\"annotations\":{\"a\":\"b\"}",
        "\"rootfs\":{\"diff_ids\":[",
        "\"history\":[{\"created\":\"0001-01-01T00:00:00Z\"}]",
        "1e999",
        "\\u0000",
        "\"data\":\"AA==\"",
        "\u{feff}",
    ],
    longest: 16 << 10,
    memory: 16 << 20,
};

/// A manifest or index, and behind a byte that no text has, a config.
fn run(input: &[u8]) {
    let mut parts = input.splitn(2, |byte| *byte == 0xff);
    let (document, config) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    if let Ok(descriptor) = serde_json::from_slice::<Descriptor>(document) {
        let text = serde_json::to_vec(&descriptor).expect("it can be written");
        let again: Descriptor = serde_json::from_slice(&text).expect("what is written can be read");
        assert_eq!(descriptor, again);
    }
    for kind in [
        media_type::OCI_MANIFEST,
        media_type::OCI_INDEX,
        media_type::DOCKER_MANIFEST,
        "application/json",
    ] {
        match Document::parse("name", kind, document) {
            Ok(Document::Index(entries)) => {
                assert!(
                    !media_type::is_manifest(kind),
                    "an index though it says {kind}"
                );
                let wanted = Platform::host().normalized();
                if let Ok(chosen) = choose("name", &entries, &wanted) {
                    assert!(entries.contains(chosen));
                }
            }
            Ok(Document::Manifest { layers: blobs, .. }) => {
                assert!(
                    !media_type::is_index(kind),
                    "a manifest though it says {kind}"
                );
                let count = blobs.len();
                if let Ok(known) = layers("name", config, blobs, None) {
                    assert_eq!(known.len(), count);
                }
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let image = testkit::image::Image::seeded(1, 3, 2, 10);
    let config = Descriptor::of(media_type::OCI_CONFIG, b"{}");
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": config,
        "layers": [Descriptor::of(media_type::OCI_LAYER_GZIP, b"layer")],
    });
    let index = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_INDEX,
        "manifests": [
            {"mediaType": media_type::OCI_MANIFEST, "digest": config.digest, "size": 2, "platform": {"os": "linux", "architecture": "amd64"}},
            {"mediaType": media_type::OCI_MANIFEST, "digest": config.digest, "size": 2, "platform": {"os": "linux", "architecture": "arm", "variant": "v7"}},
        ],
    });
    let diff_id = &config.digest;
    let own = serde_json::json!({
        "os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created": "2023-11-14T20:00:00Z", "created_by": "x"}, {"empty_layer": true}],
    });
    let both = |document: &serde_json::Value, config: &serde_json::Value| {
        [
            document.to_string().as_bytes(),
            &[0xff],
            config.to_string().as_bytes(),
        ]
        .concat()
    };
    let mut seeds = vec![
        both(&manifest, &own),
        both(&index, &own),
        serde_json::to_vec(&config).expect("json"),
    ];
    seeds.push(image.manifest.bytes.to_vec());
    seeds
}
