//! How an edge gets on, stage by stage: what its definition keys lead to, what
//! its content keys lead to, and else its inputs and a run.

use std::collections::BTreeSet;

use super::{Content, EdgeId, Fault, Level, Run, Stage, State, Task};
use crate::action::{Action, Miss, MissedInput, Probe};
use crate::event::{JobId, StoreId, TaskId, VertexId};
use crate::index::Record;
use crate::key::{CacheMap, KeyId, Link};

impl<O: Clone, E: Clone + From<Fault>> State<O, E> {
    /// Moves an edge on as far as it goes now.
    pub(super) fn advance(&mut self, edge: EdgeId) {
        self.counters.looks += 1;
        if let Some((job, error)) = self.failure(edge.0) {
            self.vertex_mut(edge.0).failed = None;
            self.fail(edge.0, job, &error);
            return;
        }
        let Some(want) = self.at(edge).want() else {
            return;
        };
        if self.at(edge).stage != Stage::Done
            && let Run::Done(outputs) = &self.vertex(edge.0).run
        {
            let output = outputs.get(edge.1 as usize).cloned();
            self.complete(edge, output);
            return;
        }
        if want == Level::Output && self.may_load(edge) {
            self.load_best(edge);
            return;
        }
        // Every round either moves to another stage or ends.
        loop {
            let before = self.at(edge).stage;
            match before {
                Stage::Done => return,
                Stage::New if self.vertex(edge.0).ignore_cache => self.give_up(edge, true),
                Stage::New => self.enter(edge, Stage::Defining),
                Stage::Defining => self.define(edge),
                Stage::Defined if !self.at(edge).records.is_empty() => {
                    self.reach(edge, Level::Slow);
                }
                Stage::Defined if want >= Level::Slow => self.enter(edge, Stage::Matching),
                Stage::Matching | Stage::Contents => self.match_inputs(edge),
                Stage::Hopeless if want == Level::Output => self.enter(edge, Stage::Building),
                Stage::Building => self.build(edge),
                Stage::Ready => self.try_run(edge),
                Stage::Defined | Stage::Hopeless => {}
            }
            let Some(state) = self.edge(edge) else { return };
            if state.stage == before {
                break;
            }
        }
        if want == Level::Output && self.may_load(edge) {
            self.load_best(edge);
        }
    }

    fn may_load(&self, edge: EdgeId) -> bool {
        let state = self.at(edge);
        state.stage != Stage::Done && (state.loading.is_some() || !state.records.is_empty())
    }

    fn enter(&mut self, edge: EdgeId, stage: Stage) {
        let state = self.at_mut(edge);
        state.stage = stage;
        state.open = state.inputs.len();
        state.dead = false;
        state.dirty = (0..state.inputs.len() as u32).collect();
        for input in &mut state.inputs {
            input.open = true;
        }
    }

    /// Looks at the inputs that changed; says whether none is open any more.
    fn look_at_inputs(&mut self, edge: EdgeId, closes: fn(&mut Self, EdgeId, u32) -> bool) -> bool {
        let dirty = std::mem::take(&mut self.at_mut(edge).dirty);
        self.counters.looks += dirty.len() as u64;
        for input in dirty {
            if self.at(edge).inputs[input as usize].open && closes(self, edge, input) {
                let state = self.at_mut(edge);
                state.inputs[input as usize].open = false;
                state.open -= 1;
            }
        }
        self.at(edge).open == 0
    }

    /// Asks for the op's maps until one describes the inputs, or until there are
    /// as many as wanted.
    fn ask_map(&mut self, id: VertexId) {
        if self.vertex(id).asking_map.is_some() {
            return;
        }
        let job = self.any_job(id);
        let task = self.task(Task::Map { vertex: id, job });
        let vertex = self.vertex_mut(id);
        vertex.asking_map = Some(task);
        vertex.shown |= vertex.inputs.is_empty();
        let index = vertex.maps.len();
        self.actions.push(Action::AskMap {
            task,
            vertex: id,
            job,
            index,
        });
    }

    fn define(&mut self, edge: EdgeId) {
        let vertex = self.vertex(edge.0);
        let source = vertex.inputs.is_empty();
        if vertex.maps.is_empty() || (!source && !vertex.mapped()) {
            self.ask_map(edge.0);
        }
        let closed = self.look_at_inputs(edge, |this, edge, input| {
            this.ask(edge, input, Level::Fast);
            this.reached(edge, input) >= Some(Level::Fast) && this.follow(edge, input)
        });
        let vertex = self.vertex(edge.0);
        if !closed || vertex.maps.is_empty() || (!source && !vertex.mapped()) {
            return;
        }
        if self.find_records(edge) {
            self.defined(edge);
        }
    }

    /// All that the definition keys lead to is known.
    fn defined(&mut self, edge: EdgeId) {
        self.name_node(edge);
        self.at_mut(edge).stage = Stage::Defined;
        let hit = !self.at(edge).records.is_empty();
        self.reach(edge, if hit { Level::Slow } else { Level::Fast });
    }

    fn match_inputs(&mut self, edge: EdgeId) {
        let contents = self.at(edge).stage == Stage::Contents;
        let closed = self.look_at_inputs(
            edge,
            if contents {
                |this, edge, input| this.match_content(edge, input)
            } else {
                |this, edge, input| this.match_input(edge, input)
            },
        );
        if self.at(edge).dead {
            self.give_up(edge, false);
            return;
        }
        if !closed || !self.find_records(edge) {
            return;
        }
        if !self.at(edge).records.is_empty() {
            self.defined(edge);
            return;
        }
        self.name_node(edge);
        let vertex = self.vertex(edge.0);
        if vertex.inputs.is_empty() && !vertex.mapped() {
            self.ask_map(edge.0);
        } else if !self.at(edge).matched.is_empty() && self.at(edge).want() < Some(Level::Output) {
            // Its node is enough to find what rests on it. Inputs are made for
            // their content only once the output itself is wanted.
            self.reach(edge, Level::Slow);
        } else if self.untried_content(edge) {
            self.enter(edge, Stage::Contents);
        } else {
            self.give_up(edge, false);
        }
    }

    /// Whether an input counts by content but was found by definition only.
    fn untried_content(&self, edge: EdgeId) -> bool {
        let vertex = self.vertex(edge.0);
        vertex
            .map()
            .inputs
            .iter()
            .zip(&vertex.contents)
            .any(|(map, content)| map.by_content && !matches!(content, Content::Known(_)))
    }

    fn match_input(&mut self, edge: EdgeId, input: u32) -> bool {
        self.ask(edge, input, Level::Slow);
        if self.reached(edge, input) < Some(Level::Slow) || !self.follow(edge, input) {
            return false;
        }
        if !self.at(edge).inputs[input as usize].found.is_empty() {
            return true;
        }
        if !self.match_content(edge, input) {
            return false;
        }
        if self.at(edge).inputs[input as usize].found.is_empty() {
            self.at_mut(edge).dead = true;
        }
        true
    }

    /// Digests the content of an input, if it counts, and follows it.
    fn match_content(&mut self, edge: EdgeId, input: u32) -> bool {
        let index = input as usize;
        if !self.vertex(edge.0).map().inputs[index].by_content {
            return true;
        }
        if self.at(edge).inputs[index].probing.is_some() || !self.digest_content(edge, input) {
            return false;
        }
        let Content::Known(Some(content)) = self.vertex(edge.0).contents[index] else {
            return true;
        };
        if self.at(edge).inputs[index].content_probed {
            return true;
        }
        let link = Link {
            input,
            record: self.record(edge),
            selector: None,
        };
        let probe = Probe {
            store: None,
            from: KeyId::content(content),
            link,
        };
        let version = self.at(edge).inputs[index].probed;
        self.probe(
            edge,
            Task::Probe {
                edge,
                input,
                version,
                content: true,
            },
            vec![probe],
        );
        false
    }

    /// Sees that the content of an input is digested; says whether it is.
    fn digest_content(&mut self, edge: EdgeId, input: u32) -> bool {
        let vertex = self.vertex(edge.0);
        let Content::Unknown = vertex.contents[input as usize] else {
            return matches!(vertex.contents[input as usize], Content::Known(_));
        };
        let target = vertex.inputs[input as usize];
        self.ask(edge, input, Level::Output);
        let Some(output) = self.at(target).output.clone() else {
            return false;
        };
        let job = self.any_job(edge.0);
        let task = self.task(Task::Content {
            vertex: edge.0,
            input,
            job,
        });
        self.vertex_mut(edge.0).contents[input as usize] = Content::Asked(task);
        let input = input as usize;
        self.actions.push(Action::FindContent {
            task,
            vertex: edge.0,
            job,
            input,
            output,
        });
        false
    }

    /// Follows the keys of an input if they changed; says whether that is done.
    fn follow(&mut self, edge: EdgeId, input: u32) -> bool {
        let vertex = self.vertex(edge.0);
        if !vertex.mapped() || self.at(edge).inputs[input as usize].probing.is_some() {
            return false;
        }
        let target = vertex.inputs[input as usize];
        let version = self.at(target).version;
        if self.at(edge).inputs[input as usize].probed == version {
            return true;
        }
        let selector = vertex.map().inputs[input as usize].selector;
        let link = Link {
            input,
            record: self.record(edge),
            selector,
        };
        let keys = self.probe_keys(target);
        let probes: Vec<Probe> = keys
            .into_iter()
            .map(|(store, from)| Probe { store, from, link })
            .collect();
        if probes.is_empty() {
            return true;
        }
        self.probe(
            edge,
            Task::Probe {
                edge,
                input,
                version,
                content: false,
            },
            probes,
        );
        false
    }

    fn probe(&mut self, edge: EdgeId, purpose: Task, probes: Vec<Probe>) {
        let Task::Probe { input, .. } = purpose else {
            return;
        };
        let task = self.task(purpose);
        self.at_mut(edge).inputs[input as usize].probing = Some(task);
        let stores = self.stores(edge.0);
        self.actions.push(Action::Probe {
            task,
            probes,
            stores,
        });
    }

    pub(super) fn probed(&mut self, task: TaskId, found: Vec<(StoreId, KeyId)>) {
        let Some(Task::Probe {
            edge,
            input,
            version,
            content,
        }) = self.tasks.remove(&task)
        else {
            return;
        };
        let state = &mut self.at_mut(edge).inputs[input as usize];
        state.probing = None;
        state.probed = version;
        state.content_probed |= content;
        state.found.extend(found);
        self.touch(edge, input);
    }

    /// The nodes an edge is known by, for links that leave it.
    pub(super) fn probe_keys(&self, edge: EdgeId) -> Vec<(Option<StoreId>, KeyId)> {
        let vertex = self.vertex(edge.0);
        if vertex.ignore_cache || self.edge(edge).is_some_and(|state| state.fresh) {
            // What it gives now is not what earlier results rest on.
            return Vec::new();
        }
        if vertex.inputs.is_empty() {
            return self.roots(edge).into_iter().map(|id| (None, id)).collect();
        }
        let matched = self.at(edge).matched.iter();
        matched.map(|(store, id)| (Some(*store), *id)).collect()
    }

    /// The nodes of a vertex without inputs that may be stored: one per map.
    pub(super) fn roots(&self, edge: EdgeId) -> Vec<KeyId> {
        let stable = self
            .vertex(edge.0)
            .maps
            .iter()
            .filter(|map| !map.digest.is_random());
        stable.map(|map| KeyId::root(&map.digest, edge.1)).collect()
    }

    pub(super) fn record(&self, edge: EdgeId) -> oci::Digest {
        self.vertex(edge.0).map().digest.record(i64::from(edge.1))
    }

    fn reached(&self, edge: EdgeId, input: u32) -> Option<Level> {
        let target = self.vertex(edge.0).inputs[input as usize];
        self.edge(target).and_then(|state| state.reached)
    }

    /// Looks up the records of nodes all inputs lead to; says whether all that
    /// there are have been.
    fn find_records(&mut self, edge: EdgeId) -> bool {
        if self.at(edge).finding.is_some() {
            return false;
        }
        let vertex = self.vertex(edge.0);
        let maps = vertex.maps.len();
        let mut keys = Vec::new();
        if vertex.inputs.is_empty() {
            if self.at(edge).maps_looked < maps {
                let roots = self.roots(edge);
                let state = self.at_mut(edge);
                state.maps_looked = maps;
                state.version = maps as u32;
                keys.extend(roots.into_iter().map(|id| (None, id)));
            }
        } else {
            let common = self.common(edge);
            let state = self.at_mut(edge);
            let new: Vec<_> = common.difference(&state.looked).copied().collect();
            if !new.is_empty() {
                state.looked.extend(new.iter().copied());
                state.matched.extend(new.iter().copied());
                state.version += 1;
                keys.extend(new.into_iter().map(|(store, id)| (Some(store), id)));
            }
        }
        if keys.is_empty() {
            return true;
        }
        let stores = self.stores(edge.0);
        let task = self.task(Task::Records { edge });
        self.at_mut(edge).finding = Some(task);
        self.actions
            .push(Action::FindRecords { task, keys, stores });
        false
    }

    /// The nodes that every input leads to.
    fn common(&self, edge: EdgeId) -> BTreeSet<(StoreId, KeyId)> {
        let inputs = &self.at(edge).inputs;
        let Some(least) = inputs.iter().min_by_key(|input| input.found.len()) else {
            return BTreeSet::new();
        };
        let everywhere = |node: &&(StoreId, KeyId)| inputs.iter().all(|i| i.found.contains(*node));
        least.found.iter().filter(everywhere).copied().collect()
    }

    pub(super) fn records_found(&mut self, task: TaskId, records: Vec<Record>) {
        match self.tasks.remove(&task) {
            Some(Task::Records { edge }) => {
                self.at_mut(edge).finding = None;
                self.add_records(edge, records);
                self.push(edge);
            }
            Some(Task::Confirm { edge }) => self.confirmed(edge, records),
            _ => {}
        }
    }

    /// Keeps records to try, the newest last; of equally old ones the imported
    /// one is tried first.
    pub(super) fn add_records(&mut self, edge: EdgeId, records: Vec<Record>) {
        let state = self.at_mut(edge);
        for record in records {
            let name = (record.store, record.result.clone());
            let known = |r: &Record| r.store == name.0 && r.result == name.1;
            if !state.tried.contains(&name) && !state.records.iter().any(known) {
                state.records.push(record);
            }
        }
        state
            .records
            .sort_by(|a, b| (a.created, a.store, &a.result).cmp(&(b.created, b.store, &b.result)));
    }

    fn load_best(&mut self, edge: EdgeId) {
        if self.at(edge).loading.is_some() {
            return;
        }
        let Some(record) = self.at_mut(edge).records.pop() else {
            return;
        };
        let job = self.any_job(edge.0);
        let task = self.task(Task::Load { edge, job });
        self.at_mut(edge).loading = Some((task, record.clone()));
        self.vertex_mut(edge.0).shown = true;
        self.counters.loads += 1;
        self.actions.push(Action::Load {
            task,
            vertex: edge.0,
            job,
            record,
        });
    }

    pub(super) fn loaded(&mut self, task: TaskId, output: Option<O>) {
        let Some(Task::Load { edge, job }) = self.tasks.remove(&task) else {
            return;
        };
        let job_stays = self.has_job(edge.0, job);
        let state = self.at_mut(edge);
        let Some((_, record)) = state.loading.take() else {
            return;
        };
        match output {
            Some(output) => self.found(edge, output, &record),
            // It may have failed only because that job's session is gone.
            None if !job_stays => {
                state.records.push(record);
                self.push(edge);
            }
            None => {
                state.tried.insert((record.store, record.result));
                let none_left = state.records.is_empty();
                if none_left {
                    self.explain(edge, |record| Miss::Gone { record });
                }
                self.push(edge);
            }
        }
    }

    /// Nothing will be found for this edge.
    fn give_up(&mut self, edge: EdgeId, ignored: bool) {
        if ignored {
            self.actions.push(Action::Explain {
                vertex: edge.0,
                miss: Miss::Ignored,
            });
        } else if self.at(edge).tried.is_empty() {
            let miss = self.why(edge);
            self.actions.push(Action::Explain {
                vertex: edge.0,
                miss,
            });
        }
        self.at_mut(edge).stage = Stage::Hopeless;
        self.reach(edge, Level::Slow);
    }

    fn explain(&mut self, edge: EdgeId, miss: fn(oci::Digest) -> Miss) {
        let miss = miss(self.record(edge));
        self.actions.push(Action::Explain {
            vertex: edge.0,
            miss,
        });
    }

    fn why(&self, edge: EdgeId) -> Miss {
        let vertex = self.vertex(edge.0);
        if vertex.inputs.is_empty() {
            return Miss::NoRecord {
                keys: self.roots(edge),
            };
        }
        let record = self.record(edge);
        let mut unknown = Vec::new();
        let mut known = 0;
        for (index, input) in self.at(edge).inputs.iter().enumerate() {
            if !input.found.is_empty() {
                known += 1;
            } else if !input.open {
                let content = match vertex.contents[index] {
                    Content::Known(content) => content,
                    _ => None,
                };
                unknown.push(MissedInput {
                    input: index,
                    selector: vertex.map().inputs[index].selector,
                    content,
                    tried: self
                        .probe_keys(vertex.inputs[index])
                        .into_iter()
                        .map(|k| k.1)
                        .collect(),
                });
            }
        }
        if unknown.is_empty() {
            return Miss::NoCommonResult { record };
        }
        Miss::Inputs {
            record,
            unknown,
            known,
        }
    }

    fn build(&mut self, edge: EdgeId) {
        if !self.vertex(edge.0).mapped() {
            self.ask_map(edge.0);
        }
        let closed = self.look_at_inputs(edge, |this, edge, input| {
            this.ask(edge, input, Level::Output);
            let target = this.vertex(edge.0).inputs[input as usize];
            if this.at(target).output.is_none() || !this.vertex(edge.0).mapped() {
                return false;
            }
            !this.vertex(edge.0).map().inputs[input as usize].by_content
                || this.digest_content(edge, input)
        });
        if closed && self.vertex(edge.0).mapped() {
            self.name_node(edge);
            self.at_mut(edge).stage = Stage::Ready;
        }
    }

    pub(super) fn map_found(&mut self, task: TaskId, result: Result<CacheMap, E>) {
        let Some(Task::Map { vertex: id, job }) = self.tasks.remove(&task) else {
            return;
        };
        self.vertex_mut(id).asking_map = None;
        match result {
            Ok(map) => {
                let vertex = self.vertex_mut(id);
                let (expected, found) = (vertex.inputs.len(), map.inputs.len());
                if expected != found {
                    let fault = Fault::BadCacheMap {
                        vertex: id,
                        expected,
                        found,
                    };
                    self.fail(id, job, &E::from(fault));
                    return;
                }
                vertex.maps.push(map);
                self.touch_all(id);
            }
            Err(error) => self.failed(id, job, &error),
        }
    }

    pub(super) fn content_found(&mut self, task: TaskId, result: Result<Option<oci::Digest>, E>) {
        let Some(Task::Content {
            vertex: id,
            input,
            job,
        }) = self.tasks.remove(&task)
        else {
            return;
        };
        let vertex = self.vertex_mut(id);
        match result {
            Ok(content) => {
                vertex.contents[input as usize] = Content::Known(content);
                let outputs: Vec<u32> = vertex.edges.keys().copied().collect();
                for output in outputs {
                    self.touch((id, output), input);
                }
            }
            Err(error) => {
                vertex.contents[input as usize] = Content::Unknown;
                self.failed(id, job, &error);
            }
        }
    }

    /// Work failed: for everyone, unless it was done for a job that has left.
    pub(super) fn failed(&mut self, id: VertexId, job: JobId, error: &E) {
        if self.has_job(id, job) {
            self.fail(id, job, error);
        } else {
            self.touch_all(id);
        }
    }
}
