//! Turns between jobs for work that is limited.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use crate::event::{JobId, VertexId};

/// Places for limited vertices. Jobs take turns, whatever they bring.
#[derive(Debug)]
pub(super) struct Slots {
    limit: Option<usize>,
    running: usize,
    waiting: BTreeMap<JobId, VecDeque<VertexId>>,
    last: Option<JobId>,
}

impl Slots {
    pub(super) fn new(limit: Option<usize>) -> Slots {
        let limit = limit.map(|limit| limit.max(1));
        Slots {
            limit,
            running: 0,
            waiting: BTreeMap::new(),
            last: None,
        }
    }

    /// Whether no one runs and no one waits.
    pub(super) fn is_idle(&self) -> bool {
        self.running == 0 && self.waiting.is_empty()
    }

    pub(super) fn wait(&mut self, job: JobId, vertex: VertexId) {
        self.waiting.entry(job).or_default().push_back(vertex);
    }

    pub(super) fn stop_waiting(&mut self, job: JobId, vertex: VertexId) {
        if let Some(queue) = self.waiting.get_mut(&job) {
            queue.retain(|waiting| *waiting != vertex);
            if queue.is_empty() {
                self.waiting.remove(&job);
            }
        }
    }

    /// A place for the next one, if there is a place and someone waits.
    pub(super) fn next(&mut self) -> Option<(JobId, VertexId)> {
        if self.limit.is_some_and(|limit| self.running >= limit) {
            return None;
        }
        let after = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let job = self.waiting.range((after, Bound::Unbounded)).next();
        let job = *job.or_else(|| self.waiting.iter().next())?.0;
        let queue = self.waiting.get_mut(&job)?;
        let vertex = queue.pop_front()?;
        if queue.is_empty() {
            self.waiting.remove(&job);
        }
        self.last = Some(job);
        self.running += 1;
        Some((job, vertex))
    }

    pub(super) fn done(&mut self) {
        self.running -= 1;
    }
}
