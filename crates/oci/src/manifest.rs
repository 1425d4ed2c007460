//! Manifests and indexes as they are written: which field follows which is part of their digest.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::Descriptor;

/// What an image is made of. Fields in the order in which Go's `encoding/json` writes
/// `ocispec.Manifest`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest<'a> {
    /// 2 in all documents of today.
    pub schema_version: u8,
    /// What kind of document this is itself.
    pub media_type: &'a str,
    /// What kind of artifact it describes, if it is no image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<&'a str>,
    /// The config.
    pub config: &'a Descriptor,
    /// The layers, bottom first.
    pub layers: &'a [Descriptor],
    /// What it speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<&'a Descriptor>,
    /// Facts beside it, sorted by key.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Manifests to choose from. Fields in the order of Go's `ocispec.Index`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Index<'a> {
    /// 2 in all documents of today.
    pub schema_version: u8,
    /// What kind of document this is itself.
    pub media_type: &'a str,
    /// The manifests.
    pub manifests: &'a [Descriptor],
    /// Facts beside it, sorted by key.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl<'a> Manifest<'a> {
    /// A manifest of an image and nothing else.
    pub fn new(
        media_type: &'a str,
        config: &'a Descriptor,
        layers: &'a [Descriptor],
    ) -> Manifest<'a> {
        Manifest {
            schema_version: 2,
            media_type,
            artifact_type: None,
            config,
            layers,
            subject: None,
            annotations: BTreeMap::new(),
        }
    }
}

impl<'a> Index<'a> {
    /// An index without annotations.
    pub fn new(media_type: &'a str, manifests: &'a [Descriptor]) -> Index<'a> {
        Index {
            schema_version: 2,
            media_type,
            manifests,
            annotations: BTreeMap::new(),
        }
    }
}
