//! Remote caches: the manifest around a cache config, the config, an image with a cache inline.

use std::collections::HashMap;

use oci::{Descriptor, Digest, media_type};
use remotecache::config::CacheConfig;
use remotecache::container::Container;
use remotecache::import::Limits;
use remotecache::{Chains, Form};

use super::{Target, to_the_end};
use crate::mutate::Shape;

pub(super) const TARGET: Target = Target {
    name: "cache",
    run,
    seeds,
    shape: Shape::Bytes,
    words: &[
        "\"layers\":[",
        "\"records\":[",
        "\"inputs\":[[",
        "\"results\":[",
        "\"link\":0,",
        "\"link\":-1,",
        "\"layer\":0,",
        "\"layer\":9999999999,",
        "\"parent\":-1,",
        "\"parent\":0,",
        "\"parent\":1,",
        "\"selector\":\"sha256:",
        "\"chains\":[",
        "\"createdAt\":\"2026-01-01T00:00:00Z\"",
        "\"digest\":\"sha256:",
        "null",
        "[]",
        "{}",
        "moby.buildkit.cache.v0",
        "\"diffID\":\"\"",
        "1e99",
        "-9223372036854775808",
    ],
    longest: 32 << 10,
    memory: 32 << 20,
};

/// A cache config, and what a registry could serve as a cache manifest.
fn run(input: &[u8]) {
    if let Ok(config) = serde_json::from_slice::<CacheConfig>(input) {
        let text = serde_json::to_vec(&config).expect("it can be written");
        let again: CacheConfig =
            serde_json::from_slice(&text).expect("what is written can be read");
        assert_eq!(config, again);
        let blobs: HashMap<Digest, Descriptor> = config
            .layers
            .iter()
            .filter_map(|layer| layer.blob)
            .map(|digest| {
                (
                    digest,
                    Descriptor::new(media_type::OCI_LAYER_GZIP, digest, 1),
                )
            })
            .collect();
        // Either is fine.
        let _ = Chains::parse(&config, &blobs);
    }
    if let Ok(container) = Container::parse(input) {
        assert!(container.blobs.len() <= container.entries.len());
    }
    let blobs = content::Memory::default();
    let config = blobs.add(media_type::CACHE_CONFIG, input.to_vec());
    let (kind, around) = remotecache::container::write(Form::Image, &config, &[]);
    let around = blobs.add(kind, around);
    let bare = Descriptor::of(media_type::OCI_MANIFEST, input);
    let progress = progress::Progress::default();
    for top in [around, bare] {
        let step = progress.step(top.digest, "importing", &[]);
        let read = to_the_end(remotecache::import::read(
            &blobs,
            &top,
            &Limits::default(),
            &step,
        ));
        if let Err(error) = read {
            assert!(!error.to_string().is_empty());
        }
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let digest = Digest::of("layer");
    let layer = format!(
        r#"{{"blob":"{digest}","parent":-1,"annotations":{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","diffID":"{digest}","size":5}}}}"#
    );
    let records = format!(
        r#"{{"layers":[{{"layer":0,"createdAt":"2026-11-20T19:28:38Z"}}],"digest":"{digest}"}},{{"results":[{{"layer":0}}],"digest":"{}","inputs":[[{{"selector":"{digest}","link":0}}]]}}"#,
        Digest::of("second")
    );
    let config = format!(r#"{{"layers":[{layer}],"records":[{records}]}}"#);
    let descriptor = Descriptor::of(media_type::CACHE_CONFIG, b"x");
    let (_, container) = remotecache::container::write(
        Form::Index,
        &descriptor,
        &[Descriptor::of(media_type::OCI_LAYER_GZIP, b"y")],
    );
    vec![config.into_bytes(), container]
}
