//! A world of builds that come, wait and leave, played from one seed.
//! `SEED=42 cargo test -p solver sim` plays one world again, step for step.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use oci::Digest;
use solver::action::Action;
use solver::event::{Declared, Event, JobId, LOCAL, RequestId, StoreId, TaskId, VertexId};
use solver::state::{Fault, State};
use solver::{Created, Entry, Index, MemoryIndex, Record, ResultId};

use crate::dice::Dice;
use crate::oracle::Graph;

const IMPORTED: StoreId = StoreId(7);

/// Why work failed in this world: the op of this job broke.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Broken {
    Op(JobId),
    State(Fault),
}

impl From<Fault> for Broken {
    fn from(fault: Fault) -> Broken {
        Broken::State(fault)
    }
}

type Act = Action<u64, Broken>;

struct Build {
    graph: Graph,
    values: HashMap<(Digest, u32), u64>,
}

struct World {
    state: State<u64, Broken>,
    dice: Dice,
    jobs: BTreeMap<JobId, Build>,
    waiting: BTreeMap<RequestId, (JobId, Digest, u32)>,
    to_do: BTreeMap<TaskId, Act>,
    /// Runs that asked for something and wait for the answer.
    parked: BTreeMap<RequestId, (Act, JobId, Digest, u32)>,
    /// Runs that have asked, so that each does it once.
    asked: BTreeSet<TaskId>,
    /// Questions of runs that were stopped.
    withdrawn: Vec<RequestId>,
    /// The digest of each vertex the state has spoken of.
    names: HashMap<VertexId, Digest>,
    index: MemoryIndex,
    imported: MemoryIndex,
    results: HashMap<ResultId, u64>,
    lost: BTreeSet<ResultId>,
    clock: i64,
    next: u64,
    log: u64,
    limit: usize,
    at: String,
    /// How often what happened, so that we see that it does happen.
    seen: BTreeMap<&'static str, u64>,
    /// Nothing breaks and nothing is lost.
    calm: bool,
    /// What ran, by name.
    ran: Vec<Digest>,
    /// Vertices of which it was said why nothing was found for them.
    explained: BTreeSet<VertexId>,
}

impl World {
    fn new(seed: u64) -> World {
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
            ran: Vec::new(),
            explained: BTreeSet::new(),
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn event(&mut self, event: Event<u64, Broken>) {
        self.apply(event);
        while let Some(request) = self.withdrawn.pop() {
            self.apply(Event::Withdrawn { request });
        }
        self.check();
    }

    fn apply(&mut self, event: Event<u64, Broken>) {
        let text = format!("{event:?}");
        let actions = self.state.apply(event);
        let text = format!("{text} => {actions:?}");
        if std::env::var("SEED").is_ok() {
            use std::io::Write as _;
            let mut out = std::io::stderr();
            writeln!(out, "{} {text}", self.at).expect("stderr is there");
        }
        let text: Vec<u64> = text.bytes().map(u64::from).collect();
        self.log = crate::oracle::hash(&[&[self.log], &text[..]].concat());
        for action in actions {
            self.act(action);
        }
    }

    fn act(&mut self, action: Act) {
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
                result,
                created,
            } => {
                self.clock += 1;
                let created = created.unwrap_or(Created(self.clock));
                let result = result.map(|(value, keys)| {
                    let id = ResultId(format!("r{value}-{}", self.clock));
                    self.results.insert(id.clone(), value);
                    (id, created, keys)
                });
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

    fn answered(&mut self, request: RequestId, result: Result<u64, Broken>) {
        let at = &self.at;
        if self.withdrawn.contains(&request) {
            return;
        }
        let (job, digest, output) = match self.parked.remove(&request) {
            Some((action, job, digest, output)) => {
                let task = task_of(&action).expect("a run");
                self.to_do.insert(task, action);
                (job, digest, output)
            }
            None => self
                .waiting
                .remove(&request)
                .unwrap_or_else(|| panic!("{at}: {request:?} is answered but nobody asked")),
        };
        match result {
            Ok(value) => {
                let right = self.jobs[&job].values[&(digest, output)];
                assert_eq!(value, right, "{at}: a wrong result for {job:?}");
                *self.seen.entry("answered").or_default() += 1;
            }
            Err(Broken::Op(of)) => {
                assert!(
                    self.jobs.contains_key(&of),
                    "{at}: failed by a job that has left"
                );
                *self.seen.entry("failed").or_default() += 1;
            }
            Err(Broken::State(Fault::Canceled)) => {
                assert!(
                    !self.jobs.contains_key(&job),
                    "{at}: canceled but the job is there"
                );
            }
            Err(Broken::State(Fault::Cycle(_))) => {
                *self.seen.entry("in a circle").or_default() += 1;
            }
            Err(Broken::State(fault)) => panic!("{at}: {fault:?}"),
        }
    }

    /// What must hold at every moment.
    fn check(&self) {
        let at = &self.at;
        assert!(
            self.jobs.is_empty() || !self.state.is_empty(),
            "{at}: builds are there but nothing is held"
        );
        if self.waiting.is_empty() {
            assert!(
                self.to_do.is_empty() && self.parked.is_empty(),
                "{at}: nobody waits but there is work"
            );
        } else {
            assert!(
                !self.to_do.is_empty(),
                "{at}: builds wait but nothing is done"
            );
        }
        let mut running = BTreeSet::new();
        let mut limited = 0;
        let parked = self.parked.values().map(|(action, ..)| action);
        for action in self.to_do.values().chain(parked) {
            if let Action::Run { vertex, job, .. } = action {
                assert!(running.insert(*vertex), "{at}: two runs of one vertex");
                if let (Some(build), Some(name)) = (self.jobs.get(job), self.names.get(vertex)) {
                    limited += usize::from(build.graph.thing(name).limited);
                }
            }
        }
        assert!(limited <= self.limit, "{at}: {limited} limited runs");
    }

    fn build_comes(&mut self) {
        let job = JobId(self.number());
        let graph = Graph::random(&mut self.dice, job);
        let import = self.dice.chance(40);
        self.job_comes(job, graph, import);
        self.build_asks(job);
    }

    fn job_comes(&mut self, job: JobId, graph: Graph, import: bool) {
        let values = graph.values();
        let declared = graph.things.iter().map(|thing| Declared {
            digest: thing.digest,
            inputs: thing
                .inputs
                .iter()
                .map(|(i, o)| (graph.things[*i].digest, *o))
                .collect(),
            ignore_cache: thing.ignore_cache,
            limited: thing.limited,
        });
        let vertices = declared.collect();
        self.jobs.insert(job, Build { graph, values });
        self.event(Event::JobCame { job });
        if import {
            self.event(Event::StoreCame {
                job,
                store: IMPORTED,
            });
        }
        self.event(Event::Declared { job, vertices });
        for thing in &self.jobs[&job].graph.things {
            if let Some(vertex) = self.state.vertex_of(job, &thing.digest) {
                self.names.insert(vertex, thing.digest);
            }
        }
    }

    fn build_asks(&mut self, job: JobId) {
        let things = &self.jobs[&job].graph.things;
        let at = things.len() - 1 - self.dice.roll(things.len().min(3) as u64) as usize;
        let (vertex, outputs) = (things[at].digest, things[at].outputs);
        let output = self.dice.roll(u64::from(outputs)) as u32;
        self.build_asks_for(job, vertex, output);
    }

    fn build_asks_for(&mut self, job: JobId, vertex: Digest, output: u32) {
        let request = RequestId(self.number());
        self.waiting.insert(request, (job, vertex, output));
        self.event(Event::Wanted {
            job,
            request,
            vertex,
            output,
            within: None,
        });
    }

    /// Now and then a run finds out that it needs something more, whatever that is: perhaps
    /// what waits for it.
    fn run_asks(&mut self, task: TaskId, action: &Act) -> bool {
        let Action::Run { vertex, job, .. } = *action else {
            return false;
        };
        let Some((build, name)) = self.op(vertex, job) else {
            return false;
        };
        // One that holds a place must not wait for others that need one.
        let limited = build.graph.thing(&name).limited;
        let things = build.graph.things.len() as u64;
        if limited || self.calm || !self.dice.chance(30) || !self.asked.insert(task) {
            return false;
        }
        let at = self.dice.roll(things) as usize;
        let thing = &self.jobs[&job].graph.things[at];
        let (digest, outputs) = (thing.digest, thing.outputs);
        let output = self.dice.roll(u64::from(outputs)) as u32;
        let request = RequestId(self.number());
        let waiting = (action.clone(), job, digest, output);
        self.parked.insert(request, waiting);
        *self.seen.entry("asked within").or_default() += 1;
        self.event(Event::Wanted {
            job,
            request,
            vertex: digest,
            output,
            within: Some(vertex),
        });
        true
    }

    fn some_job(&mut self) -> Option<JobId> {
        let count = self.jobs.len() as u64;
        (count > 0)
            .then(|| self.dice.roll(count) as usize)
            .and_then(|n| self.jobs.keys().nth(n).copied())
    }

    fn job_leaves(&mut self, job: JobId) {
        self.jobs.remove(&job);
        self.event(Event::JobLeft { job });
        *self.seen.entry("left").or_default() += 1;
    }

    fn some_work_ends(&mut self) {
        let count = self.to_do.len() as u64;
        if count == 0 {
            return;
        }
        let task = *self
            .to_do
            .keys()
            .nth(self.dice.roll(count) as usize)
            .unwrap();
        let action = self.to_do.remove(&task).unwrap();
        if self.run_asks(task, &action) {
            return;
        }
        let event = self.work(action);
        self.event(event);
    }

    /// An op of a job that has left may find its session gone.
    fn breaks(&mut self, job: JobId) -> bool {
        if self.calm {
            return false;
        }
        let percent = if self.jobs.contains_key(&job) { 3 } else { 50 };
        self.dice.chance(percent)
    }

    fn work(&mut self, action: Act) -> Event<u64, Broken> {
        match action {
            Action::AskMap {
                task,
                vertex,
                job,
                index,
            } => {
                let result = match self.op(vertex, job) {
                    Some((build, name)) => Ok(build.graph.cache_map(&name, index)),
                    None => Err(Broken::Op(job)),
                };
                let result = if self.breaks(job) {
                    Err(Broken::Op(job))
                } else {
                    result
                };
                Event::MapFound { task, result }
            }
            Action::Probe {
                task,
                probes,
                stores,
            } => {
                let mut found = BTreeSet::new();
                for probe in probes {
                    for store in &stores {
                        if probe.store.is_none_or(|only| only == *store) {
                            let keys = self.index_of(*store).children(&probe.from, &probe.link);
                            found.extend(keys.unwrap().into_iter().map(|key| (*store, key)));
                        }
                    }
                }
                Event::Probed {
                    task,
                    found: found.into_iter().collect(),
                }
            }
            Action::FindRecords { task, keys, stores } => {
                let mut records = Vec::new();
                for (only, key) in keys {
                    for store in stores
                        .iter()
                        .filter(|s| only.is_none_or(|only| only == **s))
                    {
                        for (result, created) in self.index_of(*store).records(&key).unwrap() {
                            records.push(Record {
                                store: *store,
                                key,
                                result,
                                created,
                            });
                        }
                    }
                }
                Event::RecordsFound { task, records }
            }
            Action::Load { task, record, .. } => {
                let there =
                    !self.lost.contains(&record.result) && (self.calm || !self.dice.chance(5));
                *self
                    .seen
                    .entry(if there { "loaded" } else { "gone" })
                    .or_default() += 1;
                let output = there.then(|| self.results[&record.result]);
                Event::Loaded { task, output }
            }
            Action::FindContent {
                task,
                vertex,
                job,
                input,
                output,
            } => {
                let result = match self.op(vertex, job) {
                    Some((build, name)) => Ok(build.graph.content(&name, input, output)),
                    None => Err(Broken::Op(job)),
                };
                let result = if self.breaks(job) {
                    Err(Broken::Op(job))
                } else {
                    result
                };
                Event::ContentFound { task, result }
            }
            Action::Run {
                task,
                vertex,
                job,
                inputs,
            } => {
                *self.seen.entry("ran").or_default() += 1;
                if let Some(name) = self.names.get(&vertex) {
                    self.ran.push(*name);
                }
                if self.calm {
                    let at = &self.at;
                    assert!(
                        self.explained.contains(&vertex),
                        "{at}: it runs and nobody said why"
                    );
                }
                let result = match self.op(vertex, job) {
                    Some((build, name)) => Ok(build.graph.run(&name, &inputs)),
                    None => Err(Broken::Op(job)),
                };
                let result = if self.breaks(job) {
                    Err(Broken::Op(job))
                } else {
                    result
                };
                Event::Ran { task, result }
            }
            other => panic!("{}: {other:?} is no work", self.at),
        }
    }

    /// A job's build and the digest of the vertex there; nothing when it has left.
    fn op(&self, vertex: VertexId, job: JobId) -> Option<(&Build, Digest)> {
        let build = self.jobs.get(&job)?;
        let digest = build
            .graph
            .things
            .iter()
            .map(|thing| thing.digest)
            .find(|digest| self.state.vertex_of(job, digest) == Some(vertex))?;
        Some((build, digest))
    }

    fn index_of(&self, store: StoreId) -> &MemoryIndex {
        if store == LOCAL {
            &self.index
        } else {
            &self.imported
        }
    }

    /// The machine restarts: what is on disk stays.
    fn restart(&mut self) {
        self.jobs.clear();
        self.waiting.clear();
        self.to_do.clear();
        self.parked.clear();
        self.asked.clear();
        self.names.clear();
        self.state = State::new(Some(self.limit));
        *self.seen.entry("restarted").or_default() += 1;
    }

    /// The same, and the disk is empty: what another machine exported is all there is.
    fn restart_with_import_only(&mut self) {
        self.restart();
        self.index = MemoryIndex::new();
    }

    fn lose_something(&mut self) {
        let count = self.results.len() as u64;
        if count == 0 {
            return;
        }
        let mut names: Vec<_> = self.results.keys().cloned().collect();
        names.sort();
        let lost = names.swap_remove(self.dice.roll(count) as usize);
        if self.dice.chance(50) {
            self.index.release(&lost).unwrap();
        }
        self.lost.insert(lost);
    }

    fn step(&mut self) {
        match self.dice.roll(100) {
            0..8 if self.jobs.len() < 6 => self.build_comes(),
            8..12 => {
                if let Some(job) = self.some_job() {
                    self.job_leaves(job);
                }
            }
            12..15 => {
                if let Some(job) = self.some_job() {
                    self.build_asks(job);
                }
            }
            15..17 => {
                if let Some(request) = self.waiting.keys().next().copied() {
                    self.waiting.remove(&request);
                    self.event(Event::Withdrawn { request });
                }
            }
            17..19 => self.lose_something(),
            19 if self.dice.chance(20) => self.restart(),
            _ => self.some_work_ends(),
        }
    }
}

fn task_of(action: &Act) -> Option<TaskId> {
    match action {
        Action::Run { task, .. } => Some(*task),
        _ => None,
    }
}

fn play(seed: u64) -> (u64, BTreeMap<&'static str, u64>) {
    let mut world = World::new(seed);
    for step in 0..250 {
        world.at = format!("seed {seed} step {step}");
        world.step();
    }
    world.at = format!("seed {seed} at the end");
    while !world.to_do.is_empty() {
        world.some_work_ends();
    }
    assert!(
        world.waiting.is_empty() && world.parked.is_empty(),
        "{}: builds left without an answer",
        world.at
    );
    for job in world.jobs.keys().copied().collect::<Vec<_>>() {
        world.job_leaves(job);
    }
    assert!(
        world.state.is_empty(),
        "{}: something is still held",
        world.at
    );
    (world.log, world.seen)
}

/// Rows: C01, C02, C03, C04, C05, C06, C10, L15, Z1
#[test]
fn sim_every_build_gets_the_right_answer() {
    let seeds = match std::env::var("SEED") {
        Ok(seed) => vec![seed.parse().expect("SEED is a number")],
        Err(_) => (0..500).collect(),
    };
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in seeds.iter().copied() {
        for (what, count) in play(seed).1 {
            *seen.entry(what).or_default() += count;
        }
    }
    if seeds.len() > 1 {
        for what in [
            "answered",
            "failed",
            "canceled",
            "left",
            "loaded",
            "gone",
            "ran",
            "restarted",
            "asked within",
            "in a circle",
        ] {
            assert!(
                seen.get(what).is_some_and(|count| *count > 100),
                "{what} hardly happens: {seen:?}"
            );
        }
    }
}

#[test]
fn sim_is_the_same_each_time() {
    for seed in 0..100 {
        assert_eq!(play(seed), play(seed), "seed {seed}");
    }
}

/// What was built is found again: by another build, after a restart, from another store. The
/// same graph again runs only what has no key that means something to others.
/// Rows: C02, C03, C04, Z1
#[test]
fn sim_what_was_built_is_not_built_again() {
    let (mut again, mut spared) = (0, 0);
    for seed in 0..300 {
        let mut world = World::new(seed);
        world.calm = true;
        world.at = format!("calm seed {seed}");
        let job = JobId(1);
        let mut graph = Graph::random(&mut world.dice, job);
        for thing in &mut graph.things {
            thing.ignore_cache = false;
        }
        let cached = graph.cached();
        build_all(&mut world, job, &graph);
        let first = std::mem::take(&mut world.ran);
        match seed % 3 {
            0 => {}
            1 => world.restart(),
            // All that is known came from elsewhere.
            _ => world.restart_with_import_only(),
        }
        build_all(&mut world, JobId(2), &graph);
        let at = &world.at;
        for name in &world.ran {
            assert!(!cached.contains(name), "{at}: a step ran again");
        }
        again += world.ran.len();
        spared += first.len() - world.ran.len();
        assert!(world.state.is_empty(), "{at}: something is still held");
    }
    assert!(again > 50 && spared > 200, "{again} again, {spared} spared");
}

/// One build that wants the last vertex, to its end.
fn build_all(world: &mut World, job: JobId, graph: &Graph) {
    world.job_comes(job, graph.clone(), true);
    let last = graph.things.last().expect("a graph has vertices");
    for output in 0..last.outputs {
        world.build_asks_for(job, last.digest, output);
    }
    while !world.to_do.is_empty() {
        world.some_work_ends();
    }
    let at = &world.at;
    assert!(world.waiting.is_empty(), "{at}: left without an answer");
    world.job_leaves(job);
}
