//! The async half: does the actions, brings back events.

use std::sync::Arc;

use progress::Progress;

use crate::index::Index;
use crate::op::{Edge, VertexSpec};
use crate::store::{RecordStore, ResultStore};
use crate::{Error, JobId, Miss, Result};

/// How a solver works.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How many limited vertices ([`VertexSpec::limited`]) may run at one time,
    /// over all jobs, which take turns. No limit when not given.
    pub max_parallelism: Option<usize>,
}

/// How a job is solved.
#[derive(Clone, Debug, Default)]
pub struct JobOptions {
    /// Use no results of earlier builds.
    pub no_cache: bool,
}

/// The shared graph of all builds. Clones are the same solver.
pub struct Solver<O>(std::marker::PhantomData<O>);

/// One build's part in the solver. Dropping it is leaving.
pub struct Job<O>(std::marker::PhantomData<O>);

/// What work done for a job may hold: it does not keep the job from leaving.
pub struct JobHandle<O>(std::marker::PhantomData<O>);

impl<O: Clone + Send + Sync + 'static> Solver<O> {
    /// A solver whose results are kept in `results`, found through `index`.
    pub fn new(
        _index: Arc<dyn Index>,
        _results: Arc<dyn ResultStore<O>>,
        _options: Options,
    ) -> Solver<O> {
        todo!()
    }

    /// A new build.
    pub fn job(&self, _progress: Progress, _options: JobOptions) -> Job<O> {
        todo!()
    }

    /// Forgets results that are gone from the store; for after a prune.
    pub async fn release_unreferenced(&self) -> Result<()> {
        todo!()
    }
}

impl<O: Clone + Send + Sync + 'static> Job<O> {
    /// This job, for work done on its behalf.
    pub fn handle(&self) -> JobHandle<O> {
        todo!()
    }
}

impl<O: Clone + Send + Sync + 'static> JobHandle<O> {
    /// The number of the job.
    pub fn id(&self) -> JobId {
        todo!()
    }

    /// Also looks for records in this store.
    pub fn import(&self, _store: Arc<dyn RecordStore<O>>) -> Result<()> {
        todo!()
    }

    /// Describes vertices, in any order. Their inputs are among them or were
    /// described before.
    pub fn load(&self, _vertices: Vec<VertexSpec<O>>) -> Result<()> {
        todo!()
    }

    /// The output of an edge. Dropping the future takes the question back.
    pub async fn solve(&self, _edge: Edge) -> Result<O> {
        todo!()
    }

    /// Why vertices of this job were not found in any cache, in order of finding out.
    pub fn misses(&self) -> Vec<(oci::Digest, Miss)> {
        let _ = Error::Canceled;
        todo!()
    }
}

impl<O: Clone + Send + Sync + 'static> std::ops::Deref for Job<O> {
    type Target = JobHandle<O>;
    fn deref(&self) -> &JobHandle<O> {
        todo!()
    }
}
