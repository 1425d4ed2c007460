//! Which step brought a lazy layer in: fetching it is shown there, whoever reads it first.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use oci::Digest;
use progress::{StepProgress, WeakStep};

use crate::{LayerBlob, Refs};

/// Steps by the layers they brought in, as long as some build has them.
#[derive(Default)]
pub(crate) struct Introduced(Mutex<HashMap<Digest, Vec<WeakStep>>>);

/// Layers to remember before those nobody has any more are looked for.
const MANY: usize = 1000;

impl Refs {
    /// A step found these layers, and somebody may fetch them later.
    pub fn introduced(&self, layers: &[LayerBlob], step: &StepProgress) {
        let all = &self.0.introduced.0;
        let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() > MANY {
            all.retain(|_, steps| steps.iter().any(|step| step.upgrade().is_some()));
        }
        for layer in layers {
            let steps = all.entry(layer.descriptor.digest).or_default();
            let known = |one: &WeakStep| one.upgrade().map(|one| one.digest());
            steps.retain(|one| known(one).is_some_and(|digest| digest != step.digest()));
            steps.push(step.downgrade());
        }
    }

    /// The step that brought this layer into a build that watches `reader`.
    pub(crate) fn introducer(&self, layer: &Digest, reader: &StepProgress) -> Option<StepProgress> {
        let all = &self.0.introduced.0;
        let steps = all
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(layer)?
            .clone();
        let mut steps = steps.iter().filter_map(WeakStep::upgrade);
        steps.find(|step| step.is_seen_with(reader))
    }
}
