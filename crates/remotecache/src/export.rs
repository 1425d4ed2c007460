//! Writes what the solver knows as a cache elsewhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use content::{Provider, Sink};
use futures::{StreamExt as _, TryStreamExt as _};
use oci::media_type::CACHE_CONFIG;
use oci::{Descriptor, Digest};
use progress::StepProgress;
use refs::LayerBlob;
use registry::Repository;
use solver::export::{Mode, Remotes, walk};
use solver::{Edge, JobHandle, OpError, Record};
use tracing::warn;

use crate::chains::{Chains, NodeId, Stored, Way};
use crate::import::{CREATED, DIFF_ID};
use crate::spec::Form;
use crate::{Error, Result, container, when};

/// Layers written at one time.
const CONCURRENT_LAYERS: usize = 4;
/// Key of the response that names what was written.
pub const RESPONSE_KEY: &str = "cache.manifest";

/// The layers of the solver's outputs.
#[async_trait]
pub trait OutputLayers<O>: Send + Sync {
    /// The layers of an output, bottom first; nothing when it has none, or when `create` is
    /// false and they would have to be made.
    async fn layers(&self, output: &O, create: bool) -> Result<Option<Vec<LayerBlob>>, OpError>;
}

struct Results<'a, O> {
    job: &'a JobHandle<O>,
    layers: &'a dyn OutputLayers<O>,
}

#[async_trait]
impl<O: Clone + Send + Sync + 'static> Remotes<O> for Results<'_, O> {
    type Remote = Vec<LayerBlob>;

    async fn load(&self, record: &Record) -> Result<Option<O>, OpError> {
        self.job.load_record(record).await
    }

    async fn existing(&self, output: &O) -> Result<Option<Vec<LayerBlob>>, OpError> {
        self.layers.layers(output, false).await
    }

    async fn create(&self, output: &O) -> Result<Option<Vec<LayerBlob>>, OpError> {
        self.layers.layers(output, true).await
    }
}

/// Collects keys and results below the solved edges of a build.
pub async fn collect<O: Clone + Send + Sync + 'static>(
    job: &JobHandle<O>,
    edges: &[Edge],
    mode: Mode,
    layers: &dyn OutputLayers<O>,
) -> Result<Chains> {
    let mut chains = Chains::new();
    for edge in edges {
        let graph = job.export(*edge, true).await?;
        let results = Results { job, layers };
        let nodes = walk(&graph, mode, false, &results)
            .await
            .map_err(Error::Prepare)?;
        let mut ids: Vec<Option<NodeId>> = Vec::with_capacity(nodes.len());
        for node in nodes {
            let inputs: Vec<Vec<Way>> = node
                .inputs
                .iter()
                .map(|links| {
                    let way = |link: &solver::export::ExportLink| {
                        let selector = link.selector.map(|s| s.to_string()).unwrap_or_default();
                        Some((ids[link.node]?, selector))
                    };
                    links.iter().filter_map(way).collect()
                })
                .collect();
            let result = node.result.map(|(layers, created)| Stored {
                layers: layers.into_iter().map(described).collect(),
                created,
            });
            ids.push(chains.add(node.digest, &inputs, result.into_iter().collect()));
        }
    }
    Ok(chains)
}

/// The layer with what an importer must know about it. Where it came from stays on it until
/// it is written: a layer nobody fetched yet is found only there.
fn described(blob: LayerBlob) -> Descriptor {
    let mut layer = blob.descriptor;
    layer
        .annotations
        .insert(DIFF_ID.to_owned(), blob.diff_id.0.to_string());
    if let Some(created) = blob.created {
        layer
            .annotations
            .insert(CREATED.to_owned(), when::text(when::from_system(created)));
    }
    if let Some(media_type) = container::in_family(&layer.media_type, true) {
        layer.media_type = media_type;
    }
    layer
}

/// Where a cache is written.
pub enum Target {
    /// Under a tag of a repository.
    Registry(Repository, String),
    /// Into a place for blobs; someone else remembers the manifest.
    Place(Arc<dyn Sink>),
}

/// Writes the cache. Gives the manifest's descriptor; nothing, and writes nothing, when there
/// is no result to write.
pub async fn write(
    chains: &Chains,
    form: Form,
    provider: &dyn Provider,
    target: &Target,
    step: &StepProgress,
) -> Result<Option<Descriptor>> {
    let preparing = step.transfer("preparing build cache for export");
    let missing = missing(chains, provider).await;
    let there = |stored: &Stored| {
        stored
            .layers
            .iter()
            .all(|l| !missing.contains_key(&l.digest))
    };
    let (config, blobs) = chains.marshal(there);
    preparing.done();
    if config.layers.is_empty() {
        warn!("skipping cache export for empty result");
        step.transfer("skipping cache export for empty result")
            .done();
        return Ok(None);
    }
    let mut layers = Vec::new();
    for layer in &config.layers {
        let digest = layer.blob.expect("made by marshal");
        let blob = blobs.get(&digest).ok_or(Error::MissingBlob(digest))?;
        if !layers
            .iter()
            .any(|known: &&Descriptor| known.digest == digest)
        {
            layers.push(blob);
        }
    }
    let sending = step.transfer("sending cache export");
    let sink: &dyn Sink = match target {
        Target::Registry(repository, _) => repository,
        Target::Place(sink) => &**sink,
    };
    let moved: Vec<Descriptor> = layers.iter().map(|layer| (*layer).clone()).collect();
    futures::stream::iter(moved)
        .map(|layer| async move { write_layer(&layer, provider, sink, step).await })
        .buffer_unordered(CONCURRENT_LAYERS)
        .try_for_each(|()| async { Ok(()) })
        .await?;
    let bytes = serde_json::to_vec(&config).map_err(Error::json("the cache config"))?;
    let config = Descriptor::of(CACHE_CONFIG, &bytes);
    let shown = step.transfer(format!("writing config {}", config.digest));
    let put = sink.put(&config, content::once(bytes)).await;
    shown.done();
    put.map_err(Error::content("error writing config blob"))?;
    let layers: Vec<Descriptor> = layers.into_iter().map(|l| in_form(l, form)).collect();
    let manifest = write_manifest(form, &config, &layers, target, step).await?;
    sending.done();
    Ok(Some(manifest))
}

/// Layers no place has: results with them are left out.
async fn missing(chains: &Chains, provider: &dyn Provider) -> BTreeMap<Digest, ()> {
    let (_, blobs) = chains.marshal(|_| true);
    futures::stream::iter(blobs)
        .map(|(digest, blob)| async move { (digest, provider.size(&blob).await.is_err()) })
        .buffer_unordered(CONCURRENT_LAYERS)
        .filter_map(|(digest, missing)| async move { missing.then_some((digest, ())) })
        .collect()
        .await
}

/// A layer as the manifest names it.
fn in_form(blob: &Descriptor, form: Form) -> Descriptor {
    let mut blob = blob.clone();
    blob.annotations
        .retain(|key, _| !key.starts_with(registry::SOURCE_ANNOTATION));
    match container::in_family(&blob.media_type, form != Form::DockerList) {
        Some(media_type) => blob.media_type = media_type,
        None => warn!(
            media_type = blob.media_type,
            "unknown layer type is exported as it is"
        ),
    }
    blob
}

async fn write_layer(
    layer: &Descriptor,
    provider: &dyn Provider,
    sink: &dyn Sink,
    step: &StepProgress,
) -> Result<()> {
    let shown = step.transfer(format!("writing layer {}", layer.digest));
    let copied = content::copy(provider, sink, layer).await;
    shown.done();
    copied
        .map(drop)
        .map_err(Error::content("error writing layer blob"))
}

async fn write_manifest(
    form: Form,
    config: &Descriptor,
    layers: &[Descriptor],
    target: &Target,
    step: &StepProgress,
) -> Result<Descriptor> {
    let (media_type, bytes) = container::write(form, config, layers);
    let manifest = Descriptor::of(media_type, &bytes);
    let what = if form == Form::Image {
        "cache image manifest"
    } else {
        "cache manifest"
    };
    let shown = step.transfer(format!("writing {what} {}", manifest.digest));
    let doing = "error writing manifest blob";
    let put = match target {
        Target::Registry(repository, tag) => {
            let pushed = repository
                .push_manifest(tag, media_type, bytes.into())
                .await;
            pushed.map(drop).map_err(|source| Error::Registry {
                doing: doing.to_owned(),
                source: Arc::new(source),
            })
        }
        Target::Place(sink) => sink
            .put(&manifest, content::once(bytes))
            .await
            .map_err(Error::content(doing)),
    };
    shown.done();
    put?;
    Ok(manifest)
}

/// The response that names what was written.
pub fn response(manifest: &Descriptor) -> (String, String) {
    let json = serde_json::to_string(manifest).expect("a descriptor is always JSON");
    (RESPONSE_KEY.to_owned(), json)
}

#[cfg(test)]
mod tests;
