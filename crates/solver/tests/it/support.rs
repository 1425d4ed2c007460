//! Ops and stores for tests.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use oci::Digest;
use progress::Progress;
use solver::{
    CacheMap, Edge, Index, JobHandle, JobOptions, KeyDigest, MemoryIndex, Op, OpContext, OpError,
    Options, ResultId, ResultStore, Solver, VertexSpec,
};
use tokio::sync::Notify;

/// What ran, in order.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub(crate) fn add(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
    }

    /// What was written since the last look.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

#[derive(Debug, thiserror::Error)]
#[error("exit code 127")]
pub(crate) struct Exit;

/// An op that writes what it does.
#[derive(Clone)]
pub(crate) struct TestOp {
    pub(crate) name: String,
    pub(crate) map: CacheMap,
    pub(crate) content: Option<Digest>,
    pub(crate) log: Log,
    /// Waits for this before it ends.
    pub(crate) gate: Option<Arc<Notify>>,
    pub(crate) fails: bool,
    /// Asks for this while it runs.
    pub(crate) nested: Option<(JobHandle<String>, Edge)>,
}

impl TestOp {
    pub(crate) fn new(name: &str, inputs: usize, log: &Log) -> TestOp {
        TestOp {
            name: name.to_owned(),
            map: CacheMap::new(KeyDigest::Stable(Digest::of(name)), inputs),
            content: None,
            log: log.clone(),
            gate: None,
            fails: false,
            nested: None,
        }
    }
}

/// Writes that its work was stopped, unless it ended.
struct Stopped<'a>(&'a TestOp, bool);

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        if !self.1 {
            self.0.log.add(format!("stopped {}", self.0.name));
        }
    }
}

#[async_trait]
impl Op for TestOp {
    type Output = String;

    async fn cache_map(&self, _: &OpContext, _: usize) -> Result<CacheMap, OpError> {
        Ok(self.map.clone())
    }

    async fn content_key(
        &self,
        _: &OpContext,
        _: usize,
        _: &String,
    ) -> Result<Option<Digest>, OpError> {
        Ok(self.content)
    }

    async fn run(&self, cx: &OpContext, mut inputs: Vec<String>) -> Result<Vec<String>, OpError> {
        self.log.add(format!("run {}", self.name));
        let mut stopped = Stopped(self, false);
        if let Some(gate) = &self.gate {
            gate.notified().await;
        }
        if let Some((job, edge)) = &self.nested {
            let nested = job.solve_within(cx, *edge).await;
            inputs.push(nested.map_err(|error| Arc::new(error) as OpError)?);
        }
        stopped.1 = true;
        if self.fails {
            return Err(Arc::new(Exit));
        }
        let whole = format!("{}({})", self.name, inputs.join(","));
        // Names of deep graphs would grow with their depth.
        let short = whole.len() <= 100;
        Ok(vec![if short {
            whole
        } else {
            Digest::of(whole).to_string()
        }])
    }
}

/// Results by name; some may be lost.
#[derive(Default)]
pub(crate) struct Results {
    pub(crate) lost: Mutex<HashSet<String>>,
    pub(crate) loads: AtomicUsize,
}

#[async_trait]
impl ResultStore<String> for Results {
    async fn save(&self, output: &String) -> Result<Option<ResultId>, OpError> {
        Ok(Some(ResultId(output.clone())))
    }

    async fn load(&self, _: &OpContext, result: &ResultId) -> Result<Option<String>, OpError> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        let lost = self.lost.lock().unwrap().contains(&result.0);
        Ok((!lost).then(|| result.0.clone()))
    }

    fn exists(&self, _: &ResultId) -> bool {
        true
    }
}

pub(crate) fn solver(results: &Arc<Results>, limit: Option<usize>) -> Solver<String> {
    solver_on(Arc::new(MemoryIndex::new()), results, limit)
}

pub(crate) fn solver_on(
    index: Arc<dyn Index>,
    results: &Arc<Results>,
    limit: Option<usize>,
) -> Solver<String> {
    Solver::new(
        index,
        results.clone(),
        Options {
            max_parallelism: limit,
        },
    )
}

/// The edge of a vertex of this name.
pub(crate) fn edge(name: &str) -> Edge {
    Edge {
        vertex: Digest::of(format!("vertex {name}")),
        output: 0,
    }
}

pub(crate) fn spec(op: TestOp, inputs: &[&str]) -> VertexSpec<String> {
    let inputs = inputs.iter().map(|name| edge(name)).collect();
    VertexSpec::new(edge(&op.name).vertex, op.name.clone(), inputs, Arc::new(op))
}

/// base <- make <- test
pub(crate) fn three_steps(log: &Log) -> Vec<solver::VertexSpec<String>> {
    vec![
        spec(TestOp::new("test", 1, log), &["make"]),
        spec(TestOp::new("make", 1, log), &["base"]),
        spec(TestOp::new("base", 0, log), &[]),
    ]
}

/// One build in a job of its own.
pub(crate) async fn build(
    solver: &solver::Solver<String>,
    specs: Vec<solver::VertexSpec<String>>,
    of: &str,
) -> solver::Result<String> {
    let job = solver.job(Progress::default(), JobOptions::default());
    job.load(specs)?;
    job.solve(edge(of)).await
}
