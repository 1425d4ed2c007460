//! Makes definitions: each step is added after those it builds on, and gives back
//! the edges others can build on. `None` is the empty tree everywhere.

mod file_ops;
mod files;

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use oci::{Digest, Platform};

pub use self::file_ops::FileOps;
use self::files::Files;
use crate::op::exec::{Exec, Mount, MountKind};
use crate::{
    Definition, Diff, Edge, Graph, Location, Merge, Metadata, Op, OpKind, ProgressGroup, Result,
    Source, SourceInfo, SourceMap, caps, wire,
};

/// Collects steps. The same step added twice is one step with both mentions'
/// metadata.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    steps: Vec<Step>,
    by_digest: HashMap<Digest, usize>,
    files: Files,
}

#[derive(Clone, Debug)]
struct Step {
    digest: Digest,
    bytes: Bytes,
    inputs: Vec<usize>,
    metadata: Metadata,
    locations: Vec<Location>,
    /// The same, once the step was mentioned twice.
    known: HashSet<Location>,
}

/// What is said about a step as it is added.
#[derive(Clone, Debug, Default)]
pub struct Meta {
    /// Goes into [`Definition::metadata`]; capabilities are added by the builder.
    pub metadata: Metadata,
    /// Where the step came from.
    pub locations: Vec<Location>,
}

impl Meta {
    /// Shown under this name.
    pub fn named(name: impl Into<String>) -> Meta {
        Meta::default().describe(crate::attr::CUSTOM_NAME, name)
    }

    /// With an entry of the description.
    pub fn describe(mut self, key: &str, value: impl Into<String>) -> Meta {
        self.metadata
            .description
            .insert(key.to_owned(), value.into());
        self
    }

    /// Run even when a result is known.
    pub fn ignore_cache(mut self, yes: bool) -> Meta {
        self.metadata.ignore_cache = yes;
        self
    }

    /// Shown together with others.
    pub fn group(mut self, group: Option<ProgressGroup>) -> Meta {
        self.metadata.progress_group = group;
        self
    }

    /// Came from here.
    pub fn at(mut self, location: Location) -> Meta {
        self.locations.push(location);
        self
    }
}

/// A mount of a run as the builder takes it: the builder does the numbering.
#[derive(Clone, Debug)]
pub struct MountSpec {
    /// Where.
    pub target: String,
    /// What it starts as.
    pub source: Option<Edge>,
    /// The part of it that is mounted.
    pub selector: String,
    /// May not be written.
    pub readonly: bool,
    /// What it is.
    pub kind: MountKind,
    /// Whether what is written is kept as an output.
    pub keep: bool,
    /// Whether the step is cached by what is in it.
    pub content_cache: crate::ContentCache,
}

impl MountSpec {
    /// The root, kept as the first output.
    pub fn root(source: Option<Edge>) -> MountSpec {
        MountSpec {
            keep: true,
            ..MountSpec::new("/", source, MountKind::Bind)
        }
    }

    /// A tree that is written in vain: changes are dropped after the step.
    pub fn bind(
        target: impl Into<String>,
        source: Option<Edge>,
        selector: impl Into<String>,
    ) -> MountSpec {
        MountSpec {
            selector: selector.into(),
            ..MountSpec::new(target, source, MountKind::Bind)
        }
    }

    /// Anything else: a cache mount, a secret, a socket, a tmpfs.
    pub fn new(target: impl Into<String>, source: Option<Edge>, kind: MountKind) -> MountSpec {
        MountSpec {
            target: target.into(),
            source,
            selector: String::new(),
            readonly: false,
            kind,
            keep: false,
            content_cache: crate::ContentCache::Default,
        }
    }

    /// May not be written.
    pub fn readonly(mut self, yes: bool) -> MountSpec {
        self.readonly = yes;
        self
    }
}

/// A run that was added.
#[derive(Clone, Debug)]
pub struct Run {
    /// The step.
    pub digest: Digest,
    /// The root after the run; `None` when it was read-only.
    pub root: Option<Edge>,
    /// What mounts became, by target.
    pub outputs: BTreeMap<String, Edge>,
}

impl Builder {
    /// Nothing yet.
    pub fn new() -> Builder {
        Builder::default()
    }

    /// A file that steps come from; the number goes into [`Location::source`].
    pub fn source_file(&mut self, file: SourceInfo) -> u32 {
        let at = self.files.add(file);
        u32::try_from(at).expect("fewer files than steps")
    }

    /// Adds any op. Inputs have to be steps of this builder.
    ///
    /// # Panics
    /// When an input is not.
    pub fn add(&mut self, op: &Op, meta: Meta) -> Digest {
        let mut metadata = meta.metadata;
        metadata
            .caps
            .extend(caps::of(op).into_iter().map(|cap| (cap.to_owned(), true)));
        self.insert(op.encode(), &op.inputs, metadata, meta.locations)
    }

    fn insert(
        &mut self,
        bytes: Bytes,
        inputs: &[Edge],
        metadata: Metadata,
        locations: Vec<Location>,
    ) -> Digest {
        let digest = Digest::of(&bytes);
        if let Some(&at) = self.by_digest.get(&digest) {
            let step = &mut self.steps[at];
            step.metadata.merge(metadata);
            if step.known.is_empty() {
                step.known.extend(step.locations.iter().cloned());
            }
            for location in locations {
                if step.known.insert(location.clone()) {
                    step.locations.push(location);
                }
            }
            return digest;
        }
        let inputs = inputs
            .iter()
            .map(|edge| {
                *self
                    .by_digest
                    .get(&edge.digest)
                    .expect("inputs are added before")
            })
            .collect();
        self.by_digest.insert(digest, self.steps.len());
        self.steps.push(Step {
            digest,
            bytes,
            inputs,
            metadata,
            locations,
            known: HashSet::new(),
        });
        digest
    }

    /// A source: an image, a directory of the client, a repository …
    pub fn source(
        &mut self,
        identifier: impl Into<String>,
        attrs: impl IntoIterator<Item = (String, String)>,
        platform: Option<&Platform>,
        meta: Meta,
    ) -> Edge {
        let kind = OpKind::Source(Source {
            identifier: identifier.into(),
            attrs: attrs.into_iter().collect(),
        });
        self.one(Vec::new(), kind, platform, meta)
    }

    /// Runs a process. `exec.mounts` is replaced by `mounts`, in the order every
    /// builder writes them: by target, then secrets, then sockets.
    pub fn run(
        &mut self,
        mut exec: Exec,
        mounts: Vec<MountSpec>,
        platform: Option<&Platform>,
        meta: Meta,
    ) -> Run {
        let (mut trees, mut rest): (Vec<_>, Vec<_>) = mounts
            .into_iter()
            .partition(|m| !matches!(m.kind, MountKind::Secret(_) | MountKind::Ssh(_)));
        trees.sort_by(|a, b| a.target.cmp(&b.target));
        rest.sort_by_key(|m| matches!(m.kind, MountKind::Ssh(_)));

        let mut inputs = Inputs::default();
        let mut outputs = BTreeMap::new();
        exec.mounts.clear();
        for spec in trees {
            let keep = spec.keep && !spec.readonly && spec.kind == MountKind::Bind;
            let output = keep.then(|| {
                let index = u32::try_from(outputs.len()).expect("fewer outputs than mounts");
                outputs.insert(spec.target.clone(), index);
                index
            });
            exec.mounts.push(Mount {
                input: inputs.number(spec.source),
                output,
                ..spec.into_mount()
            });
        }
        // Secrets and sockets carry the number 0 as an output, and mean nothing by it.
        exec.mounts.extend(rest.into_iter().map(|spec| Mount {
            output: Some(0),
            ..spec.into_mount()
        }));

        let op = Op {
            inputs: inputs.0,
            kind: OpKind::Exec(exec),
            platform: platform.cloned(),
            constraints: Some(Vec::new()),
        };
        let digest = self.add(&op, meta);
        let outputs: BTreeMap<_, _> = outputs
            .into_iter()
            .map(|(target, index)| (target, Edge { digest, index }))
            .collect();
        Run {
            digest,
            root: outputs.get("/").copied(),
            outputs,
        }
    }

    /// Changes files.
    pub fn file(&mut self, ops: FileOps, meta: Meta) -> Edge {
        let (inputs, file) = ops.number();
        self.one(inputs, OpKind::File(file), None, meta)
    }

    /// Lays trees over each other; fewer than two need no step.
    pub fn merge(&mut self, layers: &[Option<Edge>], meta: Meta) -> Option<Edge> {
        let layers: Vec<Edge> = layers.iter().flatten().copied().collect();
        if layers.len() < 2 {
            return layers.first().copied();
        }
        let mut inputs = Inputs::default();
        let numbers = layers.iter().map(|edge| inputs.push(*edge)).collect();
        Some(self.one(
            inputs.0,
            OpKind::Merge(Merge { inputs: numbers }),
            None,
            meta,
        ))
    }

    /// What `upper` has and `lower` has not.
    pub fn diff(&mut self, lower: Option<Edge>, upper: Option<Edge>, meta: Meta) -> Option<Edge> {
        match (lower, upper) {
            (None, upper) => upper,
            (lower, upper) if lower == upper => None,
            (lower, upper) => {
                let mut inputs = Inputs::default();
                let lower = lower.and_then(|edge| inputs.push(edge));
                let upper = upper.and_then(|edge| inputs.push(edge));
                Some(self.one(inputs.0, OpKind::Diff(Diff { lower, upper }), None, meta))
            }
        }
    }

    /// Takes all steps of another definition, and gives its result.
    pub fn import(&mut self, definition: &Definition) -> Result<Option<Edge>> {
        let graph = Graph::load(definition)?;
        let files: Vec<u32> = definition
            .source
            .iter()
            .flat_map(|source| &source.infos)
            .map(|file| self.source_file(file.clone()))
            .collect();
        for vertex in graph.vertices() {
            let locations = definition
                .source
                .as_ref()
                .and_then(|source| source.locations.get(&vertex.digest))
                .into_iter()
                .flatten()
                .filter_map(|location| {
                    let source = *files.get(location.source as usize)?;
                    Some(Location {
                        source,
                        ranges: location.ranges.clone(),
                    })
                })
                .collect();
            self.insert(
                vertex.bytes.clone(),
                &vertex.op.inputs,
                vertex.metadata.clone(),
                locations,
            );
        }
        Ok(graph.root())
    }

    /// The definition of a result: the steps it needs, inputs first, and nothing else.
    pub fn definition(&self, result: Option<&Edge>) -> Definition {
        let Some(result) = result else {
            return Definition::default();
        };
        let root = *self
            .by_digest
            .get(&result.digest)
            .expect("results are steps of this builder");

        let mut definition = Definition::default();
        let mut source = SourceMap {
            infos: self.files.list.clone(),
            ..SourceMap::default()
        };
        for at in self.reach(root) {
            let step = &self.steps[at];
            definition.def.push(step.bytes.clone());
            definition
                .metadata
                .insert(step.digest, step.metadata.clone());
            source.locations.insert(step.digest, step.locations.clone());
        }
        let last = wire::encode(std::slice::from_ref(result), None, None, None);
        let caps = caps::OF_THE_LAST
            .iter()
            .map(|cap| ((*cap).to_owned(), true))
            .collect();
        definition.metadata.insert(
            Digest::of(&last),
            Metadata {
                caps,
                ..Metadata::default()
            },
        );
        definition.def.push(last);
        definition.source = Some(source);
        definition
    }

    /// Steps `root` needs, each after its inputs. A loop, not a recursion: graphs
    /// may be deep.
    fn reach(&self, root: usize) -> Vec<usize> {
        let mut order = Vec::new();
        let mut seen = HashSet::from([root]);
        let mut stack = vec![(root, 0)];
        while let Some((at, next)) = stack.last_mut() {
            match self.steps[*at].inputs.get(*next) {
                Some(&input) => {
                    *next += 1;
                    if seen.insert(input) {
                        stack.push((input, 0));
                    }
                }
                None => {
                    order.push(*at);
                    stack.pop();
                }
            }
        }
        order
    }

    fn one(
        &mut self,
        inputs: Vec<Edge>,
        kind: OpKind,
        platform: Option<&Platform>,
        meta: Meta,
    ) -> Edge {
        let op = Op {
            inputs,
            kind,
            platform: platform.cloned(),
            constraints: Some(Vec::new()),
        };
        Edge {
            digest: self.add(&op, meta),
            index: 0,
        }
    }
}

impl MountSpec {
    fn into_mount(self) -> Mount {
        Mount {
            input: None,
            selector: self.selector,
            target: self.target,
            output: None,
            readonly: self.readonly,
            kind: self.kind,
            result_id: String::new(),
            content_cache: self.content_cache,
        }
    }
}

/// Inputs of an op: the same edge has one number.
#[derive(Default)]
struct Inputs(Vec<Edge>);

impl Inputs {
    fn number(&mut self, edge: Option<Edge>) -> Option<u32> {
        let edge = edge?;
        match self.0.iter().position(|known| *known == edge) {
            Some(at) => u32::try_from(at).ok(),
            None => self.push(edge),
        }
    }

    fn push(&mut self, edge: Edge) -> Option<u32> {
        self.0.push(edge);
        u32::try_from(self.0.len() - 1).ok()
    }
}
