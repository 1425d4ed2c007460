//! One run for equal keys.

use expect_test::expect;

use super::check;
use super::play::{Play, Step, step};

/// Two vertices that do the same.
fn twins() -> [Step; 3] {
    [
        step("base", &[]),
        step("one", &["base"]).does("same"),
        step("two", &["base"]).does("same"),
    ]
}

/// Equal vertices of two builds are one: asked, looked up and run once, answered to both.
///
/// Rows: C01
#[test]
fn builds_share_a_vertex() {
    let mut play = Play::new(None);
    let steps = [step("base", &[]), step("make", &["base"])];
    play.hold("run make");
    play.job(1, &steps);
    play.want(1, 1, "make");
    play.said();
    play.job(2, &steps);
    play.want(2, 2, "make");
    assert_eq!(play.said(), Vec::<String>::new(), "all of it is under way");
    play.release("run make");
    check(
        play.said(),
        expect![[r#"
        save make(base()) x1, 1 nodes, 1 links
        reply 1 make(base())
        reply 2 make(base())
    "#]],
    );
    play.job(3, &steps);
    play.want(3, 3, "make");
    assert_eq!(play.said(), ["reply 3 make(base())"], "it is still there");
    assert_eq!(play.state.counters().runs, 2);
    assert_eq!(play.state.counters().shared, 0);
}

/// A vertex whose earlier results do not count is another one, and so is what rests on it.
///
/// Rows: C01, C06
#[test]
fn who_ignores_earlier_results_shares_with_nobody_who_does_not() {
    let mut play = Play::new(None);
    let steps = |base: Step| [base, step("make", &["base"]), step("test", &["make"])];
    play.job(1, &steps(step("base", &[])));
    play.job(2, &steps(step("base", &[]).ignored()));
    play.job(3, &steps(step("base", &[]).ignored()));
    for name in ["base", "make", "test"] {
        assert_ne!(play.id(1, name), play.id(2, name));
        assert_eq!(play.id(2, name), play.id(3, name));
    }
}

/// Rows: C01
#[test]
fn vertices_with_equal_keys_share_a_run() {
    let mut play = Play::new(None);
    play.hold("run one");
    play.job(1, &twins());
    play.want(1, 1, "one");
    play.want(1, 2, "two");
    check(
        play.said(),
        expect![[r#"
        map one 0
        map base 0
        records base x1 in 1
        follow one 0 key x1
        miss base no record of 1 keys
        miss one inputs unknown: 0 by 1; 0 known
        confirm base x1 in 1
        run base
        save base() x1, 0 nodes, 0 links
        confirm one x1 in 1
        run one
        map two 0
        follow two 0 key x1
        miss two inputs unknown: 0 by 1; 0 known
    "#]],
    );
    play.release("run one");
    check(
        play.said(),
        expect![[r#"
        save same(base()) x1, 1 nodes, 1 links
        reply 2 same(base())
        save same(base()) x1, 1 nodes, 1 links
        reply 1 same(base())
    "#]],
    );
    assert_eq!(
        (play.state.counters().runs, play.state.counters().shared),
        (2, 1)
    );
}

/// Also when the lookups were over before there was a result, or when nothing is ever saved.
///
/// Rows: C01
#[test]
fn a_run_that_is_over_is_shared_too() {
    for local in [false, true] {
        let mut play = Play::new(None);
        let [base, one, two] = twins();
        let base = if local { base.local() } else { base };
        play.hold("run base");
        play.job(1, &[base, one, two]);
        play.want(1, 0, "base");
        play.want(1, 1, "two");
        play.withdraw(1);
        play.release("run base");
        play.want(1, 2, "one");
        play.said();
        play.want(1, 3, "two");
        assert_eq!(play.said_of(&["run", "reply"]), ["reply 3 same(base())"]);
        let counters = play.state.counters();
        assert_eq!((counters.runs, counters.shared, counters.loads), (2, 1, 0));
    }
}

/// Rows: C01, C10
#[test]
fn who_follows_runs_when_the_one_at_it_is_stopped() {
    let mut play = Play::new(None);
    play.hold("run one");
    let [base, one, two] = twins();
    play.job(1, &[base.clone(), one]);
    play.want(1, 1, "one");
    play.job(2, &[base, two]);
    play.want(2, 2, "two");
    play.said();
    play.leave(1);
    check(
        play.said(),
        expect![[r#"
        reply 1 Canceled
        stop run one
        forget one
        confirm two x1 in 1
        run two
        save same(base()) x1, 1 nodes, 1 links
        reply 2 same(base())
    "#]],
    );
}

/// Rows: C01, C11
#[test]
fn who_follows_runs_when_the_one_at_it_fails() {
    let mut play = Play::new(None);
    play.hold("run one");
    play.job(1, &twins());
    play.want(1, 1, "one");
    play.want(1, 2, "two");
    play.said();
    play.fail("run one");
    check(
        play.said(),
        expect![[r#"
        reply 1 failed: run one
        confirm two x1 in 1
        run two
        save same(base()) x1, 1 nodes, 1 links
        reply 2 same(base())
    "#]],
    );
}

/// Who follows and is not wanted any more takes nothing from the one it followed.
///
/// Rows: C01, C10
#[test]
fn who_followed_and_left_stops_nobody() {
    let mut play = Play::new(None);
    play.hold("run one");
    play.job(1, &twins());
    play.want(1, 1, "one");
    play.want(1, 2, "two");
    play.withdraw(2);
    play.said();
    play.release("run one");
    check(
        play.said(),
        expect![[r#"
        save same(base()) x1, 1 nodes, 1 links
        reply 1 same(base())
    "#]],
    );
    assert_eq!(play.state.counters().shared, 0);
    play.leave(1);
    assert!(play.state.is_empty());
}

/// Between the lookup and the run another process may have made it.
///
/// Rows: C01
#[test]
fn the_last_look_before_a_run_finds_what_came_meanwhile() {
    let mut play = Play::new(None);
    play.hold("confirm make");
    let steps = [step("base", &[]), step("make", &["base"])];
    play.job(1, &steps);
    play.want(1, 1, "make");
    assert_eq!(play.open(), ["confirm make x1 in 1"]);
    let mut other = Play::new(None);
    std::mem::swap(&mut other.stores, &mut play.stores);
    other.build(2, &steps, "make");
    std::mem::swap(&mut other.stores, &mut play.stores);
    play.said();
    play.release("confirm make");
    check(
        play.said(),
        expect![[r#"
        load make make(base()) of 0
        reply 1 make(base())
    "#]],
    );
    play.leave(1);
    assert!(play.state.is_empty());
}

/// What came meanwhile may be gone again: then it runs after all.
///
/// Rows: C01, C05
#[test]
fn the_last_look_may_find_what_cannot_be_loaded() {
    let mut play = Play::new(None);
    play.hold("confirm make");
    let steps = [step("base", &[]), step("make", &["base"])];
    play.job(1, &steps);
    play.want(1, 1, "make");
    let mut other = Play::new(None);
    std::mem::swap(&mut other.stores, &mut play.stores);
    other.build(2, &steps, "make");
    std::mem::swap(&mut other.stores, &mut play.stores);
    play.said();
    play.gone.insert("make(base())");
    play.release("confirm make");
    check(
        play.said(),
        expect![[r#"
        load make make(base()) of 0
        miss make gone
        run make
        save make(base()) x1, 1 nodes, 1 links
        reply 1 make(base())
    "#]],
    );
}

/// Others share their runs although some run asks for more meanwhile.
///
/// Rows: C01, L15
#[test]
fn a_run_that_asks_does_not_keep_others_from_sharing() {
    let mut play = Play::new(None);
    play.hold("run outer");
    play.hold("run one");
    play.hold("run two");
    play.hold("run inner");
    let [base, one, two] = twins();
    play.job(1, &[base, one, two, step("outer", &[]), step("inner", &[])]);
    play.want(1, 1, "outer");
    play.want_within(1, 2, "inner", Some("outer"));
    play.want(1, 3, "one");
    play.want(1, 4, "two");
    assert_eq!(play.open(), ["run outer", "run inner", "run one"]);
}

/// What has run waits for nothing any more, even if what it was made from runs again for
/// another of its outputs.
///
/// Rows: L15
#[test]
fn a_run_may_ask_for_what_rests_on_an_earlier_result_of_its_own() {
    let mut play = Play::new(None);
    let steps = [
        step("outer", &[]).outputs(2),
        step("made", &["outer.0"]),
        step("wanted", &["made"]),
    ];
    play.build(1, &steps[..1], "outer");
    play.forget("outer().1");
    play.job(2, &steps);
    play.want(2, 1, "made");
    play.hold("run outer");
    play.want(2, 2, "outer.1");
    assert_eq!(play.open(), ["run outer"]);
    play.said();
    play.want_within(2, 3, "wanted", Some("outer"));
    assert_eq!(play.said_of(&["reply"]), ["reply 3 wanted(made(outer()))"]);
}

/// Vertices that rest on what means something here only share runs within the session.
///
/// Rows: C01
#[test]
fn keys_of_one_session_are_shared_in_it() {
    let mut play = Play::new(None);
    play.hold("run one");
    let [_, one, two] = twins();
    play.job(1, &[step("base", &[]).local(), one, two]);
    play.want(1, 1, "one");
    play.want(1, 2, "two");
    assert_eq!(play.said_of(&["run", "confirm"]), ["run base", "run one"]);
    play.release("run one");
    check(
        play.said(),
        expect![[r#"
        reply 2 same(base())
        reply 1 same(base())
    "#]],
    );
}

/// What ignores earlier results does not share a run either.
///
/// Rows: C01, C06
#[test]
fn what_ignores_earlier_results_runs_by_itself() {
    let mut play = Play::new(None);
    play.hold("run");
    play.job(
        1,
        &[
            step("one", &[]).does("same"),
            step("two", &[]).does("same").ignored(),
            step("three", &[]).does("same").ignored(),
        ],
    );
    for (request, name) in ["one", "two", "three"].into_iter().enumerate() {
        play.want(1, request as u64, name);
    }
    assert_eq!(play.open(), ["run one", "run two", "run three"]);
}

/// Inputs whose content is the same make one vertex of what was two.
///
/// Rows: C01, C02
#[test]
fn equal_content_makes_equal_keys() {
    let mut play = Play::new(None);
    play.hold("run left copy");
    let copy = |name, of| step(name, &[of]).does("copy").sees(0, "files");
    play.job(
        1,
        &[
            step("left", &[]).local(),
            step("right", &[]).local(),
            copy("left copy", "left"),
            copy("right copy", "right"),
        ],
    );
    play.want(1, 1, "left copy");
    play.want(1, 2, "right copy");
    assert_eq!(play.open(), ["run left copy"]);
    play.release("run left copy");
    check(
        play.said_of(&["run", "save", "reply"]),
        expect![[r#"
        run left
        run left copy
        run right
        save copy(left()) x1, 1 nodes, 1 links
        reply 2 copy(left())
        save copy(left()) x1, 1 nodes, 1 links
        reply 1 copy(left())
    "#]],
    );
}

/// What one build made is found by another one that is there already, after the first has left.
///
/// Rows: C01, C03
#[test]
fn what_was_made_meanwhile_is_found() {
    let mut play = Play::new(None);
    let [base, make, test] = super::three_steps();
    let two = [base.clone(), make.clone()];
    play.job(1, &[base, make, test.clone()]);
    play.job(2, &two);
    play.want(1, 1, "test");
    play.want(2, 2, "make");
    play.leave(1);
    play.said();
    play.declare(2, &[test]);
    play.want(2, 3, "test");
    check(
        play.said(),
        expect![[r#"
        map test 0
        follow test 0 key x1
        records test x1 in 1
        load test test(make(base())) of 0
        reply 3 test(make(base()))
    "#]],
    );
}

/// What another process made meanwhile, found by the last look, leads on to what that one made of
/// it.
///
/// Rows: C01, C03
#[test]
fn what_the_last_look_found_leads_on() {
    let mut play = Play::new(None);
    play.hold("confirm make");
    let [base, make, test] = super::three_steps();
    play.job(1, &[base.clone(), make.clone()]);
    play.want(1, 1, "make");
    let mut other = Play::new(None);
    std::mem::swap(&mut other.stores, &mut play.stores);
    other.build(2, &[base, make, test.clone()], "test");
    std::mem::swap(&mut other.stores, &mut play.stores);
    play.release("confirm make");
    play.said();
    play.declare(1, &[test]);
    play.want(1, 2, "test");
    assert_eq!(
        play.said_of(&["miss", "confirm", "load", "run"]),
        ["load test test(make(base())) of 0"]
    );
}
