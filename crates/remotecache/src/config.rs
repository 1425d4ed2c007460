//! BuildKit's cache config, version 0: the document as it lies in a registry.
//!
//! Compact JSON in the way of Go's `encoding/json`: fields in the order of the structs here,
//! empty ones left out. `parent` is left out when it is 0, and -1 says "none".
//!
//! ```
//! use remotecache::config::CacheConfig;
//! let text = r#"{"layers":[{"blob":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","parent":-1}],"records":[{"layers":[{"layer":0,"createdAt":"2026-11-20T19:28:38Z"}],"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}]}"#;
//! let config: CacheConfig = serde_json::from_str(text).unwrap();
//! assert_eq!(serde_json::to_string(&config).unwrap(), text);
//! ```

use oci::Digest;
use serde::{Deserialize, Serialize};

/// The whole document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheConfig {
    /// Every layer a result is made of.
    #[serde(
        default,
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub layers: Vec<CacheLayer>,
    /// Keys and results.
    #[serde(
        default,
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub records: Vec<CacheRecord>,
}

/// A layer on another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheLayer {
    /// The compressed layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blob: Option<Digest>,
    /// Number of the layer below; -1 for none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub parent: i64,
    /// What the manifest would say, where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<LayerAnnotations>,
}

/// What a manifest would say about a layer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LayerAnnotations {
    /// Its media type.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// The digest of the tar inside.
    #[serde(default, rename = "diffID", skip_serializing_if = "String::is_empty")]
    pub diff_id: String,
    /// Its size.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub size: i64,
    /// When it was made.
    #[serde(default)]
    pub created_at: String,
}

/// A key: how it is reached, and results.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheRecord {
    /// Results as a layer with all below it.
    #[serde(
        default,
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub layers: Vec<CacheResult>,
    /// Results as a list of layers.
    #[serde(
        default,
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub chains: Vec<ChainedResult>,
    /// The record digest.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub digest: String,
    /// Per input, the keys that lead here.
    #[serde(
        default,
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub inputs: Vec<Vec<CacheInput>>,
}

/// A layer with all below it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CacheResult {
    /// Number of the layer.
    #[serde(default)]
    pub layer: i64,
    /// When it was made.
    #[serde(default)]
    pub created_at: String,
}

/// A list of layers, bottom first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChainedResult {
    /// Numbers of the layers.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub layers: Vec<i64>,
    /// When it was made.
    #[serde(default)]
    pub created_at: String,
}

/// A key that leads to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheInput {
    /// Which part of the input counts.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub selector: String,
    /// Number of the record.
    #[serde(default)]
    pub link: i64,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// Go writes an empty list as `null` when it has no reason to leave it out.
fn null_is_empty<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
