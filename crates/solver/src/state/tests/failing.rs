//! Who is told of a failure, and for how long it counts.

use expect_test::expect;

use super::play::{Play, step};
use super::{check, three_steps};

/// Everyone that waits is told, each once, and nothing goes on for them.
///
/// Rows: C11
#[test]
fn a_failure_reaches_everyone_who_waits() {
    let mut play = Play::new(None);
    play.hold("run make");
    play.hold("run other");
    let [base, make, test] = three_steps();
    let other = step("other", &["base"]);
    let both = step("both", &["make", "other"]);
    let steps = [base, make, test, other, both];
    play.job(1, &steps);
    play.job(2, &steps);
    play.want(1, 1, "test");
    play.want(1, 2, "both");
    play.want(2, 3, "make");
    play.want(2, 4, "other");
    play.said();
    play.fail("run make");
    check(
        play.said(),
        expect![[r#"
        reply 3 failed: run make
        reply 2 failed: run make
        reply 1 failed: run make
    "#]],
    );
    assert_eq!(play.open(), ["run other"], "someone wants that for itself");
    play.want(2, 5, "test");
    check(
        play.said(),
        expect![[r#"
        reply 5 failed: run make
    "#]],
    );
    play.release("run other");
    check(
        play.said(),
        expect![[r#"
        save other(base()) x1, 1 nodes, 1 links
        reply 4 other(base())
    "#]],
    );
}

/// What only a failed step wanted is stopped.
///
/// Rows: C10, C11
#[test]
fn what_a_failed_step_wanted_stops() {
    let mut play = Play::new(None);
    play.hold("run");
    play.job(
        1,
        &[
            step("left", &[]),
            step("right", &[]),
            step("both", &["left", "right"]),
        ],
    );
    play.want(1, 1, "both");
    assert_eq!(play.open(), ["run left", "run right"]);
    play.said();
    play.fail("run left");
    check(
        play.said(),
        expect![[r#"
        reply 1 failed: run left
        stop run right
    "#]],
    );
    play.leave(1);
    assert!(play.state.is_empty());
}

/// A failure counts as long as the build whose op failed is there.
///
/// Rows: C11
#[test]
fn a_failure_ends_with_the_build_whose_op_failed() {
    for failing in ["map base 0", "run base", "content copy 0"] {
        let mut play = Play::new(None);
        let steps = [step("base", &[]), step("copy", &["base"]).sees(0, "files")];
        play.hold(failing);
        play.job(1, &steps);
        play.job(2, &steps);
        play.want(1, 1, "copy");
        play.fail(failing);
        play.want(2, 2, "copy");
        let told = [1, 2].map(|request| format!("reply {request} failed: {failing}"));
        assert_eq!(play.said_of(&["reply"]), told);
        play.leave(1);
        play.said();
        play.want(2, 3, "copy");
        play.fail(failing);
        assert_eq!(
            play.said_of(&["reply"]),
            [format!("reply 3 failed: {failing}")]
        );
        play.job(3, &steps);
        play.release(failing);
        play.want(2, 4, "copy");
        assert_eq!(play.said_of(&["reply"]), ["reply 4 copy(base())"]);
    }
}

/// What has its result is not failed by what it once asked.
///
/// Rows: C11
#[test]
fn who_does_not_wait_any_more_does_not_fail() {
    let mut play = Play::new(None);
    let steps = [step("base", &[]), step("make", &["base"])];
    play.build(1, &steps, "make");
    play.forget("base()");
    play.hold("run base");
    play.job(2, &steps);
    play.want(2, 1, "make");
    play.want(2, 2, "base");
    play.fail("run base");
    play.want(2, 3, "make");
    check(
        play.said_of(&["reply"]),
        expect![[r#"
        reply 1 make(base())
        reply 2 failed: run base
        reply 3 make(base())
    "#]],
    );
}

/// Nothing is looked up any more for an output that will never be.
///
/// Rows: C10, Q11
#[test]
fn lookups_for_an_output_that_is_not_given_stop() {
    let mut play = Play::new(None);
    play.hold("run base");
    play.job(1, &[step("base", &[])]);
    play.want(1, 1, "base");
    play.hold("records base");
    play.want(1, 2, "base.5");
    assert_eq!(play.open(), ["run base", "records base x1 in 1"]);
    play.said();
    play.done("run base");
    check(
        play.said_of(&["stop", "reply"]),
        expect![[r#"
        reply 1 base()
        reply 2 NoSuchOutput { vertex: VertexId(0), output: 5 }
        stop records base x1 in 1
    "#]],
    );
}

/// A build that comes brings an op that may do better.
///
/// Rows: C11
#[test]
fn a_new_build_tries_again() {
    let mut play = Play::new(None);
    play.hold("run base");
    play.job(1, &three_steps());
    play.want(1, 1, "base");
    play.fail("run base");
    play.job(2, &three_steps());
    play.said();
    play.want(2, 2, "base");
    assert_eq!(play.open(), ["run base"]);
    play.release("run base");
    assert_eq!(play.said_of(&["reply"]), ["reply 2 base()"]);
}

/// Rows: Q11
#[test]
fn an_output_that_is_not_given_fails_who_wants_it() {
    let mut play = Play::new(None);
    play.job(
        1,
        &[
            step("base", &[]).outputs(2),
            step("test", &["base.2"]),
            step("fine", &["base.1"]),
        ],
    );
    play.want(1, 1, "test");
    play.want(1, 2, "base.2");
    play.want(1, 3, "fine");
    check(
        play.said_of(&["reply"]),
        expect![[r#"
        reply 1 NoSuchOutput { vertex: VertexId(0), output: 2 }
        reply 2 NoSuchOutput { vertex: VertexId(0), output: 2 }
        reply 3 fine(base().1)
    "#]],
    );
    play.leave(1);
    assert!(play.state.is_empty());
}

/// Rows: Q11
#[test]
fn an_op_must_know_how_many_inputs_it_has() {
    let mut play = Play::new(None);
    let [base, make, test] = three_steps();
    play.job(1, &[base, make.claims_inputs(2), test]);
    play.want(1, 1, "test");
    check(
        play.said_of(&["reply"]),
        expect![[r#"
        reply 1 BadCacheMap { vertex: VertexId(1), expected: 1, found: 2 }
    "#]],
    );
    play.leave(1);
    assert!(play.state.is_empty());
}

/// Rows: Q11
#[test]
fn questions_without_sense_are_answered() {
    let mut play = Play::new(None);
    play.want(1, 1, "base");
    play.job(1, &three_steps()[..1]);
    play.want(1, 2, "test");
    // Its input was never described: it is not known either.
    play.declare(1, &three_steps()[2..]);
    play.want(1, 3, "test");
    play.declare(2, &three_steps());
    let said = play.said();
    assert_eq!(said[0], "reply 1 Canceled");
    assert!(said[1].starts_with("reply 2 UnknownVertex"), "{said:?}");
    assert!(said[2].starts_with("reply 3 UnknownVertex"), "{said:?}");
    assert_eq!(said.len(), 3);
    play.leave(1);
    assert!(play.state.is_empty());
}

/// Answers to work that was stopped come too late and change nothing.
///
/// Rows: C10
#[test]
fn what_comes_too_late_is_dropped() {
    use crate::event::{Event, TaskId};
    let mut play = Play::new(None);
    play.hold("run base");
    play.job(1, &three_steps());
    play.want(1, 1, "base");
    play.withdraw(1);
    play.said();
    for task in (1..20).map(TaskId) {
        let records = Vec::new();
        let result = Ok(vec!["late".to_owned()]);
        play.tell(Event::Ran { task, result });
        play.tell(Event::RecordsFound { task, records });
        play.tell(Event::Loaded { task, output: None });
        play.tell(Event::Probed {
            task,
            found: Vec::new(),
        });
        play.tell(Event::ContentFound {
            task,
            result: Ok(None),
        });
    }
    assert_eq!(play.said(), Vec::<String>::new());
    play.leave(1);
    assert!(play.state.is_empty());
}
