//! Layers with their times set back to the epoch (core.md §3.4).

use std::sync::Arc;

use content::Provider;
use futures::stream::{self, StreamExt as _};
use layer::{Compression, Packer};
use lease::{Lease, Thing};
use oci::Descriptor;
use refs::{LayerBlob, Refs};
use stdx::task::blocking;

use crate::config::Base;
use crate::{Error, Result, Stamp};

/// Marks a layer whose times are set back, and to when.
pub(crate) const MARK: &str = "buildkit/rewritten-timestamp";

/// Layers rewritten at once; each uses several cores by itself.
const AT_ONCE: usize = 3;

/// Sets back the times of all layers that are not the base image's. A layer that
/// cannot be rewritten stays as it is; the log says so.
pub(crate) async fn layers(
    refs: &Refs,
    provider: &Arc<dyn Provider>,
    layers: &mut [LayerBlob],
    base: &Base,
    epoch: Stamp,
    compression: Compression,
) -> Result<Vec<Lease>> {
    let shared = layers
        .iter()
        .zip(base.diff_ids())
        .take_while(|(l, id)| l.diff_id == **id)
        .count();
    let mark = epoch.epoch().to_string();
    let mut wanted = Vec::new();
    for layer in &mut layers[shared..] {
        let descriptor = &mut layer.descriptor;
        let labels = refs.store().labels(&descriptor.digest)?;
        if labels.get(MARK) == Some(&mark) {
            descriptor.annotations.insert(MARK.to_owned(), mark.clone());
        }
        if descriptor.annotations.get(MARK) != Some(&mark) {
            wanted.push(layer);
        }
    }
    let mark = &mark;
    // Boxed, or the compiler cannot see that the whole may cross threads.
    let mut rewriting: Vec<futures::future::BoxFuture<'_, Option<Lease>>> = Vec::new();
    for layer in wanted {
        rewriting.push(Box::pin(async move {
            match one(refs, provider, layer, epoch, compression).await {
                Ok((mut rewritten, lease)) => {
                    let descriptor = &mut rewritten.descriptor;
                    descriptor.annotations.insert(MARK.to_owned(), mark.clone());
                    // Whoever meets the blob again need not read it to see that it is done.
                    if let Err(error) = refs.store().set_label(&descriptor.digest, MARK, mark) {
                        tracing::warn!(%error, "a rewritten layer has no label");
                    }
                    *layer = rewritten;
                    Some(lease)
                }
                Err(error) => {
                    let digest = layer.descriptor.digest;
                    tracing::warn!(%digest, %error, "failed to rewrite timestamps of a layer");
                    None
                }
            }
        }));
    }
    let done: Vec<Option<Lease>> = stream::iter(rewriting).buffered(AT_ONCE).collect().await;
    Ok(done.into_iter().flatten().collect())
}

async fn one(
    refs: &Refs,
    provider: &Arc<dyn Provider>,
    layer: &LayerBlob,
    epoch: Stamp,
    compression: Compression,
) -> Result<(LayerBlob, Lease)> {
    let store = refs.store().clone();
    if !store.contains(&layer.descriptor.digest)? {
        store.fetch(provider.as_ref(), &layer.descriptor).await?;
    }
    let leases = refs.leases().clone();
    let layer = layer.clone();
    blocking(move || {
        let blob = store.open_file(&layer.descriptor.digest)?;
        let (tar, _) = layer::decompress(blob).map_err(Error::io("reading a layer"))?;
        let packer = Packer::new(compression, store.ingest(None)?)?;
        let packer = layer::clamp_times(std::io::BufReader::new(tar), packer, epoch.epoch())?;
        let (packed, ingest) = packer.finish()?;
        let mut lease = None;
        let media_type = compression.algorithm.media_type();
        let descriptor: Descriptor =
            ingest.commit_with(media_type, |tx, descriptor| -> Result<()> {
                lease = Some(leases.hold_in(tx, Thing::Blob(descriptor.digest))?);
                Ok(())
            })?;
        let lease = lease.expect("the transaction took it");
        Ok((
            LayerBlob {
                descriptor,
                diff_id: packed.diff_id,
                ..layer
            },
            lease,
        ))
    })
    .await
}
