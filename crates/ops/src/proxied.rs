//! Builds whose steps reach the network through a proxy of ours and in no other way (row X08), and
//! what went through it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use netproxy::{Gate, Proxy, Seen, Upstreams};
use oci::Digest;

use crate::Result;

/// What the steps of one proxied build share.
pub struct Proxied {
    upstreams: Arc<Upstreams>,
    gate: Option<Arc<dyn Gate>>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    by_step: BTreeMap<Digest, Seen>,
    /// Of containers that are no steps: frontends' own.
    others: Vec<Arc<Proxy>>,
}

impl Proxied {
    /// Requests are put to `gate`, if there is one.
    pub fn new(upstreams: Arc<Upstreams>, gate: Option<Arc<dyn Gate>>) -> Proxied {
        Proxied {
            upstreams,
            gate,
            known: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A proxy for one step.
    pub(crate) fn for_step(&self) -> Result<Arc<Proxy>> {
        let proxy = Proxy::new(self.upstreams.clone(), self.gate.clone())?;
        Ok(Arc::new(proxy))
    }

    /// A proxy for a container that is no step.
    pub(crate) fn for_container(&self) -> Result<Arc<Proxy>> {
        let proxy = self.for_step()?;
        self.lock().others.push(proxy.clone());
        Ok(proxy)
    }

    pub(crate) fn add(&self, step: Digest, seen: Seen) {
        self.lock().by_step.insert(step, seen);
    }

    /// What went through for a step, if this build ran it.
    pub fn of_step(&self, step: &Digest) -> Option<Seen> {
        self.lock().by_step.get(step).cloned()
    }

    /// What went through for containers that are no steps.
    pub fn of_others(&self) -> Vec<Seen> {
        let others = self.lock().others.clone();
        others.iter().map(|proxy| proxy.seen()).collect()
    }
}
