//! Reads a cache from elsewhere and offers it to the solver.
//!
//! Reading begins at once; the solver's questions wait for it. A cache that cannot be read is an
//! empty one: its step shows the error, the build goes on.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use content::Provider;
use futures::{StreamExt as _, TryStreamExt as _};
use oci::{Descriptor, DiffId, Digest};
use progress::StepProgress;
use refs::LayerBlob;
use solver::{
    Entry, Index, KeyId, Link, MemoryIndex, Node, OpContext, OpError, RecordStore, ResultId,
};
use stdx::task::Task;
use tokio::sync::watch;

use crate::chains::{Chains, Stored};
use crate::config::CacheConfig;
use crate::container::Container;
use crate::{Error, Result, inline, when};

/// Annotation with the diff ID of a layer.
pub(crate) const DIFF_ID: &str = "containerd.io/uncompressed";
/// Annotation with the time a layer was made.
pub(crate) const CREATED: &str = "buildkit/createdat";
/// Annotation with what made a layer.
pub(crate) const DESCRIPTION: &str = "buildkit/description";

/// Blobs asked for at one time.
const CONCURRENT_BLOBS: usize = 8;

/// How large documents may be that are read into memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A manifest or index.
    pub manifest: u64,
    /// A cache config or image config. Those of large builds have many megabytes.
    pub config: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            manifest: 4 << 20,
            config: 64 << 20,
        }
    }
}

/// Reads a document whole.
pub(crate) async fn fetch(provider: &dyn Provider, blob: &Descriptor, limit: u64) -> Result<Bytes> {
    if blob.size > limit {
        return Err(Error::TooLarge {
            digest: blob.digest,
            size: blob.size,
            limit,
        });
    }
    let doing = || format!("reading {}", blob.digest);
    let stream = provider
        .read(blob, 0)
        .await
        .map_err(Error::content(doing()))?;
    content::collect(stream, blob, limit)
        .await
        .map_err(Error::content(doing()))
}

/// Reads the cache that `top` names: a cache manifest in any form, or an image or index of
/// images with inline caches. `step` shows what was found.
pub async fn read(
    provider: &dyn Provider,
    top: &Descriptor,
    limits: &Limits,
    step: &StepProgress,
) -> Result<Chains> {
    let mut top = top.clone();
    if top.size == 0 {
        let doing = format!("reading {}", top.digest);
        top.size = provider.size(&top).await.map_err(Error::content(doing))?;
    }
    let bytes = fetch(provider, &top, limits.manifest).await?;
    let container = Container::parse(&bytes)?;
    step.transfer(format!(
        "inferred cache manifest type: {}",
        container.media_type
    ))
    .done();
    let Some(config) = &container.config else {
        return inline::import(provider, bytes, limits).await;
    };
    let bytes = fetch(provider, config, limits.config).await?;
    let blobs = container.blobs;
    stdx::task::blocking(move || {
        let config: CacheConfig =
            serde_json::from_slice(&bytes).map_err(Error::json("the cache config"))?;
        Ok(Chains::parse(&config, &blobs)?)
    })
    .await
}

/// Makes an output of layers, lazily if it can.
pub type Make<O> = Arc<dyn Fn(Vec<LayerBlob>) -> Result<Option<O>, OpError> + Send + Sync>;

/// Where the layers of an imported cache are, and what becomes of them.
pub struct Layers<O> {
    /// Where they can be read.
    pub provider: Arc<dyn Provider>,
    /// Fetch them into this when a result is loaded: for a place that will be gone when the
    /// build is over. Else they are fetched when someone needs them.
    pub fetch_into: Option<content::Store>,
    /// Noted on each layer: a registry's host and repository that has it.
    pub origin: Option<(String, String)>,
    /// Makes an output of them.
    pub make: Make<O>,
}

/// An imported cache as the solver sees it.
pub struct Imported<O> {
    layers: Layers<O>,
    read: watch::Receiver<Option<Arc<Read>>>,
    _reading: Task<()>,
}

/// What was read.
#[derive(Default)]
struct Read {
    index: Arc<MemoryIndex>,
    results: HashMap<ResultId, Stored>,
}

impl<O: Clone + Send + Sync + 'static> Imported<O> {
    /// Begins to read; `step` is the build's line about it
    /// (`importing cache manifest from <key>`).
    pub fn start(
        layers: Layers<O>,
        step: StepProgress,
        reading: impl Future<Output = Result<Chains>> + Send + 'static,
    ) -> Arc<Imported<O>> {
        let (done, read) = watch::channel(None);
        let reading = stdx::task::spawn("cache-import", async move {
            step.start();
            let read = match reading.await {
                Ok(chains) => {
                    step.complete(false);
                    stdx::task::blocking(move || Read::new(chains)).await
                }
                Err(error) => {
                    step.fail(&stdx::text::sentence(&error));
                    Read::default()
                }
            };
            // Whoever asked may have gone.
            let _ = done.send(Some(Arc::new(read)));
        });
        Arc::new(Imported {
            layers,
            read,
            _reading: reading,
        })
    }

    async fn wait(&self) -> Arc<Read> {
        let mut read = self.read.clone();
        match read.wait_for(Option::is_some).await {
            Ok(read) => read.clone().unwrap_or_default(),
            // The reading task is gone without an answer.
            Err(_) => Arc::default(),
        }
    }
}

impl Read {
    fn new(mut chains: Chains) -> Read {
        let names = chains.names();
        let index = MemoryIndex::new();
        let mut results = HashMap::new();
        let mut entries = Vec::new();
        for id in chains.in_order() {
            let node = &mut chains.nodes[id.0];
            let key = KeyId(names[&id]);
            let mut links = Vec::new();
            for (input, ways) in node.inputs.iter().enumerate() {
                for (from, selector) in ways {
                    let Some(selector) = read_selector(selector) else {
                        continue;
                    };
                    let link = Link {
                        input: input as u32,
                        record: node.digest,
                        selector,
                    };
                    links.push((KeyId(names[from]), link));
                }
            }
            if !links.is_empty() {
                entries.push(Entry {
                    nodes: vec![Node { id: key, links }],
                    result: None,
                });
            }
            for stored in std::mem::take(&mut node.results) {
                let digests: String = stored
                    .layers
                    .iter()
                    .map(|layer| layer.digest.to_string())
                    .collect();
                let name = ResultId(Digest::of(digests).to_string());
                let result = Some((name.clone(), stored.created, vec![key]));
                entries.push(Entry {
                    nodes: Vec::new(),
                    result,
                });
                results.insert(name, stored);
            }
        }
        index.save(&entries).expect("memory does not fail");
        Read {
            index: Arc::new(index),
            results,
        }
    }
}

/// Nothing for a selector that is no digest: our own selectors always are, so nothing asks for it.
fn read_selector(text: &str) -> Option<Option<Digest>> {
    if text.is_empty() {
        Some(None)
    } else {
        text.parse().ok().map(Some)
    }
}

#[async_trait]
impl<O: Clone + Send + Sync + 'static> RecordStore<O> for Imported<O> {
    async fn index(&self) -> Arc<dyn Index> {
        self.wait().await.index.clone()
    }

    async fn load(&self, _cx: &OpContext, result: &ResultId) -> Result<Option<O>, OpError> {
        let read = self.wait().await;
        let Some(stored) = read.results.get(result) else {
            return Ok(None);
        };
        let provider = &*self.layers.provider;
        let there = futures::stream::iter(stored.layers.clone())
            .map(|layer| async move { provider.size(&layer).await })
            .buffer_unordered(CONCURRENT_BLOBS);
        there
            .try_for_each(|_| async { Ok(()) })
            .await
            .map_err(op_error)?;
        if let Some(store) = &self.layers.fetch_into {
            let fetched = futures::stream::iter(stored.layers.clone())
                .map(|layer| async move { store.fetch(provider, &layer).await })
                .buffer_unordered(CONCURRENT_BLOBS);
            fetched
                .try_for_each(|()| async { Ok(()) })
                .await
                .map_err(op_error)?;
        }
        let mut blobs = Vec::with_capacity(stored.layers.len());
        for layer in &stored.layers {
            blobs.push(blob(layer, self.layers.origin.as_ref())?);
        }
        let make = self.layers.make.clone();
        stdx::task::blocking(move || make(blobs)).await
    }
}

fn op_error(error: content::Error) -> OpError {
    Arc::new(error)
}

/// A layer of a cache without the digest of its tar.
#[derive(Debug, thiserror::Error)]
#[error("layer {0} does not say what is in it")]
struct NoDiffId(Digest);

/// A layer as refs take it.
fn blob(layer: &Descriptor, origin: Option<&(String, String)>) -> Result<LayerBlob, OpError> {
    let annotation = |key: &str| layer.annotations.get(key);
    let diff_id = annotation(DIFF_ID).and_then(|text| text.parse().ok());
    let diff_id = diff_id.ok_or_else(|| -> OpError { Arc::new(NoDiffId(layer.digest)) })?;
    let description = annotation(DESCRIPTION).cloned();
    let created = annotation(CREATED)
        .and_then(|text| when::read(text))
        .and_then(when::to_system);
    let mut descriptor = layer.clone();
    if let Some((host, repository)) = origin {
        registry::add_source(&mut descriptor, host, repository);
    }
    Ok(LayerBlob {
        diff_id: DiffId(diff_id),
        description: description.unwrap_or_else(|| format!("imported {}", layer.digest)),
        created,
        descriptor,
    })
}
