//! The async half: does the actions, brings back events.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use oci::Digest;
use progress::{Progress, StepProgress};
use stdx::task::Task;
use tokio::sync::oneshot;
use tracing::debug;

use crate::action::Action;
use crate::event::{Event, JobId, LOCAL, RequestId, StoreId, TaskId, VertexId};
use crate::index::Index;
use crate::op::{Missed, Op, OpContext};
use crate::state::{Fault, State};
use crate::store::{RecordStore, ResultStore};
use crate::{Error, Miss, Result};

mod job;
mod lookup;
mod order;
mod saves;
mod work;

pub use job::{Job, JobHandle, JobOptions};
use lookup::Gate;
use saves::Saves;

/// How a solver works.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How many limited vertices ([`VertexSpec::limited`](crate::VertexSpec::limited)) may run at
    /// one time, over all jobs, which take turns. No limit when not given.
    pub max_parallelism: Option<usize>,
}

/// The shared graph of all builds. Clones are the same solver.
pub struct Solver<O>(Arc<Inner<O>>);

impl<O> Clone for Solver<O> {
    fn clone(&self) -> Solver<O> {
        Solver(self.0.clone())
    }
}

pub(crate) struct Inner<O> {
    core: Mutex<Core<O>>,
    index: Arc<dyn Index>,
    results: Arc<dyn ResultStore<O>>,
    lookups: Arc<Gate>,
    saves: Saves<O>,
    numbers: AtomicU64,
}

/// What is changed by one event at a time: the state, and the work it asked for.
struct Core<O> {
    state: State<O, Error>,
    vertices: HashMap<VertexId, Shown<O>>,
    tasks: HashMap<TaskId, Task<()>>,
    replies: HashMap<RequestId, oneshot::Sender<Result<O>>>,
    stores: HashMap<StoreId, Arc<dyn RecordStore<O>>>,
    jobs: HashMap<JobId, JobInfo>,
    trace: Option<crate::trace::Recorder>,
}

/// A vertex as people and ops know it.
struct Shown<O> {
    digest: Digest,
    name: String,
    step: StepProgress,
    /// Each job's own op, the oldest job first.
    ops: BTreeMap<JobId, Arc<dyn Op<Output = O>>>,
    export_cache: Option<bool>,
    missed: Option<Missed>,
}

struct JobInfo {
    progress: Progress,
    misses: Vec<(Digest, Miss)>,
    stores: Vec<StoreId>,
    /// Those it has an op for.
    vertices: Vec<VertexId>,
}

impl<O: Clone + Send + Sync + 'static> Solver<O> {
    /// A solver whose results are kept in `results`, found through `index`.
    pub fn new(
        index: Arc<dyn Index>,
        results: Arc<dyn ResultStore<O>>,
        options: Options,
    ) -> Solver<O> {
        let core = Core {
            state: State::new(options.max_parallelism),
            vertices: HashMap::new(),
            tasks: HashMap::new(),
            replies: HashMap::new(),
            stores: HashMap::new(),
            jobs: HashMap::new(),
            trace: None,
        };
        Solver(Arc::new(Inner {
            core: Mutex::new(core),
            saves: Saves::new(index.clone(), results.clone()),
            index,
            results,
            lookups: Arc::default(),
            numbers: AtomicU64::new(1),
        }))
    }

    /// A new build, shown in `progress`.
    pub fn job(&self, progress: Progress, options: JobOptions) -> Job<O> {
        Job::new(self.0.clone(), progress, options)
    }

    /// Forgets results that are gone from the store; for after a prune.
    pub async fn release_unreferenced(&self) -> Result<()> {
        let (index, results) = (self.0.index.clone(), self.0.results.clone());
        stdx::task::blocking(move || {
            for result in index.results()? {
                if !results.exists(&result) {
                    index.release(&result)?;
                }
            }
            Ok(())
        })
        .await
    }

    /// What happened so far.
    pub fn counters(&self) -> crate::state::Counters {
        self.0.core().state.counters()
    }

    /// Whether no job is there and nothing is held any more.
    pub fn is_idle(&self) -> bool {
        let core = self.0.core();
        core.state.is_empty() && core.tasks.is_empty() && core.vertices.is_empty()
    }

    /// From now on writes every event, and what was done about it, to `out`.
    /// Played again by [`crate::trace::play`].
    pub fn record(&self, out: Box<dyn std::io::Write + Send>) {
        self.0.core().trace = Some(crate::trace::Recorder::new(out));
    }

    /// Waits until every result known now is written to the index.
    pub async fn flush(&self) {
        self.0.saves.flush().await;
    }
}

impl<O: Clone + Send + Sync + 'static> Inner<O> {
    fn core(&self) -> MutexGuard<'_, Core<O>> {
        self.core
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Tells the state what happened, and starts what it asks for. All under
    /// one lock: actions are done in the order in which they were asked for.
    fn event(self: &Arc<Self>, event: Event<O, Error>) {
        let mut dropped = Vec::new();
        let mut core = self.core();
        self.event_in(&mut core, event, &mut dropped);
        drop(core);
        // Outputs, ops and tasks may do anything when dropped: not under the lock.
        drop(dropped);
    }

    fn event_in(
        self: &Arc<Self>,
        core: &mut Core<O>,
        event: Event<O, Error>,
        dropped: &mut Vec<Box<dyn Send>>,
    ) {
        if let Some(task) = ended(&event) {
            dropped.extend(
                core.tasks
                    .remove(&task)
                    .map(|t| Box::new(t) as Box<dyn Send>),
            );
        }
        let traced = core.trace.as_ref().map(|_| crate::trace::strip(&event));
        let actions = core.state.apply(event);
        dropped.push(Box::new(core.state.forgotten()));
        if let (Some(trace), Some(event)) = (&mut core.trace, traced) {
            trace.write(&event, &actions);
        }
        for action in actions {
            self.act(core, action, dropped);
        }
    }

    fn act(
        self: &Arc<Self>,
        core: &mut Core<O>,
        action: Action<O, Error>,
        dropped: &mut Vec<Box<dyn Send>>,
    ) {
        match action {
            Action::AskMap {
                task,
                vertex,
                job,
                index,
            } => {
                let Some((op, cx, source)) = core.op(vertex, job) else {
                    return;
                };
                self.spawn(core, task, work::ask_map(op, cx, index, source, task));
            }
            Action::Probe {
                task,
                probes,
                stores,
            } => {
                let stores = core.some_stores(&stores);
                let (index, gate) = (self.index.clone(), self.lookups.clone());
                self.spawn(core, task, lookup::probe(gate, index, stores, probes, task));
            }
            Action::FindRecords { task, keys, stores } => {
                let stores = core.some_stores(&stores);
                let (index, results) = (self.index.clone(), self.results.clone());
                let gate = self.lookups.clone();
                let found = lookup::records(gate, index, results, stores, keys, task);
                self.spawn(core, task, found);
            }
            Action::Load {
                task,
                vertex,
                job,
                record,
            } => {
                let Some((_, cx, _)) = core.op(vertex, job) else {
                    return;
                };
                let store = core.stores.get(&record.store).cloned();
                let results = self.results.clone();
                self.spawn(core, task, work::load(results, store, cx, record, task));
            }
            Action::FindContent {
                task,
                vertex,
                job,
                input,
                output,
            } => {
                let Some((op, cx, _)) = core.op(vertex, job) else {
                    return;
                };
                self.spawn(core, task, work::find_content(op, cx, input, output, task));
            }
            Action::Run {
                task,
                vertex,
                job,
                inputs,
            } => {
                let Some((op, cx, _)) = core.op(vertex, job) else {
                    return;
                };
                self.spawn(core, task, work::run(op, cx, inputs, task));
            }
            Action::Save {
                nodes,
                output,
                keys,
                created,
            } => self.saves.add(nodes, output, keys, created),
            Action::Cancel { task } => {
                dropped.extend(
                    core.tasks
                        .remove(&task)
                        .map(|t| Box::new(t) as Box<dyn Send>),
                );
            }
            Action::Reply { request, result } => {
                let result = result.map_err(|error| core.name(error));
                if let Some(reply) = core.replies.remove(&request) {
                    // Whoever asked may have gone meanwhile.
                    let _ = reply.send(result);
                }
            }
            Action::ShowCached { vertex } => {
                if let Some(shown) = core.vertices.get(&vertex) {
                    shown.step.complete(true);
                }
            }
            Action::Explain { vertex, miss } => core.explain(vertex, &miss),
            Action::Forget { vertex } => {
                dropped.extend(
                    core.vertices
                        .remove(&vertex)
                        .map(|v| Box::new(v) as Box<dyn Send>),
                );
            }
        }
    }

    fn spawn(
        self: &Arc<Self>,
        core: &mut Core<O>,
        id: TaskId,
        work: impl Future<Output = Event<O, Error>> + Send + 'static,
    ) {
        let inner = self.clone();
        let task = stdx::task::spawn("solver", async move {
            let event = work.await;
            inner.event(event);
        });
        core.tasks.insert(id, task);
    }
}

/// The piece of work an event ends.
fn ended<O>(event: &Event<O, Error>) -> Option<TaskId> {
    match event {
        Event::MapFound { task, .. }
        | Event::Probed { task, .. }
        | Event::RecordsFound { task, .. }
        | Event::Loaded { task, .. }
        | Event::ContentFound { task, .. }
        | Event::Ran { task, .. } => Some(*task),
        _ => None,
    }
}

/// A vertex's op for a job, with what it needs to show itself.
type OpFor<O> = (Arc<dyn Op<Output = O>>, work::Context, bool);

impl<O: Clone + Send + Sync + 'static> Core<O> {
    fn op(&self, vertex: VertexId, job: JobId) -> Option<OpFor<O>> {
        let shown = self.vertices.get(&vertex)?;
        let op = shown.ops.get(&job)?;
        let context = work::Context {
            op: OpContext {
                step: shown.step.clone(),
                job,
                vertex: Some(vertex),
                missed: shown.missed.clone(),
            },
            vertex: shown.digest,
            name: shown.name.clone(),
        };
        Some((op.clone(), context, self.state.is_source(vertex)))
    }

    fn some_stores(&self, stores: &[StoreId]) -> Vec<(StoreId, Arc<dyn RecordStore<O>>)> {
        let imported = stores.iter().filter(|store| **store != LOCAL);
        imported
            .filter_map(|id| Some((*id, self.stores.get(id)?.clone())))
            .collect()
    }

    /// Gives the state's own errors the names it does not know.
    fn name(&self, error: Error) -> Error {
        let name = |id| {
            self.vertices
                .get(&id)
                .map(|v| v.name.clone())
                .unwrap_or_default()
        };
        match error {
            Error::Fault(Fault::NoSuchOutput { vertex, output }) => Error::NoSuchOutput {
                name: name(vertex),
                output,
            },
            Error::Fault(Fault::Cycle(vertex)) => Error::Cycle { name: name(vertex) },
            Error::Fault(Fault::BadCacheMap {
                vertex,
                expected,
                found,
            }) => Error::BadCacheMap {
                name: name(vertex),
                expected,
                found,
            },
            other => other,
        }
    }

    fn explain(&mut self, vertex: VertexId, miss: &Miss) {
        let imports = self.state.has_imports(vertex);
        let Some(shown) = self.vertices.get_mut(&vertex) else {
            return;
        };
        shown.missed = Some(Missed {
            why: Arc::new(miss.clone()),
            imports,
        });
        debug!(step = %shown.digest.short(), name = shown.name, ?miss, "no cached result");
        for job in shown.ops.keys() {
            if let Some(job) = self.jobs.get_mut(job) {
                job.misses.push((shown.digest, miss.clone()));
            }
        }
    }
}
