//! What happens in the world: builds come, ask and leave, work ends, machines restart.

use oci::Digest;
use solver::event::{Declared, Event, JobId, RequestId, TaskId};
use solver::state::State;
use solver::{Index, MemoryIndex};

use super::graph::Graph;
use super::world::{Act, Build, IMPORTED, World};
use solver::action::Action;

impl World {
    pub(super) fn build_comes(&mut self) {
        let job = JobId(self.number());
        let graph = Graph::random(&mut self.dice, job);
        let import = self.dice.chance(40);
        self.job_comes(job, graph, import);
        self.build_asks(job);
    }

    pub(super) fn job_comes(&mut self, job: JobId, graph: Graph, import: bool) {
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

    pub(super) fn build_asks(&mut self, job: JobId) {
        let things = &self.jobs[&job].graph.things;
        let at = things.len() - 1 - self.dice.roll(things.len().min(3) as u64) as usize;
        let (vertex, outputs) = (things[at].digest, things[at].outputs);
        let output = self.dice.roll(u64::from(outputs)) as u32;
        self.build_asks_for(job, vertex, output);
    }

    pub(super) fn build_asks_for(&mut self, job: JobId, vertex: Digest, output: u32) {
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
    pub(super) fn run_asks(&mut self, task: TaskId, action: &Act) -> bool {
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

    pub(super) fn some_job(&mut self) -> Option<JobId> {
        let count = self.jobs.len() as u64;
        (count > 0)
            .then(|| self.dice.roll(count) as usize)
            .and_then(|n| self.jobs.keys().nth(n).copied())
    }

    pub(super) fn job_leaves(&mut self, job: JobId) {
        self.jobs.remove(&job);
        self.event(Event::JobLeft { job });
        *self.seen.entry("left").or_default() += 1;
    }

    pub(super) fn some_work_ends(&mut self) {
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

    /// The machine restarts: what is on disk stays.
    pub(super) fn restart(&mut self) {
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
    pub(super) fn restart_with_import_only(&mut self) {
        self.restart();
        self.index = MemoryIndex::new();
    }

    pub(super) fn lose_something(&mut self) {
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

    pub(super) fn step(&mut self) {
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
