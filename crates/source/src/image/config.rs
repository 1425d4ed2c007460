//! An image's config, as far as its layers need it.

use std::time::SystemTime;

use oci::{Descriptor, DiffId};
use refs::LayerBlob;
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::error::{Error, Result};

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    rootfs: RootFs,
    #[serde(default)]
    history: Option<Vec<History>>,
}

#[derive(Deserialize, Default)]
struct RootFs {
    #[serde(default)]
    diff_ids: Option<Vec<DiffId>>,
}

#[derive(Deserialize)]
struct History {
    #[serde(default)]
    created: Option<String>,
    #[serde(default)]
    empty_layer: bool,
}

/// The layers of a manifest with what its config says about them, at most
/// `limit` from the bottom (P15, P17).
pub fn layers(
    reference: &str,
    config: &[u8],
    layers: Vec<Descriptor>,
    limit: Option<usize>,
) -> Result<Vec<LayerBlob>> {
    let config: Config = serde_json::from_slice(config).map_err(|error| Error::Document {
        reference: reference.into(),
        reason: format!("failed to resolve rootfs: config cannot be read: {error}"),
    })?;
    let diff_ids = config.rootfs.diff_ids.unwrap_or_default();
    if diff_ids.len() != layers.len() {
        return Err(Error::Mismatch {
            diff_ids: diff_ids.len(),
            layers: layers.len(),
        });
    }
    if let Some(limit) = limit.filter(|limit| *limit > layers.len()) {
        return Err(Error::LayerLimit {
            limit,
            layers: layers.len(),
        });
    }
    let mut times = config
        .history
        .unwrap_or_default()
        .into_iter()
        .filter(|entry| !entry.empty_layer);
    let described = layers
        .into_iter()
        .zip(diff_ids)
        .map(|(descriptor, diff_id)| LayerBlob {
            descriptor,
            diff_id,
            description: format!("pulled from {reference}"),
            created: times.next().and_then(|entry| time_of(&entry.created?)),
        });
    Ok(described.take(limit.unwrap_or(usize::MAX)).collect())
}

fn time_of(text: &str) -> Option<SystemTime> {
    OffsetDateTime::parse(text, &Rfc3339)
        .ok()
        .map(SystemTime::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci::Digest;

    /// Rows: S05, P5, P15, P17
    #[test]
    fn layers_and_diff_ids_go_together() {
        let layer = |text: &str| Descriptor::of(oci::media_type::OCI_LAYER, text.as_bytes());
        let id = |text: &str| Digest::of(text);
        let config = format!(
            r#"{{"rootfs":{{"diff_ids":["{}","{}"]}},"history":[
                {{"created":"1970-01-01T00:00:01Z","empty_layer":true}},{{"created":"1970-01-01T00:00:02Z"}}]}}"#,
            id("a"),
            id("b")
        );
        let both = || vec![layer("1"), layer("2")];
        let found = layers("r", config.as_bytes(), both(), None).unwrap();
        assert_eq!(
            found
                .iter()
                .map(|layer| layer.diff_id.0)
                .collect::<Vec<_>>(),
            [id("a"), id("b")]
        );
        let seconds = |layer: &LayerBlob| {
            layer
                .created
                .map(|t| t.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs())
        };
        assert_eq!(
            found.iter().map(seconds).collect::<Vec<_>>(),
            [Some(2), None]
        );
        assert_eq!(
            layers("r", config.as_bytes(), both(), Some(1))
                .unwrap()
                .len(),
            1
        );
        let say = |layers: Result<Vec<LayerBlob>>| layers.unwrap_err().to_string();
        assert_eq!(
            say(layers("r", config.as_bytes(), both(), Some(3))),
            "layer limit 3 is greater than the number of layers in the image 2"
        );
        assert_eq!(
            say(layers("r", config.as_bytes(), vec![layer("1")], None)),
            "mismatched image rootfs and manifest layers 2 1"
        );
        assert!(say(layers("r", b"{", both(), None)).contains("failed to resolve rootfs"));
    }
}
