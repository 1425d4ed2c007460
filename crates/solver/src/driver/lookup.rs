//! Asking indexes: ours, on a thread for blocking work, and imported ones.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tracing::warn;

use crate::Error;
use crate::action::Probe;
use crate::event::{Event, LOCAL, StoreId, TaskId};
use crate::index::{Index, IndexError, Record};
use crate::key::KeyId;
use crate::store::{RecordStore, ResultStore};

/// Lets a few lookups happen at a time. Each is a few reads of the index, so more would not be
/// done sooner: they would have a thread and a connection to the database each, and wait for each
/// other's memory.
pub(super) struct Gate(Semaphore);

impl Default for Gate {
    fn default() -> Gate {
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        Gate(Semaphore::new(processors * 2))
    }
}

impl Gate {
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let _turn = self.0.acquire().await.expect("it is never closed");
        stdx::task::blocking(work).await
    }
}

type Stores<O> = Vec<(StoreId, Arc<dyn RecordStore<O>>)>;

/// The indexes to look into. Imported ones may have to be waited for.
async fn indexes<O: 'static>(
    local: Arc<dyn Index>,
    stores: Stores<O>,
) -> Vec<(StoreId, Arc<dyn Index>)> {
    let mut all = vec![(LOCAL, local)];
    for (id, store) in stores {
        all.push((id, store.index().await));
    }
    all
}

/// A broken index costs the build time, not success.
fn or_nothing<T: Default>(result: Result<T, IndexError>) -> T {
    result.unwrap_or_else(|error| {
        let cause = error.0.to_string();
        warn!(
            cause,
            "the index of cache keys cannot be read: going on without it"
        );
        T::default()
    })
}

pub(super) async fn probe<O: 'static>(
    gate: Arc<Gate>,
    local: Arc<dyn Index>,
    stores: Stores<O>,
    probes: Vec<Probe>,
    task: TaskId,
) -> Event<O, Error> {
    let indexes = indexes(local, stores).await;
    let found = gate
        .blocking(move || {
            let mut found = BTreeSet::new();
            for probe in probes {
                for (id, index) in &indexes {
                    if probe.store.is_none_or(|store| store == *id) {
                        let children = or_nothing(index.children(&probe.from, &probe.link));
                        found.extend(children.into_iter().map(|key| (*id, key)));
                    }
                }
            }
            found.into_iter().collect()
        })
        .await;
    Event::Probed { task, found }
}

pub(super) async fn records<O: 'static>(
    gate: Arc<Gate>,
    local: Arc<dyn Index>,
    results: Arc<dyn ResultStore<O>>,
    stores: Stores<O>,
    keys: Vec<(Option<StoreId>, KeyId)>,
    task: TaskId,
) -> Event<O, Error> {
    let indexes = indexes(local, stores).await;
    let records = gate
        .blocking(move || {
            let mut records = Vec::new();
            for (store, key) in keys {
                for (id, index) in &indexes {
                    if store.is_none_or(|store| store == *id) {
                        records.extend(of_key(&**index, *id, key, &*results));
                    }
                }
            }
            records
        })
        .await;
    Event::RecordsFound { task, records }
}

/// The records of a key; those of ours whose result is gone are forgotten.
pub(super) fn of_key<O>(
    index: &dyn Index,
    store: StoreId,
    key: KeyId,
    results: &dyn ResultStore<O>,
) -> Vec<Record> {
    let mut records = Vec::new();
    for (result, created) in or_nothing(index.records(&key)) {
        if store == LOCAL && !results.exists(&result) {
            or_nothing(index.release(&result));
        } else {
            records.push(Record {
                store,
                key,
                result,
                created,
            });
        }
    }
    records
}
