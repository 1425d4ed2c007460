//! One run for equal keys, and what is known of a result once it is there.
//!
//! Vertices of different builds may be written differently and yet do the same
//! work on the same content: a copied file whose source directory has another
//! session in each build. Such vertices stay apart in the graph. What they share
//! is a *flight*, named by what the key says about the inputs: the first one
//! runs, the others follow and get its outputs.

use std::collections::BTreeSet;

use super::{Content, EdgeId, Fault, Run, Stage, State, Task};
use crate::action::Action;
use crate::event::{LOCAL, TaskId, VertexId};
use crate::index::{Node, Record};
use crate::key::{Created, KeyId, Link};

impl<O: Clone, E: Clone + From<Fault>> State<O, E> {
    /// Names the node an edge is in the local store, by what is known of its inputs, and says
    /// whether that name is good for this session only.
    pub(super) fn name_node(&mut self, edge: EdgeId) {
        let reached = self.reached_by(edge);
        let fresh = self.rests_on_fresh(edge);
        let state = self.at_mut(edge);
        state.id = reached.map(|(id, _)| id);
        state.volatile = reached.is_some_and(|(_, volatile)| volatile);
        state.fresh = fresh;
    }

    /// Names the node after the record that was loaded. Others follow from the same inputs,
    /// perhaps made at another time; what is made of this one says nothing about them.
    fn name_after(&mut self, edge: EdgeId, record: &Record) {
        self.name_node(edge);
        self.at_mut(edge).from = Some((record.store, record.key));
        if record.store == LOCAL {
            let state = self.at_mut(edge);
            state.id = Some(record.key);
            let new = state.matched.insert((LOCAL, record.key));
            state.version += u32::from(new);
        }
    }

    /// Whether an input counts by definition and was, or rests on what was, made
    /// without looking for earlier results.
    fn rests_on_fresh(&self, edge: EdgeId) -> bool {
        let vertex = self.vertex(edge.0);
        vertex
            .inputs
            .iter()
            .zip(&vertex.contents)
            .any(|(target, content)| {
                !matches!(content, Content::Known(Some(_)))
                    && (self.vertex(target.0).ignore_cache
                        || self.edge(*target).is_some_and(|input| input.fresh))
            })
    }

    /// The node named after the best way to reach it: by content where that is
    /// known, by definition else.
    fn reached_by(&self, edge: EdgeId) -> Option<(KeyId, bool)> {
        let vertex = self.vertex(edge.0);
        if vertex.inputs.is_empty() {
            let first = vertex.maps.first()?;
            let volatile = vertex.maps.iter().all(|map| map.digest.is_random());
            return Some((KeyId::root(&first.digest, edge.1), volatile));
        }
        let mut volatile = false;
        let mut ways = Vec::with_capacity(vertex.inputs.len());
        for (index, target) in vertex.inputs.iter().enumerate() {
            if let Content::Known(Some(content)) = vertex.contents[index] {
                ways.push((KeyId::content(content), None));
                continue;
            }
            let input = self.edge(*target)?;
            volatile |= input.volatile;
            ways.push((input.id?, vertex.map().inputs[index].selector));
        }
        Some((KeyId::reached(self.record(edge), &ways), volatile))
    }

    /// All inputs are there: runs the vertex unless someone else does or did.
    pub(super) fn try_run(&mut self, edge: EdgeId) {
        let id = edge.0;
        if !matches!(self.vertex(id).run, Run::Idle) {
            return;
        }
        let ignored = self.vertex(id).ignore_cache;
        if !ignored && let Some((flight, volatile)) = self.reached_by((id, 0)) {
            match self.flights.get(&flight) {
                Some(leader) if *leader != id => {
                    let leader = *leader;
                    // One that waits for us is not waited for: we do it ourselves.
                    if !self.asked_within.is_empty() && self.waits_for(leader, id) {
                        self.queue_run(id);
                    } else {
                        self.follow_run(id, leader);
                    }
                    return;
                }
                _ => {}
            }
            self.flights.insert(flight, id);
            let seen = self.vertex(id).flight == Some(flight);
            let confirm = !seen && !volatile && !self.at(edge).fresh;
            self.vertex_mut(id).flight = Some(flight);
            if confirm && let Some((key, _)) = self.reached_by(edge) {
                let task = self.task(Task::Confirm { edge });
                self.vertex_mut(id).run = Run::Confirming(task);
                let keys = vec![(Some(LOCAL), key)];
                self.actions.push(Action::FindRecords {
                    task,
                    keys,
                    stores: vec![LOCAL],
                });
                return;
            }
        }
        self.queue_run(id);
    }

    fn follow_run(&mut self, id: VertexId, leader: VertexId) {
        if let Run::Done(outputs) = &self.vertex(leader).run {
            let outputs = outputs.clone();
            self.counters.shared += 1;
            self.take_outputs(id, outputs);
            return;
        }
        self.vertex_mut(leader).followers.insert(id);
        self.vertex_mut(id).run = Run::Following(leader);
    }

    /// The last look before running: another process, or a build that has left
    /// since, may have made the result.
    pub(super) fn confirmed(&mut self, edge: EdgeId, records: Vec<Record>) {
        self.vertex_mut(edge.0).run = Run::Idle;
        self.add_records(edge, records);
        let state = self.at(edge);
        if state.records.is_empty() {
            self.queue_run(edge.0);
        } else {
            self.push_edges(edge.0);
        }
    }

    /// Runs the vertex when there is a place for it.
    pub(super) fn queue_run(&mut self, id: VertexId) {
        let job = self.any_job(id);
        if let Run::Queued(before) = self.vertex(id).run {
            self.slots.stop_waiting(before, id);
        }
        if !self.vertex(id).limited {
            self.start_run(id);
            return;
        }
        self.vertex_mut(id).run = Run::Queued(job);
        self.slots.wait(job, id);
        self.fill_slots();
    }

    fn fill_slots(&mut self) {
        while let Some((_, id)) = self.slots.next() {
            if self.vertex(id).jobs.is_empty() {
                // Its last job is just leaving.
                self.vertex_mut(id).run = Run::Idle;
                self.slots.done();
            } else {
                self.start_run(id);
            }
        }
    }

    fn start_run(&mut self, id: VertexId) {
        let job = self.any_job(id);
        let outputs = self.vertex(id).inputs.iter().map(|input| {
            self.at(*input)
                .output
                .clone()
                .expect("asked for until its waiter is done")
        });
        let inputs = outputs.collect();
        let task = self.task(Task::Run { vertex: id, job });
        let vertex = self.vertex_mut(id);
        vertex.run = Run::Running(task);
        vertex.shown = true;
        self.counters.runs += 1;
        self.actions.push(Action::Run {
            task,
            vertex: id,
            job,
            inputs,
        });
    }

    /// Ends the run of a vertex nobody wants any more.
    pub(super) fn stop_run(&mut self, id: VertexId) {
        let run = std::mem::replace(&mut self.vertex_mut(id).run, Run::Idle);
        match run {
            Run::Following(leader) => {
                if let Some(leader) = self.vertices.get_mut(&leader) {
                    leader.followers.remove(&id);
                }
            }
            Run::Confirming(task) => self.cancel(task),
            Run::Queued(job) => self.slots.stop_waiting(job, id),
            Run::Running(task) => {
                self.cancel(task);
                self.free_slot(id);
            }
            Run::Idle | Run::Done(_) => {}
        }
        self.land(id);
    }

    fn free_slot(&mut self, id: VertexId) {
        if self.vertex(id).limited {
            self.slots.done();
            self.fill_slots();
        }
    }

    /// A vertex leads no flight any more: its followers look for themselves.
    pub(super) fn land(&mut self, id: VertexId) {
        let Some(vertex) = self.vertices.get_mut(&id) else {
            return;
        };
        let followers = std::mem::take(&mut vertex.followers);
        if let Some(flight) = vertex.flight.take()
            && self.flights.get(&flight) == Some(&id)
        {
            self.flights.remove(&flight);
        }
        for follower in followers {
            self.vertex_mut(follower).run = Run::Idle;
            self.push_edges(follower);
        }
    }

    pub(super) fn ran(&mut self, task: TaskId, result: Result<Vec<O>, E>) {
        let Some(Task::Run { vertex: id, job }) = self.tasks.remove(&task) else {
            return;
        };
        self.vertex_mut(id).run = Run::Idle;
        match result {
            Ok(outputs) => {
                let followers = std::mem::take(&mut self.vertex_mut(id).followers);
                self.counters.shared += followers.len() as u64;
                for follower in followers {
                    self.take_outputs(follower, outputs.clone());
                }
                self.take_outputs(id, outputs);
            }
            Err(error) => self.failed(id, job, &error),
        }
        self.free_slot(id);
    }

    /// The outputs of a run are there: saved, and handed to who waits.
    fn take_outputs(&mut self, id: VertexId, outputs: Vec<O>) {
        self.vertex_mut(id).run = Run::Done(outputs.clone());
        let used: BTreeSet<u32> = self.vertex(id).edges.keys().copied().collect();
        for (number, output) in outputs.into_iter().enumerate() {
            let edge = (id, number as u32);
            self.make_edge(edge);
            self.name_node(edge);
            self.save(edge, output.clone(), None);
            if used.contains(&edge.1) {
                self.complete(edge, Some(output));
            }
        }
        for output in used {
            if self.at((id, output)).output.is_none() {
                self.complete((id, output), None);
            }
        }
    }

    /// A record gave the output.
    pub(super) fn found(&mut self, edge: EdgeId, output: O, record: &Record) {
        self.name_after(edge, record);
        if record.store != LOCAL || self.was_a_detour(edge, record) {
            self.save(edge, output.clone(), Some(record.created));
        }
        self.show_cached(edge.0);
        // It needs no run of its own any more.
        self.complete(edge, Some(output));
        self.rest(edge.0);
    }

    /// What a found result rests on is shown as cached, too.
    fn show_cached(&mut self, id: VertexId) {
        let mut look: Vec<VertexId> = self.vertex(id).inputs.iter().map(|edge| edge.0).collect();
        while let Some(id) = look.pop() {
            let vertex = self.vertex_mut(id);
            if std::mem::replace(&mut vertex.shown, true) {
                continue;
            }
            look.extend(vertex.inputs.iter().map(|edge| edge.0));
            self.actions.push(Action::ShowCached { vertex: id });
        }
    }

    /// An edge has its output, or never will.
    pub(super) fn complete(&mut self, edge: EdgeId, output: Option<O>) {
        let Some(output) = output else {
            let fault = Fault::NoSuchOutput {
                vertex: edge.0,
                output: edge.1,
            };
            let error = E::from(fault);
            let job = self.any_job(edge.0);
            self.reply(edge, &Err(error.clone()));
            let waiters = self.at(edge).waiters.clone();
            self.let_go(edge);
            for ((waiter, _), _) in waiters {
                self.fail(waiter, job, &error);
            }
            return;
        };
        self.let_go(edge);
        let state = self.at_mut(edge);
        state.stage = Stage::Done;
        state.records = Vec::new();
        state.output = Some(output.clone());
        self.reply(edge, &Ok(output));
        self.reach(edge, super::Level::Output);
    }

    /// Whether a result was found only by a dearer key, by the content of an input though that
    /// has a key of its own. With this key it is found sooner the next time.
    fn was_a_detour(&self, edge: EdgeId, record: &Record) -> bool {
        let vertex = self.vertex(edge.0);
        if vertex.inputs.is_empty() {
            return self.roots(edge).iter().any(|root| *root != record.key);
        }
        let mut inputs = self.at(edge).inputs.iter().zip(&vertex.inputs);
        inputs.any(|(input, target)| input.content_probed && !self.probe_keys(*target).is_empty())
    }

    /// Writes a result into the local store, with its node and what that rests on as far as it
    /// was not yet written.
    fn save(&mut self, edge: EdgeId, output: O, created: Option<Created>) {
        let state = self.at(edge);
        let Some(id) = state.id.filter(|_| !state.volatile) else {
            return;
        };
        let nodes = self.unsaved(edge);
        let keys = match self.vertex(edge.0).inputs.is_empty() {
            true => self.roots(edge),
            false => vec![id],
        };
        self.actions.push(Action::Save {
            nodes,
            output,
            keys,
            created,
        });
    }

    /// The node of an edge, and those it rests on that are not in the local store. From now on
    /// they are.
    fn unsaved(&mut self, edge: EdgeId) -> Vec<Node> {
        let mut nodes = Vec::new();
        let mut look = vec![edge];
        while let Some(at) = look.pop() {
            let Some(state) = self.edge_mut(at).filter(|state| !state.volatile) else {
                continue;
            };
            let Some(id) = state.id else { continue };
            let first = state.matched.insert((LOCAL, id));
            if at != edge && !first {
                continue;
            }
            let links = self.links(at);
            if links.is_empty() {
                continue;
            }
            self.at_mut(at).version += u32::from(first);
            nodes.push(Node { id, links });
            look.extend(&self.vertex(at.0).inputs);
        }
        nodes
    }

    /// Every known way to the node of an edge.
    pub(super) fn links(&self, edge: EdgeId) -> Vec<(KeyId, Link)> {
        let vertex = self.vertex(edge.0);
        let mut links = Vec::new();
        if vertex.inputs.is_empty() {
            return links;
        }
        let record = self.record(edge);
        for (index, target) in vertex.inputs.iter().enumerate() {
            let link = |selector| Link {
                input: index as u32,
                record,
                selector,
            };
            let selector = vertex.map().inputs[index].selector;
            links.extend(
                self.local_keys(*target)
                    .into_iter()
                    .map(|id| (id, link(selector))),
            );
            if let Content::Known(Some(content)) = vertex.contents[index] {
                links.push((KeyId::content(content), link(None)));
            }
        }
        links
    }

    /// The names by which others rest on an edge in the local store.
    fn local_keys(&self, edge: EdgeId) -> Vec<KeyId> {
        if self.vertex(edge.0).inputs.is_empty() {
            return self.roots(edge);
        }
        let state = self.edge(edge).filter(|state| !state.volatile);
        state.and_then(|state| state.id).into_iter().collect()
    }
}
