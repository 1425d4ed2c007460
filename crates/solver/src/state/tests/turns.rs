//! Places for limited work, and whose turn it is.

use super::super::run::Slots;
use super::play::{Play, Step, step};
use crate::event::{JobId, VertexId};

fn limited(name: &'static str) -> Step {
    step(name, &[]).limited()
}

/// What runs, in order, when every run ends at once, the oldest first.
fn order(play: &mut Play) -> Vec<String> {
    let mut order = Vec::new();
    while let Some(first) = play.open().first().map(|line| (*line).to_owned()) {
        play.done(&first);
        order.push(first.replace("run ", ""));
    }
    order
}

/// Rows: D28
#[test]
fn builds_take_turns_whatever_they_bring() {
    let mut play = Play::new(Some(1));
    play.hold("run");
    let names = ["a1", "a2", "a3", "a4", "b1", "b2", "c1"];
    let of = |job: &str| {
        let mine = names.iter().filter(|name| name.starts_with(job));
        mine.map(|name| limited(name)).collect::<Vec<_>>()
    };
    for (job, letter) in [(1, "a"), (2, "b"), (3, "c")] {
        play.job(job, &of(letter));
    }
    for (request, name) in names.into_iter().enumerate() {
        let job = match &name[..1] {
            "a" => 1,
            "b" => 2,
            _ => 3,
        };
        play.want(job, request as u64, name);
    }
    assert_eq!(play.open(), ["run a1"]);
    assert_eq!(order(&mut play), ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]);
}

/// Rows: D28
#[test]
fn as_many_run_as_there_are_places() {
    for (limit, expected) in [(Some(0), 1), (Some(1), 1), (Some(2), 2), (None, 4)] {
        let mut play = Play::new(limit);
        play.hold("run");
        play.job(1, &["a", "b", "c", "d"].map(limited));
        for (request, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
            play.want(1, request as u64, name);
        }
        assert_eq!(play.open().len(), expected, "{limit:?}");
        assert_eq!(order(&mut play), ["a", "b", "c", "d"]);
    }
}

/// Rows: D28
#[test]
fn what_is_not_limited_waits_for_no_place() {
    let mut play = Play::new(Some(1));
    play.hold("run");
    play.job(1, &[limited("a"), step("b", &[]), limited("c")]);
    for (request, name) in ["a", "b", "c"].into_iter().enumerate() {
        play.want(1, request as u64, name);
    }
    assert_eq!(play.open(), ["run a", "run b"]);
    play.done("run b");
    assert_eq!(play.open(), ["run a"], "the end of b frees no place");
    play.done("run a");
    assert_eq!(play.open(), ["run c"]);
}

/// A run that is stopped or fails gives its place to the next.
///
/// Rows: C10, D28
#[test]
fn a_place_is_free_however_a_run_ends() {
    let mut play = Play::new(Some(1));
    play.hold("run");
    play.job(1, &["a", "b", "c", "d"].map(limited));
    for (request, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
        play.want(1, request as u64, name);
    }
    play.withdraw(0);
    assert_eq!(play.open(), ["run b"]);
    play.fail("run b");
    assert_eq!(play.open(), ["run c"]);
    // One that waits for its place and is not wanted any more does not get it.
    play.withdraw(3);
    play.done("run c");
    assert_eq!(play.open(), Vec::<&str>::new());
    play.leave(1);
    assert!(play.state.is_empty());
}

/// What one build queued is run in the turn of another one when that is left alone with it.
///
/// Rows: C10, D28
#[test]
fn what_waits_for_its_place_stays_for_who_stays() {
    let mut play = Play::new(Some(1));
    play.hold("run");
    play.job(1, &["busy", "shared", "mine"].map(limited));
    play.job(2, &["shared"].map(limited));
    play.want(1, 1, "busy");
    play.want(1, 2, "shared");
    play.want(1, 3, "mine");
    play.want(2, 4, "shared");
    play.said();
    play.leave(1);
    assert_eq!(play.open(), ["run shared"]);
    play.release("run");
    assert_eq!(play.said_of(&["reply 4"]), ["reply 4 shared()"]);
    play.leave(2);
    assert!(play.state.is_empty());
}

/// A build that leaves takes what waited along, and leaves its place free.
///
/// Rows: C10, D28
#[test]
fn a_build_that_leaves_leaves_its_places_free() {
    let mut play = Play::new(Some(1));
    play.hold("run");
    play.job(1, &["a", "b"].map(limited));
    play.want(1, 1, "a");
    play.want(1, 2, "b");
    play.leave(1);
    assert!(play.state.is_empty());
    play.job(2, &["c"].map(limited));
    play.want(2, 3, "c");
    assert_eq!(play.open(), ["run c"]);
}

/// Then it has its turn among what the other one brought, behind it.
///
/// Rows: C10, D28
#[test]
fn what_waited_for_who_left_waits_among_what_the_other_brought() {
    let mut play = Play::new(Some(1));
    play.hold("run");
    play.job(1, &["shared"].map(limited));
    play.job(2, &["shared", "b1", "b2"].map(limited));
    play.job(3, &["busy", "c1", "c2", "c3"].map(limited));
    let wanted = [
        (3, "busy"),
        (1, "shared"),
        (2, "shared"),
        (2, "b1"),
        (2, "b2"),
        (3, "c1"),
        (3, "c2"),
        (3, "c3"),
    ];
    for (request, (job, name)) in wanted.into_iter().enumerate() {
        play.want(job, request as u64, name);
    }
    play.leave(1);
    assert_eq!(
        order(&mut play),
        ["busy", "b1", "c1", "b2", "c2", "shared", "c3"]
    );
}

/// Whether all places are free and nobody waits: at the end nothing may be left.
///
/// Rows: D28
#[test]
fn places_know_when_they_are_idle() {
    let mut slots = Slots::new(Some(1));
    let (job, vertex) = (JobId(1), VertexId(1));
    assert!(slots.is_idle());
    slots.wait(job, vertex);
    assert!(!slots.is_idle(), "one waits");
    assert_eq!(slots.next(), Some((job, vertex)));
    assert!(!slots.is_idle(), "it runs");
    slots.wait(job, VertexId(2));
    assert_eq!(slots.next(), None, "the place is taken");
    slots.stop_waiting(job, VertexId(2));
    slots.done();
    assert!(slots.is_idle());
}
