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
pub(crate) struct Pruner {
    ended: mpsc::Sender<()>,
    _task: Task<()>,
}

impl Pruner {
    /// Keeps `builder`'s cache within `rules`.
    pub(crate) fn new(builder: Arc<dyn Builder>, rules: Vec<GcRule>) -> Pruner {
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
        Pruner { ended, _task: task }
    }

    /// A build ended: the cache may have grown.
    pub(crate) fn build_ended(&self) {
        // Full means that it is noted already.
        let _ = self.ended.try_send(());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;
    use progress::Progress;
    use session::Sessions;
    use tokio::time::Instant;

    use super::*;
    use crate::builder::{Archive, ArchiveError, Built, Failure, Request, Usage, Worker};

    /// Notes when it was pruned, and by which rule.
    #[derive(Default)]
    struct Cache {
        sessions: Sessions,
        pruned: Mutex<Vec<(Instant, u64)>>,
    }

    #[async_trait]
    impl Builder for Cache {
        fn sessions(&self) -> &Sessions {
            &self.sessions
        }

        fn blobs(&self) -> Arc<dyn content::Provider> {
            Arc::new(content::Memory::default())
        }

        fn archive(&self) -> Result<Archive, ArchiveError> {
            unreachable!("no build is remembered")
        }

        fn worker(&self) -> Worker {
            Worker::default()
        }

        async fn build(&self, _: Request, _: Progress) -> Result<Built, Failure> {
            unreachable!("nothing is built")
        }

        async fn usage(&self, _: &[String], _: Duration) -> Result<Vec<Usage>, Failure> {
            Ok(Vec::new())
        }

        async fn prune(&self, rule: &GcRule) -> Result<Vec<Usage>, Failure> {
            let mut pruned = self.pruned.lock().expect("not poisoned");
            pruned.push((Instant::now(), rule.max_used));
            Ok(Vec::new())
        }
    }

    /// Rows: D35
    #[tokio::test(start_paused = true)]
    async fn the_cache_is_looked_at_a_second_after_a_build_and_once_a_minute() {
        let cache = Arc::new(Cache::default());
        let rule = |max_used| GcRule {
            max_used,
            ..GcRule::default()
        };
        let pruner = Pruner::new(cache.clone(), vec![rule(1), rule(2)]);
        let begun = Instant::now();
        let seconds = || {
            let pruned = cache.pruned.lock().expect("not poisoned");
            let one = |(at, rule): &(Instant, u64)| ((*at - begun).as_secs(), *rule);
            pruned.iter().map(one).collect::<Vec<_>>()
        };
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(seconds(), [], "nothing was built");
        for _ in 0..10 {
            pruner.build_ended();
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(seconds(), [(6, 1), (6, 2)], "each rule in its order");
        // Builds that ended meanwhile wait for the minute to be over.
        tokio::time::sleep(Duration::from_secs(120)).await;
        assert_eq!(seconds(), [(6, 1), (6, 2), (67, 1), (67, 2)]);
    }
}
