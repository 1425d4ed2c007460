//! What the result of a graph is, found the plain way: by working everything out.

use std::collections::{HashMap, HashSet};

use oci::Digest;
use solver::event::JobId;
use solver::{CacheMap, InputMap, KeyDigest};

use crate::dice::Dice;

/// What a vertex of the world does.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// Something with a cheap key and one for what is inside.
    Source,
    /// A directory of the session: its key means nothing elsewhere.
    Local,
    /// Works on all of its inputs.
    Exec,
    /// Looks only at a part of some of its inputs.
    Copy {
        /// Which inputs count by content.
        by_content: Vec<bool>,
    },
}

#[derive(Clone, Debug)]
pub(crate) struct Thing {
    pub(crate) digest: Digest,
    pub(crate) kind: Kind,
    pub(crate) op: u64,
    pub(crate) inputs: Vec<(usize, u32)>,
    pub(crate) outputs: u32,
    pub(crate) ignore_cache: bool,
    pub(crate) limited: bool,
}

/// One job's graph and what is in its directories.
#[derive(Clone, Debug)]
pub(crate) struct Graph {
    pub(crate) things: Vec<Thing>,
    pub(crate) dirs: Vec<u64>,
    session: u64,
}

pub(crate) fn hash(parts: &[u64]) -> u64 {
    let text = format!("{parts:?}");
    let digest = Digest::of(text).hex();
    u64::from_str_radix(&digest[..12], 16).expect("hex")
}

fn name(text: String) -> Digest {
    Digest::of(text)
}

/// The part of a value that copying looks at.
fn view(value: u64) -> u64 {
    value % 3
}

impl Graph {
    pub(crate) fn random(dice: &mut Dice, job: JobId) -> Graph {
        let count = 2 + dice.roll(9) as usize;
        let session = if dice.chance(20) { 1 } else { 100 + job.0 };
        let dirs = if session == 1 {
            vec![0, 1, 2]
        } else {
            (0..3).map(|_| dice.roll(3)).collect()
        };
        let mut things: Vec<Thing> = Vec::new();
        for at in 0..count {
            let thing = Self::random_thing(dice, at, &things, session);
            things.push(thing);
        }
        Graph {
            things,
            dirs,
            session,
        }
    }

    fn random_thing(dice: &mut Dice, at: usize, before: &[Thing], session: u64) -> Thing {
        let op = dice.roll(3);
        let width = if at < 2 { 0 } else { dice.roll(4) as usize };
        let mut inputs = Vec::new();
        for _ in 0..width {
            let input = dice.roll(at as u64) as usize;
            inputs.push((input, dice.roll(u64::from(before[input].outputs)) as u32));
        }
        let kind = match (inputs.is_empty(), dice.chance(50)) {
            (true, true) => Kind::Source,
            (true, false) => Kind::Local,
            (false, true) => Kind::Exec,
            (false, false) => Kind::Copy {
                by_content: inputs.iter().map(|_| dice.chance(60)).collect(),
            },
        };
        let outputs = 1 + (op % 2) as u32;
        let ignore_cache = dice.chance(4);
        let inputs_named: Vec<_> = inputs
            .iter()
            .map(|(i, o)| (before[*i].digest, *o))
            .collect();
        let local = if matches!(kind, Kind::Local) {
            session
        } else {
            0
        };
        let digest = name(format!("vertex {kind:?} {op} {inputs_named:?} {local}"));
        Thing {
            digest,
            kind,
            op,
            inputs,
            outputs,
            ignore_cache,
            // The same for all builds that have it.
            limited: digest.hex().starts_with(|c: char| c < '8'),
        }
    }

    pub(crate) fn thing(&self, digest: &Digest) -> &Thing {
        self.things
            .iter()
            .find(|thing| thing.digest == *digest)
            .expect("a vertex of this job")
    }

    pub(crate) fn cache_map(&self, digest: &Digest, index: usize) -> CacheMap {
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

    pub(crate) fn content(&self, digest: &Digest, input: usize, value: u64) -> Option<Digest> {
        let thing = self.thing(digest);
        // Some inputs cannot be seen by content after all.
        (thing.op != 2 || input == 0).then(|| name(format!("content {}", view(value))))
    }

    pub(crate) fn run(&self, digest: &Digest, inputs: &[u64]) -> Vec<u64> {
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
    pub(crate) fn values(&self) -> HashMap<(Digest, u32), u64> {
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

    /// The vertices whose results another build finds: all but directories of a session and
    /// what counts them by definition.
    pub(crate) fn cached(&self) -> HashSet<Digest> {
        let mut cached: Vec<bool> = Vec::new();
        for thing in &self.things {
            let input = |(number, (input, _)): (usize, &(usize, u32))| {
                let by_content = match &thing.kind {
                    Kind::Copy { by_content } => by_content[number],
                    _ => false,
                };
                // As `content` has it.
                cached[*input] || by_content && (thing.op != 2 || number == 0)
            };
            let is_local = matches!(thing.kind, Kind::Local);
            cached.push(!is_local && thing.inputs.iter().enumerate().all(input));
        }
        let things = self.things.iter().zip(cached);
        things
            .filter(|(_, cached)| *cached)
            .map(|(thing, _)| thing.digest)
            .collect()
    }
}
