//! What a vertex can do: how it is cached, how it is run.

use std::sync::Arc;

use async_trait::async_trait;
use oci::Digest;
use progress::StepProgress;

use crate::event::VertexId;
use crate::key::CacheMap;
use crate::{JobId, Miss};

/// Why an op could not do what was asked; the solver adds which vertex it was.
pub type OpError = Arc<dyn std::error::Error + Send + Sync>;

/// What an op may use while it works for a job.
#[derive(Clone)]
pub struct OpContext {
    /// Where the work is shown. Several builds may be watching it.
    pub step: StepProgress,
    /// The job on whose behalf the work is done. When it leaves, others may
    /// still wait for the result; if the work then fails, it is done again for
    /// one of them with that one's op.
    pub job: JobId,
    /// The vertex as the solver knows it, for work that
    /// [asks for more](crate::JobHandle::solve_within); none if no vertex works.
    pub vertex: Option<VertexId>,
    /// Why no earlier result was found, once that is known.
    pub missed: Option<Missed>,
}

/// That no earlier result was found, and why.
#[derive(Clone, Debug)]
pub struct Missed {
    /// What was looked for.
    pub why: Arc<Miss>,
    /// Caches from elsewhere were looked into as well.
    pub imports: bool,
}

/// One vertex's deed. Dropping a returned future must stop the work.
#[async_trait]
pub trait Op: Send + Sync {
    /// What comes out, cheap to clone; the last clone lets go.
    type Output: Clone + Send + Sync + 'static;

    /// How the op is cached. Asked with 0, 1, … until nothing more is needed or
    /// [`CacheMap::last`].
    async fn cache_map(&self, cx: &OpContext, index: usize) -> Result<CacheMap, OpError>;

    /// The digest of the part of an input that counts; asked only for inputs
    /// with `by_content`. `None` when this input cannot be seen that way, as it is unless the op
    /// says otherwise. Who wraps another op has to hand this on.
    async fn content_key(
        &self,
        _cx: &OpContext,
        _input: usize,
        _output: &Self::Output,
    ) -> Result<Option<Digest>, OpError> {
        Ok(None)
    }

    /// Does the work. Gives as many outputs as the vertex has.
    async fn run(
        &self,
        cx: &OpContext,
        inputs: Vec<Self::Output>,
    ) -> Result<Vec<Self::Output>, OpError>;
}

/// One output of a vertex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Edge {
    /// Digest of the vertex.
    pub vertex: Digest,
    /// Which of its outputs.
    pub output: u32,
}

/// A vertex as it is given to the solver.
#[derive(Clone)]
pub struct VertexSpec<O> {
    /// Its name. Vertices of several jobs with one digest are one vertex.
    pub digest: Digest,
    /// How people know it.
    pub name: String,
    /// What it works on.
    pub inputs: Vec<Edge>,
    /// What it does.
    pub op: Arc<dyn Op<Output = O>>,
    /// Do not look for results of earlier builds.
    pub ignore_cache: bool,
    /// Whether its result goes into exported caches; `None` as the exporter likes.
    pub export_cache: Option<bool>,
    /// Whether a run of it counts against the limit on work at one time.
    pub limited: bool,
    /// Steps of one group are shown together.
    pub group: Option<progress::Group>,
}

impl<O> VertexSpec<O> {
    /// A vertex with nothing special about it.
    pub fn new(
        digest: Digest,
        name: impl Into<String>,
        inputs: Vec<Edge>,
        op: Arc<dyn Op<Output = O>>,
    ) -> VertexSpec<O> {
        VertexSpec {
            digest,
            name: name.into(),
            inputs,
            op,
            ignore_cache: false,
            export_cache: None,
            limited: false,
            group: None,
        }
    }
}
