//! Manifests and indexes as text, to the byte as BuildKit writes them.

use std::collections::BTreeMap;

use oci::{Descriptor, Index, Manifest, go_json, media_type as media};

/// The parts of a manifest.
#[derive(Default)]
pub(crate) struct Parts<'a> {
    pub(crate) artifact_type: Option<&'a str>,
    pub(crate) subject: Option<&'a Descriptor>,
    pub(crate) annotations: BTreeMap<String, String>,
}

/// A manifest and its media type.
pub(crate) fn manifest(
    oci: bool,
    config: &Descriptor,
    layers: &[Descriptor],
    parts: &Parts<'_>,
) -> (&'static str, Vec<u8>) {
    let media_type = if oci {
        media::OCI_MANIFEST
    } else {
        media::DOCKER_MANIFEST
    };
    let manifest = Manifest {
        artifact_type: parts.artifact_type,
        subject: parts.subject,
        annotations: parts.annotations.clone(),
        ..Manifest::new(media_type, config, layers)
    };
    (media_type, go_json::indented(&manifest).into_bytes())
}

/// An index and its media type.
pub(crate) fn index(
    oci: bool,
    manifests: &[Descriptor],
    annotations: &BTreeMap<String, String>,
) -> (&'static str, Vec<u8>) {
    let media_type = if oci {
        media::OCI_INDEX
    } else {
        media::DOCKER_LIST
    };
    let index = Index {
        annotations: annotations.clone(),
        ..Index::new(media_type, manifests)
    };
    (media_type, go_json::indented(&index).into_bytes())
}

/// A layer's descriptor as a manifest shows it: in the family of the manifest, and
/// without what is nobody else's business.
pub(crate) fn public_layer(layer: &Descriptor, oci: bool, prefer_nondist: bool) -> Descriptor {
    let keep_nondist = prefer_nondist && !layer.urls.is_empty();
    let mut media_type = layer::to_oci(&layer.media_type).to_owned();
    if !keep_nondist && let Some(rest) = media_type.strip_prefix(media::OCI_LAYER_NONDIST) {
        media_type = format!("{}{rest}", media::OCI_LAYER);
    }
    if !oci {
        media_type = layer::to_docker(&media_type).to_owned();
    }
    let mut public = Descriptor::new(media_type, layer.digest, layer.size);
    if keep_nondist {
        public.urls.clone_from(&layer.urls);
    }
    if oci {
        let shown = layer
            .annotations
            .iter()
            .filter(|(key, _)| !is_internal(key));
        public.annotations = shown.map(|(k, v)| (k.clone(), v.clone())).collect();
    }
    public
}

fn is_internal(annotation: &str) -> bool {
    matches!(
        annotation,
        "containerd.io/uncompressed" | "buildkit/createdat" | "buildkit/description"
    ) || annotation.starts_with("containerd.io/distribution.source.")
}
