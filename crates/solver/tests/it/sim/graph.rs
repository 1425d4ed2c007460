//! Random graphs, as builds bring them.

use oci::Digest;
use solver::event::JobId;

use super::dice::Dice;

/// What a vertex of the world does.
#[derive(Clone, Debug)]
pub(super) enum Kind {
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
pub(super) struct Thing {
    pub(super) digest: Digest,
    pub(super) kind: Kind,
    pub(super) op: u64,
    pub(super) inputs: Vec<(usize, u32)>,
    pub(super) outputs: u32,
    pub(super) ignore_cache: bool,
    pub(super) limited: bool,
}

/// One job's graph and what is in its directories.
#[derive(Clone, Debug)]
pub(super) struct Graph {
    pub(super) things: Vec<Thing>,
    pub(super) dirs: Vec<u64>,
    pub(super) session: u64,
}

pub(super) fn name(text: String) -> Digest {
    Digest::of(text)
}

impl Graph {
    pub(super) fn random(dice: &mut Dice, job: JobId) -> Graph {
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

    pub(super) fn thing(&self, digest: &Digest) -> &Thing {
        self.things
            .iter()
            .find(|thing| thing.digest == *digest)
            .expect("a vertex of this job")
    }
}

impl Thing {
    /// Some inputs cannot be seen by content after all.
    pub(super) fn can_see(&self, input: usize) -> bool {
        self.op != 2 || input == 0
    }
}
