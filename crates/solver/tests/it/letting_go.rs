//! Letting go of what may take long.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use oci::Digest;
use progress::Progress;
use solver::{CacheMap, JobOptions, KeyDigest, Op, OpContext, OpError, Solver, VertexSpec};

use crate::support::{Results, edge, solver};

/// An error that holds something. As that goes, somebody else asks the solver something and gets
/// an answer, or not.
#[derive(thiserror::Error)]
#[error("it holds something")]
struct Holding {
    solver: Solver<String>,
    answered: Sender<bool>,
}

impl std::fmt::Debug for Holding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Holding")
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        let (solver, (answer, answers)) = (self.solver.clone(), channel());
        std::thread::spawn(move || answer.send(solver.counters()));
        let answer = answers.recv_timeout(Duration::from_secs(10));
        self.answered.send(answer.is_ok()).unwrap();
    }
}

struct Failing(Mutex<Option<Holding>>);

#[async_trait]
impl Op for Failing {
    type Output = String;

    async fn cache_map(&self, _: &OpContext, _: usize) -> Result<CacheMap, OpError> {
        let digest = Digest::of("fails");
        Ok(CacheMap::new(KeyDigest::Stable(digest), 0))
    }

    async fn content_key(
        &self,
        _: &OpContext,
        _: usize,
        _: &String,
    ) -> Result<Option<Digest>, OpError> {
        Ok(None)
    }

    async fn run(&self, _: &OpContext, _: Vec<String>) -> Result<Vec<String>, OpError> {
        let error = self.0.lock().unwrap().take().unwrap();
        Err(Arc::new(error))
    }
}

/// A build leaves, and what is left of its failed step goes with it: others need not wait for
/// that.
///
/// Rows: C01
#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_while_a_failure_is_let_go() {
    let solver = solver(&Arc::new(Results::default()), None);
    let (answered, answers) = channel();
    let error = Holding {
        solver: solver.clone(),
        answered,
    };
    let op = Failing(Mutex::new(Some(error)));
    let job = solver.job(Progress::default(), JobOptions::default());
    let failing = VertexSpec::new(edge("fails").vertex, "fails", vec![], Arc::new(op));
    job.load(vec![failing]).unwrap();
    drop(job.solve(edge("fails")).await.unwrap_err());
    answers.try_recv().unwrap_err();
    drop(job);
    assert!(answers.recv().unwrap(), "the solver could not be asked");
}
