//! What is on disk, and removing it.

use std::time::{Duration, SystemTime};

use refs::{Filter, PrunePolicy, UsageRecord};

use crate::{Engine, Failure};

/// Unwritten bytes of the whole machine that a disk takes in a moment.
const QUICK_TO_WRITE: u64 = 32 << 20;

/// Bytes the kernel has yet to write to disks (`/proc/meminfo`).
fn unwritten_bytes() -> Option<u64> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = |name: &str| meminfo.lines().find_map(|line| line.strip_prefix(name));
    let kib = |text: &str| text.trim().strip_suffix("kB")?.trim().parse::<u64>().ok();
    Some((kib(line("Dirty:")?)? + kib(line("Writeback:")?)?) << 10)
}

fn failed(error: refs::Error) -> Failure {
    Failure::of(error.kind(), &error)
}

impl Engine {
    /// The records that pass one of `filters` (all if there is none) and were not used
    /// for `unused`.
    pub async fn usage(
        &self,
        filters: &[String],
        unused: Duration,
    ) -> Result<Vec<UsageRecord>, Failure> {
        let filter = Filter::parse(filters).map_err(failed)?;
        let refs = self.refs().clone();
        let mut records = stdx::task::blocking(move || refs.usage(&filter))
            .await
            .map_err(failed)?;
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
        let pruned = stdx::task::blocking(move || {
            let gone = refs.prune(&policies, &[])?;
            if !gone.is_empty() {
                // What was removed is off the disk when we say so.
                refs.snapshots().settle();
            }
            Ok(gone)
        });
        let gone = pruned.await.map_err(failed)?;
        if !gone.is_empty() {
            let released = self.0.solver.release_unreferenced().await;
            released.map_err(|error| Failure::of(error.kind(), &error))?;
        }
        Ok(gone)
    }

    /// Flushes what a crash of the machine, or its next start, would take; for the quiet
    /// after a build.
    pub async fn sync(&self) -> Result<(), Failure> {
        let refs = self.refs().clone();
        stdx::task::blocking(move || refs.sync())
            .await
            .map_err(failed)
    }

    /// The same if it is quick: for a process that ends now. What is left over is flushed by
    /// the next process that opens the state directory.
    pub async fn sync_if_quick(&self) -> Result<(), Failure> {
        let unwritten = stdx::task::blocking(unwritten_bytes).await;
        match unwritten {
            Some(bytes) if bytes <= QUICK_TO_WRITE => self.sync().await,
            _ => Ok(()),
        }
    }
}
