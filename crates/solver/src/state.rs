//! What is known and wanted, as one value: events go in, actions come out.
//! No clock, no disk, no task, no lock; the same events give the same actions.
//!
//! - [`job`](self) (state/job.rs): jobs come, describe vertices, want and leave;
//! - `want.rs`: how an edge gets on, stage by stage;
//! - `demand.rs`: who asks what of whom, and what happens when nobody does;
//! - `run.rs`: one run for equal keys, turns between jobs, what is saved.
//!
//! Work spreads through a queue of edges, never by recursion, and each edge
//! looks only at those of its inputs that changed, so a build costs time linear
//! in vertices and edges however deep or wide it is.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use oci::Digest;

use crate::action::Action;
use crate::event::{Event, JobId, LOCAL, RequestId, StoreId, TaskId, VertexId};
use crate::index::Record;
use crate::key::{CacheMap, KeyId};

mod demand;
mod export;
mod job;
mod merge;
mod run;
#[cfg(test)]
mod tests;
mod want;

pub(crate) use export::Snapshot;
use run::Slots;

/// One output of one vertex of the shared graph.
pub(crate) type EdgeId = (VertexId, u32);

/// What went wrong in the state itself, not in an op.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The op gave fewer outputs than someone wants.
    NoSuchOutput {
        /// The vertex.
        vertex: VertexId,
        /// The output wanted.
        output: u32,
    },
    /// The op described another number of inputs than the vertex has.
    BadCacheMap {
        /// The vertex.
        vertex: VertexId,
        /// How many it has.
        expected: usize,
        /// How many it described.
        found: usize,
    },
    /// What a vertex asked for while it ran waits for that vertex.
    Cycle(VertexId),
    /// The job never described this vertex.
    UnknownVertex(Digest),
    /// The job has left.
    Canceled,
}

/// How much is wanted of an edge, or known about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// What its definition keys lead to.
    Fast,
    /// What its content keys lead to, too.
    Slow,
    /// Its output.
    Output,
}

/// How far an edge is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing has been asked.
    New,
    /// Finding what the definition keys of the inputs lead to.
    Defining,
    /// Known what they lead to.
    Defined,
    /// Finding what all keys of the inputs lead to; an input that leads nowhere
    /// is made and digested if it counts by content.
    Matching,
    /// Every input leads somewhere but not to one common result: the other
    /// inputs that count by content are made and digested as well.
    Contents,
    /// Nothing will be found.
    Hopeless,
    /// Making all inputs.
    Building,
    /// Waiting for its run.
    Ready,
    /// The output is there.
    Done,
}

/// What an edge knows about one of its inputs.
#[derive(Debug, Default)]
struct Input {
    /// What we ask of it.
    asked: Option<Level>,
    /// Not yet what the stage needs.
    open: bool,
    /// The version of its keys we have followed.
    probed: u32,
    /// Whether its content key was followed.
    content_probed: bool,
    /// Where its keys lead.
    found: BTreeSet<(StoreId, KeyId)>,
    /// Being followed.
    probing: Option<TaskId>,
}

#[derive(Debug)]
struct EdgeState<O> {
    /// How many ask for each level.
    demand: [usize; 3],
    /// Which edges ask, and which of their inputs we are.
    waiters: BTreeSet<(EdgeId, u32)>,
    requests: BTreeSet<RequestId>,
    stage: Stage,
    reached: Option<Level>,
    inputs: Vec<Input>,
    /// How many inputs are open in this stage.
    open: usize,
    /// Some input leads nowhere and never will.
    dead: bool,
    dirty: Vec<u32>,
    queued: bool,
    /// Nodes all inputs lead to, in the stores; our own `id` when it was saved.
    matched: BTreeSet<(StoreId, KeyId)>,
    /// Nodes whose records were looked up.
    looked: BTreeSet<(StoreId, KeyId)>,
    /// The same for the maps of a vertex without inputs.
    maps_looked: usize,
    finding: Option<TaskId>,
    /// Records to try, the best one last.
    records: Vec<Record>,
    /// Records that could not be loaded.
    tried: BTreeSet<(StoreId, crate::ResultId)>,
    loading: Option<(TaskId, Record)>,
    /// Our own name for the node in the local store.
    id: Option<KeyId>,
    /// Its key means something only in this session.
    volatile: bool,
    /// It rests, by definition, on something that was made without looking for
    /// earlier results: what earlier builds made of the same key does not count.
    fresh: bool,
    /// Counts changes of what [`State::probe_keys`] gives.
    version: u32,
    output: Option<O>,
    /// The node of the record that gave it.
    from: Option<(StoreId, KeyId)>,
}

/// The content digest of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Unknown,
    Asked(TaskId),
    Known(Option<Digest>),
}

/// The run of a vertex.
#[derive(Debug)]
enum Run<O> {
    Idle,
    /// Another vertex with the same key is at it.
    Following(VertexId),
    /// Asking once more whether the result has come to be known meanwhile.
    Confirming(TaskId),
    /// Waiting for a place.
    Queued(JobId),
    Running(TaskId),
    Done(Vec<O>),
}

/// What makes a vertex: those of several jobs with the same are one. They do the same to the
/// same inputs, and agree about which of them may be taken from earlier builds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Identity {
    digest: Digest,
    inputs: Vec<EdgeId>,
    ignore_cache: bool,
}

#[derive(Debug)]
struct Vertex<O, E> {
    digest: Digest,
    inputs: Vec<EdgeId>,
    ignore_cache: bool,
    limited: bool,
    jobs: BTreeSet<JobId>,
    maps: Vec<CacheMap>,
    asking_map: Option<TaskId>,
    contents: Vec<Content>,
    edges: BTreeMap<u32, EdgeState<O>>,
    run: Run<O>,
    /// The name under which its run is shared.
    flight: Option<KeyId>,
    followers: BTreeSet<VertexId>,
    /// Why it failed, and with which job's op. Counts while that job is there.
    failed: Option<(JobId, E)>,
    /// Was worked on or shown as cached already.
    shown: bool,
}

#[derive(Debug, Default)]
struct Job {
    vertices: HashMap<Digest, VertexId>,
    order: Vec<VertexId>,
    stores: BTreeSet<StoreId>,
    requests: BTreeSet<RequestId>,
}

/// A question that is not answered yet.
#[derive(Clone, Copy, Debug)]
struct Question {
    job: JobId,
    edge: EdgeId,
    /// The vertex whose run asks.
    within: Option<VertexId>,
}

/// What a piece of work is for.
#[derive(Clone, Debug)]
enum Task {
    Map {
        vertex: VertexId,
        job: JobId,
    },
    Probe {
        edge: EdgeId,
        input: u32,
        version: u32,
        content: bool,
    },
    Records {
        edge: EdgeId,
    },
    Load {
        edge: EdgeId,
        job: JobId,
    },
    Content {
        vertex: VertexId,
        input: u32,
        job: JobId,
    },
    Confirm {
        edge: EdgeId,
    },
    Run {
        vertex: VertexId,
        job: JobId,
    },
}

/// Counts of what happened, for metrics and benches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Events applied.
    pub events: u64,
    /// Edges looked at, and inputs of edges: what all of it cost.
    pub looks: u64,
    /// Runs begun.
    pub runs: u64,
    /// Records loaded.
    pub loads: u64,
    /// Runs that served another vertex as well.
    pub shared: u64,
}

/// The state of all jobs. `O` is an output, `E` an error.
#[derive(Debug)]
pub struct State<O, E> {
    vertices: HashMap<VertexId, Vertex<O, E>>,
    by_identity: HashMap<Identity, VertexId>,
    jobs: BTreeMap<JobId, Job>,
    requests: HashMap<RequestId, Question>,
    /// What vertices ask for while they run.
    asked_within: BTreeMap<VertexId, BTreeSet<RequestId>>,
    tasks: HashMap<TaskId, Task>,
    /// Who runs, or has run, what a key names.
    flights: HashMap<KeyId, VertexId>,
    slots: Slots,
    queue: VecDeque<EdgeId>,
    /// Edges of which less may be wanted now.
    relaxing: VecDeque<EdgeId>,
    next_vertex: u64,
    next_task: u64,
    actions: Vec<Action<O, E>>,
    forgotten: Forgotten<O, E>,
    counters: Counters,
}

/// What a state no longer needs.
#[derive(Debug)]
pub(crate) struct Forgotten<O, E> {
    vertices: Vec<Vertex<O, E>>,
    errors: Vec<E>,
}

impl<O, E> Default for Forgotten<O, E> {
    fn default() -> Self {
        Forgotten {
            vertices: Vec::new(),
            errors: Vec::new(),
        }
    }
}

impl<O: Clone, E: Clone + From<Fault>> State<O, E> {
    /// A state without jobs; at most `limit` limited vertices run at one time.
    pub fn new(limit: Option<usize>) -> State<O, E> {
        State {
            vertices: HashMap::new(),
            by_identity: HashMap::new(),
            jobs: BTreeMap::new(),
            requests: HashMap::new(),
            asked_within: BTreeMap::new(),
            tasks: HashMap::new(),
            flights: HashMap::new(),
            slots: Slots::new(limit),
            queue: VecDeque::new(),
            relaxing: VecDeque::new(),
            next_vertex: 0,
            next_task: 0,
            actions: Vec::new(),
            forgotten: Forgotten::default(),
            counters: Counters::default(),
        }
    }

    /// Takes in what happened; gives what is to be done, in order.
    pub fn apply(&mut self, event: Event<O, E>) -> Vec<Action<O, E>> {
        drop(self.forgotten());
        self.counters.events += 1;
        match event {
            Event::JobCame { job } => self.job_came(job),
            Event::StoreCame { job, store } => self.store_came(job, store),
            Event::Declared { job, vertices } => self.declared(job, vertices),
            Event::Wanted {
                job,
                request,
                vertex,
                output,
                within,
            } => {
                self.wanted(job, request, (vertex, output), within);
            }
            Event::Withdrawn { request } => self.withdrawn(request),
            Event::JobLeft { job } => self.job_left(job),
            Event::MapFound { task, result } => self.map_found(task, result),
            Event::Probed { task, found } => self.probed(task, found),
            Event::RecordsFound { task, records } => self.records_found(task, records),
            Event::Loaded { task, output } => self.loaded(task, output),
            Event::ContentFound { task, result } => self.content_found(task, result),
            Event::Ran { task, result } => self.ran(task, result),
        }
        self.settle();
        std::mem::take(&mut self.actions)
    }

    /// Outputs and errors that were let go by what was taken in last. Dropping them may take long; the
    /// next event does it otherwise.
    pub(crate) fn forgotten(&mut self) -> Forgotten<O, E> {
        std::mem::take(&mut self.forgotten)
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Whether a vertex has no inputs.
    pub(crate) fn is_source(&self, vertex: VertexId) -> bool {
        self.vertices
            .get(&vertex)
            .is_some_and(|vertex| vertex.inputs.is_empty())
    }

    /// Whether results for a vertex are also looked for elsewhere.
    pub(crate) fn has_imports(&self, vertex: VertexId) -> bool {
        self.vertices.contains_key(&vertex) && self.stores(vertex).len() > 1
    }

    /// Whether nothing is held: no job, vertex, task or question.
    pub fn is_empty(&self) -> bool {
        self.vertices.is_empty()
            && self.by_identity.is_empty()
            && self.jobs.is_empty()
            && self.requests.is_empty()
            && self.asked_within.is_empty()
            && self.tasks.is_empty()
            && self.flights.is_empty()
            && self.slots.is_idle()
    }

    /// Lets every edge that was touched get on, then lets go of what nobody
    /// wants any more, until nothing moves.
    fn settle(&mut self) {
        loop {
            if let Some(edge) = self.queue.pop_front() {
                if let Some(state) = self.edge_mut(edge) {
                    state.queued = false;
                    self.advance(edge);
                }
            } else if let Some(edge) = self.relaxing.pop_front() {
                self.relax(edge);
            } else {
                return;
            }
        }
    }

    fn push(&mut self, edge: EdgeId) {
        if let Some(state) = self.edge_mut(edge)
            && !std::mem::replace(&mut state.queued, true)
        {
            self.queue.push_back(edge);
        }
    }

    fn push_edges(&mut self, vertex: VertexId) {
        let Some(outputs) = self.vertices.get(&vertex).map(|v| v.edges.keys().copied()) else {
            return;
        };
        for output in outputs.collect::<Vec<_>>() {
            self.push((vertex, output));
        }
    }

    fn vertex(&self, id: VertexId) -> &Vertex<O, E> {
        self.vertices
            .get(&id)
            .expect("an edge in use holds its vertex")
    }

    fn vertex_mut(&mut self, id: VertexId) -> &mut Vertex<O, E> {
        self.vertices
            .get_mut(&id)
            .expect("an edge in use holds its vertex")
    }

    fn edge(&self, (vertex, output): EdgeId) -> Option<&EdgeState<O>> {
        self.vertices.get(&vertex)?.edges.get(&output)
    }

    fn edge_mut(&mut self, (vertex, output): EdgeId) -> Option<&mut EdgeState<O>> {
        self.vertices.get_mut(&vertex)?.edges.get_mut(&output)
    }

    /// An edge known to be there.
    fn at(&self, edge: EdgeId) -> &EdgeState<O> {
        self.edge(edge).expect("the edge is in use")
    }

    /// An edge known to be there.
    fn at_mut(&mut self, edge: EdgeId) -> &mut EdgeState<O> {
        self.edge_mut(edge).expect("the edge is in use")
    }

    /// The edge, made if it is not there yet.
    fn make_edge(&mut self, (vertex, output): EdgeId) -> &mut EdgeState<O> {
        let vertex = self.vertex_mut(vertex);
        let inputs = vertex.inputs.len();
        vertex
            .edges
            .entry(output)
            .or_insert_with(|| EdgeState::new(inputs))
    }

    fn task(&mut self, task: Task) -> TaskId {
        self.next_task += 1;
        self.tasks.insert(TaskId(self.next_task), task);
        TaskId(self.next_task)
    }

    fn cancel(&mut self, task: TaskId) {
        if self.tasks.remove(&task).is_some() {
            self.actions.push(Action::Cancel { task });
        }
    }

    /// The stores all jobs of a vertex know.
    fn stores(&self, vertex: VertexId) -> Vec<StoreId> {
        let mut stores = BTreeSet::from([LOCAL]);
        for job in &self.vertex(vertex).jobs {
            stores.extend(self.jobs.get(job).into_iter().flat_map(|j| &j.stores));
        }
        stores.into_iter().collect()
    }

    /// The job whose op is used: the one that has waited longest.
    fn any_job(&self, vertex: VertexId) -> JobId {
        *self
            .vertex(vertex)
            .jobs
            .first()
            .expect("a vertex is held by a job")
    }

    fn has_job(&self, vertex: VertexId, job: JobId) -> bool {
        self.vertices
            .get(&vertex)
            .is_some_and(|v| v.jobs.contains(&job))
    }
}

impl<O> EdgeState<O> {
    fn new(inputs: usize) -> EdgeState<O> {
        EdgeState {
            demand: [0; 3],
            waiters: BTreeSet::new(),
            requests: BTreeSet::new(),
            stage: Stage::New,
            reached: None,
            inputs: std::iter::repeat_with(Input::default)
                .take(inputs)
                .collect(),
            open: 0,
            dead: false,
            dirty: Vec::new(),
            queued: false,
            matched: BTreeSet::new(),
            looked: BTreeSet::new(),
            maps_looked: 0,
            finding: None,
            records: Vec::new(),
            tried: BTreeSet::new(),
            loading: None,
            id: None,
            volatile: false,
            fresh: false,
            version: 0,
            output: None,
            from: None,
        }
    }

    /// The most anyone asks for.
    fn want(&self) -> Option<Level> {
        [Level::Output, Level::Slow, Level::Fast]
            .into_iter()
            .find(|level| self.demand[*level as usize] > 0)
    }
}

impl<O, E> Vertex<O, E> {
    /// The op's own answer is complete.
    fn mapped(&self) -> bool {
        self.maps.last().is_some_and(|map| map.last)
    }

    /// The map that describes the inputs.
    fn map(&self) -> &CacheMap {
        self.maps.last().expect("asked for before it is used")
    }
}
