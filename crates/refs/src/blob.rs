//! A filesystem result becomes layer blobs, per compression (core.md §4.1, §4.9, §4.10).

use std::io::BufWriter;
use std::sync::Arc;

use content::Provider;
use futures::{StreamExt, TryStreamExt, stream};
use layer::{Algorithm, Compression, Packed};
use oci::{Descriptor, DiffId, media_type};
use progress::StepProgress;
use snapshot::Tree;
use stdx::task::blocking;

use crate::chain::{Chained, chain_of, name_chains};
use crate::record::{Link, LinkBlob, Record, Shape};
use crate::{Error, LayerBlob, Ref, Refs, Result};

/// Layers packed at once. Packing one uses several cores by itself.
const PACKS_AT_ONCE: usize = 3;

/// Whether blobs may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Create {
    /// Make what is missing.
    Yes,
    /// `NoBlobs` when one is missing.
    No,
}

/// Which blobs are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlobOptions {
    /// For blobs that have to be made.
    pub compression: Compression,
    /// Also convert blobs that are there in another compression.
    pub force: bool,
}

impl From<Compression> for BlobOptions {
    fn from(compression: Compression) -> BlobOptions {
        BlobOptions {
            compression,
            force: false,
        }
    }
}

impl Ref {
    /// The blobs of all layers, bottom first. Those that are there are given as they are, lazy
    /// ones without being fetched; missing ones are made from the layer directories, several at
    /// once and each one once.
    pub async fn layers(
        &self,
        options: &BlobOptions,
        create: Create,
        provider: &dyn Provider,
        step: &StepProgress,
    ) -> Result<Vec<LayerBlob>> {
        let refs = self.refs();
        let chain = refs.0.parts.db.read(|tx| chain_of(tx, self.id()))?;
        // Boxed, or the compiler cannot see that the whole may cross threads.
        let making: Vec<futures::future::BoxFuture<'_, Result<LayerBlob>>> = chain
            .iter()
            .map(|chained| -> futures::future::BoxFuture<'_, _> {
                Box::pin(refs.ensure_blob(chained, options, create, provider, step))
            })
            .collect();
        let blobs: Vec<LayerBlob> = stream::iter(making)
            .buffered(PACKS_AT_ONCE)
            .try_collect()
            .await?;
        refs.0.parts.db.write(|tx| name_chains(tx, self.id()))?;
        Ok(blobs)
    }

    /// The blobs known without making or fetching any, main ones first, variants after; for each
    /// layer from the bottom.
    pub fn known_blobs(&self) -> Result<Vec<Vec<Descriptor>>> {
        self.refs().0.parts.db.read(|tx| {
            let blobs = |chained: &Chained| {
                Ok(Link::blobs(tx, chained.link)?
                    .into_iter()
                    .map(|blob| blob.descriptor)
                    .collect())
            };
            chain_of(tx, self.id())?.iter().map(blobs).collect()
        })
    }
}

impl Refs {
    async fn ensure_blob(
        &self,
        chained: &Chained,
        options: &BlobOptions,
        create: Create,
        provider: &dyn Provider,
        step: &StepProgress,
    ) -> Result<LayerBlob> {
        let algorithm = options.compression.algorithm;
        let _alone = self
            .0
            .packing
            .lock(format!("{} {algorithm:?}", chained.link))
            .await;
        let (record, link, mut blobs) = self.0.parts.db.read(|tx| -> Result<_> {
            let record = Record::need(tx, &chained.of)?;
            let link = Link::get(tx, chained.link)?;
            Ok((record, link, Link::blobs(tx, chained.link)?))
        })?;
        for blob in &mut blobs {
            if blob.descriptor.media_type.is_empty() {
                self.detect(chained.link, blob, provider).await?;
            }
        }
        let link = link.ok_or_else(|| Error::NoRecord(chained.of.clone()))?;
        let usable = |blob: &&LinkBlob| {
            blob.from_outside
                || self
                    .0
                    .parts
                    .store
                    .contains(&blob.descriptor.digest)
                    .unwrap_or(false)
        };
        let main = blobs.iter().find(|blob| blob.main).filter(usable);
        let fits = |blob: &&LinkBlob| algorithm_of(&blob.descriptor.media_type) == Some(algorithm);
        let found = match main {
            Some(main) if !options.force || fits(&main) => Some(main),
            _ if options.force => blobs.iter().filter(usable).find(fits),
            _ => None,
        };
        let (descriptor, diff_id) = match (found, main, link.diff_id) {
            (Some(found), _, Some(diff_id)) => (found.descriptor.clone(), diff_id),
            _ if create == Create::No => return Err(Error::NoBlobs(chained.of.clone())),
            (None, Some(main), Some(_)) => {
                let converted =
                    self.convert(chained, &main.descriptor, options.compression, provider);
                converted.await.map_err(|source| Error::Convert {
                    compression: algorithm.name(),
                    source: Box::new(source),
                })?
            }
            _ => {
                self.pack(chained, &record, options.compression, provider, step)
                    .await?
            }
        };
        let (description, created) = (record.description, Some(record.created));
        Ok(LayerBlob {
            descriptor,
            diff_id,
            description,
            created,
        })
    }

    /// Tells by its first bytes how a blob is compressed that came without a media type.
    async fn detect(&self, link: i64, blob: &mut LinkBlob, provider: &dyn Provider) -> Result<()> {
        let store = &self.0.parts.store;
        let mut bytes = match store.contains(&blob.descriptor.digest)? {
            true => store.read(&blob.descriptor, 0).await?,
            false => provider.read(&blob.descriptor, 0).await?,
        };
        let mut start = Vec::new();
        while start.len() < 6
            && let Some(piece) = bytes.next().await
        {
            let piece = piece?;
            start.extend_from_slice(&piece[..piece.len().min(6)]);
        }
        let media_type = media_type_of(match layer::Format::of(&start) {
            layer::Format::Gzip => Algorithm::Gzip,
            layer::Format::Zstd => Algorithm::Zstd,
            _ => Algorithm::Uncompressed,
        });
        media_type.clone_into(&mut blob.descriptor.media_type);
        self.0.parts.db.write(|tx| Link::put_blob(tx, link, blob))
    }

    /// Makes the main blob of a link from its layer directory and what lies below.
    async fn pack(
        &self,
        chained: &Chained,
        record: &Record,
        compression: Compression,
        provider: &dyn Provider,
        step: &StepProgress,
    ) -> Result<(Descriptor, DiffId)> {
        let from = match record.shape {
            Shape::Diff => {
                let [lower, upper] = self.trees_of_diff(&record.id, provider, step).await?;
                Packing::Trees { lower, upper }
            }
            _ => {
                let layer = self.layer_of(chained.link)?;
                let lost = || Error::Lost {
                    record: chained.of.clone(),
                    layer: chained.link,
                };
                let own = self.0.parts.snapshots.layer(&layer.ok_or_else(lost)?)?;
                let below = match &record.parent {
                    Some(parent) => Some(self.need(parent)?.tree_boxed(provider, step).await?),
                    None => None,
                };
                Packing::Layer { own, below }
            }
        };
        let (refs, link, of) = (self.clone(), chained.link, chained.of.clone());
        blocking(move || {
            let packed = refs.pack_into_store(compression, |tar| match &from {
                Packing::Trees { lower, upper } => {
                    layer::compare(upper.root(), Some(lower.root()), tar).map(drop)
                }
                Packing::Layer { own, below } => {
                    layer::diff(own.root(), below.as_ref().map(|tree| tree.root()), tar).map(drop)
                }
            });
            let (packed, ingest) = packed.map_err(|error| error.of(&of))?;
            refs.commit_blob(link, ingest, &packed, compression, None)
        })
        .await
    }

    /// Makes a variant of a blob in another compression.
    async fn convert(
        &self,
        chained: &Chained,
        from: &Descriptor,
        compression: Compression,
        provider: &dyn Provider,
    ) -> Result<(Descriptor, DiffId)> {
        self.0.parts.store.fetch(provider, from).await?;
        let (refs, link, of, from) = (self.clone(), chained.link, chained.of.clone(), from.clone());
        blocking(move || {
            let file = refs.0.parts.store.open_file(&from.digest)?;
            let packed = refs.pack_into_store(compression, |tar| {
                let (mut plain, _) = layer::decompress(file).map_err(layer::Error::Read)?;
                std::io::copy(&mut plain, tar).map_err(layer::Error::Read)?;
                Ok(())
            });
            let (packed, ingest) = packed.map_err(|error| error.of(&of))?;
            refs.commit_blob(link, ingest, &packed, compression, Some(&from))
        })
        .await
    }

    fn pack_into_store(
        &self,
        compression: Compression,
        fill: impl FnOnce(&mut Tar) -> layer::Result<()>,
    ) -> Result<(Packed, content::Ingest), PackError> {
        let ingest = self
            .0
            .parts
            .store
            .ingest(None)
            .map_err(PackError::Content)?;
        layer::pack(compression, ingest, |packer| {
            let mut tar = BufWriter::with_capacity(256 << 10, packer);
            fill(&mut tar)?;
            std::io::Write::flush(&mut tar).map_err(layer::Error::Write)
        })
        .map_err(PackError::Layer)
    }

    /// Makes the blob visible together with the row that keeps it.
    fn commit_blob(
        &self,
        link: i64,
        ingest: content::Ingest,
        packed: &Packed,
        compression: Compression,
        variant_of: Option<&Descriptor>,
    ) -> Result<(Descriptor, DiffId)> {
        let media_type = media_type_of(compression.algorithm);
        let mut made = None;
        ingest.commit_with(media_type, |tx, blob| -> Result<()> {
            let mut descriptor = blob.clone();
            if let Some(from) = variant_of {
                let kept =
                    |key: &str| key.starts_with("buildkit/") || key == "containerd.io/uncompressed";
                let annotations = from.annotations.iter().filter(|(key, _)| kept(key));
                descriptor.annotations = annotations.map(|(k, v)| (k.clone(), v.clone())).collect();
            }
            let row = LinkBlob {
                descriptor,
                main: variant_of.is_none(),
                from_outside: false,
            };
            if row.main {
                tx.execute("UPDATE refs_blobs SET main = 0 WHERE link = ?1", [link])?;
                Link::set_diff_id(tx, link, packed.diff_id)?;
            }
            Link::put_blob(tx, link, &row)?;
            made = Some(row.descriptor);
            Ok(())
        })?;
        Ok((
            made.expect("made in the transaction that was committed"),
            packed.diff_id,
        ))
    }
}

type Tar<'p> = BufWriter<&'p mut layer::Packer<content::Ingest>>;

/// What a blob is made from.
enum Packing {
    Layer {
        own: Arc<Tree>,
        below: Option<Arc<Tree>>,
    },
    Trees {
        lower: Arc<Tree>,
        upper: Arc<Tree>,
    },
}

enum PackError {
    Content(content::Error),
    Layer(layer::Error),
}

impl PackError {
    fn of(self, record: &str) -> Error {
        match self {
            PackError::Content(error) => Error::Content(error),
            PackError::Layer(source) => Error::Pack {
                record: record.to_owned(),
                source,
            },
        }
    }
}

/// The OCI media type of a layer; whoever writes Docker manifests translates.
fn media_type_of(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::Uncompressed => media_type::OCI_LAYER,
        Algorithm::Gzip | Algorithm::Estargz => media_type::OCI_LAYER_GZIP,
        Algorithm::Zstd => media_type::OCI_LAYER_ZSTD,
    }
}

/// How a layer of this media type is compressed; `None` when the type does not say.
fn algorithm_of(media_type: &str) -> Option<Algorithm> {
    if !media_type::is_layer(media_type) {
        return None;
    }
    Some(match media_type.rsplit(['.', '+']).next() {
        Some("gzip") => Algorithm::Gzip,
        Some("zstd") => Algorithm::Zstd,
        Some("tar") => Algorithm::Uncompressed,
        _ => return None,
    })
}
