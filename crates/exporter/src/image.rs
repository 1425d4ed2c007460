//! The documents of an image: layers, config, manifest and, for several platforms
//! or attestations, an index (core.md §3.3–3.7).

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use bytes::Bytes;
use content::Provider;
use futures::TryStreamExt as _;
use futures::stream::{self, StreamExt as _};
use lease::{Lease, Thing};
use oci::{Descriptor, DiffId, ImageName, go_json, media_type as media};
use progress::StepProgress;
use refs::{BlobOptions, Create, LayerBlob, Refs};

use crate::config::{Base, Patch, default_config, patched};
use crate::document::{self, Parts, public_layer};
use crate::history::Made;
use crate::{
    Annotations, Error, ImageOptions, PlatformResult, Result, Source, Stamp, attestation, rewrite,
    sbom,
};

/// What an export works with.
#[derive(Clone)]
pub struct Context {
    /// Results and the store blobs go to.
    pub refs: Refs,
    /// Where lazy layers can be fetched, should their bytes be wanted.
    pub provider: Arc<dyn Provider>,
    /// The step a person sees.
    pub step: StepProgress,
}

/// One manifest with what it points at.
#[derive(Clone, Debug)]
pub struct WrittenManifest {
    /// As it appears in an index.
    pub descriptor: Descriptor,
    /// The image config.
    pub config: Descriptor,
    /// Layers, bottom first, as the manifest shows them.
    pub layers: Vec<Descriptor>,
    /// The same layers with what is needed to fetch them.
    pub sources: Vec<Descriptor>,
}

/// A written image. What it holds stays in the store as long as this value lives.
pub struct Written {
    /// The manifest or index that names the whole.
    pub descriptor: Descriptor,
    /// Platform manifests first, then those of attestations.
    pub manifests: Vec<WrittenManifest>,
    /// All names: as asked for, `*` resolved, dangling and canonical ones added.
    pub names: Vec<ImageName>,
    /// When the image says it was made, for names and archives.
    pub epoch: Option<Stamp>,
    refs: Refs,
    _held: Vec<Lease>,
}

impl Written {
    /// A document of the image (manifest, index, config or statement).
    pub async fn document(&self, descriptor: &Descriptor) -> Result<Bytes> {
        const LIMIT: u64 = 64 << 20;
        let (store, digest) = (self.refs.store().clone(), descriptor.digest);
        Ok(stdx::task::blocking(move || store.read_all(&digest, LIMIT)).await?)
    }

    /// Whether an index names the whole.
    pub fn is_index(&self) -> bool {
        media::is_index(&self.descriptor.media_type)
    }

    /// Every blob below the manifests, each once: as shown, and with its sources.
    pub fn blobs(&self) -> Vec<(Descriptor, Descriptor)> {
        let mut seen = std::collections::HashSet::new();
        let mut blobs = Vec::new();
        for manifest in &self.manifests {
            let layers = manifest.layers.iter().zip(&manifest.sources);
            for (shown, source) in layers.chain([(&manifest.config, &manifest.config)]) {
                if seen.insert(shown.digest) {
                    blobs.push((shown.clone(), source.clone()));
                }
            }
        }
        blobs
    }

    /// What the client is told (core.md W61).
    pub fn response(&self) -> BTreeMap<String, String> {
        self.told(&self.descriptor)
    }

    /// What the client is told of an archive, which dates its image.
    pub fn response_of_archive(&self) -> BTreeMap<String, String> {
        self.told(&self.dated(self.epoch))
    }

    /// The whole as the index of an archive names it.
    pub(crate) fn dated(&self, created: Option<Stamp>) -> Descriptor {
        let mut dated = self.descriptor.clone();
        if let Some(created) = created {
            let key = "org.opencontainers.image.created".to_owned();
            dated.annotations.insert(key, created.to_string());
        }
        dated
    }

    fn told(&self, descriptor: &Descriptor) -> BTreeMap<String, String> {
        let mut keys = BTreeMap::from([
            (
                "containerimage.digest".to_owned(),
                self.descriptor.digest.to_string(),
            ),
            ("containerimage.descriptor".to_owned(), {
                let json = go_json::compact(descriptor);
                base64::engine::general_purpose::STANDARD.encode(json)
            }),
        ]);
        if !self.is_index()
            && let Some(first) = self.manifests.first()
        {
            let digest = first.config.digest.to_string();
            keys.insert("containerimage.config.digest".to_owned(), digest);
        }
        if !self.names.is_empty() {
            let names: Vec<String> = self.names.iter().map(ToString::to_string).collect();
            keys.insert("image.name".to_owned(), names.join(","));
        }
        keys
    }
}

/// Makes an image of a result: layers that are missing are made, in parallel; lazy
/// ones of a base image are only pointed at.
pub async fn write(source: &Source, options: &ImageOptions, cx: &Context) -> Result<Written> {
    let platforms: Vec<_> = source
        .results
        .iter()
        .map(|one| one.platform.clone())
        .collect();
    let annotations = options.annotations.clone().and(&source.annotations);
    annotations.check(&platforms)?;
    if !options.oci() && annotations.need_oci() {
        return Err(Error::NeedsOci("annotations"));
    }
    let as_index = source.multi_platform || wants_index(source, options);
    if !as_index && !annotations.index.is_empty() {
        return Err(Error::NoIndex);
    }
    let attested = source.results.iter().any(|one| !one.statements.is_empty());
    if as_index && attested && !options.oci() {
        return Err(Error::NeedsOci("attestations"));
    }
    let names = asked_names(source, options)?;
    let mut writer = Writer {
        cx,
        options,
        annotations: &annotations,
        names: &names,
        held: Vec::new(),
    };
    let layers = writer.all_layers(source).await?;
    let mut manifests = Vec::new();
    let mut statements = Vec::new();
    for (result, layers) in source.results.iter().zip(layers) {
        let (manifest, layers) = writer.platform(result, layers).await?;
        manifests.push(manifest);
        if as_index {
            let sorted = core_first(&result.statements);
            statements.push(sbom::with_layers(sorted, result, &layers, cx).await?);
        }
    }
    let mut epoch = options.epoch;
    for result in &source.results {
        epoch = epoch.or(result.epoch);
    }
    if as_index {
        for (at, statements) in statements.iter().enumerate() {
            let image = manifests[at].descriptor.clone();
            let platform = &source.results[at].platform;
            if let Some(manifest) = writer.attestations(platform, &image, statements).await? {
                manifests.push(manifest);
            }
        }
    }
    let descriptor = if as_index {
        let entries: Vec<Descriptor> = manifests.iter().map(|m| m.descriptor.clone()).collect();
        let (media_type, bytes) = document::index(options.oci(), &entries, &annotations.index);
        let mut descriptor = writer.put("manifest list blob", media_type, bytes).await?;
        writer.say("exporting manifest list", &descriptor);
        descriptor
            .annotations
            .clone_from(&annotations.index_descriptor);
        descriptor
    } else {
        let mut descriptor = manifests[0].descriptor.clone();
        descriptor.platform = descriptor.platform.filter(|_| source.declared);
        descriptor
    };
    let held = writer.held;
    let names = all_names(names, options, &descriptor)?;
    Ok(Written {
        descriptor,
        manifests,
        names,
        epoch,
        refs: cx.refs.clone(),
        _held: held,
    })
}

/// Whether one image needs an index for the sake of its statements. Those for inline use alone
/// do not ask for one where that was not said, but are in it if there is one.
fn wants_index(source: &Source, options: &ImageOptions) -> bool {
    let mut all = source.results.iter().flat_map(|one| &one.statements);
    all.any(|one| options.attestation_inline || !one.inline_only)
}

/// What the result itself holds is told first.
fn core_first(statements: &[crate::Statement]) -> Vec<crate::Statement> {
    let (mut first, rest): (Vec<_>, Vec<_>) =
        statements.iter().cloned().partition(|one| one.core_sbom);
    first.extend(rest);
    first
}

fn asked_names(source: &Source, options: &ImageOptions) -> Result<Vec<ImageName>> {
    let mut names = Vec::new();
    for name in &options.names {
        let name = match (name.as_str(), &source.image_name) {
            ("*", Some(found)) => found.as_str(),
            ("*", None) => continue,
            (name, _) => name,
        };
        let name: ImageName = name.parse()?;
        if options.push_by_digest && name.tag().is_some() {
            return Err(Error::TagByDigest(name.to_string()));
        }
        names.push(if options.push_by_digest {
            name
        } else {
            name.or_latest()
        });
    }
    Ok(names)
}

fn all_names(
    mut names: Vec<ImageName>,
    options: &ImageOptions,
    descriptor: &Descriptor,
) -> Result<Vec<ImageName>> {
    if let Some(prefix) = &options.dangling_prefix
        && (names.is_empty() || !options.dangling_empty_only)
    {
        names.push(format!("{prefix}@{}", descriptor.digest).parse()?);
    }
    if options.name_canonical {
        for name in names.clone() {
            if name.digest().is_none() {
                let bare: ImageName = name.name().parse()?;
                names.push(bare.with_digest(descriptor.digest));
            }
        }
    }
    Ok(names)
}

struct Writer<'a> {
    cx: &'a Context,
    options: &'a ImageOptions,
    /// Those asked for and those the frontend gave.
    annotations: &'a Annotations,
    names: &'a [ImageName],
    held: Vec<Lease>,
}

impl Writer<'_> {
    async fn all_layers(&self, source: &Source) -> Result<Vec<Vec<LayerBlob>>> {
        let status = self.cx.step.transfer("exporting layers");
        let options = BlobOptions {
            compression: self.options.compression,
            force: self.options.force_compression,
        };
        // Boxed, or the compiler cannot see that the whole may cross threads.
        let mut making: Vec<futures::future::BoxFuture<'_, _>> = Vec::new();
        for result in &source.results {
            making.push(Box::pin(async move {
                match &result.files {
                    None => Ok(Vec::new()),
                    Some(files) => {
                        let provider = self.cx.provider.as_ref();
                        files
                            .layers(&options, Create::Yes, provider, &self.cx.step)
                            .await
                    }
                }
            }));
        }
        let layers = stream::iter(making).buffered(4).try_collect().await?;
        status.done();
        Ok(layers)
    }

    async fn platform(
        &mut self,
        result: &PlatformResult,
        mut layers: Vec<LayerBlob>,
    ) -> Result<(WrittenManifest, Vec<LayerBlob>)> {
        let epoch = self.options.epoch.or(result.epoch);
        let made: Vec<Made> = layers
            .iter()
            .map(|layer| Made {
                created: layer.created.map(Stamp::from),
                description: layer.description.clone(),
            })
            .collect();
        if self.options.rewrite_timestamp {
            self.set_back(result, &mut layers, epoch).await?;
        }
        let diff_ids: Vec<DiffId> = layers.iter().map(|layer| layer.diff_id).collect();
        let config = match &result.config {
            Some(config) => config.to_vec(),
            None => default_config(&result.platform),
        };
        let patch = Patch {
            diff_ids: &diff_ids,
            made: &made,
            base: result.base_config.as_deref(),
            epoch,
            inline_cache: result.inline_cache.as_deref(),
        };
        let config = patched(&config, &patch)?;
        let oci = self.options.oci();
        let config_type = if oci {
            media::OCI_CONFIG
        } else {
            media::DOCKER_CONFIG
        };
        let config = self.put("config blob", config_type, config).await?;
        let sources = layers.iter().map(|layer| layer.descriptor.clone());
        let sources: Vec<Descriptor> = sources.collect();
        let shown: Vec<Descriptor> = sources
            .iter()
            .map(|layer| public_layer(layer, oci, self.options.prefer_nondist))
            .collect();
        let annotations = self.annotations.manifest(&result.platform);
        let parts = Parts {
            annotations,
            ..Parts::default()
        };
        let (media_type, bytes) = document::manifest(oci, &config, &shown, &parts);
        let mut descriptor = self.put("manifest blob", media_type, bytes).await?;
        self.say("exporting manifest", &descriptor);
        self.say("exporting config", &config);
        descriptor.platform = Some(result.platform.clone());
        descriptor.annotations = self.annotations.manifest_descriptor(&result.platform);
        let written = WrittenManifest {
            descriptor,
            config,
            layers: shown,
            sources,
        };
        Ok((written, layers))
    }

    async fn set_back(
        &mut self,
        result: &PlatformResult,
        layers: &mut [LayerBlob],
        epoch: Option<Stamp>,
    ) -> Result<()> {
        let Some(epoch) = epoch else {
            tracing::warn!("rewrite-timestamp is specified, but no source-date-epoch was found");
            return Ok(());
        };
        let what = format!(
            "rewriting layers with source-date-epoch {} ({})",
            epoch.epoch(),
            epoch.spoken()
        );
        let status = self.cx.step.transfer(what);
        let base = Base::parse(result.base_config.as_deref());
        let compression = self.options.compression;
        let (refs, provider) = (&self.cx.refs, &self.cx.provider);
        self.held
            .extend(rewrite::layers(refs, provider, layers, &base, epoch, compression).await?);
        status.done();
        Ok(())
    }

    async fn attestations(
        &mut self,
        platform: &oci::Platform,
        image: &Descriptor,
        statements: &[crate::Statement],
    ) -> Result<Option<WrittenManifest>> {
        if statements.is_empty() {
            return Ok(None);
        }
        let (statements, image, platform) = (statements.to_vec(), image.clone(), platform.clone());
        let names = self.names.to_vec();
        let (oci, artifact) = (self.options.oci(), self.options.artifact());
        // Statements have many megabytes, and are written anew.
        let made = stdx::task::blocking(move || {
            attestation::manifest(&statements, &image, &platform, &names, oci, artifact)
        });
        let made = made.await?;
        let mut blobs = Vec::new();
        for (descriptor, bytes) in made.documents {
            self.put("attestation blob", &descriptor.media_type, bytes)
                .await?;
            blobs.push(descriptor);
        }
        // The manifest itself comes last, its config before it.
        blobs.pop();
        let config = blobs.pop().expect("there is always a config");
        self.say("exporting attestation manifest", &made.manifest);
        let sources = blobs.clone();
        Ok(Some(WrittenManifest {
            descriptor: made.manifest,
            config,
            layers: blobs,
            sources,
        }))
    }

    /// Puts a document into the store and holds it.
    async fn put(
        &mut self,
        what: &'static str,
        media_type: &str,
        bytes: impl AsRef<[u8]> + Send + 'static,
    ) -> Result<Descriptor> {
        let (refs, media_type) = (self.cx.refs.clone(), media_type.to_owned());
        let put = stdx::task::blocking(move || {
            let (bytes, mut lease) = (bytes.as_ref(), None);
            let put = refs
                .store()
                .write_all_with(&media_type, bytes, |tx, written| {
                    lease = Some(refs.leases().hold_in(tx, Thing::Blob(written.digest))?);
                    Ok::<(), Error>(())
                });
            let written = put.map_err(|error| match error {
                Error::Content(source) => Error::Write {
                    what,
                    digest: oci::Digest::of(bytes),
                    source,
                },
                other => other,
            })?;
            Ok::<_, Error>((written, lease))
        });
        let (written, lease) = put.await?;
        self.held.extend(lease);
        Ok(written)
    }

    fn say(&self, what: &str, descriptor: &Descriptor) {
        self.cx
            .step
            .transfer(format!("{what} {}", descriptor.digest))
            .done();
    }
}
