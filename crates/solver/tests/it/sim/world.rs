//! The state, the builds that use it, and the work that is not done yet.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use oci::Digest;
use solver::action::Action;
use solver::event::{Event, JobId, RequestId, StoreId, TaskId, VertexId};
use solver::state::{Fault, State};
use solver::{Created, Entry, Index, MemoryIndex, ResultId};

use super::dice::Dice;
use super::graph::Graph;

pub(super) const IMPORTED: StoreId = StoreId(7);

/// Why work failed in this world: the op of this job broke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    Op(JobId),
    State(Fault),
}

impl From<Fault> for Broken {
    fn from(fault: Fault) -> Broken {
        Broken::State(fault)
    }
}

pub(super) type Act = Action<u64, Broken>;

pub(super) struct Build {
    pub(super) graph: Graph,
    pub(super) values: HashMap<(Digest, u32), u64>,
}

/// What was done, by the names of vertices, each time it was.
#[derive(Default)]
pub(super) struct Did {
    pub(super) runs: Vec<Digest>,
    pub(super) loads: Vec<Digest>,
    pub(super) contents: Vec<(Digest, usize)>,
}

pub(super) struct World {
    pub(super) state: State<u64, Broken>,
    pub(super) dice: Dice,
    pub(super) jobs: BTreeMap<JobId, Build>,
    pub(super) waiting: BTreeMap<RequestId, (JobId, Digest, u32)>,
    pub(super) to_do: BTreeMap<TaskId, Act>,
    /// Runs that asked for something and wait for the answer.
    pub(super) parked: BTreeMap<RequestId, (Act, JobId, Digest, u32)>,
    /// Runs that have asked, so that each does it once.
    pub(super) asked: BTreeSet<TaskId>,
    /// Questions of runs that were stopped.
    pub(super) withdrawn: Vec<RequestId>,
    /// The digest of each vertex the state has spoken of.
    pub(super) names: HashMap<VertexId, Digest>,
    pub(super) index: MemoryIndex,
    pub(super) imported: MemoryIndex,
    pub(super) results: HashMap<ResultId, u64>,
    pub(super) lost: BTreeSet<ResultId>,
    pub(super) clock: i64,
    pub(super) next: u64,
    pub(super) log: u64,
    pub(super) limit: usize,
    pub(super) at: String,
    /// How often what happened, so that we see that it does happen.
    pub(super) seen: BTreeMap<&'static str, u64>,
    /// Nothing breaks and nothing is lost.
    pub(super) calm: bool,
    /// What was done, for those who count.
    pub(super) did: Did,
    /// Vertices of which it was said why nothing was found for them.
    pub(super) explained: BTreeSet<VertexId>,
}

impl World {
    pub(super) fn new(seed: u64) -> World {
        let mut dice = Dice(seed);
        let limit = 1 + dice.roll(3) as usize;
        World {
            state: State::new(Some(limit)),
            dice,
            jobs: BTreeMap::new(),
            waiting: BTreeMap::new(),
            to_do: BTreeMap::new(),
            parked: BTreeMap::new(),
            asked: BTreeSet::new(),
            withdrawn: Vec::new(),
            names: HashMap::new(),
            index: MemoryIndex::new(),
            imported: MemoryIndex::new(),
            results: HashMap::new(),
            lost: BTreeSet::new(),
            clock: 0,
            next: 0,
            log: 0,
            limit,
            at: String::new(),
            seen: BTreeMap::new(),
            calm: false,
            did: Did::default(),
            explained: BTreeSet::new(),
        }
    }

    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(super) fn event(&mut self, event: Event<u64, Broken>) {
        self.apply(event);
        while let Some(request) = self.withdrawn.pop() {
            self.apply(Event::Withdrawn { request });
        }
        self.check();
    }

    pub(super) fn apply(&mut self, event: Event<u64, Broken>) {
        let text = format!("{event:?}");
        let actions = self.state.apply(event);
        let text = format!("{text} => {actions:?}");
        if std::env::var("SEED").is_ok() {
            use std::io::Write as _;
            let mut out = std::io::stderr();
            writeln!(out, "{} {text}", self.at).expect("stderr is there");
        }
        let text: Vec<u64> = text.bytes().map(u64::from).collect();
        self.log = super::evaluator::hash(&[&[self.log], &text[..]].concat());
        for action in actions {
            self.act(action);
        }
    }

    pub(super) fn act(&mut self, action: Act) {
        let at = &self.at;
        match action {
            Action::AskMap { task, .. }
            | Action::Probe { task, .. }
            | Action::FindRecords { task, .. }
            | Action::FindContent { task, .. }
            | Action::Run { task, .. }
            | Action::Load { task, .. } => {
                if let Action::AskMap { job, .. }
                | Action::FindContent { job, .. }
                | Action::Load { job, .. }
                | Action::Run { job, .. } = &action
                {
                    assert!(
                        self.jobs.contains_key(job),
                        "{at}: work for a job that has left"
                    );
                }
                assert!(
                    self.to_do.insert(task, action).is_none(),
                    "{at}: {task:?} twice"
                );
            }
            Action::Save {
                nodes,
                output,
                keys,
                created,
            } => {
                self.clock += 1;
                let created = created.unwrap_or(Created(self.clock));
                let id = ResultId(format!("r{output}-{}", self.clock));
                self.results.insert(id.clone(), output);
                let result = Some((id, created, keys));
                let entry = Entry { nodes, result };
                if self.calm || self.dice.chance(30) {
                    self.imported.save(std::slice::from_ref(&entry)).unwrap();
                }
                self.index.save(&[entry]).unwrap();
            }
            Action::Cancel { task } => {
                let asks = self.parked.iter();
                let asks = asks.filter(|(_, (action, ..))| task_of(action) == Some(task));
                if let Some(request) = asks.map(|(request, _)| *request).next() {
                    self.parked.remove(&request);
                    self.withdrawn.push(request);
                } else {
                    assert!(
                        self.to_do.remove(&task).is_some(),
                        "{at}: {task:?} is not there"
                    );
                }
                *self.seen.entry("canceled").or_default() += 1;
            }
            Action::Reply { request, result } => self.answered(request, result),
            Action::ShowCached { .. } => {}
            Action::Explain { vertex, .. } => {
                self.explained.insert(vertex);
            }
            Action::Forget { vertex } => {
                self.names.remove(&vertex);
            }
        }
    }
}

pub(super) fn task_of(action: &Act) -> Option<TaskId> {
    match action {
        Action::Run { task, .. } => Some(*task),
        _ => None,
    }
}
