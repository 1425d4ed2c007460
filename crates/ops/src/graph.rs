//! From a vertex of a graph to the code that does it.

use std::collections::BTreeSet;
use std::sync::Arc;

use llb::OpKind;
use solver::{Op, VertexSpec};

use crate::build_op::BuildOp;
use crate::exec::{ExecOp, cache_mount_key};
use crate::file::FileOp;
use crate::remains::{Known, Step};
use crate::source_op::SourceOp;
use crate::stack::{DiffOp, MergeOp, PassthroughOp};
use crate::why::Explained;
use crate::{Build, Error, Nested, Output, Parts, Result};

/// Makes the ops of one build.
#[derive(Clone)]
pub struct Deeds {
    /// What all builds share.
    pub parts: Arc<Parts>,
    /// What this one has.
    pub build: Arc<Build>,
}

impl Deeds {
    /// The graph's vertices as the solver wants them. `ignore_cache` marks all of them;
    /// `nested` builds the graphs that they find. It asks and writes the database: not for where
    /// nothing may block.
    pub fn vertices(
        &self,
        graph: &llb::Graph,
        ignore_cache: bool,
        nested: &Arc<dyn Nested>,
    ) -> Result<Vec<VertexSpec<Output>>> {
        let all = graph.vertices();
        let mut specs = Vec::with_capacity(all.len());
        for vertex in all {
            let inputs = vertex.inputs.iter().map(|input| solver::Edge {
                vertex: all[input.vertex].digest,
                output: input.output,
            });
            let op = self
                .op(vertex, all, nested)
                .map_err(|cause| Error::Vertex {
                    vertex: vertex.digest,
                    cause: Box::new(cause),
                })?;
            let mut spec = VertexSpec::new(vertex.digest, name(vertex), inputs.collect(), op);
            spec.ignore_cache = ignore_cache || vertex.metadata.ignore_cache;
            spec.export_cache = vertex.metadata.export_cache;
            spec.limited = matches!(vertex.op.kind, OpKind::Exec(_) | OpKind::File(_));
            spec.group = vertex
                .metadata
                .progress_group
                .as_ref()
                .map(|group| progress::Group {
                    id: group.id.clone(),
                    name: group.name.clone(),
                    weak: group.weak,
                });
            specs.push(spec);
        }
        // Only once nothing of the graph is refused.
        self.forget_cache_mounts(all, ignore_cache)?;
        Ok(specs)
    }

    /// Steps that are done whatever is known begin with empty cache mounts too (row C06).
    fn forget_cache_mounts(&self, vertices: &[llb::Vertex], all: bool) -> Result<()> {
        let anew = vertices
            .iter()
            .filter(|vertex| all || vertex.metadata.ignore_cache);
        let mounts = anew.filter_map(|vertex| match &vertex.op.kind {
            OpKind::Exec(exec) => Some(&exec.mounts),
            _ => None,
        });
        let keys: BTreeSet<String> = mounts
            .flatten()
            .filter_map(|mount| match &mount.kind {
                llb::MountKind::Cache(cache) => Some(cache_mount_key(&cache.id)),
                _ => None,
            })
            .collect();
        if !keys.is_empty() {
            let keys = keys.iter().map(String::as_str);
            self.parts.refs.begin_anew(keys)?;
        }
        Ok(())
    }

    fn op(
        &self,
        vertex: &llb::Vertex,
        all: &[llb::Vertex],
        nested: &Arc<dyn Nested>,
    ) -> Result<Arc<dyn Op<Output = Output>>> {
        let deeds = self.clone();
        let step = Step::of(vertex);
        let explained = |op: Arc<dyn Op<Output = Output>>, parts| {
            let step = step.clone();
            Arc::new(Explained::new(self.clone(), op, vertex, all, parts, step))
        };
        let inputs = 0..vertex.inputs.len();
        let op: Arc<dyn Op<Output = Output>> = match &vertex.op.kind {
            OpKind::Source(source) => {
                let platform = vertex.op.platform.as_ref();
                Arc::new(SourceOp::new(deeds, vertex.digest, source, platform)?)
            }
            OpKind::Exec(_) => {
                let op = ExecOp::new(deeds, vertex, step.clone())?;
                let parts = inputs.map(|input| op.parts(input)).collect();
                explained(Arc::new(op), parts)
            }
            OpKind::File(_) => {
                let op = FileOp::new(deeds, vertex, step.clone())?;
                let parts = inputs.map(|input| op.parts(input)).collect();
                explained(Arc::new(op), parts)
            }
            OpKind::Merge(merge) => Arc::new(MergeOp::new(deeds, merge, vertex.inputs.len())),
            OpKind::Diff(diff) => Arc::new(DiffOp::new(deeds, diff, vertex.inputs.len())),
            OpKind::Passthrough(pass) => Arc::new(PassthroughOp::new(pass, vertex.inputs.len())),
            OpKind::Build(build) => {
                let inputs = vertex.inputs.len();
                Arc::new(BuildOp::new(deeds, build, inputs, nested.clone())?)
            }
        };
        Ok(Arc::new(Known::new(op, step)))
    }
}

/// How a step is known.
pub(crate) fn name(vertex: &llb::Vertex) -> String {
    vertex
        .name()
        .map_or_else(|| default_name(&vertex.op.kind), str::to_owned)
}

/// How a step is known whose author gave it no name.
pub(crate) fn default_name(kind: &OpKind) -> String {
    match kind {
        OpKind::Source(source) => source.identifier.clone(),
        OpKind::Exec(exec) => exec.args.join(" "),
        OpKind::File(file) => {
            let names = file.actions.iter().map(|action| match &action.kind {
                llb::ActionKind::Copy(copy) => format!("copy {} {}", copy.src, copy.dest),
                llb::ActionKind::Mkfile(mkfile) => format!("mkfile {}", mkfile.path),
                llb::ActionKind::Mkdir(mkdir) => format!("mkdir {}", mkdir.path),
                llb::ActionKind::Rm(rm) => format!("rm {}", rm.path),
                llb::ActionKind::Symlink(link) => {
                    format!("symlink {} -> {}", link.path, link.target)
                }
            });
            names.collect::<Vec<_>>().join(", ")
        }
        OpKind::Merge(_) => "merge".into(),
        OpKind::Diff(_) => "diff".into(),
        OpKind::Passthrough(_) => "passthrough".into(),
        OpKind::Build(_) => "build".into(),
    }
}
