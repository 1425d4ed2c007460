//! The least work with which a build that was made before can be made again, found the plain way.

use std::collections::BTreeSet;

use oci::Digest;

use super::graph::{Graph, Kind, Thing};

/// What has to be done, each once.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Least {
    /// Vertices that run.
    pub(super) runs: BTreeSet<Digest>,
    /// Outputs that are loaded.
    pub(super) loads: BTreeSet<(Digest, u32)>,
    /// Inputs that are digested.
    pub(super) contents: BTreeSet<(Digest, usize)>,
}

impl Graph {
    /// What has to be done for these outputs of one vertex, when all of it was done before and
    /// is kept.
    pub(super) fn least(&self, of: &Digest, outputs: std::ops::Range<u32>) -> Least {
        let at = self.things.iter().position(|thing| thing.digest == *of);
        let at = at.expect("a vertex of this job");
        let cached = self.cached();
        let mut least = Least::default();
        for output in outputs {
            self.make(at, output, &cached, &mut least);
        }
        least
    }

    /// Which vertices have a key that means something to others: all but directories of a
    /// session and what counts them by definition.
    fn cached(&self) -> Vec<bool> {
        let mut cached: Vec<bool> = Vec::new();
        for thing in &self.things {
            let is_local = matches!(thing.kind, Kind::Local);
            let mut inputs = thing.inputs.iter().enumerate();
            let known = inputs.all(|(number, input)| cached[input.0] || thing.sees(number));
            cached.push(!is_local && known);
        }
        cached
    }

    fn make(&self, at: usize, output: u32, cached: &[bool], least: &mut Least) {
        let thing = &self.things[at];
        if cached[at] {
            self.find(at, cached, least);
            least.loads.insert((thing.digest, output));
        } else if least.runs.insert(thing.digest) {
            for (number, (input, output)) in thing.inputs.iter().enumerate() {
                self.make(*input, *output, cached, least);
                if thing.looks(number) {
                    least.contents.insert((thing.digest, number));
                }
            }
        }
    }

    /// Finds the key of a vertex that is kept: what counts by content and has no key of its own
    /// is made for it.
    fn find(&self, at: usize, cached: &[bool], least: &mut Least) {
        let thing = &self.things[at];
        for (number, (input, output)) in thing.inputs.iter().enumerate() {
            if cached[*input] {
                self.find(*input, cached, least);
            } else {
                self.make(*input, *output, cached, least);
                least.contents.insert((thing.digest, number));
            }
        }
    }
}

impl Thing {
    /// Whether an input counts by content.
    fn looks(&self, input: usize) -> bool {
        matches!(&self.kind, Kind::Copy { by_content } if by_content[input])
    }

    /// Whether an input can be seen by content, too.
    fn sees(&self, input: usize) -> bool {
        self.looks(input) && self.can_see(input)
    }
}
