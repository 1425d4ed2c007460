//! What every build can count on, whatever happens.

use std::collections::BTreeSet;

use solver::action::Action;
use solver::event::{RequestId, VertexId};
use solver::state::Fault;

use super::graph::Thing;
use super::world::{Broken, World, task_of};

impl World {
    pub(super) fn answered(&mut self, request: RequestId, result: Result<u64, Broken>) {
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
    pub(super) fn check(&self) {
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
        let wanted = self.wanted();
        for action in self.to_do.values() {
            if let Action::AskMap { vertex, .. }
            | Action::FindContent { vertex, .. }
            | Action::Load { vertex, .. }
            | Action::Run { vertex, .. } = action
            {
                assert!(wanted.contains(vertex), "{at}: nobody wants {action:?}");
            }
        }
    }

    /// What is asked for, and all that rests on.
    fn wanted(&self) -> BTreeSet<VertexId> {
        let mut wanted = BTreeSet::new();
        let asked = self.waiting.values().copied();
        let within = self.parked.values();
        let asked = asked.chain(within.map(|(_, job, digest, output)| (*job, *digest, *output)));
        for (job, digest, _) in asked {
            let Some(build) = self.jobs.get(&job) else {
                continue;
            };
            let things = &build.graph.things;
            let mut look: Vec<&Thing> = vec![build.graph.thing(&digest)];
            while let Some(thing) = look.pop() {
                let id = self.state.vertex_of(job, &thing.digest);
                if wanted.insert(id.expect("it was described")) {
                    look.extend(thing.inputs.iter().map(|(input, _)| &things[*input]));
                }
            }
        }
        wanted
    }
}
