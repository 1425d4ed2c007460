//! What the result of a graph is, found the plain way: by working everything out.

use std::collections::HashMap;

use oci::Digest;
use solver::{CacheMap, InputMap, KeyDigest};

use super::graph::{Graph, Kind, name};

pub(super) fn hash(parts: &[u64]) -> u64 {
    let text = format!("{parts:?}");
    let digest = Digest::of(text).hex();
    u64::from_str_radix(&digest[..12], 16).expect("hex")
}

/// The part of a value that copying looks at.
fn view(value: u64) -> u64 {
    value % 3
}

impl Graph {
    pub(super) fn cache_map(&self, digest: &Digest, index: usize) -> CacheMap {
        let thing = self.thing(digest);
        match &thing.kind {
            Kind::Source if index == 0 => {
                let digest = KeyDigest::Stable(name(format!("manifest {}", thing.op)));
                CacheMap {
                    digest,
                    inputs: Vec::new(),
                    last: false,
                }
            }
            Kind::Source => CacheMap::new(
                KeyDigest::Stable(name(format!("inside {}", thing.op / 2))),
                0,
            ),
            Kind::Local => {
                let text = format!("dir {} {}", thing.op, self.session);
                CacheMap::new(KeyDigest::Random(name(text)), 0)
            }
            Kind::Exec => {
                let digest =
                    KeyDigest::Stable(name(format!("exec {} {}", thing.op, thing.inputs.len())));
                CacheMap::new(digest, thing.inputs.len())
            }
            Kind::Copy { by_content } => {
                let digest = KeyDigest::Stable(name(format!("copy {} {by_content:?}", thing.op)));
                let inputs = by_content.iter().map(|by_content| InputMap {
                    selector: by_content.then(|| name("part".to_owned())),
                    by_content: *by_content,
                });
                CacheMap {
                    digest,
                    inputs: inputs.collect(),
                    last: true,
                }
            }
        }
    }

    pub(super) fn content(&self, digest: &Digest, input: usize, value: u64) -> Option<Digest> {
        let seen = self.thing(digest).can_see(input);
        seen.then(|| name(format!("content {}", view(value))))
    }

    pub(super) fn run(&self, digest: &Digest, inputs: &[u64]) -> Vec<u64> {
        let thing = self.thing(digest);
        let outputs = 0..u64::from(thing.outputs);
        match &thing.kind {
            Kind::Source => outputs.map(|o| hash(&[1, thing.op / 2, o])).collect(),
            Kind::Local => outputs
                .map(|o| hash(&[2, self.dirs[thing.op as usize], o]))
                .collect(),
            Kind::Exec => outputs
                .map(|o| hash(&[&[3, thing.op, o], inputs].concat()))
                .collect(),
            Kind::Copy { by_content } => {
                let seen: Vec<u64> = inputs
                    .iter()
                    .zip(by_content)
                    .map(|(value, by_content)| if *by_content { view(*value) } else { *value })
                    .collect();
                outputs
                    .map(|o| hash(&[&[4, thing.op, o], &seen[..]].concat()))
                    .collect()
            }
        }
    }

    /// The values of all outputs of all vertices.
    pub(super) fn values(&self) -> HashMap<(Digest, u32), u64> {
        let mut values: HashMap<(Digest, u32), u64> = HashMap::new();
        for thing in &self.things {
            let inputs: Vec<u64> = thing
                .inputs
                .iter()
                .map(|(input, output)| values[&(self.things[*input].digest, *output)])
                .collect();
            for (number, value) in self.run(&thing.digest, &inputs).into_iter().enumerate() {
                values.insert((thing.digest, number as u32), value);
            }
        }
        values
    }
}
