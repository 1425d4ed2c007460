//! The graph while it is being thought about: steps that may still change, named by
//! number. [`Plan::definition`] writes it down.
//!
//! The build context is the reason: which of its files are wanted is known only after
//! the last instruction, while steps refer to it from the first.

use llb::{Builder, Definition, Edge, FileOps, Meta, MountSpec};
use oci::Platform;

use crate::Error;

/// A step's tree. `None` in its place is the empty tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Tree(usize);

/// What a step does.
#[derive(Clone, Debug)]
pub(crate) enum Work {
    /// Not known yet, or the empty tree after all.
    Open,
    /// A root of the graph.
    Source {
        identifier: String,
        attrs: Vec<(String, String)>,
        platform: Option<Platform>,
    },
    /// Changes of files.
    Files {
        base: Option<Tree>,
        actions: Vec<FileAction>,
    },
    /// A process. The mounts' own sources are filled in when written down.
    Run {
        exec: Box<llb::Exec>,
        root: Option<Tree>,
        mounts: Vec<(MountSpec, Option<Tree>)>,
        platform: Platform,
    },
    /// Trees laid over each other.
    Merge(Vec<Option<Tree>>),
    /// A graph somebody handed in.
    Given(Box<Definition>),
    /// Another step's tree.
    Same(Option<Tree>),
}

/// One change of files.
#[derive(Clone, Debug)]
pub(crate) enum FileAction {
    /// Copy from another tree.
    Copy(Option<Tree>, llb::Copy),
    /// Make a directory.
    Mkdir(llb::Mkdir),
    /// Write a file.
    Mkfile(llb::Mkfile),
}

/// What is said about a step.
#[derive(Clone, Debug, Default)]
pub(crate) struct About {
    /// Its name in the progress display.
    pub(crate) name: String,
    /// The Dockerfile's line.
    pub(crate) command: Option<String>,
    /// Run it even when a result is known.
    pub(crate) ignore_cache: bool,
    /// Shown together with others.
    pub(crate) group: Option<llb::ProgressGroup>,
    /// How much it may use.
    pub(crate) resources: Option<llb::Resources>,
    /// Where it was written; an empty list says "in the file, somewhere".
    pub(crate) at: Option<Vec<frontend::Range>>,
}

impl About {
    pub(crate) fn named(name: impl Into<String>) -> About {
        About {
            name: name.into(),
            ..About::default()
        }
    }
}

/// All steps.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    steps: Vec<(Work, About)>,
}

impl Plan {
    pub(crate) fn add(&mut self, work: Work, about: About) -> Tree {
        self.steps.push((work, about));
        Tree(self.steps.len() - 1)
    }

    /// Says what an open step does.
    pub(crate) fn fill(&mut self, tree: Tree, work: Work, about: About) {
        self.steps[tree.0] = (work, about);
    }

    /// Writes down what `result` needs. `platform` is for steps that name none.
    pub(crate) fn definition(
        &self,
        result: Option<Tree>,
        file: Option<&llb::SourceInfo>,
    ) -> Result<Definition, Error> {
        let mut writer = Writer {
            plan: self,
            builder: Builder::new(),
            file: 0,
            edges: vec![None; self.steps.len()],
        };
        if let Some(file) = file {
            writer.file = writer.builder.source_file(file.clone());
        }
        let root = match result {
            Some(result) => writer.write(result)?,
            None => None,
        };
        Ok(writer.builder.definition(root.as_ref()))
    }

    /// The steps `step` needs, in the order other tools visit them: it decides whose
    /// words stay when two steps turn out to be one.
    fn inputs(&self, step: usize) -> Vec<usize> {
        let trees: Vec<Option<Tree>> = match &self.steps[step].0 {
            Work::Open | Work::Source { .. } | Work::Given(_) => Vec::new(),
            Work::Same(tree) => vec![*tree],
            Work::Merge(trees) => trees.clone(),
            Work::Files { base, actions } => {
                let copied = actions.iter().filter_map(|action| match action {
                    FileAction::Copy(from, _) => Some(*from),
                    _ => None,
                });
                std::iter::once(*base).chain(copied).collect()
            }
            Work::Run { root, mounts, .. } => {
                let mut mounts: Vec<(&str, Option<Tree>)> = mounts
                    .iter()
                    .map(|(spec, tree)| (spec.target.as_str(), *tree))
                    .collect();
                mounts.sort_by_key(|(target, _)| *target);
                std::iter::once(*root)
                    .chain(mounts.into_iter().map(|(_, tree)| tree))
                    .collect()
            }
        };
        trees.into_iter().flatten().map(|tree| tree.0).collect()
    }
}

struct Writer<'a> {
    plan: &'a Plan,
    builder: Builder,
    file: u32,
    /// Outer: written. Inner: not the empty tree.
    edges: Vec<Option<Option<Edge>>>,
}

impl Writer<'_> {
    /// Inputs first, with a stack of our own: chains of stages may be long.
    fn write(&mut self, result: Tree) -> Result<Option<Edge>, Error> {
        let mut stack = vec![(result.0, self.plan.inputs(result.0).into_iter())];
        while let Some((step, inputs)) = stack.last_mut() {
            match inputs.next() {
                Some(input) if self.edges[input].is_none() => {
                    stack.push((input, self.plan.inputs(input).into_iter()));
                }
                Some(_) => {}
                None => {
                    let step = *step;
                    stack.pop();
                    self.edges[step] = Some(self.one(step)?);
                }
            }
        }
        Ok(self.edge(Some(result)))
    }

    fn edge(&self, tree: Option<Tree>) -> Option<Edge> {
        self.edges[tree?.0].expect("inputs are written first")
    }

    fn one(&mut self, step: usize) -> Result<Option<Edge>, Error> {
        let plan = self.plan;
        let (work, about) = &plan.steps[step];
        let meta = self.meta(about);
        Ok(match work {
            Work::Open => None,
            Work::Same(tree) => self.edge(*tree),
            Work::Source {
                identifier,
                attrs,
                platform,
            } => Some(
                self.builder
                    .source(identifier, attrs.clone(), platform.as_ref(), meta),
            ),
            Work::Files { base, actions } => {
                let base = self.edge(*base);
                let mut ops = FileOps::on(base);
                for action in actions {
                    ops = match action {
                        FileAction::Copy(from, copy) => {
                            ops.copy_with_owners(self.edge(*from), copy.clone(), base)
                        }
                        FileAction::Mkdir(mkdir) => ops.mkdir(mkdir.clone()),
                        FileAction::Mkfile(mkfile) => ops.mkfile(mkfile.clone()),
                    };
                }
                Some(self.builder.file(ops, meta))
            }
            Work::Run {
                exec,
                root,
                mounts,
                platform,
            } => {
                let mut specs = vec![MountSpec::root(self.edge(*root))];
                for (spec, tree) in mounts {
                    specs.push(MountSpec {
                        source: self.edge(*tree),
                        ..spec.clone()
                    });
                }
                self.builder
                    .run((**exec).clone(), specs, Some(platform), meta)
                    .root
            }
            Work::Merge(trees) => {
                let layers: Vec<Option<Edge>> = trees.iter().map(|tree| self.edge(*tree)).collect();
                self.builder.merge(&layers, meta)
            }
            Work::Given(definition) => self.builder.import(definition).map_err(|source| {
                Error::Bridge(frontend::Error::Engine {
                    doing: "reading a build input".into(),
                    kind: stdx::Kind::InvalidInput,
                    source: std::sync::Arc::new(source),
                })
            })?,
        })
    }

    fn meta(&self, about: &About) -> Meta {
        let mut meta = Meta::default()
            .ignore_cache(about.ignore_cache)
            .group(about.group.clone());
        if !about.name.is_empty() {
            meta = meta.describe(llb::attr::CUSTOM_NAME, &about.name);
        }
        if let Some(command) = &about.command {
            meta = meta.describe(llb::attr::DOCKERFILE_COMMAND, command);
        }
        meta.metadata.resources = about.resources.clone();
        match &about.at {
            Some(ranges) => {
                let ranges = ranges.iter().map(|range| to_llb(*range)).collect();
                meta.at(llb::Location {
                    source: self.file,
                    ranges,
                })
            }
            None => meta,
        }
    }
}

fn to_llb(range: frontend::Range) -> llb::Range {
    let position = |p: frontend::Position| llb::Position {
        line: i32::try_from(p.line).unwrap_or(i32::MAX),
        character: i32::try_from(p.character).unwrap_or(i32::MAX),
    };
    llb::Range {
        start: position(range.start),
        end: position(range.end),
    }
}
