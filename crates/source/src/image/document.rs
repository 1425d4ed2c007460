//! Manifests and indexes, as far as pulling needs them.

use oci::{Descriptor, Platform, annotation, media_type};
use serde::Deserialize;

use crate::error::{Error, Result};

/// A manifest or an index.
#[derive(Debug)]
pub enum Document {
    /// Manifests to choose from.
    Index(Vec<Descriptor>),
    /// One image.
    Manifest {
        /// Its config.
        config: Box<Descriptor>,
        /// Its layers, bottom first.
        layers: Vec<Descriptor>,
    },
}

impl Document {
    /// Reads a document that was fetched as `media_type`.
    pub fn parse(reference: &str, kind: &str, bytes: &[u8]) -> Result<Document> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Raw {
            #[serde(default)]
            schema_version: u32,
            #[serde(default)]
            config: Option<Box<Descriptor>>,
            #[serde(default)]
            layers: Option<Vec<Descriptor>>,
            #[serde(default)]
            manifests: Option<Vec<Descriptor>>,
            #[serde(default)]
            fs_layers: Option<serde::de::IgnoredAny>,
        }
        let wrong = |reason: String| Error::Document {
            reference: reference.into(),
            reason,
        };
        if matches!(
            kind,
            media_type::DOCKER_SCHEMA1 | media_type::DOCKER_SCHEMA1_SIGNED
        ) {
            return Err(Error::Schema1 {
                reference: reference.into(),
            });
        }
        let raw: Raw = serde_json::from_slice(bytes)
            .map_err(|error| wrong(format!("manifest cannot be read: {error}")))?;
        if raw.schema_version == 1 || raw.fs_layers.is_some() {
            return Err(Error::Schema1 {
                reference: reference.into(),
            });
        }
        // A document that is both could be read as one thing here and as another elsewhere.
        match (raw.manifests, raw.config) {
            (Some(_), Some(_)) => Err(wrong(
                "ambiguous: it is a manifest and an index at once".into(),
            )),
            (Some(manifests), None) if !media_type::is_manifest(kind) => {
                Ok(Document::Index(manifests))
            }
            (None, Some(config)) if !media_type::is_index(kind) => Ok(Document::Manifest {
                config,
                layers: raw.layers.unwrap_or_default(),
            }),
            _ => Err(wrong(format!(
                "not a manifest or index, though it says {kind}"
            ))),
        }
    }
}

/// The entry of an index that suits `wanted` best; of equals, the first.
pub fn choose<'a>(
    reference: &str,
    manifests: &'a [Descriptor],
    wanted: &Platform,
) -> Result<&'a Descriptor> {
    let images = manifests.iter().filter(|entry| is_image(entry));
    let ranked = images.clone().filter_map(|entry| {
        let rank = match &entry.platform {
            Some(offered) => wanted.suits(&offered.clone().normalized())?,
            // It does not say; better than nothing.
            None => u32::MAX,
        };
        Some((rank, entry))
    });
    ranked
        .min_by_key(|(rank, _)| *rank)
        .map(|(_, entry)| entry)
        .ok_or_else(|| {
            let offered: Vec<String> = images
                .filter_map(|entry| entry.platform.as_ref())
                .map(|p| p.to_string())
                .collect();
            Error::NoPlatform {
                reference: reference.into(),
                wanted: wanted.to_string(),
                offered: if offered.is_empty() {
                    "none".into()
                } else {
                    offered.join(", ")
                },
            }
        })
}

/// Attestations lie among the images of an index.
fn is_image(entry: &Descriptor) -> bool {
    let attestation = entry
        .annotations
        .get(annotation::REFERENCE_TYPE)
        .is_some_and(|kind| kind == annotation::ATTESTATION_MANIFEST);
    let kind = &entry.media_type;
    !attestation && (kind.is_empty() || media_type::is_manifest(kind) || media_type::is_index(kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci::Digest;

    fn entry(name: &str, platform: &str) -> Descriptor {
        let mut entry = Descriptor::new(media_type::OCI_MANIFEST, Digest::of(name), 1);
        entry.platform = (!platform.is_empty()).then(|| platform.parse().unwrap());
        entry
    }

    /// Rows: S01, P13
    #[test]
    fn the_best_manifest_for_a_platform_is_chosen() {
        let mut attestation = entry("attestation", "linux/amd64");
        attestation.annotations.insert(
            "vnd.docker.reference.type".into(),
            "attestation-manifest".into(),
        );
        let index = [
            attestation,
            entry("amd64", "linux/amd64"),
            entry("v6", "linux/arm/v6"),
            entry("v7", "linux/arm/v7"),
        ];
        let chosen = |platform: &str| {
            let wanted: Platform = platform.parse().unwrap();
            choose("r", &index, &wanted.normalized()).map(|entry| entry.digest)
        };
        assert_eq!(chosen("linux/amd64").unwrap(), Digest::of("amd64"));
        assert_eq!(chosen("linux/arm/v7").unwrap(), Digest::of("v7"));
        assert_eq!(chosen("linux/arm/v6").unwrap(), Digest::of("v6"));
        let error = chosen("linux/s390x").unwrap_err().to_string();
        assert!(
            error.contains("no match for platform linux/s390x") && error.contains("linux/arm/v7"),
            "{error}"
        );
        let unsaid = [entry("unsaid", "")];
        assert_eq!(
            choose("r", &unsaid, &Platform::host()).unwrap().digest,
            Digest::of("unsaid")
        );
    }

    /// Rows: S07, P14
    #[test]
    fn old_broken_and_ambiguous_documents_are_refused() {
        let parse = |kind: &str, text: &str| {
            Document::parse("r", kind, text.as_bytes())
                .unwrap_err()
                .to_string()
        };
        assert!(parse(media_type::DOCKER_SCHEMA1_SIGNED, "{}").contains("deprecated-image-specs"));
        assert!(
            parse("application/json", r#"{"schemaVersion":1,"fsLayers":[]}"#).contains("schema 1")
        );
        assert!(parse(media_type::OCI_MANIFEST, "{").contains("cannot be read"));
        let config = r#"{"mediaType":"x","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0}"#;
        let both = format!(r#"{{"schemaVersion":2,"manifests":[],"config":{config}}}"#);
        assert!(parse(media_type::OCI_INDEX, &both).contains("ambiguous"));
        assert!(
            parse(
                media_type::OCI_MANIFEST,
                r#"{"schemaVersion":2,"manifests":[]}"#
            )
            .contains("not a manifest")
        );
        assert!(
            parse(media_type::OCI_MANIFEST, r#"{"schemaVersion":2}"#).contains("not a manifest")
        );
    }
}
