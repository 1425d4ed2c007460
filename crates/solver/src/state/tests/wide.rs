//! What is looked at for a large graph grows as the graph does, however deep or wide it is.

use super::play::{Play, Step, step};

/// Enough: were it quadratic, each would be looked at hundreds of times.
const VERTICES: usize = 1_000;

/// A name for as long as the test runs.
fn name(number: usize) -> &'static str {
    number.to_string().leak()
}

/// Looks per vertex and edge of a fresh build and of a cached one.
fn looks(steps: &[Step], edges: usize, last: &str) -> [u64; 2] {
    let mut play = Play::new(None);
    [1, 2].map(|job| {
        let before = play.state.counters();
        play.build(job, steps, last);
        let looks = play.state.counters().looks - before.looks;
        looks.div_ceil((steps.len() + edges) as u64)
    })
}

/// Rows: Q11, C01
#[test]
fn a_deep_graph_is_looked_at_in_linear_time() {
    let mut steps = vec![step(name(0), &[])];
    steps.extend((1..VERTICES).map(|n| step(name(n), &[name(n - 1)])));
    let each = looks(&steps, VERTICES - 1, name(VERTICES - 1));
    assert_eq!(each, [7, 5]);
}

/// Rows: Q11, C01
#[test]
fn a_wide_graph_is_looked_at_in_linear_time() {
    let all: Vec<&'static str> = (1..VERTICES).map(name).collect();
    let mut steps = vec![step("base", &[])];
    steps.extend(all.iter().map(|name| step(name, &["base"])));
    steps.push(step("all", &all));
    let each = looks(&steps, VERTICES * 2, "all");
    assert_eq!(each, [9, 5]);
}

/// Every vertex on the two before it: there are more ways than anyone could walk.
///
/// Rows: Q11, C01
#[test]
fn a_graph_with_many_ways_is_looked_at_in_linear_time() {
    let mut steps = vec![step(name(0), &[]), step(name(1), &[])];
    let two = |n: usize| step(name(n), &[name(n - 1), name(n - 2)]);
    steps.extend((2..VERTICES).map(two));
    let each = looks(&steps, VERTICES * 2, name(VERTICES - 1));
    assert_eq!(each, [8, 5]);
}

/// A run that asks for something looks at each vertex below that once.
///
/// Rows: L15, Q11
#[test]
fn a_run_may_ask_for_what_has_many_ways() {
    let mut steps = vec![step("outer", &[]), step(name(0), &[]), step(name(1), &[])];
    let two = |n: usize| step(name(n), &[name(n - 1), name(n - 2)]);
    steps.extend((2..100).map(two));
    let mut play = Play::new(None);
    play.hold("run outer");
    play.job(1, &steps);
    play.want(1, 1, "outer");
    play.want_within(1, 2, "99", Some("outer"));
    play.release("run outer");
    assert_eq!(play.said_of(&["reply"]).len(), 2);
}
