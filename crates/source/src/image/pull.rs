//! Reading an image's documents: name, index, manifest, config.

use std::sync::Arc;

use bytes::Bytes;
use content::{Provider, Store};
use oci::{Descriptor, Digest, ImageName, Platform, media_type};
use refs::LayerBlob;
use registry::{Repository, SOURCE_ANNOTATION, add_source};
use session::ContentStore;
use stdx::Kind;

use super::document::{Document, choose};
use super::{What, Where, config};
use crate::context::{Context, Sources};
use crate::error::{Error, Result};
use crate::identifier::{ImageId, ResolveMode};

/// Documents larger than this are refused.
const MAX_DOCUMENT: u64 = 8 << 20;
/// An index may point at another, but not for ever.
const MAX_DEPTH: usize = 4;

/// The documents of an image.
pub(crate) struct Pulled {
    /// What the name stands for.
    pub root: Descriptor,
    /// The manifest for the platform.
    pub manifest: Descriptor,
    /// The config's descriptor.
    pub config_descriptor: Descriptor,
    /// The config.
    pub config: Bytes,
    /// The layers, bottom first.
    pub layers: Vec<LayerBlob>,
    /// Keep the documents until nobody needs them.
    _leases: Vec<lease::Lease>,
}

/// Where an image's blobs are, with the logins of one build.
#[derive(Clone)]
pub(crate) enum Place {
    Registry(Repository),
    Layout(Arc<dyn ContentStore>),
}

/// The same as a provider.
pub(crate) struct PlaceProvider(Place);

#[async_trait::async_trait]
impl Provider for PlaceProvider {
    async fn size(&self, blob: &Descriptor) -> content::Result<u64> {
        match &self.0 {
            Place::Registry(repository) => repository.size(blob).await,
            Place::Layout(store) => store.size(blob).await,
        }
    }

    async fn read(&self, blob: &Descriptor, offset: u64) -> content::Result<content::ByteStream> {
        match &self.0 {
            Place::Registry(repository) => repository.read(blob, offset).await,
            Place::Layout(store) => store.read(blob, offset).await,
        }
    }
}

impl Place {
    pub(crate) async fn open(sources: &Sources, place: &Where, cx: &Context) -> Result<Place> {
        match place {
            Where::Registry(id) => Ok(Place::Registry(
                sources
                    .parts()
                    .registry
                    .repository(&id.name, cx.credentials.clone()),
            )),
            Where::Layout(id) => {
                let session = cx.session(&id.session).await?;
                Ok(Place::Layout(
                    session.content()?.store(&format!("oci:{}", id.store)),
                ))
            }
        }
    }

    pub(crate) fn provider(&self) -> PlaceProvider {
        PlaceProvider(self.clone())
    }

    /// Notes where a blob came from, so that it can be fetched again.
    fn mark(&self, blob: &mut Descriptor) {
        if let Place::Registry(repository) = self {
            add_source(blob, repository.registry(), repository.path());
        }
    }
}

/// Reads the documents of an image (P11, P13).
pub(super) async fn pull(
    sources: &Sources,
    what: &What,
    reference: &str,
    cx: &Context,
) -> Result<Arc<Pulled>> {
    let transfer = cx.step.transfer(format!("resolve {reference}"));
    let mut reading = Reading::open(sources, &what.place, cx).await?;
    let root = reading.root(what, reference, cx).await?;
    let (manifest, config_descriptor, layers) =
        reading.manifest(reference, &root, &what.platform).await?;
    let config = reading.document(&config_descriptor).await?;
    let mut layers = config::layers(reference, &config, layers, what.layer_limit)?;
    for layer in &mut layers {
        reading.place.mark(&mut layer.descriptor);
    }
    transfer.done();
    let _leases = reading.leases;
    Ok(Arc::new(Pulled {
        root,
        manifest,
        config_descriptor,
        config,
        layers,
        _leases,
    }))
}

/// Reads documents from a place, and keeps them.
pub(super) struct Reading<'a> {
    sources: &'a Sources,
    store: &'a Store,
    pub(super) place: Place,
    leases: Vec<lease::Lease>,
}

impl<'a> Reading<'a> {
    pub(super) async fn open(
        sources: &'a Sources,
        place: &Where,
        cx: &Context,
    ) -> Result<Reading<'a>> {
        Ok(Reading {
            store: sources.parts().refs.store(),
            sources,
            place: Place::open(sources, place, cx).await?,
            leases: Vec::new(),
        })
    }
}

impl Reading<'_> {
    /// What the name stands for.
    pub(super) async fn root(
        &self,
        what: &What,
        reference: &str,
        cx: &Context,
    ) -> Result<Descriptor> {
        match &what.place {
            Where::Registry(id) => {
                // Another platform of the same name must not get another answer.
                let key = format!("name {} {:?}", id.name, id.mode);
                let root = cx.resolutions.get_or(key, self.resolve(id, cx)).await?;
                match id.checksum {
                    Some(expected) if expected != root.digest => Err(Error::ImageChecksum {
                        reference: reference.into(),
                        expected,
                        found: root.digest,
                    }),
                    _ => Ok(root),
                }
            }
            Where::Layout(id) => self.describe(reference, id.digest).await,
        }
    }

    /// A digest that is here and came from this repository needs no asking
    /// (S03, P12); else the mode decides (P27).
    async fn resolve(&self, id: &ImageId, cx: &Context) -> Result<Descriptor> {
        let Place::Registry(repository) = &self.place else {
            unreachable!("only names are resolved")
        };
        if let Some(digest) = id.name.digest()
            && self.came_from(repository, &digest)?
        {
            return self.described_here(&id.name, digest);
        }
        if id.mode == ResolveMode::Local
            && let Some(here) = self.remembered(&id.name)?
        {
            return Ok(here);
        }
        match repository.resolve(&id.name).await {
            Ok(found) => {
                self.remember(&id.name, &found)?;
                Ok(found)
            }
            Err(error) if id.mode == ResolveMode::Default && error.kind() == Kind::Unavailable => {
                let Some(here) = self.remembered(&id.name)? else {
                    return Err(error.into());
                };
                tracing::warn!(name = %id.name, %error, "using what the name stood for the last time");
                cx.step.log(
                    progress::Stream::Err,
                    format!("{error}; using {} from an earlier build\n", here.digest),
                );
                Ok(here)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn came_from(&self, repository: &Repository, digest: &Digest) -> Result<bool> {
        let labels = self.store.labels(digest)?;
        let known = labels.get(&format!("{SOURCE_ANNOTATION}{}", repository.registry()));
        Ok(known.is_some_and(|known| known.split(',').any(|path| path == repository.path())))
    }

    fn described_here(&self, name: &ImageName, digest: Digest) -> Result<Descriptor> {
        let bytes = self.store.read_all(&digest, MAX_DOCUMENT)?;
        let media_type = detect(&bytes).ok_or_else(|| Error::Document {
            reference: name.to_string(),
            reason: "it is no manifest or index".into(),
        })?;
        Ok(Descriptor::new(media_type, digest, bytes.len() as u64))
    }

    /// What the registry said the name stands for the last time, if that is still here. A
    /// digest stands for itself, but only where its name has it: the same bytes that came
    /// under another name do not count.
    fn remembered(&self, name: &ImageName) -> Result<Option<Descriptor>> {
        let sql = "SELECT media_type, digest, size FROM source_names WHERE name = ?1";
        let found = self.sources.parts().db.read(|tx| {
            tx.row(sql, [name.to_string()], |row| {
                Ok((
                    row.get::<_, String>(0)?,
                    row.get::<_, String>(1)?,
                    row.get::<_, i64>(2)?,
                ))
            })
        })?;
        let Some((media_type, digest, size)) = found else {
            return Ok(None);
        };
        let Ok(digest) = digest.parse::<Digest>() else {
            return Ok(None);
        };
        let here = self.store.contains(&digest)?;
        Ok(here.then(|| Descriptor::new(media_type, digest, size.unsigned_abs())))
    }

    fn remember(&self, name: &ImageName, found: &Descriptor) -> Result<()> {
        let sql = "INSERT OR REPLACE INTO source_names VALUES (?1, ?2, ?3, ?4)";
        let row = (
            name.to_string(),
            &found.media_type,
            found.digest.to_string(),
            found.size as i64,
        );
        self.sources.parts().db.write(|tx| tx.execute(sql, row))?;
        Ok(())
    }

    /// Media type and size of a document of which only the digest is known.
    async fn describe(&self, reference: &str, digest: Digest) -> Result<Descriptor> {
        let mut bare = Descriptor::new("application/octet-stream", digest, 0);
        bare.size = self.place.provider().size(&bare).await?;
        let bytes = content::collect(
            self.place.provider().read(&bare, 0).await?,
            &bare,
            MAX_DOCUMENT,
        )
        .await?;
        bare.media_type = detect(&bytes).ok_or_else(|| Error::Document {
            reference: reference.into(),
            reason: "it is no manifest or index".into(),
        })?;
        Ok(bare)
    }

    /// The manifest for the platform, with its config and layers.
    pub(super) async fn manifest(
        &mut self,
        reference: &str,
        root: &Descriptor,
        platform: &Platform,
    ) -> Result<(Descriptor, Descriptor, Vec<Descriptor>)> {
        let mut at = root.clone();
        for _ in 0..MAX_DEPTH {
            // Asked before it is fetched: a registry that converts it would hide what it is.
            if matches!(
                at.media_type.as_str(),
                media_type::DOCKER_SCHEMA1 | media_type::DOCKER_SCHEMA1_SIGNED
            ) {
                return Err(Error::Schema1 {
                    reference: reference.into(),
                });
            }
            let bytes = self.document(&at).await?;
            match Document::parse(reference, &at.media_type, &bytes)? {
                Document::Manifest { config, layers } => return Ok((at, *config, layers)),
                Document::Index(manifests) => at = choose(reference, &manifests, platform)?.clone(),
            }
        }
        Err(Error::Document {
            reference: reference.into(),
            reason: "indexes within indexes".into(),
        })
    }

    /// A small document: here, or fetched, verified and kept, and held until
    /// the build no longer needs it (P10).
    pub(super) async fn document(&mut self, wanted: &Descriptor) -> Result<Bytes> {
        if wanted.size > MAX_DOCUMENT {
            let (digest, size) = (wanted.digest, wanted.size);
            return Err(content::Error::TooLarge {
                digest,
                size,
                limit: MAX_DOCUMENT,
            }
            .into());
        }
        let lease = self
            .sources
            .parts()
            .refs
            .leases()
            .hold(lease::Thing::Blob(wanted.digest));
        self.leases.push(lease.map_err(refs::Error::from)?);
        self.store.fetch(&self.place.provider(), wanted).await?;
        if let Place::Registry(repository) = &self.place {
            let key = format!("{SOURCE_ANNOTATION}{}", repository.registry());
            self.store
                .add_to_label(&wanted.digest, &key, repository.path())?;
        }
        Ok(self.store.read_all(&wanted.digest, MAX_DOCUMENT)?)
    }
}

/// What kind of document these bytes are.
fn detect(bytes: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Raw {
        #[serde(default)]
        media_type: String,
        #[serde(default)]
        schema_version: u32,
        #[serde(default)]
        manifests: Option<serde::de::IgnoredAny>,
        #[serde(default)]
        config: Option<serde::de::IgnoredAny>,
    }
    let raw: Raw = serde_json::from_slice(bytes).ok()?;
    if raw.schema_version == 1 {
        return Some(media_type::DOCKER_SCHEMA1_SIGNED.into());
    }
    if media_type::is_index(&raw.media_type) || media_type::is_manifest(&raw.media_type) {
        return Some(raw.media_type);
    }
    match (raw.manifests.is_some(), raw.config.is_some()) {
        (true, false) => Some(media_type::OCI_INDEX.into()),
        (false, true) => Some(media_type::OCI_MANIFEST.into()),
        _ => None,
    }
}
