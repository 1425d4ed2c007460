//! What a frontend asks, answered: graphs are given to the solver, images looked up,
//! files of results read.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use frontend::policy::SourcePolicy;
use frontend::{
    Bridge, CacheImport, Container, FailedPart, FailedStep, FileRange, FileStat, FrontendResult,
    ImageLookup, NestedRequest, NewContainer, Options, Position, Range, RefId, ResolveMode,
    ResolvedImage, SolveRequest, SourceFile, SourceLocation, SourceMetadata, Warning,
};
use futures::FutureExt as _;
use llb::attr;
use llb::facts::{Facts, Questions};
use oci::{Digest, Platform};
use ops::{Deeds, Output};
use progress::{Progress, StepProgress};
use snapshot::Tree;
use solver::{Edge, JobHandle};
use source::{Identifier, Image, Source};
use stdx::Kind;
use tokio::sync::OnceCell;

use crate::cache::Imports;
use crate::error::{asked, kind_of, places_in};
use crate::gateway;
use crate::nested::{Nested, Within};
use crate::policy::Policies;
use crate::provenance::{Asked, SeenImage};
use crate::rewrite::Rewrite;
use crate::warnings::Warnings;
use crate::{Compatibility, Engine};

/// What all bridges of one build share.
pub(crate) struct Shared {
    pub(crate) engine: Engine,
    pub(crate) deeds: Deeds,
    pub(crate) job: JobHandle<Output>,
    pub(crate) progress: Progress,
    pub(crate) session: String,
    pub(crate) imports: Imports,
    /// The client's; a question of a frontend's may come with more.
    pub(crate) policies: Policies,
    warnings: Warnings,
    /// As which releases the output is made.
    pub(crate) compatibility: Compatibility,
    /// What the build may use beyond the sandbox.
    pub(crate) entitlements: BTreeSet<String>,
    solved: Mutex<HashMap<RefId, Arc<Solved>>>,
    /// Steps that failed and somebody looked at, by where what is left of them is in memory;
    /// that stays where it is as it is kept here too.
    failed: Mutex<HashMap<usize, (Arc<ops::Remains>, FailedStep)>>,
    numbers: AtomicU64,
}

/// A graph somebody asked for, and its result once it is there.
pub(crate) struct Solved {
    pub(crate) definition: llb::Definition,
    from: From,
    output: OnceCell<Output>,
}

/// Where a result comes from.
enum From {
    /// The solver.
    Edge(Edge),
    /// A step that failed: what it had written at this place of it.
    Written(Arc<ops::Remains>, usize),
    /// A step that failed: what it was given.
    Given(Output),
}

impl Solved {
    /// What the solver knows it by. What a failed step left is none of its results.
    pub(crate) fn edge(&self, reference: &RefId) -> frontend::Result<Edge> {
        match &self.from {
            From::Edge(edge) => Ok(*edge),
            From::Written(..) | From::Given(_) => {
                Err(frontend::Error::NoRef(reference.to_string()))
            }
        }
    }
}

/// A graph, read and checked.
pub(crate) struct Read {
    definition: llb::Definition,
    graph: llb::Graph,
}

impl Read {
    pub(crate) async fn of(definition: llb::Definition) -> frontend::Result<Read> {
        let read = move || {
            let graph = llb::Graph::load(&definition)?;
            Ok(Read { definition, graph })
        };
        let read: llb::Result<Read> = stdx::task::blocking(read).await;
        read.map_err(|error| asked("reading the graph", error.kind(), error))
    }

    /// The step whose result it is for; none if that is the empty filesystem.
    pub(crate) fn root(&self) -> Option<Digest> {
        Some(self.graph.root()?.digest)
    }
}

/// One frontend's view of a build.
pub(crate) struct BuildBridge {
    pub(crate) shared: Arc<Shared>,
    options: Options,
    inputs: BTreeMap<String, llb::Definition>,
    /// What it was asked, for provenance.
    asked: Arc<Asked>,
    /// The client's, and those of whoever called this frontend.
    policies: Policies,
    /// How many frontends called each other to get here.
    depth: u32,
}

/// Frontends that may call each other in a row.
const MAX_DEPTH: u32 = 10;

impl Shared {
    pub(crate) fn new(
        engine: Engine,
        deeds: Deeds,
        job: JobHandle<Output>,
        progress: Progress,
        session: String,
        imports: Imports,
        policies: Policies,
    ) -> Shared {
        Shared {
            engine,
            deeds,
            job,
            progress,
            session,
            imports,
            policies,
            warnings: Warnings::default(),
            compatibility: Compatibility::default(),
            entitlements: BTreeSet::new(),
            solved: Mutex::default(),
            failed: Mutex::default(),
            numbers: AtomicU64::new(1),
        }
    }

    fn solved(&self) -> MutexGuard<'_, HashMap<RefId, Arc<Solved>>> {
        self.solved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a ref stands for.
    pub(crate) fn get(&self, reference: &RefId) -> frontend::Result<Arc<Solved>> {
        let found = self.solved().get(reference).cloned();
        found.ok_or_else(|| frontend::Error::NoRef(reference.to_string()))
    }

    /// The result of a ref, solved now if it was not before.
    pub(crate) async fn output(&self, reference: &RefId) -> frontend::Result<Output> {
        let solved = self.get(reference)?;
        let output = solved.output.get_or_try_init(async || match &solved.from {
            From::Edge(edge) => {
                let result = self.job.solve(*edge).await;
                result.map_err(|error| failed(&solved.definition, error))
            }
            From::Given(output) => Ok(output.clone()),
            From::Written(remains, place) => {
                let left = remains.output(*place).await;
                left.map_err(|error| asked("keeping what the step left", error.kind(), error))
            }
        });
        output.await.cloned()
    }

    /// Gives a name to something.
    fn keep(&self, solved: Solved) -> RefId {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let id = RefId::new(format!("{}-{number}", self.job.id().0));
        self.solved().insert(id.clone(), Arc::new(solved));
        id
    }

    /// Names for what is left of a failed step: the same ones each time it is asked for.
    fn keep_remains(&self, remains: &Arc<ops::Remains>) -> FailedStep {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let named = || (remains.clone(), self.name_remains(remains));
        let (_, step) = failed
            .entry(Arc::as_ptr(remains).addr())
            .or_insert_with(named);
        step.clone()
    }

    fn name_remains(&self, remains: &Arc<ops::Remains>) -> FailedStep {
        let keep = |from| {
            self.keep(Solved {
                definition: llb::Definition::default(),
                from,
                output: OnceCell::new(),
            })
        };
        let inputs = remains.inputs.iter().cloned();
        let inputs: Vec<Option<RefId>> = inputs
            .map(|input| Some(keep(From::Given(input?))))
            .collect();
        let mut mounts = match remains.part {
            // What it did not write it saw as it was given.
            FailedPart::Process => inputs.clone(),
            FailedPart::Action(_) | FailedPart::Input(_) | FailedPart::Whole => {
                vec![None; remains.places]
            }
        };
        for place in remains.written() {
            mounts[place] = Some(keep(From::Written(remains.clone(), place)));
        }
        FailedStep {
            op: remains.op.clone(),
            description: remains.description.clone(),
            part: remains.part,
            inputs,
            mounts,
        }
    }

    /// Gives a graph to the solver. `None` stands for the empty filesystem.
    pub(crate) async fn load(
        self: &Arc<Shared>,
        definition: llb::Definition,
        within: &Within,
    ) -> frontend::Result<Option<RefId>> {
        self.give(Read::of(definition).await?, within).await
    }

    /// The same with a graph that was read already.
    pub(crate) async fn give(
        self: &Arc<Shared>,
        read: Read,
        within: &Within,
    ) -> frontend::Result<Option<RefId>> {
        let Read { definition, graph } = read;
        let policed = self.policed(&within.policies, &definition, &graph);
        let rewrite = Rewrite {
            others: policed.await?,
            compatibility: self.compatibility,
            holds: within.holds(self),
        };
        let (shared, within) = (self.clone(), within.clone());
        // A graph may be large: its names are computed anew, and what is known of its steps is
        // read from the disk.
        stdx::task::blocking(move || shared.give_now((definition, graph), &rewrite, within)).await
    }

    fn give_now(
        self: &Arc<Shared>,
        (definition, graph): (llb::Definition, llb::Graph),
        rewrite: &Rewrite,
        within: Within,
    ) -> frontend::Result<Option<RefId>> {
        let (definition, graph) = rewrite
            .graph(definition, graph)
            .map_err(|error| asked("changing the graph", error.kind(), error))?;
        let Some(root) = graph.root() else {
            return Ok(None);
        };
        self.imports.layouts(&graph);
        let by = within.asked.clone();
        let nested: Arc<dyn ops::Nested> = Arc::new(Nested {
            shared: Arc::downgrade(self),
            within,
        });
        let vertices = self
            .deeds
            .vertices(&graph, false, &nested)
            .map_err(|error| unwanted(&definition, error))?;
        self.job
            .load(vertices)
            .map_err(|error| asked("loading the graph", error.kind(), error))?;
        let edge = Edge {
            vertex: root.digest,
            output: root.index,
        };
        let id = self.keep(Solved {
            definition,
            from: From::Edge(edge),
            output: OnceCell::new(),
        });
        by.loaded(id.clone());
        Ok(Some(id))
    }

    /// The files of a ref, solved now if it was not before; `None` is the empty filesystem.
    pub(crate) async fn tree(&self, reference: &RefId) -> frontend::Result<Option<Arc<Tree>>> {
        let output = self.output(reference).await?;
        let tree = output.tree(&self.deeds.build, &StepProgress::none()).await;
        tree.map_err(|error| asked("unpacking the result", error.kind(), error))
    }

    /// An internal step around one piece of work.
    async fn shown<T>(
        &self,
        name: &str,
        work: impl AsyncFnOnce(&StepProgress) -> frontend::Result<T>,
    ) -> frontend::Result<T> {
        let step = self.progress.internal_step(name);
        step.start();
        let done = work(&step).await;
        match &done {
            Ok(_) => step.complete(false),
            Err(error) => step.fail(&crate::error::chain(error)),
        }
        done
    }
}

fn resolving(name: &str) -> String {
    format!("failed to resolve source metadata for {name}")
}

/// A failed solve, with the lines the step came from: in a graph that a step found, and then in
/// the graph with that step.
pub(crate) fn failed(definition: &llb::Definition, error: solver::Error) -> frontend::Error {
    let kind = kind_of(&error);
    let mut at = places_in(&error);
    if let Some(vertex) = error.vertex() {
        at.extend(places(definition, &vertex.vertex));
    }
    frontend::Error::Written {
        cause: Arc::new(error),
        kind,
        at,
        hints: Vec::new(),
    }
}

/// A graph that asks for what it may not have, with the lines the step came from.
fn unwanted(definition: &llb::Definition, error: ops::Error) -> frontend::Error {
    let kind = error.kind();
    let (at, cause) = match error {
        ops::Error::Vertex { vertex, cause } => (places(definition, &vertex), *cause),
        other => (Vec::new(), other),
    };
    frontend::Error::Written {
        cause: Arc::new(cause),
        kind,
        at,
        hints: Vec::new(),
    }
}

/// The lines a step came from.
pub(crate) fn places(definition: &llb::Definition, vertex: &Digest) -> Vec<SourceLocation> {
    let Some(map) = &definition.source else {
        return Vec::new();
    };
    let locations = map
        .locations
        .get(vertex)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let position = |at: llb::Position| Position {
        line: u32::try_from(at.line).unwrap_or(0),
        character: u32::try_from(at.character).unwrap_or(0),
    };
    let place = |location: &llb::Location| {
        let info = map.infos.get(location.source as usize)?;
        let file = SourceFile {
            name: info.filename.clone(),
            language: info.language.clone(),
            data: info.data.clone(),
            definition: info.definition.as_deref().cloned(),
        };
        let ranges = location.ranges.iter();
        let ranges = ranges.map(|range| Range {
            start: position(range.start),
            end: position(range.end),
        });
        Some(SourceLocation {
            file: Arc::new(file),
            ranges: ranges.collect(),
        })
    };
    locations.iter().filter_map(place).collect()
}

impl BuildBridge {
    pub(crate) fn new(
        shared: Arc<Shared>,
        options: Options,
        inputs: BTreeMap<String, llb::Definition>,
        asked: Arc<Asked>,
    ) -> BuildBridge {
        BuildBridge {
            policies: shared.policies.clone(),
            shared,
            options,
            inputs,
            asked,
            depth: 0,
        }
    }

    fn import(&self, imports: &[CacheImport]) {
        let shared = &self.shared;
        for import in imports {
            shared.imports.start(import, &shared.job, &shared.progress);
        }
    }

    /// The source of an image that is looked up, as a graph would have it.
    fn looked_up(&self, name: &str, lookup: &ImageLookup) -> frontend::Result<llb::Source> {
        let mut attrs = BTreeMap::new();
        let Some(layout) = &lookup.layout else {
            let parsed: Result<oci::ImageName, _> = name.parse();
            let named =
                parsed.map_err(|error| asked(resolving(name), Kind::InvalidInput, error))?;
            if lookup.mode != ResolveMode::Default {
                let mode = lookup.mode.name().to_owned();
                attrs.insert(attr::IMAGE_RESOLVE_MODE.to_owned(), mode);
            }
            let identifier = format!("docker-image://{}", named.or_latest());
            return Ok(llb::Source { identifier, attrs });
        };
        let session = match layout.session.as_str() {
            "" => &self.shared.session,
            session => session,
        };
        attrs.insert(attr::OCI_SESSION.to_owned(), session.to_owned());
        attrs.insert(attr::OCI_STORE.to_owned(), layout.store.clone());
        let identifier = format!("oci-layout://{name}");
        Ok(llb::Source { identifier, attrs })
    }

    fn image(
        &self,
        name: &str,
        source: &llb::Source,
        platform: Option<&Platform>,
    ) -> frontend::Result<Image> {
        let parts = &self.shared.deeds.parts;
        let identifier = Identifier::parse(&source.identifier, &source.attrs);
        let identifier = identifier.map_err(|error| asked(resolving(name), error.kind(), error))?;
        let platform = platform.unwrap_or(&parts.platform);
        match Source::new(&parts.sources, identifier, platform) {
            Source::Image(image) => Ok(image),
            _ => unreachable!("image identifiers make image sources"),
        }
    }
}

#[async_trait]
impl Bridge for BuildBridge {
    fn options(&self) -> &Options {
        &self.options
    }

    fn session(&self) -> &str {
        &self.shared.session
    }

    fn platforms(&self) -> Vec<Platform> {
        self.shared.engine.worker().platforms
    }

    async fn inputs(&self) -> frontend::Result<BTreeMap<String, llb::Definition>> {
        Ok(self.inputs.clone())
    }

    async fn solve(&self, request: SolveRequest) -> frontend::Result<Option<RefId>> {
        self.import(&request.cache_imports);
        let policies = self.policies.and(request.policies).await?;
        let within = Within::outermost(policies, self.asked.clone());
        let loaded = self.shared.load(request.definition, &within).await?;
        if let (true, Some(reference)) = (request.evaluate, &loaded) {
            self.shared.output(reference).await?;
        }
        Ok(loaded)
    }

    async fn evaluate(&self, reference: &RefId) -> frontend::Result<()> {
        self.shared.output(reference).await.map(drop)
    }

    async fn definition(&self, reference: &RefId) -> frontend::Result<llb::Definition> {
        Ok(self.shared.get(reference)?.definition.clone())
    }

    async fn nested(&self, request: NestedRequest) -> frontend::Result<FrontendResult> {
        self.import(&request.cache_imports);
        if self.depth >= MAX_DEPTH {
            let limit = format!("at most {MAX_DEPTH} frontends may call each other");
            return Err(frontend::Error::bad_option(
                "frontend",
                &request.frontend,
                limit,
            ));
        }
        let asked = self.asked.nested(
            &request.frontend,
            &request.options,
            !request.inputs.is_empty(),
        );
        let bridge = Arc::new(BuildBridge {
            policies: self.policies.and(request.policies).await?,
            asked,
            shared: self.shared.clone(),
            options: Options::new(request.options),
            inputs: request.inputs,
            depth: self.depth + 1,
        });
        let result = run(&request.frontend, &bridge).await?;
        if request.evaluate {
            let all = result.refs.iter().filter_map(|(_, reference)| reference);
            futures::future::try_join_all(all.map(|reference| bridge.evaluate(reference))).await?;
        }
        Ok(result)
    }

    async fn resolve_image(
        &self,
        name: &str,
        mut lookup: ImageLookup,
    ) -> frontend::Result<ResolvedImage> {
        let more = std::mem::take(&mut lookup.policies);
        let policies = self.policies.and(more).await?;
        let platform = lookup.platform.as_ref();
        let wanted = self.looked_up(name, &lookup)?;
        let shared = &self.shared;
        let source = shared.policed_image(&policies, wanted.clone(), platform);
        let source = source.await?;
        let name = match source.identifier == wanted.identifier {
            true => name,
            false => source
                .identifier
                .split_once("://")
                .map_or("", |(_, name)| name),
        };
        let image = self.image(name, &source, platform)?;
        let found = async |step: &StepProgress| {
            let found = image
                .config(&self.shared.deeds.build.source_context(step))
                .await;
            found.map_err(|error| asked(resolving(name), error.kind(), error))
        };
        let found = match lookup.step_name.as_str() {
            "" => found(&StepProgress::none()).await?,
            step => self.shared.shown(step, found).await?,
        };
        let seen = SeenImage {
            name: image.reference(),
            platform: lookup.platform,
            layout: lookup.layout.is_some(),
        };
        self.asked.image(seen, found.digest);
        Ok(ResolvedImage {
            name: image.reference(),
            digest: found.digest,
            config: found.config,
        })
    }

    async fn resolve_source(
        &self,
        identifier: &str,
        attrs: &BTreeMap<String, String>,
        platform: Option<&Platform>,
        policies: Vec<SourcePolicy>,
        questions: &Questions,
    ) -> frontend::Result<SourceMetadata> {
        let wanted = llb::Source {
            identifier: identifier.to_owned(),
            attrs: attrs.clone(),
        };
        let policies = self.policies.and(policies).await?;
        let deciding = self.shared.decide(&policies, &wanted, platform, Vec::new);
        let other = deciding.await?;
        let source = other.unwrap_or(wanted);
        let (facts, image) = self.shared.facts(&source, platform, questions).await?;
        if let (Some(image), Facts::Image(found)) = (image, &facts) {
            let seen = SeenImage {
                name: image.reference(),
                platform: platform.cloned(),
                layout: image.name().is_none(),
            };
            self.asked.image(seen, found.digest);
        }
        Ok(SourceMetadata {
            identifier: source.identifier,
            attrs: source.attrs,
            facts,
        })
    }

    async fn read_file(
        &self,
        reference: &RefId,
        path: &str,
        range: Option<FileRange>,
    ) -> frontend::Result<Bytes> {
        let range = range.map(|range| (range.offset, range.length));
        self.with_tree(reference, path, move |tree, path| {
            ops::read_file(tree, path, range)
        })
        .await
    }

    async fn read_dir(
        &self,
        reference: &RefId,
        path: &str,
        include: Option<&str>,
    ) -> frontend::Result<Vec<FileStat>> {
        let include = include.map(str::to_owned);
        let list =
            move |tree: Option<&Tree>, path: &str| ops::read_dir(tree, path, include.as_deref());
        let entries = self.with_tree(reference, path, list).await?;
        Ok(entries.into_iter().map(FileStat::from).collect())
    }

    async fn stat_file(&self, reference: &RefId, path: &str) -> frontend::Result<FileStat> {
        self.with_tree(reference, path, ops::stat)
            .await
            .map(FileStat::from)
    }

    async fn warn(&self, step: Option<&Digest>, warning: Warning) -> frontend::Result<()> {
        if let Some(event) = self.shared.warnings.event(step, warning) {
            self.shared.progress.emit(event);
        }
        Ok(())
    }

    async fn new_container(&self, wanted: NewContainer) -> frontend::Result<Arc<dyn Container>> {
        gateway::container(self, wanted).await
    }

    fn failed_step(&self, error: &frontend::Error) -> Option<FailedStep> {
        let remains = crate::error::remains(error)?;
        Some(self.shared.keep_remains(remains))
    }
}

impl BuildBridge {
    /// Does something with a result's files on the pool for blocking work.
    async fn with_tree<T: Send + 'static>(
        &self,
        reference: &RefId,
        path: &str,
        work: impl FnOnce(Option<&Tree>, &str) -> ops::Result<T> + Send + 'static,
    ) -> frontend::Result<T> {
        let no_file = || frontend::Error::NoFile {
            path: path.to_owned(),
        };
        let tree = self.shared.tree(reference).await?;
        let owned = path.to_owned();
        let done = stdx::task::blocking(move || work(tree.as_deref(), &owned)).await;
        done.map_err(|error| match error.kind() {
            Kind::NotFound => no_file(),
            kind => asked(format!("reading {path}"), kind, error),
        })
    }
}

/// Runs a frontend: one of our own, or one that is an image.
pub(crate) async fn run(name: &str, bridge: &Arc<BuildBridge>) -> frontend::Result<FrontendResult> {
    let turned_off = |name: &str| {
        let reason = format!("frontend {name} is turned off in the daemon's configuration");
        asked(
            "starting the frontend",
            Kind::Denied,
            ops::Error::Invalid(reason),
        )
    };
    let frontends = &bridge.shared.engine.0.frontends;
    match name {
        "dockerfile.v0" if !frontends.dockerfile => Err(turned_off(name)),
        "dockerfile.v0" => dockerfile::build(&**bridge).await,
        "gateway.v0" if !frontends.gateway => Err(turned_off(name)),
        // Boxed: a frontend may ask for another one.
        "gateway.v0" => gateway::run(bridge.clone()).boxed().await,
        other => Err(frontend::Error::UnknownFrontend(other.to_owned())),
    }
}
