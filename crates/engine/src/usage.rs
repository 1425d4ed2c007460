//! What is on disk, and removing it.

use std::time::{Duration, SystemTime};

use refs::{Filter, PrunePolicy, UsageRecord};

use crate::{Engine, Failure};

fn failed(error: refs::Error) -> Failure {
    Failure::of(error.kind(), &error)
}

impl Engine {
    /// The records that pass one of `filters` (all if there is none) and were not used
    /// for `unused`.
    pub async fn usage(&self, filters: &[String], unused: Duration) -> Result<Vec<UsageRecord>, Failure> {
        let filter = Filter::parse(filters).map_err(failed)?;
        let refs = self.refs().clone();
        let mut records = stdx::task::blocking(move || refs.usage(&filter)).await.map_err(failed)?;
        if !unused.is_zero() {
            let now = SystemTime::now();
            records.retain(|record| {
                let used = record.last_used.unwrap_or(record.created);
                now.duration_since(used).is_ok_and(|age| age >= unused)
            });
        }
        Ok(records)
    }

    /// Removes records by rules, one after the other, and gives those removed.
    pub async fn prune(&self, policies: Vec<PrunePolicy>) -> Result<Vec<UsageRecord>, Failure> {
        let refs = self.refs().clone();
        let gone = stdx::task::blocking(move || refs.prune(&policies, &[])).await.map_err(failed)?;
        if !gone.is_empty() {
            let released = self.0.solver.release_unreferenced().await;
            released.map_err(|error| Failure::of(error.kind(), &error))?;
        }
        Ok(gone)
    }

    /// Writes down what a crash of the machine would take; for the quiet after a build.
    pub async fn sync(&self) -> Result<(), Failure> {
        let refs = self.refs().clone();
        stdx::task::blocking(move || refs.sync()).await.map_err(failed)
    }
}
