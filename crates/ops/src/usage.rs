//! What the processes of a build's steps used of the machine, by their steps (row X16).

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use executor::usage::Samples;
use oci::Digest;

/// What the steps of one build used. Of steps that were cached, or that another build does, it
/// knows nothing.
#[derive(Debug, Default)]
pub struct StepUsage(Mutex<BTreeMap<Digest, Samples>>);

impl StepUsage {
    pub(crate) fn add(&self, step: Digest, samples: Samples) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(step, samples);
    }

    /// What is known so far.
    pub fn by_step(&self) -> BTreeMap<Digest, Samples> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.clone()
    }
}
