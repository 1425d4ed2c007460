//! The state alone, event by event: what it asks for, in which order, and nothing more.

mod content;
mod failing;
mod finding;
mod leaving;
mod picture;
mod play;
mod sharing;
mod stores;
mod turns;
mod wide;

use expect_test::Expect;

/// Compares what was said.
#[track_caller]
fn check(said: Vec<String>, expected: Expect) {
    expected.assert_eq(&(said.join("\n") + "\n"));
}

/// base <- make <- test
fn three_steps() -> [play::Step; 3] {
    [
        play::step("base", &[]),
        play::step("make", &["base"]),
        play::step("test", &["make"]),
    ]
}
