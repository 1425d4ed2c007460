//! The build op: a graph found in a file of an input, built in the same build (row L15).

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use llb::{Build, Definition, attr, preimage};
use oci::Digest;
use solver::{CacheMap, KeyDigest, Op, OpContext, OpError};
use stdx::Kind;

use crate::{Deeds, Error, Output, Result, read_file};

/// A definition in a file may be as large as one that a client sends.
const MAX_DEFINITION: u64 = 16 << 20;

/// What builds a graph that a step found: the build the step belongs to, so that the graph may
/// have what every graph of that build may have, and no more.
#[async_trait]
pub trait Nested: Send + Sync {
    /// The result of the graph, for a step that works as `cx`.
    async fn build(&self, cx: &OpContext, definition: Definition) -> frontend::Result<Output>;
}

/// Why a graph cannot be built that lies, or should lie, in a file of another step.
#[derive(Debug, thiserror::Error)]
pub enum NestedError {
    /// Another builder is asked for.
    #[error("a nested build can only be done by this builder, -1, not by input {0}")]
    Builder(i64),
    /// No input is named as the one with the definition.
    #[error(
        "a nested build needs an input named {:?}",
        attr::BUILD_DEFINITION_INPUT
    )]
    NoInput,
    /// That input has no such file.
    #[error("the definition of a nested build cannot be read")]
    Read(#[source] Box<Error>),
    /// The file is larger than a definition may be.
    #[error(
        "{path} is no definition of a nested build: it is larger than {} MiB",
        MAX_DEFINITION >> 20
    )]
    TooLarge {
        /// The file.
        path: String,
    },
    /// The file is something else.
    #[error("{path} is no definition of a nested build")]
    NoDefinition {
        /// The file.
        path: String,
        /// What is wrong with it.
        source: llb::Error,
    },
    /// A nested build in a nested build, and so on.
    #[error("nested builds may be {limit} deep, and this one is deeper")]
    TooDeep {
        /// How deep they may be.
        limit: usize,
    },
    /// The graph is found in itself.
    #[error("the graph of a nested build depends on itself")]
    Itself,
    /// The build was stopped meanwhile.
    #[error("the build was canceled")]
    Canceled,
}

impl NestedError {
    /// What a caller can do about it.
    pub fn kind(&self) -> Kind {
        match self {
            NestedError::Read(error) => error.kind(),
            NestedError::Canceled => Kind::Canceled,
            NestedError::Builder(_)
            | NestedError::NoInput
            | NestedError::TooLarge { .. }
            | NestedError::NoDefinition { .. }
            | NestedError::TooDeep { .. }
            | NestedError::Itself => Kind::InvalidInput,
        }
    }
}

/// A build of the definition in a file of one of its inputs.
pub(crate) struct BuildOp {
    deeds: Deeds,
    op: Build,
    inputs: usize,
    /// The input with the file.
    from: usize,
    path: String,
    nested: Arc<dyn Nested>,
}

impl BuildOp {
    pub(crate) fn new(
        deeds: Deeds,
        op: &Build,
        inputs: usize,
        nested: Arc<dyn Nested>,
    ) -> Result<BuildOp> {
        if op.builder != -1 {
            return Err(NestedError::Builder(op.builder).into());
        }
        // Of those there are; -1 is the empty tree, which has no file.
        let from = op.inputs.get(attr::BUILD_DEFINITION_INPUT);
        let from = from.and_then(|number| usize::try_from(*number).ok());
        let path = op.attrs.get(attr::BUILD_FILENAME);
        Ok(BuildOp {
            from: from.ok_or(NestedError::NoInput)?,
            path: path
                .map_or(attr::BUILD_DEFINITION_INPUT, String::as_str)
                .to_owned(),
            op: op.clone(),
            deeds,
            inputs,
            nested,
        })
    }

    async fn definition(&self, cx: &OpContext, inputs: &[Output]) -> Result<Definition> {
        let input = inputs.get(self.from).ok_or(NestedError::NoInput)?;
        let tree = input.tree(&self.deeds.build, &cx.step).await?;
        let path = self.path.clone();
        let read = move || {
            // One byte more tells that there is more.
            let range = Some((0, MAX_DEFINITION + 1));
            let bytes = read_file(tree.as_deref(), &path, range);
            drop(tree);
            parse(
                bytes.map_err(|error| NestedError::Read(Box::new(error)))?,
                path,
            )
        };
        Ok(stdx::task::blocking(read).await?)
    }
}

fn parse(bytes: Bytes, path: String) -> Result<Definition, NestedError> {
    if bytes.len() as u64 > MAX_DEFINITION {
        return Err(NestedError::TooLarge { path });
    }
    let bad = |source| NestedError::NoDefinition { path, source };
    Definition::decode(bytes).map_err(bad)
}

#[async_trait]
impl Op for BuildOp {
    type Output = Output;

    async fn cache_map(&self, _: &OpContext, _: usize) -> Result<CacheMap, OpError> {
        let digest = Digest::of(preimage::build(&self.op));
        Ok(CacheMap::new(KeyDigest::Stable(digest), self.inputs))
    }

    async fn run(&self, cx: &OpContext, inputs: Vec<Output>) -> Result<Vec<Output>, OpError> {
        let definition = self.definition(cx, &inputs).await?;
        // What was read is not needed while the graph is built.
        drop(inputs);
        let built = self.nested.build(cx, definition).await;
        Ok(vec![
            built.map_err(|error| Error::Frontend(Box::new(error)))?,
        ])
    }
}
