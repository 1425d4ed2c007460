//! What sources of running builds turned out to be.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use oci::Digest;

/// By the vertex of the graph: the digest or commit the source was read as. Builds that ask for
/// the same at the same time share one reading of it, so what one of them would be told now may
/// be something else.
#[derive(Clone, Default)]
pub struct Pins(Arc<Mutex<HashMap<Digest, Entry>>>);

#[derive(Default)]
struct Entry {
    holders: usize,
    pin: Option<Arc<str>>,
}

/// One build's interest in a vertex: its pin is known until the last of them goes.
pub struct Pinned {
    pins: Pins,
    vertex: Digest,
}

impl Pins {
    fn all(&self) -> MutexGuard<'_, HashMap<Digest, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the vertex was read as, if a running build read it.
    pub fn get(&self, vertex: &Digest) -> Option<Arc<str>> {
        self.all().get(vertex)?.pin.clone()
    }

    /// A build has this vertex.
    pub fn hold(&self, vertex: Digest) -> Pinned {
        self.all().entry(vertex).or_default().holders += 1;
        let pins = self.clone();
        Pinned { pins, vertex }
    }
}

impl Pinned {
    /// The vertex was read as this.
    pub fn set(&self, pin: &str) {
        if let Some(entry) = self.pins.all().get_mut(&self.vertex) {
            entry.pin = Some(pin.into());
        }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let mut all = self.pins.all();
        if let Some(entry) = all.get_mut(&self.vertex) {
            entry.holders -= 1;
            if entry.holders == 0 {
                all.remove(&self.vertex);
            }
        }
    }
}
