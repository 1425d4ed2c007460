//! A cache inside the config of the image it describes.
//!
//! Under [`KEY`] lies the base64 of a JSON array of records. The layers they number are those
//! of the image, in order.

use std::collections::{BTreeSet, HashMap};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use content::Provider;
use futures::{StreamExt as _, TryStreamExt as _};
use oci::{Descriptor, Digest};
use serde::Deserialize;
use tracing::warn;

use crate::config::{CacheConfig, CacheLayer, CacheRecord, CacheResult, ChainedResult};
use crate::container::Container;
use crate::import::{CREATED, DESCRIPTION, DIFF_ID, Limits, fetch};
use crate::{Chains, Error, Result, when};

/// Where in the image config the records are.
pub const KEY: &str = "moby.buildkit.cache.v0";

/// Manifests of one index looked at at one time.
const CONCURRENT_MANIFESTS: usize = 4;
/// Indexes may lie in indexes this deep.
const MAX_DEPTH: usize = 8;

#[derive(Deserialize)]
struct Image {
    #[serde(default)]
    rootfs: RootFs,
    #[serde(default)]
    history: Option<Vec<History>>,
    #[serde(default, rename = "moby.buildkit.cache.v0")]
    cache: Option<String>,
}

#[derive(Default, Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Option<Vec<Digest>>,
}

#[derive(Default, Deserialize)]
struct History {
    #[serde(default)]
    created: Option<String>,
    #[serde(default)]
    created_by: Option<String>,
    #[serde(default)]
    empty_layer: bool,
}

/// Reads the caches inside an image, or inside every image of an index.
pub(crate) async fn import(provider: &dyn Provider, top: Bytes, limits: &Limits) -> Result<Chains> {
    let manifests = manifests(provider, top, limits).await?;
    let images = futures::stream::iter(manifests)
        .map(|manifest| async move { image(provider, &manifest, limits).await })
        .buffered(CONCURRENT_MANIFESTS);
    let images: Vec<_> = images.try_collect().await?;
    stdx::task::blocking(move || {
        let mut chains = Chains::new();
        for (config, blobs) in images.into_iter().flatten() {
            chains.parse_into(&config, &blobs)?;
        }
        Ok(chains)
    })
    .await
}

/// Every image manifest below, once.
async fn manifests(provider: &dyn Provider, top: Bytes, limits: &Limits) -> Result<Vec<Container>> {
    let mut seen = BTreeSet::from([Digest::of(&top)]);
    let mut found = Vec::new();
    let mut look = vec![(Container::parse(&top)?, 0)];
    while let Some((container, depth)) = look.pop() {
        if oci::media_type::is_manifest(container.media_type) {
            found.push(container);
            continue;
        }
        for child in container.entries {
            let known = [
                oci::media_type::OCI_MANIFEST,
                oci::media_type::DOCKER_MANIFEST,
                oci::media_type::OCI_INDEX,
                oci::media_type::DOCKER_LIST,
            ];
            if known.contains(&child.media_type.as_str())
                && depth < MAX_DEPTH
                && seen.insert(child.digest)
            {
                let bytes = fetch(provider, &child, limits.config).await?;
                look.push((Container::parse(&bytes)?, depth + 1));
            }
        }
    }
    Ok(found)
}

type Records = (CacheConfig, HashMap<Digest, Descriptor>);

/// The records inside one image, if it has some that can be used.
async fn image(
    provider: &dyn Provider,
    manifest: &Container,
    limits: &Limits,
) -> Result<Option<Records>> {
    let Some(config) = manifest
        .image_config
        .as_ref()
        .filter(|_| !manifest.entries.is_empty())
    else {
        return Ok(None);
    };
    let bytes = fetch(provider, config, limits.config).await?;
    let (digest, entries) = (config.digest, manifest.entries.clone());
    // Configs with caches have many megabytes.
    stdx::task::blocking(move || records(digest, &bytes, &entries)).await
}

/// What the config of an image with these layers has.
fn records(config: Digest, bytes: &[u8], entries: &[Descriptor]) -> Result<Option<Records>> {
    let image: Image = serde_json::from_slice(bytes).map_err(Error::json("the image config"))?;
    let diff_ids = image.rootfs.diff_ids.unwrap_or_default();
    if diff_ids.len() != entries.len() {
        warn!(%config, "invalid image with mismatching manifest and config");
        return Ok(None);
    }
    let Some(cache) = image.cache else {
        return Ok(None);
    };
    let bytes = STANDARD.decode(cache).map_err(|source| Error::Base64 {
        image: config,
        source,
    })?;
    let records: Vec<CacheRecord> =
        serde_json::from_slice(&bytes).map_err(Error::json("the inline cache"))?;
    let history = image.history.unwrap_or_default();
    // Some images have fewer entries than layers: then nothing is known of the rest.
    let mut history = history.iter().filter(|entry| !entry.empty_layer);
    let mut blobs = HashMap::new();
    let mut layers = Vec::new();
    for (index, (layer, diff_id)) in entries.iter().zip(diff_ids).enumerate() {
        let mut layer = layer.clone();
        let said = history.next();
        layer
            .annotations
            .insert(DIFF_ID.to_owned(), diff_id.to_string());
        let created = said
            .and_then(|said| said.created.as_deref())
            .and_then(when::read);
        if let Some(created) = created {
            layer
                .annotations
                .insert(CREATED.to_owned(), when::text(created));
        }
        let by = said
            .and_then(|said| said.created_by.clone())
            .filter(|by| !by.is_empty());
        if let Some(by) = by {
            layer.annotations.insert(DESCRIPTION.to_owned(), by);
        }
        let parent = index as i64 - 1;
        layers.push(CacheLayer {
            blob: Some(layer.digest),
            parent,
            annotations: None,
        });
        blobs.insert(layer.digest, layer);
    }
    Ok(Some((CacheConfig { layers, records }, blobs)))
}

/// The records for an image with these layers (compressed, bottom first), as JSON; nothing when
/// no record has a result in it. Whoever writes the config puts their base64 under [`KEY`].
pub fn value(chains: &Chains, image: &[Digest]) -> Option<String> {
    let order = chains.sorted();
    let mut records = chains.records(&order, |_| None);
    let mut any = false;
    for (record, id) in records.iter_mut().zip(&order) {
        let Some(best) = chains.best(*id, &|_| true) else {
            continue;
        };
        let created_at = when::text(best.created);
        let digests: Vec<Digest> = best.layers.iter().map(|layer| layer.digest).collect();
        if image.starts_with(&digests) {
            let layer = digests.len() as i64 - 1;
            record.layers.push(CacheResult { layer, created_at });
            any = true;
        } else if let Some(layers) = positions(&digests, image) {
            record.chains.push(ChainedResult { layers, created_at });
            any = true;
        }
    }
    any.then(|| serde_json::to_string(&records).expect("records are always JSON"))
}

fn positions(digests: &[Digest], image: &[Digest]) -> Option<Vec<i64>> {
    let position = |digest: &Digest| image.iter().position(|layer| layer == digest);
    digests
        .iter()
        .map(|digest| position(digest).map(|at| at as i64))
        .collect()
}
