//! A lazy ref becomes a tree to read. The caller brings the provider to fetch with, so a ref
//! outlives the session that first saw it.

use std::io::{BufWriter, PipeWriter};
use std::sync::Arc;

use content::Provider;
use futures::{StreamExt, TryStreamExt, stream};
use layer::{Applied, ApplyOptions, Namespace, Whiteouts};
use oci::DiffId;
use progress::StepProgress;
use snapshot::{Active, LayerId, Tree};
use stdx::sys::Root;
use stdx::task::blocking;

use crate::chain::{Chained, chain_of};
use crate::fetch::fetch_and_apply;
use crate::record::{Link, LinkBlob, Record, Shape};
use crate::{Error, Ref, Refs, Result};

/// A link unpacked, but for what it takes from the layers below.
enum Unpacked {
    Done,
    Unsettled(Box<Active>, Box<Applied>),
}

/// A link on its way, with where in the chain it is.
type Unpacking<'a> = futures::future::BoxFuture<'a, Result<(usize, &'a Chained, Unpacked)>>;

impl Ref {
    /// The file system to read. What is missing is fetched and unpacked first, several layers at
    /// once, each one once however many builds ask; statuses appear under `step`.
    pub async fn tree(&self, provider: &dyn Provider, step: &StepProgress) -> Result<Arc<Tree>> {
        self.unpack(provider, step).await?;
        self.refs().view(self.unpacked_layers()?)
    }

    /// [`Ref::tree`] where a ref needs the trees of others: the named type ends the recursion, so
    /// that the compiler sees that all of it may cross threads.
    pub(crate) fn tree_boxed<'a>(
        &'a self,
        provider: &'a dyn Provider,
        step: &'a StepProgress,
    ) -> futures::future::BoxFuture<'a, Result<Arc<Tree>>> {
        Box::pin(self.tree(provider, step))
    }

    /// Fetches and unpacks what is missing, without mounting.
    pub fn unpack<'a>(
        &'a self,
        provider: &'a dyn Provider,
        step: &'a StepProgress,
    ) -> futures::future::BoxFuture<'a, Result<()>> {
        // Boxed: settling a layer may ask for the tree below it, which unpacks again.
        Box::pin(async move {
            let refs = self.refs();
            let chain = refs.0.parts.db.read(|tx| chain_of(tx, self.id()))?;
            let mut missing = Vec::new();
            for (at, chained) in chain.iter().enumerate() {
                if refs.layer_of(chained.link)?.is_none()
                    && !missing.iter().any(|(_, c)| *c == chained)
                {
                    missing.push((at, chained));
                }
            }
            if missing.is_empty() {
                refs.unveil(&chain, provider, step).await?;
                return refs.give_skeletons(&chain).await;
            }
            // Each layer needs nothing of the others to be unpacked, so all go at once. In order they
            // are looked at again: some take attributes or hard links from what lies below.
            let at_once = missing.len();
            // Boxed, or the compiler cannot see that the whole may cross threads.
            let unpacking: Vec<Unpacking<'_>> = missing
                .into_iter()
                .map(|(at, chained)| -> Unpacking<'_> {
                    Box::pin(async move {
                        Ok((
                            at,
                            chained,
                            refs.unpack_link(chained, provider, step).await?,
                        ))
                    })
                })
                .collect();
            let unpacked: Vec<(usize, &Chained, Unpacked)> = stream::iter(unpacking)
                .buffered(at_once)
                .try_collect()
                .await?;
            for (at, chained, unpacked) in unpacked {
                if let Unpacked::Unsettled(active, applied) = unpacked {
                    refs.settle(&chain[..at], chained, *active, *applied)
                        .await?;
                }
            }
            refs.unveil(&chain, provider, step).await?;
            refs.give_skeletons(&chain).await
        })
    }
}

impl Refs {
    /// The link's layer directory, if it is on disk.
    pub(crate) fn layer_of(&self, link: i64) -> Result<Option<LayerId>> {
        let link = self.0.parts.db.read(|tx| Link::get(tx, link))?;
        let layer = link.and_then(|link| link.layer);
        Ok(layer.filter(|layer| self.0.parts.snapshots.contains(layer)))
    }

    async fn unpack_link(
        &self,
        chained: &Chained,
        provider: &dyn Provider,
        step: &StepProgress,
    ) -> Result<Unpacked> {
        let (record, link, blobs) = self.0.parts.db.read(|tx| -> Result<_> {
            let record = Record::need(tx, &chained.of)?;
            let link = Link::get(tx, chained.link)?;
            Ok((record, link, Link::blobs(tx, chained.link)?))
        })?;
        let lost = || Error::Lost {
            record: chained.of.clone(),
            layer: chained.link,
        };
        let link = link.ok_or_else(lost)?;
        if record.shape == Shape::Diff && blobs.is_empty() {
            return self.compute_diff(chained, provider, step).await;
        }
        let key = link
            .diff_id
            .map_or_else(|| format!("link {}", link.n), |diff_id| diff_id.to_string());
        let _alone = self.0.unpacking.lock(key).await;
        if self.layer_of(link.n)?.is_some() || self.take_same_layer(&record, &link)? {
            return Ok(Unpacked::Done);
        }
        let _turn = self
            .0
            .turns
            .acquire()
            .await
            .expect("this semaphore is never closed");
        let blob = self.nearest_blob(&blobs)?.ok_or_else(lost)?;
        let active = self.0.parts.snapshots.new_layer()?;
        let applied = self.apply(&active, blob, provider, step).await?;
        if let Some(expected) = link.diff_id
            && expected != applied.diff_id
        {
            let blob = blob.descriptor.digest;
            return Err(Error::WrongDiffId {
                blob,
                expected,
                found: applied.diff_id,
            });
        }
        if applied.depends_on_below() {
            return Ok(Unpacked::Unsettled(Box::new(active), Box::new(applied)));
        }
        self.commit_layer(link.n, active, applied.diff_id, None)?;
        Ok(Unpacked::Done)
    }

    /// Puts a blob's contents into a new layer directory, from the store or from outside.
    async fn apply(
        &self,
        active: &Active,
        blob: &LinkBlob,
        provider: &dyn Provider,
        step: &StepProgress,
    ) -> Result<Applied> {
        let descriptor = &blob.descriptor;
        let dir = active.tree().root().try_clone()?;
        let options = self.apply_options();
        let introducer = self.introducer(&descriptor.digest, step);
        let _open = introducer.as_ref().map(StepProgress::reopen);
        let step = introducer.as_ref().unwrap_or(step);
        let extracting = step.transfer(format!("extracting {}", descriptor.digest));
        let store = self.0.parts.store.clone();
        let digest = descriptor.digest;
        let local = blocking(move || match store.open_file(&digest) {
            Err(content::Error::NotFound(_) | content::Error::Corrupt { .. }) => Ok(None),
            found => found.map(Some),
        })
        .await?;
        let applied = match local {
            Some(file) => blocking(move || layer::apply(file, &dir, &options))
                .await
                .map_err(|source| Error::Unpack {
                    blob: digest,
                    source,
                })?,
            None => {
                let transfer = step.transfer(digest.to_string());
                let (store, wanted) = (self.0.parts.store.clone(), descriptor.clone());
                let ingest = blocking(move || store.ingest(Some(&wanted))).await?;
                let applied =
                    fetch_and_apply(provider, descriptor, ingest, dir, options, &transfer).await?;
                transfer.set(descriptor.size, descriptor.size);
                transfer.done();
                applied
            }
        };
        extracting.done();
        Ok(applied)
    }

    /// Takes what a layer without full description has from below, and commits it.
    async fn settle(
        &self,
        below: &[Chained],
        chained: &Chained,
        active: Active,
        applied: Applied,
    ) -> Result<()> {
        let name = self.chain_name(below)?;
        let key = applied.diff_id.to_string();
        let _alone = self.0.unpacking.lock(key).await;
        if self.layer_of(chained.link)?.is_some() {
            return Ok(());
        }
        let mut layers = Vec::new();
        for chained in below {
            layers.push(
                self.layer_of(chained.link)?
                    .ok_or_else(|| Error::NotUnpacked(chained.of.clone()))?,
            );
        }
        let below = if layers.is_empty() {
            None
        } else {
            Some(self.view(crate::store::topmost(&layers))?)
        };
        let refs = self.clone();
        let link = chained.link;
        let of = chained.of.clone();
        blocking(move || {
            let root = active.tree().root();
            layer::settle(root, &applied, below.as_ref().map(|tree| tree.root()))
                .map_err(|source| Error::Pack { record: of, source })?;
            refs.commit_layer(link, active, applied.diff_id, Some(&name))
        })
        .await
    }

    /// Makes an unpacked directory the link's layer; if another process was first, theirs.
    pub(crate) fn commit_layer(
        &self,
        link: i64,
        active: Active,
        diff_id: DiffId,
        settled_on: Option<&str>,
    ) -> Result<()> {
        self.0.parts.db.write(|tx| {
            let now = Link::get(tx, link)?;
            if now
                .and_then(|link| link.layer)
                .is_some_and(|layer| self.0.parts.snapshots.contains(&layer))
            {
                return Ok(());
            }
            let layer = self.0.parts.snapshots.commit(active)?;
            Link::set_layer(tx, link, &layer, settled_on)?;
            Link::set_diff_id(tx, link, diff_id)?;
            Ok(())
        })
    }

    /// A layer with the same diff ID may be there for another record.
    fn take_same_layer(&self, record: &Record, link: &Link) -> Result<bool> {
        let Some(diff_id) = link.diff_id else {
            return Ok(false);
        };
        self.0.parts.db.write(|tx| {
            let below = match &record.parent {
                Some(parent) => Record::get(tx, parent)?.and_then(|parent| parent.chain),
                None => None,
            };
            let below = below.map_or(String::new(), |chain| chain.to_string());
            match Link::same_layer(tx, diff_id, &below)? {
                Some((layer, settled_on)) if self.0.parts.snapshots.contains(&layer) => {
                    Link::set_layer(tx, link.n, &layer, settled_on.as_deref())?;
                    Ok(true)
                }
                _ => Ok(false),
            }
        })
    }

    /// The blob that costs least: one that is here, else the main one from outside.
    fn nearest_blob<'b>(&self, blobs: &'b [LinkBlob]) -> Result<Option<&'b LinkBlob>> {
        for blob in blobs {
            if self.0.parts.store.contains(&blob.descriptor.digest)? {
                return Ok(Some(blob));
            }
        }
        Ok(blobs.iter().find(|blob| blob.from_outside))
    }

    /// The name of a chain whose diff IDs are all known, as far as it is.
    fn chain_name(&self, chain: &[Chained]) -> Result<String> {
        self.0.parts.db.read(|tx| {
            let mut name = None;
            for chained in chain {
                if let Some(diff_id) = Link::get(tx, chained.link)?.and_then(|link| link.diff_id) {
                    name = Some(crate::chain::on(name, diff_id.0));
                }
            }
            Ok(name.map_or(String::new(), |name| name.to_string()))
        })
    }

    /// The general difference: both trees are compared, and what differs becomes a layer.
    async fn compute_diff(
        &self,
        chained: &Chained,
        provider: &dyn Provider,
        step: &StepProgress,
    ) -> Result<Unpacked> {
        let _alone = self
            .0
            .unpacking
            .lock(format!("link {}", chained.link))
            .await;
        if self.layer_of(chained.link)?.is_some() {
            return Ok(Unpacked::Done);
        }
        let status = step.transfer("diffing");
        let [lower, upper] = self.trees_of_diff(&chained.of, provider, step).await?;
        let active = self.0.parts.snapshots.new_layer()?;
        let (refs, link, of) = (self.clone(), chained.link, chained.of.clone());
        blocking(move || {
            let applied = through_a_pipe(active.tree().root(), &refs.apply_options(), |tar| {
                layer::compare(upper.root(), Some(lower.root()), tar).map(drop)
            });
            let applied = applied.map_err(|source| Error::Pack { record: of, source })?;
            refs.commit_layer(link, active, applied.diff_id, None)
        })
        .await?;
        status.done();
        Ok(Unpacked::Done)
    }

    pub(crate) async fn trees_of_diff(
        &self,
        id: &str,
        provider: &dyn Provider,
        step: &StepProgress,
    ) -> Result<[Arc<Tree>; 2]> {
        let inputs = self.0.parts.db.read(|tx| Record::inputs(tx, id))?;
        let [lower, upper] = &inputs[..] else {
            return Err(Error::NoRecord(id.to_owned()));
        };
        let (lower, upper) = (self.need(lower)?, self.need(upper)?);
        let lower = lower.tree_boxed(provider, step).await?;
        let upper = upper.tree_boxed(provider, step).await?;
        Ok([lower, upper])
    }

    /// How layers are unpacked: as root with everything, otherwise with what we may.
    pub(crate) fn apply_options(&self) -> ApplyOptions {
        let mut options = ApplyOptions::default();
        if self.0.parts.snapshots.marks_as_user() {
            options.whiteouts = Whiteouts::Overlay(Namespace::User);
            options.devices = layer::Devices::Skip;
        }
        options.keep_our_owner = !rustix::process::geteuid().is_root();
        options
    }

    pub(crate) fn need(&self, id: &str) -> Result<Ref> {
        self.get(id)?.ok_or_else(|| Error::NoRecord(id.to_owned()))
    }
}

/// Unpacks into `dir` what `write` says, as a tar that goes through a pipe.
pub(crate) fn through_a_pipe(
    dir: &Root,
    options: &ApplyOptions,
    write: impl FnOnce(BufWriter<PipeWriter>) -> layer::Result<()> + Send,
) -> layer::Result<Applied> {
    let (reader, writer) = std::io::pipe().map_err(layer::Error::Read)?;
    std::thread::scope(|scope| {
        let written = scope.spawn(move || write(BufWriter::with_capacity(1 << 20, writer)));
        let applied = layer::apply(reader, dir, options);
        written
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        applied
    })
}
