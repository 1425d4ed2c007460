//! Images from a seed: real manifests, configs and layers, small and always the same.

use bytes::Bytes;
use oci::{Descriptor, DiffId, Digest, media_type};
use serde_json::json;

use crate::tar::{Entry, gzip, tar};
use crate::tree;

/// A blob and its name.
#[derive(Clone, Debug)]
pub struct Blob {
    /// What it is.
    pub descriptor: Descriptor,
    /// Its bytes.
    pub bytes: Bytes,
}

impl Blob {
    /// Names these bytes.
    pub fn new(media_type: &str, bytes: impl Into<Bytes>) -> Blob {
        let bytes = bytes.into();
        Blob {
            descriptor: Descriptor::of(media_type, &bytes),
            bytes,
        }
    }
}

/// An image for one platform.
#[derive(Clone, Debug)]
pub struct Image {
    /// The manifest.
    pub manifest: Blob,
    /// The config.
    pub config: Blob,
    /// The layers, bottom first.
    pub layers: Vec<Blob>,
    /// The layers' names before compression.
    pub diff_ids: Vec<DiffId>,
}

impl Image {
    /// `layers` gzip layers of `files` files of about `bytes` bytes for linux/amd64.
    pub fn seeded(seed: u64, layers: usize, files: usize, bytes: usize) -> Image {
        let tars = (0..layers).map(|at| tree::entries(seed * 1000 + at as u64, files, bytes));
        Image::of(tars.collect(), "amd64")
    }

    /// An image of these layers.
    pub fn of(layers: Vec<Vec<Entry>>, architecture: &str) -> Image {
        let config = json!({"Env": ["PATH=/usr/bin:/bin"], "Cmd": ["/bin/sh"]});
        Image::with_config(layers, architecture, config)
    }

    /// An image of these layers, with this `config` inside its config.
    pub fn with_config(
        layers: Vec<Vec<Entry>>,
        architecture: &str,
        config: serde_json::Value,
    ) -> Image {
        let tars: Vec<Vec<u8>> = layers.iter().map(|entries| tar(entries)).collect();
        let diff_ids: Vec<DiffId> = tars.iter().map(|tar| DiffId(Digest::of(tar))).collect();
        let layers: Vec<Blob> = tars
            .iter()
            .map(|tar| Blob::new(media_type::OCI_LAYER_GZIP, gzip(tar)))
            .collect();
        let history: Vec<_> = diff_ids
            .iter()
            .map(|_| json!({"created": "2023-11-14T22:13:20Z", "created_by": "testkit"}))
            .collect();
        let config = json!({
            "created": "2023-11-14T22:13:20Z",
            "architecture": architecture,
            "os": "linux",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": history,
        });
        let config = Blob::new(media_type::OCI_CONFIG, config.to_string());
        let descriptors: Vec<&Descriptor> = layers.iter().map(|layer| &layer.descriptor).collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": media_type::OCI_MANIFEST,
            "config": config.descriptor,
            "layers": descriptors,
        });
        let manifest = Blob::new(media_type::OCI_MANIFEST, manifest.to_string());
        Image {
            manifest,
            config,
            layers,
            diff_ids,
        }
    }

    /// An index over images, each with its platform like `linux/arm/v7`.
    pub fn index(images: &[(&str, &Image)]) -> Blob {
        let manifests: Vec<_> = images
            .iter()
            .map(|(platform, image)| {
                let mut descriptor = image.manifest.descriptor.clone();
                descriptor.platform = Some(platform.parse().expect("a platform"));
                descriptor
            })
            .collect();
        let index =
            json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": manifests});
        Blob::new(media_type::OCI_INDEX, index.to_string())
    }
}
