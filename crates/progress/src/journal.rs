//! The events of one build in their order, kept for those who come later.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use oci::Digest;
use tokio::sync::watch;

use crate::Counts;
use crate::event::Event;
use crate::spool::Kept;

/// An append-only list of events, except that a newer status of the same
/// transfer takes the place of the older one.
#[derive(Debug)]
pub(crate) struct Journal {
    state: Mutex<State>,
    /// The sequence number the next event will get; followers wait for it to grow.
    grown: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    events: BTreeMap<u64, Kept>,
    next: u64,
    /// Where the newest status of each transfer lies.
    statuses: HashMap<(Digest, String), u64>,
    closed: bool,
}

impl Default for Journal {
    fn default() -> Journal {
        Journal {
            state: Mutex::default(),
            grown: watch::Sender::new(0),
        }
    }
}

impl Journal {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an event; dropped when the journal is closed.
    pub(crate) fn push(&self, kept: Kept) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        let at = state.next;
        state.next += 1;
        if let Kept::Status(status) = &kept {
            let older = state.statuses.insert((status.step, status.id.clone()), at);
            if let Some(older) = older {
                state.events.remove(&older);
            }
        }
        state.events.insert(at, kept);
        self.grown.send_replace(at + 1);
    }

    /// Everything kept so far.
    pub(crate) fn all(&self) -> Vec<Kept> {
        self.lock().events.values().cloned().collect()
    }

    /// Counts steps by their last word.
    pub(crate) fn counts(&self) -> Counts {
        let state = self.lock();
        let mut counts = Counts::default();
        let mut last = HashMap::new();
        for kept in state.events.values() {
            match kept {
                Kept::Step(step) if step.started.is_some() => {
                    let ended_well = step.completed.is_some() && step.error.is_empty();
                    last.insert(step.digest, (ended_well, step.cached));
                }
                Kept::Warning(_) => counts.warnings += 1,
                _ => {}
            }
        }
        counts.steps = last.len();
        counts.completed = last.values().filter(|(ended_well, _)| *ended_well).count();
        counts.cached = last
            .values()
            .filter(|(ended_well, cached)| *ended_well && *cached)
            .count();
        counts
    }

    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        self.grown.send_replace(state.next);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }
}

/// Sees a build's events from the first on. A slow follower misses nothing but
/// statuses that were overtaken by newer ones.
#[derive(Debug)]
pub struct Follower {
    journal: Arc<Journal>,
    grown: watch::Receiver<u64>,
    seen: u64,
}

impl Follower {
    pub(crate) fn new(journal: Arc<Journal>) -> Follower {
        let grown = journal.grown.subscribe();
        Follower {
            journal,
            grown,
            seen: 0,
        }
    }

    /// The next event; `None` once the build is closed and all was seen.
    pub async fn next(&mut self) -> Option<Event> {
        self.next_batch(1).await.map(|mut batch| batch.remove(0))
    }

    /// Up to `max` events that are there, waiting for the first one; `None` once
    /// the build is closed and all was seen. Cancel safe.
    pub async fn next_batch(&mut self, max: usize) -> Option<Vec<Event>> {
        loop {
            self.grown.borrow_and_update();
            let (batch, closed) = self.take(max);
            if !batch.is_empty() {
                return Some(batch);
            }
            if closed || self.grown.changed().await.is_err() {
                return None;
            }
        }
    }

    /// Up to `max` events that are there now.
    pub fn ready(&mut self, max: usize) -> Vec<Event> {
        self.take(max).0
    }

    fn take(&mut self, max: usize) -> (Vec<Event>, bool) {
        let (kept, closed) = {
            let state = self.journal.lock();
            let kept: Vec<_> = state
                .events
                .range(self.seen..)
                .take(max)
                .map(|(at, k)| (*at, k.clone()))
                .collect();
            (kept, state.closed)
        };
        if let Some((last, _)) = kept.last() {
            self.seen = last + 1;
        }
        // Spooled logs are read here, after the lock is gone.
        (kept.iter().map(|(_, kept)| kept.event()).collect(), closed)
    }
}
