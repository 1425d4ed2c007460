//! Jobs come, describe vertices, want outputs and leave.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use oci::Digest;

use super::{Content, EdgeId, Fault, Identity, Job, Level, Question, Run, State, Vertex};
use crate::action::Action;
use crate::event::{Declared, JobId, RequestId, StoreId, VertexId};

impl<O: Clone, E: Clone + From<Fault>> State<O, E> {
    pub(super) fn job_came(&mut self, job: JobId) {
        self.jobs.insert(job, Job::default());
    }

    pub(super) fn store_came(&mut self, job: JobId, store: StoreId) {
        if let Some(job) = self.jobs.get_mut(&job) {
            job.stores.insert(store);
        }
    }

    pub(super) fn declared(&mut self, job: JobId, vertices: Vec<Declared>) {
        for declared in vertices {
            self.declare(job, declared);
        }
    }

    /// Makes the vertex, or joins it when another job has it already.
    fn declare(&mut self, job: JobId, declared: Declared) {
        let Some(known) = self.jobs.get(&job) else {
            return;
        };
        if known.vertices.contains_key(&declared.digest) {
            return;
        }
        let mut inputs: Vec<EdgeId> = Vec::with_capacity(declared.inputs.len());
        for (digest, output) in &declared.inputs {
            match known.vertices.get(digest) {
                Some(vertex) => inputs.push((*vertex, *output)),
                None => return,
            }
        }
        let identity = Identity {
            digest: declared.digest,
            inputs,
            ignore_cache: declared.ignore_cache,
        };
        let id = match self.by_identity.get(&identity) {
            Some(id) => *id,
            None => self.make_vertex(identity, declared.limited),
        };
        let vertex = self.vertex_mut(id);
        vertex.jobs.insert(job);
        // Its op may do better than the one that failed.
        vertex.failed = None;
        let known = self.jobs.get_mut(&job).expect("looked up above");
        known.vertices.insert(declared.digest, id);
        known.order.push(id);
    }

    fn make_vertex(&mut self, identity: Identity, limited: bool) -> VertexId {
        let id = VertexId(self.next_vertex);
        self.next_vertex += 1;
        self.by_identity.insert(identity.clone(), id);
        let Identity {
            digest,
            inputs,
            ignore_cache,
        } = identity;
        let vertex = Vertex {
            digest,
            contents: vec![Content::Unknown; inputs.len()],
            inputs,
            ignore_cache,
            limited,
            jobs: BTreeSet::new(),
            maps: Vec::new(),
            asking_map: None,
            edges: BTreeMap::new(),
            run: Run::Idle,
            flight: None,
            followers: BTreeSet::new(),
            failed: None,
            shown: false,
        };
        self.vertices.insert(id, vertex);
        id
    }

    /// The vertex a job means by a digest.
    pub fn vertex_of(&self, job: JobId, digest: &Digest) -> Option<VertexId> {
        self.jobs.get(&job)?.vertices.get(digest).copied()
    }

    /// A job wants an output; when a run asks, that run is `within`.
    pub(super) fn wanted(
        &mut self,
        job: JobId,
        request: RequestId,
        (digest, output): (Digest, u32),
        within: Option<VertexId>,
    ) {
        let refuse = |fault: Fault| Action::Reply {
            request,
            result: Err(E::from(fault)),
        };
        let Some(known) = self.jobs.get(&job) else {
            self.actions.push(refuse(Fault::Canceled));
            return;
        };
        let Some(vertex) = known.vertices.get(&digest).copied() else {
            self.actions.push(refuse(Fault::UnknownVertex(digest)));
            return;
        };
        if let Some((_, error)) = self.failure(vertex) {
            self.actions.push(Action::Reply {
                request,
                result: Err(error),
            });
            return;
        }
        let edge = (vertex, output);
        if let Some(output) = self.vertices[&vertex]
            .edges
            .get(&output)
            .and_then(|e| e.output.clone())
        {
            let result = Ok(output);
            self.actions.push(Action::Reply { request, result });
            return;
        }
        if let Some(within) = within {
            if self.waits_for(vertex, within) {
                self.actions.push(refuse(Fault::Cycle(within)));
                return;
            }
            self.asked_within.entry(within).or_default().insert(request);
        }
        if let Some(known) = self.jobs.get_mut(&job) {
            known.requests.insert(request);
        }
        let question = Question { job, edge, within };
        self.requests.insert(request, question);
        let state = self.make_edge(edge);
        state.requests.insert(request);
        state.demand[Level::Output as usize] += 1;
        self.push(edge);
    }

    /// A question that has its answer, or needs none any more.
    fn close(&mut self, request: RequestId) -> Option<EdgeId> {
        let Question { job, edge, within } = self.requests.remove(&request)?;
        if let Some(job) = self.jobs.get_mut(&job) {
            job.requests.remove(&request);
        }
        if let Some(within) = within
            && let Some(asked) = self.asked_within.get_mut(&within)
        {
            asked.remove(&request);
            if asked.is_empty() {
                self.asked_within.remove(&within);
            }
        }
        Some(edge)
    }

    /// Whether a vertex waits for another one, or may come to wait for it: as something it
    /// rests on, as the one whose run it shares, or as what a run asked for.
    ///
    /// Graphs have no cycles, so one can only be closed by a run that asks, or by sharing
    /// a run while one asks. Those two look here first; nobody else needs to.
    pub(super) fn waits_for(&self, vertex: VertexId, other: VertexId) -> bool {
        let mut seen = HashSet::new();
        let mut look = vec![vertex];
        while let Some(at) = look.pop() {
            if at == other {
                return true;
            }
            let vertex = self.vertex(at);
            if !seen.insert(at) || matches!(vertex.run, Run::Done(_)) {
                continue;
            }
            // What is there is not waited for, whatever it rests on.
            let waited = |input: &&EdgeId| self.edge(**input).is_none_or(|e| e.output.is_none());
            look.extend(vertex.inputs.iter().filter(waited).map(|input| input.0));
            if let Run::Following(leader) = vertex.run {
                look.push(leader);
            }
            let asked = self.asked_within.get(&at).into_iter().flatten();
            look.extend(asked.map(|request| self.requests[request].edge.0));
        }
        false
    }

    pub(super) fn withdrawn(&mut self, request: RequestId) {
        let Some(edge) = self.close(request) else {
            return;
        };
        if let Some(state) = self.edge_mut(edge)
            && state.requests.remove(&request)
        {
            state.demand[Level::Output as usize] -= 1;
            self.relaxing.push_back(edge);
        }
    }

    /// Answers all questions for an edge.
    pub(super) fn reply(&mut self, edge: EdgeId, result: &Result<O, E>) {
        let requests = std::mem::take(&mut self.at_mut(edge).requests);
        for request in requests {
            self.at_mut(edge).demand[Level::Output as usize] -= 1;
            self.close(request);
            self.actions.push(Action::Reply {
                request,
                result: result.clone(),
            });
        }
    }

    pub(super) fn job_left(&mut self, job: JobId) {
        let Some(left) = self.jobs.remove(&job) else {
            return;
        };
        for request in left.requests {
            self.withdrawn(request);
            let result = Err(E::from(Fault::Canceled));
            self.actions.push(Action::Reply { request, result });
        }
        for id in &left.order {
            self.vertex_mut(*id).jobs.remove(&job);
        }
        // First stop what only it wanted, so that nothing new is begun for a
        // vertex nobody holds; then forget those, later ones first.
        while let Some(edge) = self.relaxing.pop_front() {
            self.relax(edge);
        }
        for id in left.order.into_iter().rev() {
            let vertex = self.vertex(id);
            if vertex.jobs.is_empty() {
                self.forget(id);
            } else if matches!(vertex.run, Run::Queued(waiting) if waiting == job) {
                self.queue_run(id);
            }
        }
    }

    /// A vertex no job holds: nobody wants it, so it has no work either.
    fn forget(&mut self, id: VertexId) {
        self.land(id);
        let Some(mut vertex) = self.vertices.remove(&id) else {
            return;
        };
        debug_assert!(
            vertex.edges.values().all(|e| e.want().is_none()),
            "still wanted"
        );
        self.by_identity.remove(&Identity {
            digest: vertex.digest,
            inputs: std::mem::take(&mut vertex.inputs),
            ignore_cache: vertex.ignore_cache,
        });
        self.forgotten.vertices.push(vertex);
        self.actions.push(Action::Forget { vertex: id });
    }

    /// Why a vertex failed. What an op of a job that has left did says nothing
    /// about the ops of those who stay.
    pub(super) fn failure(&mut self, vertex: VertexId) -> Option<(JobId, E)> {
        let failure = self.vertex(vertex).failed.clone()?;
        if !self.jobs.contains_key(&failure.0) {
            self.vertex_mut(vertex).failed = None;
            self.forgotten.errors.push(failure.1);
            return None;
        }
        Some(failure)
    }

    /// A vertex failed: so does every edge that waits for it.
    pub(super) fn fail(&mut self, vertex: VertexId, job: JobId, error: &E) {
        let mut failing = vec![vertex];
        while let Some(id) = failing.pop() {
            let Some(vertex) = self.vertices.get_mut(&id) else {
                continue;
            };
            if vertex.failed.is_some() {
                continue;
            }
            vertex.failed = Some((job, error.clone()));
            let outputs: Vec<u32> = vertex.edges.keys().copied().collect();
            for output in outputs {
                let edge = (id, output);
                if self.at(edge).output.is_some() {
                    continue;
                }
                let waiters = self.at(edge).waiters.clone();
                self.reply(edge, &Err(error.clone()));
                failing.extend(waiters.into_iter().map(|((waiter, _), _)| waiter));
                self.let_go(edge);
            }
            self.rest(id);
        }
    }
}
