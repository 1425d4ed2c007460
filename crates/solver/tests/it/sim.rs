//! A world of builds that come, wait and leave, played from one seed.
//! `SEED=42 cargo test -p solver sim` plays one world again, step for step.

mod checks;
mod dice;
mod evaluator;
mod graph;
mod least;
mod player;
mod work;
mod world;

use std::collections::{BTreeMap, BTreeSet};

use solver::event::JobId;

use graph::Graph;
use least::Least;
use world::{Did, World};

fn play(seed: u64) -> (u64, BTreeMap<&'static str, u64>) {
    let mut world = World::new(seed);
    for step in 0..250 {
        world.at = format!("seed {seed} step {step}");
        world.step();
    }
    world.at = format!("seed {seed} at the end");
    while !world.to_do.is_empty() {
        world.some_work_ends();
    }
    assert!(
        world.waiting.is_empty() && world.parked.is_empty(),
        "{}: builds left without an answer",
        world.at
    );
    for job in world.jobs.keys().copied().collect::<Vec<_>>() {
        world.job_leaves(job);
    }
    assert!(
        world.state.is_empty(),
        "{}: something is still held",
        world.at
    );
    (world.log, world.seen)
}

/// Rows: C01, C02, C03, C04, C05, C06, C10, L15, Z1
#[test]
fn sim_every_build_gets_the_right_answer() {
    let seeds = match std::env::var("SEED") {
        Ok(seed) => vec![seed.parse().expect("SEED is a number")],
        Err(_) => (0..500).collect(),
    };
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in seeds.iter().copied() {
        for (what, count) in play(seed).1 {
            *seen.entry(what).or_default() += count;
        }
    }
    if seeds.len() > 1 {
        for what in [
            "answered",
            "failed",
            "canceled",
            "left",
            "loaded",
            "gone",
            "ran",
            "restarted",
            "asked within",
            "in a circle",
        ] {
            assert!(
                seen.get(what).is_some_and(|count| *count > 100),
                "{what} hardly happens: {seen:?}"
            );
        }
    }
}

#[test]
fn sim_is_the_same_each_time() {
    for seed in 0..100 {
        assert_eq!(play(seed), play(seed), "seed {seed}");
    }
}

/// What was built is found again: by another build, after a restart, from another store. The
/// same graph again runs only what has no key that means something to others.
/// Rows: C02, C03, C04, Z1
#[test]
fn sim_what_was_built_is_not_built_again() {
    let (mut again, mut spared) = (0, 0);
    for seed in 0..300 {
        let mut world = World::new(seed);
        world.calm = true;
        world.at = format!("calm seed {seed}");
        let job = JobId(1);
        let mut graph = Graph::random(&mut world.dice, job);
        for thing in &mut graph.things {
            thing.ignore_cache = false;
        }
        build_all(&mut world, job, &graph);
        let first = std::mem::take(&mut world.did);
        match seed % 3 {
            0 => {}
            1 => world.restart(),
            // All that is known came from elsewhere.
            _ => world.restart_with_import_only(),
        }
        build_all(&mut world, JobId(2), &graph);
        let at = &world.at;
        let last = graph.things.last().expect("a graph has vertices");
        let least = graph.least(&last.digest, 0..last.outputs);
        check_least(&world.did, &least, at);
        again += world.did.runs.len();
        spared += first.runs.len() - world.did.runs.len();
        assert!(world.state.is_empty(), "{at}: something is still held");
    }
    assert!(again > 50 && spared > 200, "{again} again, {spared} spared");
}

/// Everything was done at most once, and only what had to be.
fn check_least(did: &Did, least: &Least, at: &str) {
    let once: BTreeSet<_> = did.runs.iter().copied().collect();
    assert_eq!(did.runs.len(), once.len(), "{at}: a step ran twice");
    assert!(once.is_subset(&least.runs), "{at}: a step ran again");
    let mut loads = did.loads.clone();
    for (of, _) in &least.loads {
        loads.extract_if(.., |load| load == of).next();
    }
    assert_eq!(loads, [], "{at}: more was loaded than {least:?}");
    let once: BTreeSet<_> = did.contents.iter().copied().collect();
    assert_eq!(did.contents.len(), once.len(), "{at}: digested twice");
    assert!(once.is_subset(&least.contents), "{at}: digested again");
}

/// One build that wants the last vertex, to its end.
fn build_all(world: &mut World, job: JobId, graph: &Graph) {
    world.job_comes(job, graph.clone(), true);
    let last = graph.things.last().expect("a graph has vertices");
    for output in 0..last.outputs {
        world.build_asks_for(job, last.digest, output);
    }
    while !world.to_do.is_empty() {
        world.some_work_ends();
    }
    let at = &world.at;
    assert!(world.waiting.is_empty(), "{at}: left without an answer");
    world.job_leaves(job);
}
