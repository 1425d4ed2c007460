//! Writes keys and results to the index, many in one transaction.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tracing::warn;

use crate::index::{Entry, Index, Node};
use crate::key::{Created, KeyId};
use crate::store::ResultStore;

/// What waits to be written, and how far writing is.
pub(super) struct Saves<O>(Arc<Shared<O>>);

struct Shared<O> {
    index: Arc<dyn Index>,
    results: Arc<dyn ResultStore<O>>,
    /// As many as vertices can end before the disk gets to it; outputs in it
    /// are held by the graph anyway.
    waiting: Mutex<Waiting<O>>,
    written: watch::Sender<u64>,
}

struct Waiting<O> {
    queue: Vec<Save<O>>,
    added: u64,
    writing: bool,
}

struct Save<O> {
    nodes: Vec<Node>,
    output: O,
    keys: Vec<KeyId>,
    created: Created,
}

impl<O: Clone + Send + Sync + 'static> Saves<O> {
    pub(super) fn new(index: Arc<dyn Index>, results: Arc<dyn ResultStore<O>>) -> Saves<O> {
        let waiting = Waiting {
            queue: Vec::new(),
            added: 0,
            writing: false,
        };
        let (written, _) = watch::channel(0);
        Saves(Arc::new(Shared {
            index,
            results,
            waiting: Mutex::new(waiting),
            written,
        }))
    }

    /// Writes this soon.
    pub(super) fn add(
        &self,
        nodes: Vec<Node>,
        output: O,
        keys: Vec<KeyId>,
        created: Option<Created>,
    ) {
        let created = created.unwrap_or_else(Created::now);
        let mut waiting = self.0.waiting();
        waiting.queue.push(Save {
            nodes,
            output,
            keys,
            created,
        });
        waiting.added += 1;
        if !std::mem::replace(&mut waiting.writing, true) {
            let shared = self.0.clone();
            // Ends by itself when nothing waits.
            stdx::task::spawn("solver-saves", async move { shared.write().await }).detach();
        }
    }

    /// Waits until all that was added up to now is written.
    pub(super) async fn flush(&self) {
        let added = self.0.waiting().added;
        let mut written = self.0.written.subscribe();
        // The sender lives as long as we do.
        let _ = written.wait_for(|written| *written >= added).await;
    }
}

impl<O: Clone + Send + Sync + 'static> Shared<O> {
    fn waiting(&self) -> MutexGuard<'_, Waiting<O>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn write(self: Arc<Self>) {
        loop {
            let (saves, added) = {
                let mut waiting = self.waiting();
                if waiting.queue.is_empty() {
                    waiting.writing = false;
                    return;
                }
                (std::mem::take(&mut waiting.queue), waiting.added)
            };
            self.write_some(saves).await;
            self.written.send_replace(added);
        }
    }

    async fn write_some(&self, saves: Vec<Save<O>>) {
        let mut entries = Vec::with_capacity(saves.len());
        for save in saves {
            let result = match self.results.save(&save.output).await {
                Ok(result) => result.map(|result| (result, save.created, save.keys)),
                Err(error) => {
                    warn!(%error, "a result cannot be kept: it will be made again next time");
                    continue;
                }
            };
            entries.push(Entry {
                nodes: save.nodes,
                result,
            });
        }
        let index = self.index.clone();
        if let Err(error) = stdx::task::blocking(move || index.save(&entries)).await {
            warn!(cause = %error.0, "cache keys cannot be written: steps will run again next time");
        }
    }
}
