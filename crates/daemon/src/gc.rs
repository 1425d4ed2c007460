//! Keeping the cache within its limits after builds (row D35).

use std::sync::Arc;
use std::time::Duration;

use stdx::task::Task;
use tokio::sync::mpsc;

use crate::builder::Builder;
use crate::config::gc::GcRule;

/// How long after a build the cache is looked at.
const SETTLE: Duration = Duration::from_secs(1);
/// The shortest time between two looks.
const PAUSE: Duration = Duration::from_secs(60);

/// Looks at the cache when builds have ended. Stops when dropped.
pub(crate) struct Collector {
    ended: mpsc::Sender<()>,
    _task: Task<()>,
}

impl Collector {
    /// Keeps `builder`'s cache within `rules`.
    pub(crate) fn new(builder: Arc<dyn Builder>, rules: Vec<GcRule>) -> Collector {
        // One place: a second build's end while one is noted already says nothing new.
        let (ended, mut noted) = mpsc::channel(1);
        let task = stdx::task::spawn("gc", async move {
            while noted.recv().await.is_some() {
                tokio::time::sleep(SETTLE).await;
                if let Err(failure) = builder.sync(false).await {
                    tracing::warn!(
                        error = failure.message,
                        "could not flush results to the disk"
                    );
                }
                for rule in &rules {
                    match builder.prune(rule).await {
                        Ok(freed) if freed.is_empty() => {}
                        Ok(freed) => {
                            let bytes: u64 = freed.iter().map(|record| record.size).sum();
                            tracing::info!(records = freed.len(), bytes, "freed cache");
                        }
                        Err(failure) => {
                            tracing::warn!(error = failure.message, "could not free cache");
                        }
                    }
                }
                tokio::time::sleep(PAUSE).await;
            }
        });
        Collector { ended, _task: task }
    }

    /// A build ended: the cache may have grown.
    pub(crate) fn build_ended(&self) {
        // Full means that it is noted already.
        let _ = self.ended.try_send(());
    }
}
