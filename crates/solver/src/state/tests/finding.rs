//! How an output is found, and what that costs.

use expect_test::expect;

use super::play::{Play, step};
use super::{check, three_steps};

/// Rows: C01, C02, C03
#[test]
fn a_new_step_is_looked_for_once_and_then_run() {
    let mut play = Play::new(None);
    let said = play.build(1, &three_steps(), "test");
    check(
        said,
        expect![[r#"
        map test 0
        map make 0
        map base 0
        records base x1 in 1
        follow make 0 key x1
        miss base no record of 1 keys
        miss make inputs unknown: 0 by 1; 0 known
        miss test inputs unknown: 0 by 0; 0 known
        confirm base x1 in 1
        run base
        save base() x1, 0 nodes, 0 links
        confirm make x1 in 1
        run make
        save make(base()) x1, 1 nodes, 1 links
        confirm test x1 in 1
        run test
        save test(make(base())) x1, 1 nodes, 1 links
        reply 1 test(make(base()))
    "#]],
    );
}

/// Rows: C01, C02, C03
#[test]
fn a_known_step_costs_lookups_and_one_load() {
    let mut play = Play::new(None);
    play.build(1, &three_steps(), "test");
    let before = play.state.counters().loads;
    let said = play.build(2, &three_steps(), "test");
    assert_eq!(play.state.counters().loads, before + 1);
    check(
        said,
        expect![[r#"
        map test 0
        map make 0
        map base 0
        records base x1 in 1
        follow make 0 key x1
        records make x1 in 1
        follow test 0 key x1
        records test x1 in 1
        load test test(make(base())) of 0
        cached make
        reply 2 test(make(base()))
    "#]],
    );
}

/// Rows: C02, C03
#[test]
fn what_is_new_is_made_on_what_is_known() {
    let mut play = Play::new(None);
    play.build(1, &three_steps(), "make");
    let said = play.build(2, &three_steps(), "test");
    check(
        said,
        expect![[r#"
        map test 0
        map make 0
        map base 0
        records base x1 in 1
        follow make 0 key x1
        records make x1 in 1
        follow test 0 key x1
        miss test inputs unknown: 0 by 1; 0 known
        load make make(base()) of 0
        confirm test x1 in 1
        run test
        save test(make(base())) x1, 1 nodes, 1 links
        reply 2 test(make(base()))
    "#]],
    );
}

/// Rows: C02
#[test]
fn a_source_is_asked_for_its_dearer_key_only_if_the_cheap_one_is_unknown() {
    let mut play = Play::new(None);
    let source = |cheap| [step("source", &[]).does("inside").first_known_by(cheap)];
    check(
        play.build(1, &source("one"), "source"),
        expect![[r#"
        map source 0
        records source x1 in 1
        map source 1
        records source x2 in 1
        miss source no record of 2 keys
        confirm source x1 in 1
        run source
        save inside() x2, 0 nodes, 0 links
        reply 1 inside()
    "#]],
    );
    check(
        play.build(2, &source("one"), "source"),
        expect![[r#"
        map source 0
        records source x1 in 1
        load source inside() of 0
        reply 2 inside()
    "#]],
    );
    check(
        play.build(3, &source("two"), "source"),
        expect![[r#"
            map source 0
            records source x1 in 1
            map source 1
            records source x2 in 1
            load source inside() of 0
            save inside() x2, 0 nodes, 0 links
            reply 3 inside()
        "#]],
    );
    check(
        play.build(4, &source("two"), "source"),
        expect![[r#"
            map source 0
            records source x1 in 1
            load source inside() of 0
            reply 4 inside()
        "#]],
    );
}

/// Rows: C06
#[test]
fn what_is_ignored_is_not_looked_for() {
    let mut play = Play::new(None);
    let [base, make, test] = three_steps();
    play.build(1, &three_steps(), "test");
    let steps = [base, make.ignored(), test];
    check(
        play.build(2, &steps, "test"),
        expect![[r#"
        map test 0
        miss make ignored
        miss test inputs unknown: 0 by 0; 0 known
        map make 0
        map base 0
        records base x1 in 1
        load base base() of 0
        run make
        save make(base()) x1, 1 nodes, 1 links
        run test
        save test(make(base())) x1, 1 nodes, 1 links
        reply 2 test(make(base()))
    "#]],
    );
    let after = play.build(3, &three_steps(), "test");
    check(
        after,
        expect![[r#"
        map test 0
        map make 0
        map base 0
        records base x1 in 1
        follow make 0 key x1
        records make x1 in 1
        follow test 0 key x1
        records test x1 in 1
        load test test(make(base())) of 0
        cached make
        reply 3 test(make(base()))
    "#]],
    );
}

/// Rows: C02
#[test]
fn a_source_is_what_has_no_inputs() {
    let mut play = Play::new(None);
    play.job(1, &three_steps());
    assert!(play.state.is_source(play.id(1, "base")));
    assert!(!play.state.is_source(play.id(1, "make")));
    assert!(!play.state.has_imports(play.id(1, "make")));
    let gone = play.id(1, "base");
    play.leave(1);
    assert!(!play.state.is_source(gone) && !play.state.has_imports(gone));
}

/// What rests on a directory of a session is not kept under its key.
///
/// Rows: C02
#[test]
fn what_means_something_here_only_is_not_kept() {
    let mut play = Play::new(None);
    let steps = [
        step("dir", &[]).local(),
        step("copy", &["dir"]).sees(0, None),
        step("test", &["copy"]),
    ];
    let first = play.build(1, &steps, "test");
    check(
        first,
        expect![[r#"
        map test 0
        map copy 0
        map dir 0
        miss dir no record of 0 keys
        run dir
        content copy 0
        miss copy inputs unknown: 0 by 0; 0 known
        miss test inputs unknown: 0 by 0; 0 known
        run copy
        run test
        reply 1 test(copy(dir()))
    "#]],
    );
    let again = play.build(2, &steps, "test");
    assert_eq!(
        again.iter().filter(|line| line.starts_with("run")).count(),
        3
    );
}

/// Two outputs of one step: each has its own record, one run gives both.
///
/// Rows: C01, C02
#[test]
fn one_run_gives_all_outputs() {
    let mut play = Play::new(None);

    let steps = [
        step("base", &[]).outputs(2),
        step("left", &["base.0"]),
        step("right", &["base.1"]),
        step("both", &["left", "right"]),
    ];
    check(
        play.build(1, &steps, "both"),
        expect![[r#"
        map both 0
        map left 0
        map right 0
        map base 0
        records base x1 in 1
        records base x1 in 1
        follow left 0 key x1
        follow right 0 key x1
        miss base no record of 1 keys
        miss base no record of 1 keys
        miss left inputs unknown: 0 by 1; 0 known
        miss right inputs unknown: 0 by 1; 0 known
        miss both inputs unknown: 0 by 0, 1 by 0; 0 known
        confirm base x1 in 1
        run base
        save base() x1, 0 nodes, 0 links
        save base().1 x1, 0 nodes, 0 links
        confirm left x1 in 1
        confirm right x1 in 1
        run left
        run right
        save left(base()) x1, 1 nodes, 1 links
        save right(base().1) x1, 1 nodes, 1 links
        confirm both x1 in 1
        run both
        save both(left(base()),right(base().1)) x1, 1 nodes, 2 links
        reply 1 both(left(base()),right(base().1))
    "#]],
    );
    check(
        play.build(2, &steps, "base.1"),
        expect![[r#"
        map base 0
        records base x1 in 1
        load base base().1 of 0
        reply 2 base().1
    "#]],
    );
}

/// Rows: K4
#[test]
fn it_is_told_which_inputs_are_unknown() {
    let mut play = Play::new(None);
    let all = step("all", &["known", "new", "also known"]);
    let known = [step("known", &[]), step("also known", &[])];
    let old = [
        known.clone().to_vec(),
        vec![step("new", &[]).does("old"), all.clone()],
    ]
    .concat();
    play.build(1, &old, "all");
    let new = [known.to_vec(), vec![step("new", &[]), all]].concat();
    play.job(2, &new);
    play.want(2, 2, "all");
    check(
        play.said_of(&["miss"]),
        expect![[r#"
        miss new no record of 1 keys
        miss all inputs unknown: 1 by 1; 2 known
    "#]],
    );
}

/// All that a hit rests on is shown as cached, however deep, each once.
///
/// Rows: C10
#[test]
fn all_below_a_hit_is_shown_as_cached() {
    let mut play = Play::new(None);
    let steps = [
        step("base", &[]),
        step("one", &["base"]),
        step("two", &["one"]),
        step("three", &["two", "one"]),
        step("four", &["three"]),
    ];
    play.build(1, &steps, "four");
    play.job(2, &steps);
    play.want(2, 2, "four");
    check(
        play.said_of(&["cached"]),
        expect![[r#"
        cached three
        cached one
        cached two
    "#]],
    );
    play.want(2, 3, "two");
    assert_eq!(play.said_of(&["cached"]), Vec::<String>::new());
    // Nor is what was loaded for itself.
    play.leave(2);
    play.job(3, &steps);
    play.want(3, 4, "two");
    play.said();
    play.want(3, 5, "four");
    assert_eq!(play.said_of(&["cached"]), ["cached three"]);
}
