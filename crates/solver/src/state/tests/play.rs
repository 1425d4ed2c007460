//! A state played by hand. What it asks for is written down, a short line each, and done at
//! once, unless the test holds it back.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use oci::Digest;

use super::super::{Fault, State, Task};
use crate::action::{Action, Miss};
use crate::event::{Declared, Event, JobId, LOCAL, RequestId, StoreId, TaskId, VertexId};
use crate::index::{Entry, Index, MemoryIndex, Record};
use crate::key::{CacheMap, Created, InputMap, KeyDigest, ResultId};

/// Why something failed here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Why {
    Op(String),
    State(Fault),
}

impl From<Fault> for Why {
    fn from(fault: Fault) -> Why {
        Why::State(fault)
    }
}

type Act = Action<String, Why>;

/// A vertex and what its op says and does.
#[derive(Clone)]
pub(super) struct Step {
    /// What its digest is made from.
    name: &'static str,
    /// What it does: the result is called so.
    deed: &'static str,
    inputs: Vec<(&'static str, u32)>,
    maps: Vec<CacheMap>,
    contents: Vec<Option<&'static str>>,
    outputs: usize,
    ignored: bool,
    limited: bool,
}

/// A step that works on the first outputs of others, or on another output: `make.1`.
pub(super) fn step(name: &'static str, inputs: &[&'static str]) -> Step {
    let edge = |input: &&'static str| match input.split_once('.') {
        Some((of, output)) => (of, output.parse().unwrap()),
        None => (*input, 0),
    };
    let inputs: Vec<_> = inputs.iter().map(edge).collect();
    let key = KeyDigest::Stable(Digest::of(name));
    Step {
        name,
        deed: name,
        maps: vec![CacheMap::new(key, inputs.len())],
        contents: vec![None; inputs.len()],
        inputs,
        outputs: 1,
        ignored: false,
        limited: false,
    }
}

impl Step {
    /// Does what another one does: it has its key.
    pub(super) fn does(mut self, deed: &'static str) -> Step {
        self.deed = deed;
        self.maps.last_mut().unwrap().digest = KeyDigest::Stable(Digest::of(deed));
        self
    }

    /// The input counts by content as well; the op sees this there.
    pub(super) fn sees(mut self, input: usize, content: impl Into<Option<&'static str>>) -> Step {
        self.maps.last_mut().unwrap().inputs[input] = InputMap {
            selector: Some(Digest::of("part")),
            by_content: true,
        };
        self.contents[input] = content.into();
        self
    }

    /// Its key means something in this session only.
    pub(super) fn local(mut self) -> Step {
        self.maps[0].digest = KeyDigest::Random(Digest::of(self.name));
        self
    }

    /// Has this cheaper key, too, which is looked for first.
    pub(super) fn first_known_by(mut self, key: &str) -> Step {
        let mut map = CacheMap::new(KeyDigest::Stable(Digest::of(key)), self.inputs.len());
        map.last = false;
        self.maps.insert(0, map);
        self
    }

    /// Its run gives another result than its key says.
    pub(super) fn run_gives(mut self, deed: &'static str) -> Step {
        self.deed = deed;
        self
    }

    pub(super) fn outputs(mut self, outputs: usize) -> Step {
        self.outputs = outputs;
        self
    }

    /// Earlier results do not count.
    pub(super) fn ignored(mut self) -> Step {
        self.ignored = true;
        self
    }

    pub(super) fn limited(mut self) -> Step {
        self.limited = true;
        self
    }

    /// Says that it has that many inputs, whatever is true.
    pub(super) fn claims_inputs(mut self, inputs: usize) -> Step {
        self.maps[0].inputs.resize(inputs, InputMap::default());
        self
    }

    fn run(&self, inputs: &[String]) -> Vec<String> {
        let mut whole = format!("{}({})", self.deed, inputs.join(","));
        if whole.len() > 200 {
            // Names of deep graphs would grow with their depth.
            whole = Digest::of(whole).to_string();
        }
        let rest = (1..self.outputs).map(|number| format!("{whole}.{number}"));
        [whole.clone()].into_iter().chain(rest).collect()
    }
}

pub(super) struct Play {
    pub(super) state: State<String, Why>,
    steps: HashMap<(JobId, VertexId), Step>,
    names: HashMap<VertexId, &'static str>,
    /// What was asked for and is not done yet.
    open: BTreeMap<TaskId, (String, Act)>,
    /// Beginnings of lines that are not done until the test says so.
    held: Vec<String>,
    said: Vec<String>,
    pub(super) stores: BTreeMap<StoreId, MemoryIndex>,
    /// Where results are saved.
    pub(super) saves_to: StoreId,
    /// Results that cannot be loaded any more.
    pub(super) gone: BTreeSet<&'static str>,
    clock: i64,
}

impl Play {
    pub(super) fn new(limit: Option<usize>) -> Play {
        let stores = [LOCAL, ELSEWHERE, FARTHER].map(|store| (store, MemoryIndex::new()));
        Play {
            state: State::new(limit),
            steps: HashMap::new(),
            names: HashMap::new(),
            open: BTreeMap::new(),
            held: Vec::new(),
            said: Vec::new(),
            stores: stores.into(),
            saves_to: LOCAL,
            gone: BTreeSet::new(),
            clock: 0,
        }
    }

    /// A job comes with these steps, inputs first.
    pub(super) fn job(&mut self, job: u64, steps: &[Step]) {
        self.tell(Event::JobCame { job: JobId(job) });
        self.declare(job, steps);
    }

    /// A job that also knows a store.
    pub(super) fn job_with(&mut self, job: u64, store: StoreId, steps: &[Step]) {
        self.tell(Event::JobCame { job: JobId(job) });
        let event = Event::StoreCame {
            job: JobId(job),
            store,
        };
        self.tell(event);
        self.declare(job, steps);
    }

    pub(super) fn declare(&mut self, job: u64, steps: &[Step]) {
        let job = JobId(job);
        let declared = steps.iter().map(|step| Declared {
            digest: Digest::of(step.name),
            inputs: step.inputs.iter().map(|i| (Digest::of(i.0), i.1)).collect(),
            ignore_cache: step.ignored,
            limited: step.limited,
        });
        let vertices = declared.collect();
        self.tell(Event::Declared { job, vertices });
        for step in steps {
            if let Some(id) = self.state.vertex_of(job, &Digest::of(step.name)) {
                self.names.insert(id, step.name);
                self.steps.insert((job, id), step.clone());
            }
        }
    }

    /// The job wants the output of a step; the number of the question is its own here.
    pub(super) fn want(&mut self, job: u64, request: u64, edge: &str) {
        self.want_within(job, request, edge, None);
    }

    pub(super) fn want_within(&mut self, job: u64, request: u64, edge: &str, run: Option<&str>) {
        let (name, output) = edge.split_once('.').unwrap_or((edge, "0"));
        self.tell(Event::Wanted {
            job: JobId(job),
            request: RequestId(request),
            vertex: Digest::of(name),
            output: output.parse().unwrap(),
            within: run.map(|run| self.id(job, run)),
        });
    }

    pub(super) fn withdraw(&mut self, request: u64) {
        let request = RequestId(request);
        self.tell(Event::Withdrawn { request });
    }

    pub(super) fn leave(&mut self, job: u64) {
        self.tell(Event::JobLeft { job: JobId(job) });
    }

    /// One whole build in a job of its own; gives what was said from its first question on.
    pub(super) fn build(&mut self, job: u64, steps: &[Step], edge: &str) -> Vec<String> {
        self.job(job, steps);
        self.said.clear();
        self.want(job, job, edge);
        let said = self.said();
        self.leave(job);
        self.said.clear();
        assert!(self.state.is_empty(), "something is held: {:?}", self.state);
        said
    }

    /// The local store forgets a result; its node stays as long as it leads somewhere.
    pub(super) fn forget(&mut self, result: &str) {
        let result = ResultId(result.to_owned());
        self.stores[&LOCAL].release(&result).unwrap();
    }

    pub(super) fn id(&self, job: u64, name: &str) -> VertexId {
        let digest = Digest::of(name);
        self.state.vertex_of(JobId(job), &digest).unwrap()
    }

    /// What begins like this is not done until [`Play::release`].
    pub(super) fn hold(&mut self, line: &str) {
        self.held.push(line.to_owned());
    }

    pub(super) fn release(&mut self, line: &str) {
        self.held.retain(|held| held != line);
        self.work();
    }

    /// The work of this line, which was held, fails.
    pub(super) fn fail(&mut self, line: &str) {
        let event = match self.take_open(line) {
            Action::AskMap { task, .. } => Event::MapFound {
                task,
                result: Err(Why::Op(line.to_owned())),
            },
            Action::FindContent { task, .. } => Event::ContentFound {
                task,
                result: Err(Why::Op(line.to_owned())),
            },
            Action::Run { task, .. } => Event::Ran {
                task,
                result: Err(Why::Op(line.to_owned())),
            },
            Action::Load { task, .. } => Event::Loaded { task, output: None },
            other => panic!("{other:?} cannot fail"),
        };
        self.tell(event);
    }

    /// The work of this line, which was held, is done; the others go on being held.
    pub(super) fn done(&mut self, line: &str) {
        let act = self.take_open(line);
        let event = self.does(act);
        self.tell(event);
    }

    fn take_open(&mut self, line: &str) -> Act {
        let mut of = self.open.iter().filter(|(_, (open, _))| open == line);
        let task = of.next().map(|(task, _)| *task);
        let task = task.unwrap_or_else(|| panic!("{line} is not open: {:?}", self.open()));
        self.open.remove(&task).unwrap().1
    }

    /// The lines of what is not done yet.
    pub(super) fn open(&self) -> Vec<&str> {
        self.open.values().map(|(line, _)| line.as_str()).collect()
    }

    /// What was asked for since the last look.
    pub(super) fn said(&mut self) -> Vec<String> {
        std::mem::take(&mut self.said)
    }

    /// The same, only what begins like this.
    pub(super) fn said_of(&mut self, beginnings: &[&str]) -> Vec<String> {
        let mut said = self.said();
        said.retain(|line| beginnings.iter().any(|of| line.starts_with(of)));
        said
    }

    pub(super) fn tell(&mut self, event: Event<String, Why>) {
        self.apply(event);
        self.work();
    }

    fn work(&mut self) {
        while let Some(task) = self.first_free() {
            let (_, act) = self.open.remove(&task).unwrap();
            let event = self.does(act);
            self.apply(event);
        }
    }

    /// The oldest work that is not held.
    fn first_free(&self) -> Option<TaskId> {
        let held = |line: &str| self.held.iter().any(|held| line.starts_with(held));
        let mut open = self.open.iter();
        let (task, _) = open.find(|(_, (line, _))| !held(line))?;
        Some(*task)
    }

    fn apply(&mut self, event: Event<String, Why>) {
        for act in self.state.apply(event) {
            let line = self.line(&act);
            self.said.push(line.clone());
            match act {
                Action::AskMap { task, .. }
                | Action::Probe { task, .. }
                | Action::FindRecords { task, .. }
                | Action::Load { task, .. }
                | Action::FindContent { task, .. }
                | Action::Run { task, .. } => {
                    self.open.insert(task, (line, act));
                }
                Action::Save {
                    nodes,
                    output,
                    keys,
                    created,
                } => {
                    self.clock += 1;
                    let created = created.unwrap_or(Created(self.clock));
                    let result = Some((ResultId(output), created, keys));
                    let entry = Entry { nodes, result };
                    self.stores[&self.saves_to].save(&[entry]).unwrap();
                }
                Action::Cancel { task } => {
                    let stopped = self.open.remove(&task).expect("what is stopped is open");
                    *self.said.last_mut().unwrap() = format!("stop {}", stopped.0);
                }
                Action::Reply { .. } | Action::ShowCached { .. } => {}
                Action::Explain { .. } | Action::Forget { .. } => {}
            }
        }
    }

    fn line(&self, act: &Act) -> String {
        let name = |id: &VertexId| self.names[id];
        match act {
            Action::AskMap { vertex, index, .. } => format!("map {} {index}", name(vertex)),
            Action::Probe { task, probes, .. } => {
                let Some(Task::Probe {
                    edge,
                    input,
                    content,
                    ..
                }) = self.state.tasks.get(task)
                else {
                    panic!("{act:?} was not noted");
                };
                let how = if *content { "content" } else { "key" };
                let count = probes.len();
                format!("follow {} {input} {how} x{count}", name(&edge.0))
            }
            Action::FindRecords { task, keys, stores } => {
                let (what, edge) = match self.state.tasks.get(task) {
                    Some(Task::Records { edge }) => ("records", edge),
                    Some(Task::Confirm { edge }) => ("confirm", edge),
                    other => panic!("{other:?}"),
                };
                let (keys, stores) = (keys.len(), stores.len());
                format!("{what} {} x{keys} in {stores}", name(&edge.0))
            }
            Action::Load { vertex, record, .. } => {
                let store = record.store.0;
                format!("load {} {} of {store}", name(vertex), record.result.0)
            }
            Action::FindContent { vertex, input, .. } => {
                format!("content {} {input}", name(vertex))
            }
            Action::Run { vertex, .. } => format!("run {}", name(vertex)),
            Action::Save {
                nodes,
                output,
                keys,
                ..
            } => {
                let links: usize = nodes.iter().map(|node| node.links.len()).sum();
                let (keys, nodes) = (keys.len(), nodes.len());
                format!("save {output} x{keys}, {nodes} nodes, {links} links")
            }
            Action::Cancel { task } => format!("stop {task:?}"),
            Action::Reply { request, result } => match result {
                Ok(output) => format!("reply {} {output}", request.0),
                Err(Why::Op(of)) => format!("reply {} failed: {of}", request.0),
                Err(Why::State(fault)) => format!("reply {} {fault:?}", request.0),
            },
            Action::ShowCached { vertex } => format!("cached {}", name(vertex)),
            Action::Explain { vertex, miss } => format!("miss {} {}", name(vertex), missed(miss)),
            Action::Forget { vertex } => format!("forget {}", name(vertex)),
        }
    }

    /// Does what was asked for; gives what comes of it.
    fn does(&self, act: Act) -> Event<String, Why> {
        match act {
            Action::AskMap {
                task,
                vertex,
                job,
                index,
            } => Event::MapFound {
                task,
                result: Ok(self.steps[&(job, vertex)].maps[index].clone()),
            },
            Action::Probe {
                task,
                probes,
                stores,
            } => {
                let mut found = BTreeSet::new();
                for probe in probes {
                    for store in one_of(probe.store, &stores) {
                        let children = self.stores[&store].children(&probe.from, &probe.link);
                        found.extend(children.unwrap().into_iter().map(|key| (store, key)));
                    }
                }
                let found = found.into_iter().collect();
                Event::Probed { task, found }
            }
            Action::FindRecords { task, keys, stores } => {
                let mut records = Vec::new();
                for (only, key) in keys {
                    for store in one_of(only, &stores) {
                        let found = self.stores[&store].records(&key).unwrap();
                        records.extend(found.into_iter().map(|(result, created)| Record {
                            store,
                            key,
                            result,
                            created,
                        }));
                    }
                }
                Event::RecordsFound { task, records }
            }
            Action::Load { task, record, .. } => {
                let there = !self.gone.contains(record.result.0.as_str());
                let output = there.then_some(record.result.0);
                Event::Loaded { task, output }
            }
            Action::FindContent {
                task,
                vertex,
                job,
                input,
                ..
            } => Event::ContentFound {
                task,
                result: Ok(self.steps[&(job, vertex)].contents[input].map(Digest::of)),
            },
            Action::Run {
                task,
                vertex,
                job,
                inputs,
            } => Event::Ran {
                task,
                result: Ok(self.steps[&(job, vertex)].run(&inputs)),
            },
            other => panic!("{other:?} is no work"),
        }
    }
}

/// A store that some builds know.
pub(super) const ELSEWHERE: StoreId = StoreId(7);
/// Another one.
pub(super) const FARTHER: StoreId = StoreId(9);

fn one_of(only: Option<StoreId>, stores: &[StoreId]) -> Vec<StoreId> {
    let meant = stores
        .iter()
        .filter(|store| only.is_none_or(|o| o == **store));
    meant.copied().collect()
}

fn missed(miss: &Miss) -> String {
    match miss {
        Miss::Ignored => "ignored".to_owned(),
        Miss::NoRecord { keys } => format!("no record of {} keys", keys.len()),
        Miss::Inputs { unknown, known, .. } => {
            let unknown = unknown.iter().map(|input| {
                let seen = if input.content.is_some() { " seen" } else { "" };
                format!("{} by {}{seen}", input.input, input.tried.len())
            });
            let unknown = unknown.collect::<Vec<_>>().join(", ");
            format!("inputs unknown: {unknown}; {known} known")
        }
        Miss::NoCommonResult { .. } => "no common result".to_owned(),
        Miss::Gone { .. } => "gone".to_owned(),
    }
}
