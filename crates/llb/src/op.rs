//! An op: what one step of the graph says to do.

use std::collections::BTreeMap;

use oci::{Digest, Platform};

use crate::Definition;

pub(crate) mod exec;
pub(crate) mod file;

/// One output of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Edge {
    /// The step.
    pub digest: Digest,
    /// Which of its outputs.
    pub index: u32,
}

/// What one step says to do, and on what.
#[derive(Clone, Debug, PartialEq)]
pub struct Op {
    /// The outputs of other steps it builds on, by the numbers the kinds use.
    pub inputs: Vec<Edge>,
    /// What to do.
    pub kind: OpKind,
    /// Which machine it is for; `None` is the builder's own.
    pub platform: Option<Platform>,
    /// Which workers may do it. `None` is not the same bytes as an empty list.
    pub constraints: Option<Vec<String>>,
}

/// The kinds of op.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "ops live in vectors, and most are execs"
)]
pub enum OpKind {
    /// Run a process.
    Exec(crate::Exec),
    /// Fetch files from somewhere.
    Source(Source),
    /// Change files.
    File(crate::File),
    /// Lay trees over each other.
    Merge(Merge),
    /// Take what is in one tree and not in another.
    Diff(Diff),
    /// Build a definition found in a file.
    Build(Build),
    /// Hand inputs on.
    Passthrough(Passthrough),
}

impl OpKind {
    /// The kind in one word, for messages.
    pub fn name(&self) -> &'static str {
        match self {
            OpKind::Exec(_) => "exec",
            OpKind::Source(_) => "source",
            OpKind::File(_) => "file",
            OpKind::Merge(_) => "merge",
            OpKind::Diff(_) => "diff",
            OpKind::Build(_) => "build",
            OpKind::Passthrough(_) => "passthrough",
        }
    }
}

/// A root of the graph.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// `docker-image://…`, `local://…`, `git://…`, `https://…`, `oci-layout://…`
    pub identifier: String,
    /// See [`crate::attr`].
    pub attrs: BTreeMap<String, String>,
}

/// Trees laid over each other, the first lowest. `None` is the empty tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merge {
    /// Numbers of inputs.
    pub inputs: Vec<Option<u32>>,
}

/// What `upper` has and `lower` has not. `None` is the empty tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// Number of an input.
    pub lower: Option<u32>,
    /// Number of an input.
    pub upper: Option<u32>,
}

/// A build whose definition lies in a file of an input.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Build {
    /// Number of the input that builds; -1 is this builder itself.
    pub builder: i64,
    /// Named inputs by their numbers.
    pub inputs: BTreeMap<String, i64>,
    /// A definition given outright.
    pub definition: Option<Definition>,
    /// See [`crate::attr::BUILD_FILENAME`].
    pub attrs: BTreeMap<String, String>,
}

/// Output *i* is input `outputs[i]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passthrough {
    /// Makes two of them different.
    pub id: String,
    /// Numbers of inputs; `None` is the empty tree.
    pub outputs: Vec<Option<u32>>,
}

impl Op {
    /// How many outputs the step has.
    pub fn outputs(&self) -> usize {
        match &self.kind {
            OpKind::Exec(exec) => exec
                .mounts
                .iter()
                .filter_map(|m| m.output)
                .map(|o| o as usize + 1)
                .max()
                .unwrap_or(0),
            OpKind::File(file) => file
                .actions
                .iter()
                .filter_map(|a| a.output)
                .map(|o| o as usize + 1)
                .max()
                .unwrap_or(0),
            OpKind::Passthrough(p) => p.outputs.len(),
            _ => 1,
        }
    }
}
