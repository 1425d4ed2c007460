//! Cached steps from elsewhere, and to elsewhere.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use content::{Provider, Sink};
use frontend::CacheImport;
use oci::Descriptor;
use ops::{Build, Output};
use progress::{Progress, StepProgress};
use refs::{BlobOptions, Create, LayerBlob};
use remotecache::export::{OutputLayers, Target, collect, response, write};
use remotecache::import::{Imported, Layers, Limits, read};
use remotecache::{ExportSpec, ExportTo, ImportFrom, ImportSpec};
use solver::export::Mode;
use solver::{Edge, JobHandle, OpError};
use source::Identifier;

use crate::places::Places;
use crate::sink::SessionStore;
use crate::{Engine, Failure, Spec};

/// The imports of one build: each place once, however many frontends name it.
pub(crate) struct Imports {
    engine: Engine,
    build: Arc<Build>,
    places: Arc<Places>,
    started: Mutex<HashSet<String>>,
}

impl Imports {
    pub(crate) fn new(engine: Engine, build: Arc<Build>, places: Arc<Places>) -> Imports {
        Imports {
            engine,
            build,
            places,
            started: Mutex::default(),
        }
    }

    /// The image layouts of the client a graph names: their layers are fetched when a step
    /// reads them, and nothing else says where they are.
    pub(crate) fn layouts(&self, graph: &llb::Graph) {
        for vertex in graph.vertices() {
            let llb::OpKind::Source(source) = &vertex.op.kind else {
                continue;
            };
            // What cannot be read is refused when its vertex is made.
            let Ok(Identifier::Layout(id)) = Identifier::parse(&source.identifier, &source.attrs)
            else {
                continue;
            };
            let name = format!("oci:{}", id.store);
            let new = self
                .started
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(name.clone());
            if new {
                let store = SessionStore::new(&self.build, name);
                self.places.add(Arc::new(store));
            }
        }
    }

    /// Begins to read a cache. What goes wrong is shown and is no failure (row I46).
    pub(crate) fn start(&self, import: &CacheImport, job: &JobHandle<Output>, progress: &Progress) {
        let spec = match ImportSpec::parse(&import.kind, &import.attrs) {
            Ok(spec) => spec,
            Err(error) => {
                let step = progress
                    .internal_step(format!("importing cache manifest from {}", import.kind));
                step.start();
                let error = crate::error::chain(&error);
                return step.fail(&format!(
                    "failed to configure {} cache importer: {error}",
                    import.kind
                ));
            }
        };
        let new = self
            .started
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(spec.key.clone());
        if !new {
            return;
        }
        let step = progress.internal_step(format!("importing cache manifest from {}", spec.key));
        let imported = match spec.from {
            ImportFrom::Registry { name, insecure } => {
                self.of_registry(name.or_latest(), insecure, step)
            }
            ImportFrom::Local { src, digest } => self.of_client(&src, digest, step),
        };
        if let Err(error) = job.import(imported) {
            tracing::debug!(%error, "the build is over before its import began");
        }
    }

    fn layers(&self, provider: Arc<dyn Provider>) -> Layers<Output> {
        let refs = self.engine.refs().clone();
        let make = move |layers: Vec<LayerBlob>| {
            let made = refs
                .from_layers(layers)
                .map_err(|error| Arc::new(error) as OpError)?;
            Ok(made.map(|made| Output(Some(made))))
        };
        Layers {
            provider,
            fetch_into: None,
            origin: None,
            make: Arc::new(make),
        }
    }

    fn of_registry(
        &self,
        name: oci::ImageName,
        insecure: bool,
        step: StepProgress,
    ) -> Arc<Imported<Output>> {
        let registry = &self.engine.0.registry;
        let credentials = self.build.credentials.clone();
        let repository = match insecure {
            true => registry.insecure_repository(&name, credentials),
            false => registry.repository(&name, credentials),
        };
        let repository = Arc::new(repository);
        if insecure {
            // What a lazy layer says about its origin does not say that its registry may be
            // spoken to without TLS.
            self.places.add(repository.clone());
        }
        let mut layers = self.layers(repository.clone());
        layers.origin = Some((name.registry().to_owned(), name.repository().to_owned()));
        let shown = step.clone();
        Imported::start(layers, step, async move {
            let found =
                repository
                    .resolve(&name)
                    .await
                    .map_err(|source| remotecache::Error::Registry {
                        doing: format!("resolving {name}"),
                        source: Arc::new(source),
                    })?;
            read(&*repository, &found, &Limits::default(), &shown).await
        })
    }

    fn of_client(
        &self,
        src: &str,
        digest: oci::Digest,
        step: StepProgress,
    ) -> Arc<Imported<Output>> {
        let store = Arc::new(SessionStore::new(&self.build, format!("local:{src}")));
        let mut layers = self.layers(store.clone());
        layers.fetch_into = Some(self.engine.0.store.clone());
        let shown = step.clone();
        Imported::start(layers, step, async move {
            let top = Descriptor::new("", digest, 0);
            read(&*store, &top, &Limits::default(), &shown).await
        })
    }
}

/// The layers of results, for exports.
pub(crate) struct ResultLayers {
    pub(crate) provider: Arc<dyn Provider>,
    pub(crate) options: BlobOptions,
    pub(crate) step: StepProgress,
}

#[async_trait]
impl OutputLayers<Output> for ResultLayers {
    async fn layers(
        &self,
        output: &Output,
        create: bool,
    ) -> Result<Option<Vec<LayerBlob>>, OpError> {
        let Some(found) = &output.0 else {
            return Ok(None);
        };
        let create = if create { Create::Yes } else { Create::No };
        match found
            .layers(&self.options, create, &*self.provider, &self.step)
            .await
        {
            Ok(layers) if layers.is_empty() => Ok(None),
            Ok(layers) => Ok(Some(layers)),
            Err(refs::Error::NoBlobs(_)) => Ok(None),
            Err(error) => Err(Arc::new(error)),
        }
    }
}

/// One export of a cache, understood before the build begins so that a wrong one fails at
/// once.
pub(crate) struct CacheExport {
    pub(crate) spec: ExportSpec,
    options: BlobOptions,
}

/// Reads what a request says about exports (rows X37, X39, X40).
pub(crate) fn exports(specs: &[Spec]) -> Result<Vec<CacheExport>, Failure> {
    let failed = |error: remotecache::Error| Failure::of(error.kind(), &error);
    let pairs = specs
        .iter()
        .map(|spec| (spec.kind.clone(), spec.attrs.clone()))
        .collect();
    let pairs = remotecache::check_duplicates(pairs).map_err(failed)?;
    let read = |(kind, attrs): (String, BTreeMap<String, String>)| {
        let spec = ExportSpec::parse(&kind, &attrs).map_err(failed)?;
        let mut options = BlobOptions {
            force: spec.force_compression,
            ..BlobOptions::default()
        };
        if let Some(name) = &spec.compression {
            let algorithm = name
                .parse()
                .map_err(|error: layer::Error| Failure::of(error.kind(), &error))?;
            options.compression.algorithm = algorithm;
        }
        options.compression.level = spec.level;
        Ok(CacheExport { spec, options })
    };
    pairs.into_iter().map(read).collect()
}

/// What an export of a cache works with.
pub(crate) struct Exporting<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) build: &'a Build,
    pub(crate) job: &'a JobHandle<Output>,
    pub(crate) progress: &'a Progress,
    pub(crate) edges: &'a [Edge],
}

impl Exporting<'_> {
    /// Writes one cache; gives the response's keys.
    pub(crate) async fn run(
        &self,
        export: &CacheExport,
    ) -> Result<BTreeMap<String, String>, Failure> {
        let step = self.progress.internal_step(export.spec.title());
        step.start();
        match self.write(export, &step).await {
            Ok(written) => {
                step.complete(false);
                Ok(written.iter().map(response).collect())
            }
            Err(error) => {
                step.fail(&crate::error::chain(&error));
                match export.spec.ignore_error {
                    true => Ok(BTreeMap::new()),
                    false => Err(Failure::of(error.kind(), &error)),
                }
            }
        }
    }

    async fn write(
        &self,
        export: &CacheExport,
        step: &StepProgress,
    ) -> remotecache::Result<Option<Descriptor>> {
        let target = match &export.spec.to {
            ExportTo::Inline => return Ok(None),
            ExportTo::Registry { name, insecure } => {
                let name = name.clone().or_latest();
                let credentials = self.build.credentials.clone();
                let registry = &self.engine.0.registry;
                let repository = match insecure {
                    true => registry.insecure_repository(&name, credentials),
                    false => registry.repository(&name, credentials),
                };
                Target::Registry(repository, name.tag().unwrap_or("latest").to_owned())
            }
            ExportTo::Local { dest } => {
                let store: Arc<dyn Sink> =
                    Arc::new(SessionStore::new(self.build, format!("local:{dest}")));
                Target::Place(store)
            }
        };
        let provider = &self.build.provider;
        let layers = ResultLayers {
            provider: provider.clone(),
            options: export.options,
            step: step.clone(),
        };
        let chains = collect(self.job, self.edges, export.spec.mode, &layers).await?;
        write(&chains, export.spec.form, &**provider, &target, step).await
    }

    /// What goes into the config of an image with these layers (row R03), which were made with
    /// these options: records name other blobs otherwise.
    pub(crate) async fn inline(
        &self,
        edge: Edge,
        layers: &[LayerBlob],
        options: BlobOptions,
        step: &StepProgress,
    ) -> remotecache::Result<Option<String>> {
        let status = step.transfer("preparing layers for inline cache");
        let results = ResultLayers {
            provider: self.build.provider.clone(),
            options,
            step: step.clone(),
        };
        let chains = collect(self.job, &[edge], Mode::Min, &results).await?;
        status.done();
        let digests: Vec<_> = layers.iter().map(|layer| layer.descriptor.digest).collect();
        Ok(remotecache::inline::value(&chains, &digests))
    }
}
