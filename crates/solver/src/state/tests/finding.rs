//! How an output is found, and what that costs.

use expect_test::expect;

use super::play::{ELSEWHERE, FARTHER, Play, Step, step};
use super::{check, three_steps};
use crate::event::LOCAL;
use crate::index::Index as _;
use crate::key::ResultId;

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

/// Two sessions, the same files. The second copy is found by what it sees.
///
/// Rows: C02
#[test]
fn a_copy_is_found_by_content() {
    let mut play = Play::new(None);
    let dir = |name| step(name, &[]).local();
    let copy = |dir| step("copy", &[dir]).sees(0, "files");
    check(
        play.build(1, &[dir("one"), copy("one")], "copy"),
        expect![[r#"
        map copy 0
        map one 0
        miss one no record of 0 keys
        run one
        content copy 0
        follow copy 0 content x1
        miss copy inputs unknown: 0 by 0 seen; 0 known
        confirm copy x1 in 1
        run copy
        save copy(one()) x1, 1 nodes, 1 links
        reply 1 copy(one())
    "#]],
    );
    check(
        play.build(2, &[dir("two"), copy("two")], "copy"),
        expect![[r#"
        map copy 0
        map two 0
        miss two no record of 0 keys
        run two
        content copy 0
        follow copy 0 content x1
        records copy x1 in 1
        load copy copy(one()) of 0
        reply 2 copy(one())
    "#]],
    );
}

/// An input that cannot be seen by content after all counts by its definition.
///
/// Rows: C02
#[test]
fn what_cannot_be_seen_counts_by_definition() {
    let mut play = Play::new(None);
    let steps = [step("base", &[]), step("copy", &["base"]).sees(0, None)];
    check(
        play.build(1, &steps, "copy"),
        expect![[r#"
            map copy 0
            map base 0
            records base x1 in 1
            follow copy 0 key x1
            miss base no record of 1 keys
            confirm base x1 in 1
            run base
            save base() x1, 0 nodes, 0 links
            content copy 0
            miss copy inputs unknown: 0 by 1; 0 known
            confirm copy x1 in 1
            run copy
            save copy(base()) x1, 1 nodes, 1 links
            reply 1 copy(base())
        "#]],
    );
    check(
        play.build(2, &steps, "copy"),
        expect![[r#"
        map copy 0
        map base 0
        records base x1 in 1
        follow copy 0 key x1
        records copy x1 in 1
        load copy copy(base()) of 0
        reply 2 copy(base())
    "#]],
    );
}

/// What a changed base gives may look the same to the copy.
///
/// Rows: C02
#[test]
fn an_input_that_leads_elsewhere_is_seen_as_well() {
    let mut play = Play::new(None);
    let steps = |base| {
        [
            step(base, &[]),
            step("other", &[]),
            step("copy", &[base, "other"]).sees(0, "files"),
        ]
    };
    play.build(1, &steps("base"), "copy");
    check(
        play.build(2, &steps("new base"), "copy"),
        expect![[r#"
            map copy 0
            map new base 0
            map other 0
            records new base x1 in 1
            records other x1 in 1
            follow copy 0 key x1
            follow copy 1 key x1
            miss new base no record of 1 keys
            confirm new base x1 in 1
            run new base
            save new base() x1, 0 nodes, 0 links
            content copy 0
            follow copy 0 content x1
            records copy x1 in 1
            load copy copy(base(),other()) of 0
            save copy(base(),other()) x1, 1 nodes, 3 links
            reply 2 copy(base(),other())
        "#]],
    );
    check(
        play.build(3, &steps("new base"), "copy"),
        expect![[r#"
            map copy 0
            map new base 0
            map other 0
            records new base x1 in 1
            records other x1 in 1
            follow copy 0 key x1
            follow copy 1 key x1
            records copy x1 in 1
            load copy copy(base(),other()) of 0
            reply 3 copy(base(),other())
        "#]],
    );
    check(
        play.build(4, &steps("base"), "copy"),
        expect![[r#"
        map copy 0
        map base 0
        map other 0
        records base x1 in 1
        records other x1 in 1
        follow copy 0 key x1
        follow copy 1 key x1
        records copy x1 in 1
        load copy copy(base(),other()) of 0
        reply 4 copy(base(),other())
    "#]],
    );
}

/// Every input leads somewhere, but not to one common result: only the content tells.
///
/// Rows: C02, C03
#[test]
fn inputs_without_a_common_result_are_seen() {
    let mut play = Play::new(None);
    let steps = |left, right| {
        [
            step("a", &[]),
            step("b", &[]),
            step("c", &[]),
            step("d", &[]),
            step("copy", &[left, right])
                .sees(0, "left")
                .sees(1, "right"),
        ]
    };
    play.build(1, &steps("a", "b"), "copy");
    let other = [
        step("c", &[]),
        step("d", &[]),
        step("copy", &["c", "d"]).sees(0, "other").sees(1, "other"),
    ];
    play.build(2, &other, "copy");
    // `a` leads to the first, `d` to the second one; seen, they are as in the first.
    check(
        play.build(3, &steps("a", "d"), "copy"),
        expect![[r#"
            map copy 0
            map a 0
            map d 0
            records a x1 in 1
            records d x1 in 1
            follow copy 0 key x1
            follow copy 1 key x1
            load a a() of 0
            load d d() of 0
            content copy 0
            content copy 1
            follow copy 0 content x1
            follow copy 1 content x1
            records copy x1 in 1
            load copy copy(a(),b()) of 0
            save copy(a(),b()) x1, 1 nodes, 4 links
            reply 3 copy(a(),b())
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

/// What rests on a source that was found by its first key is kept, and what is known of it
/// elsewhere is taken over.
///
/// Rows: C02, C04
#[test]
fn a_source_found_by_its_cheap_key_is_as_good() {
    let mut play = Play::new(None);
    let source = step("source", &[]).does("inside").first_known_by("one");
    let steps = [source, step("make", &["source"])];
    play.saves_to = ELSEWHERE;
    play.build(1, &steps, "source");
    play.saves_to = LOCAL;
    play.job_with(2, ELSEWHERE, &steps);
    play.want(2, 2, "make");
    check(
        play.said_of(&["map source", "load", "save"]),
        expect![[r#"
        map source 0
        load source inside() of 7
        save inside() x1, 0 nodes, 0 links
        save make(inside()) x1, 1 nodes, 1 links
    "#]],
    );
    play.leave(2);
    play.said();
    let again = play.build(3, &steps, "make");
    check(
        again,
        expect![[r#"
        map make 0
        map source 0
        records source x1 in 1
        follow make 0 key x1
        records make x1 in 1
        load make make(inside()) of 0
        reply 3 make(inside())
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

/// Rows: C04
#[test]
fn what_is_known_elsewhere_is_taken_over() {
    let mut play = Play::new(None);
    play.saves_to = ELSEWHERE;
    play.build(1, &three_steps(), "test");
    play.saves_to = LOCAL;
    play.job_with(2, ELSEWHERE, &three_steps());
    play.want(2, 2, "test");
    check(
        play.said(),
        expect![[r#"
        map test 0
        map make 0
        map base 0
        records base x1 in 2
        follow make 0 key x1
        records make x1 in 2
        follow test 0 key x1
        records test x1 in 2
        load test test(make(base())) of 7
        save test(make(base())) x1, 2 nodes, 2 links
        cached make
        reply 2 test(make(base()))
    "#]],
    );
    play.leave(2);
    check(
        play.build(3, &three_steps(), "test"),
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

/// The node of a step is enough to find what rests on it: the step itself need not be there, nor
/// the inputs it would be found by.
///
/// Rows: C02, C05
#[test]
fn a_step_without_a_result_still_leads_on() {
    let mut play = Play::new(None);
    let steps = [
        step("base", &[]),
        step("copy", &["base"]).sees(0, "files"),
        step("test", &["copy"]),
    ];
    play.build(1, &steps, "test");
    play.forget("copy(base())");
    check(
        play.build(2, &steps, "test"),
        expect![[r#"
        map test 0
        map copy 0
        map base 0
        records base x1 in 1
        follow copy 0 key x1
        records copy x1 in 1
        follow test 0 key x1
        records test x1 in 1
        load test test(copy(base())) of 0
        cached copy
        reply 2 test(copy(base()))
    "#]],
    );
    // Wanted itself, it is looked for by content, then made.
    check(
        play.build(3, &steps, "copy"),
        expect![[r#"
        map copy 0
        map base 0
        records base x1 in 1
        follow copy 0 key x1
        records copy x1 in 1
        load base base() of 0
        content copy 0
        follow copy 0 content x1
        miss copy no common result
        confirm copy x1 in 1
        run copy
        save copy(base()) x1, 1 nodes, 2 links
        reply 3 copy(base())
    "#]],
    );
}

/// The newest first; of equally old ones an imported one.
///
/// Rows: C04
#[test]
fn the_newest_record_of_all_stores_is_loaded_first() {
    for (first, second, expected) in [
        (ELSEWHERE, LOCAL, "load base base() of 0"),
        (LOCAL, ELSEWHERE, "load base base() of 7"),
    ] {
        let mut play = Play::new(None);
        play.saves_to = first;
        play.build(1, &[step("base", &[])], "base");
        play.saves_to = second;
        play.build(2, &[step("base", &[]).ignored()], "base");
        play.job_with(3, ELSEWHERE, &[step("base", &[])]);
        play.want(3, 3, "base");
        assert_eq!(play.said_of(&["load"]), [expected]);
    }
    let mut play = Play::new(None);
    play.saves_to = ELSEWHERE;
    play.build(1, &[step("base", &[])], "base");
    play.saves_to = LOCAL;
    play.job_with(2, ELSEWHERE, &[step("base", &[])]);
    play.want(2, 2, "base");
    play.leave(2);
    play.said();
    play.job_with(3, ELSEWHERE, &[step("base", &[])]);
    play.want(3, 3, "base");
    assert_eq!(play.said_of(&["load"]), ["load base base() of 7"]);
}

/// Rows: C05
#[test]
fn a_record_that_is_gone_makes_room_for_the_next() {
    let mut play = Play::new(None);
    play.build(1, &[step("base", &[])], "base");
    play.job(2, &[step("base", &[]).ignored().run_gives("new")]);
    play.want(2, 2, "base");
    play.leave(2);
    play.said();
    play.hold("load");
    play.job(3, &[step("base", &[])]);
    play.want(3, 3, "base");
    assert_eq!(play.open(), ["load base new() of 0"]);
    play.fail("load base new() of 0");
    assert_eq!(play.open(), ["load base base() of 0"]);
    play.fail("load base base() of 0");
    check(
        play.said(),
        expect![[r#"
        map base 0
        records base x1 in 1
        load base new() of 0
        load base base() of 0
        miss base gone
        confirm base x1 in 1
        run base
        save base() x1, 0 nodes, 0 links
        reply 3 base()
    "#]],
    );
}

/// A store one build knows is looked into for the steps it has, and for those only.
///
/// Rows: C04
#[test]
fn a_store_counts_for_the_steps_of_those_who_know_it() {
    let mut play = Play::new(None);
    play.saves_to = FARTHER;
    play.build(1, &[step("base", &[])], "base");
    play.saves_to = LOCAL;
    play.job(2, &[step("base", &[]), step("mine", &[])]);
    play.job_with(3, FARTHER, &[step("base", &[])]);
    let has_imports = |play: &Play, name| play.state.has_imports(play.id(2, name));
    assert!(has_imports(&play, "base") && !has_imports(&play, "mine"));
    play.want(2, 2, "base");
    play.want(2, 3, "mine");
    check(
        play.said_of(&["records", "load", "run"]),
        expect![[r#"
        records base x1 in 2
        load base base() of 9
        records mine x1 in 1
        run mine
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

/// What was made without looking is not what earlier results rest on: not even of what is two
/// steps further. By content, though, they are found.
///
/// Rows: C02, C06
#[test]
fn what_rests_on_what_was_made_anew_is_found_by_content_only() {
    let mut play = Play::new(None);
    let steps = |base: Step| {
        [
            base,
            step("make", &["base"]),
            step("copy", &["make"]).sees(0, "files"),
            step("blind", &["make"]).sees(0, None),
            step("all", &["copy", "blind"]),
        ]
    };
    play.build(1, &steps(step("base", &[])), "all");
    check(
        play.build(2, &steps(step("base", &[]).ignored()), "all"),
        expect![[r#"
            map all 0
            map copy 0
            map blind 0
            map make 0
            miss base ignored
            miss make inputs unknown: 0 by 0; 0 known
            map base 0
            run base
            save base() x1, 0 nodes, 0 links
            run make
            save make(base()) x1, 1 nodes, 1 links
            content copy 0
            content blind 0
            follow copy 0 content x1
            miss blind inputs unknown: 0 by 0; 0 known
            miss all inputs unknown: 1 by 0; 0 known
            run blind
            records copy x1 in 1
            save blind(make(base())) x1, 1 nodes, 1 links
            load copy copy(make(base())) of 0
            run all
            save all(copy(make(base())),blind(make(base()))) x1, 1 nodes, 2 links
            reply 2 all(copy(make(base())),blind(make(base())))
        "#]],
    );
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

/// A base that was made anew, with other files: what copied the old ones and what copied the
/// new ones both follow from its key. Gives the steps of a build on it.
fn made_anew(play: &mut Play) -> [Step; 3] {
    let copy = |files| step("copy", &["base"]).sees(0, files);
    let base = step("base", &[]);
    play.build(1, &[base.clone(), copy("old")], "copy");
    let new = copy("new").run_gives("new");
    play.build(2, &[base.clone().ignored(), new.clone()], "copy");
    [base, new, step("test", &["copy"])]
}

/// The same on another base, with the old files.
fn with_old_files() -> [Step; 3] {
    let copy = step("copy", &["other"]).sees(0, "old");
    [step("other", &[]), copy, step("test", &["copy"])]
}

/// What is made of one of two results is not what follows from the other one.
///
/// Rows: C02, C03, C06
#[test]
fn what_is_made_of_a_result_follows_from_that_one_only() {
    let mut play = Play::new(None);
    let steps = made_anew(&mut play);
    let said = play.build(3, &steps, "test");
    assert_eq!(said.last().unwrap(), "reply 3 test(new(base()))");
    let said = play.build(4, &with_old_files(), "test");
    assert_eq!(said.last().unwrap(), "reply 4 test(copy(base()))");
}

/// The same when both results are gone and it runs again.
///
/// Rows: C02, C03, C05, C06
#[test]
fn what_runs_again_is_known_by_what_it_saw() {
    for (sees, other) in [("old", "new"), ("new", "old")] {
        let mut play = Play::new(None);
        let [base, _, test] = made_anew(&mut play);
        let again = |files| step("copy", &["base"]).sees(0, files).run_gives("again");
        let elsewhere = |files| {
            let copy = step("copy", &[files]).sees(0, files);
            [step(files, &[]), copy, step("test", &["copy"])]
        };
        // Something rests on both, so that the keys stay.
        for (job, files) in [(3, "old"), (4, "new")] {
            play.build(job, &elsewhere(files), "test");
        }
        play.forget("copy(base())");
        play.forget("new(base())");
        play.build(5, &[base, again(sees), test], "copy");
        let said = play.build(6, &elsewhere(sees), "copy");
        assert_eq!(said.last().unwrap(), "reply 6 again(base())");
        let said = play.build(7, &elsewhere(other), "copy");
        let made = format!("reply 7 copy({other}())");
        assert_eq!(said.last().unwrap(), &made);
    }
}

/// The same when what rests on the new files comes from elsewhere.
///
/// Rows: C02, C03, C04
#[test]
fn what_is_taken_over_does_not_follow_from_what_is_here() {
    let mut play = Play::new(None);
    let copy = |files| step("copy", &["base"]).sees(0, files);
    let [base, test] = [step("base", &[]), step("test", &["copy"])];
    play.build(1, &[base.clone(), copy("old")], "copy");
    play.saves_to = ELSEWHERE;
    let new = copy("new").run_gives("new");
    play.build(
        2,
        &[base.clone().ignored(), new.clone(), test.clone()],
        "test",
    );
    play.saves_to = LOCAL;
    play.job_with(3, ELSEWHERE, &[base, new, test]);
    play.want(3, 3, "test");
    assert_eq!(play.said_of(&["reply"]), ["reply 3 test(new(base()))"]);
    play.leave(3);
    play.said();
    let said = play.build(4, &with_old_files(), "test");
    assert_eq!(said.last().unwrap(), "reply 4 test(copy(base()))");
}

/// A record says when it was made, wherever it is kept; what is noted of it later does not make
/// it newer.
///
/// Rows: C04
#[test]
fn what_is_taken_over_keeps_its_age() {
    let mut play = Play::new(None);
    play.saves_to = ELSEWHERE;
    play.build(1, &three_steps(), "test");
    play.saves_to = LOCAL;
    play.build(2, &[step("other", &[])], "other");
    play.job_with(3, ELSEWHERE, &three_steps());
    play.want(3, 3, "test");
    play.leave(3);
    let index = &play.stores[&LOCAL];
    let of = |result: &str| {
        let keys = index.keys_of(&ResultId(result.to_owned())).unwrap();
        index.records(&keys[0]).unwrap()[0].1
    };
    assert!(of("test(make(base()))") < of("other()"));
}

/// The keys of a step whose own result is gone are enough for what rests on it, though that is
/// found by the content of something else: nothing is made for it.
///
/// Rows: C02, C05
#[test]
fn the_key_of_a_step_is_enough_for_what_rests_on_it() {
    let mut play = Play::new(None);
    let steps = |dir| {
        [
            step("base", &[]),
            step("make", &["base"]),
            step("seen", &["base"]).sees(0, "files"),
            step(dir, &[]).local(),
            step("copy", &[dir]).sees(0, "more files"),
            step("all", &["make", "seen", "copy"]),
        ]
    };
    play.build(1, &steps("dir"), "all");
    play.forget("make(base())");
    play.forget("seen(base())");
    check(
        play.build(2, &steps("other dir"), "all"),
        expect![[r#"
        map all 0
        map make 0
        map seen 0
        map copy 0
        map base 0
        map other dir 0
        records base x1 in 1
        follow make 0 key x1
        follow seen 0 key x1
        records make x1 in 1
        records seen x1 in 1
        follow all 0 key x1
        follow all 1 key x1
        miss other dir no record of 0 keys
        run other dir
        content copy 0
        follow copy 0 content x1
        records copy x1 in 1
        follow all 2 key x1
        records all x1 in 1
        load all all(make(base()),seen(base()),copy(dir())) of 0
        cached copy
        cached seen
        cached make
        reply 2 all(make(base()),seen(base()),copy(dir()))
    "#]],
    );
}

/// The same when what it rests on was made anew and is found by what is in it.
///
/// Rows: C02, C05, C06
#[test]
fn a_key_found_by_content_leads_on_though_the_input_is_new() {
    let mut play = Play::new(None);
    let steps = |base| {
        [
            base,
            step("copy", &["base"]).sees(0, "files"),
            step("test", &["copy"]),
        ]
    };
    play.build(1, &steps(step("base", &[])), "test");
    play.forget("copy(base())");
    let anew = steps(step("base", &[]).ignored());
    check(
        play.build(2, &anew, "test"),
        expect![[r#"
        map test 0
        map copy 0
        miss base ignored
        map base 0
        run base
        save base() x1, 0 nodes, 0 links
        content copy 0
        follow copy 0 content x1
        records copy x1 in 1
        follow test 0 key x1
        records test x1 in 1
        load test test(copy(base())) of 0
        cached copy
        reply 2 test(copy(base()))
    "#]],
    );
    // Wanted itself as well, it is made, and what rests on it is still found.
    play.forget("copy(base())");
    play.job(3, &anew);
    play.hold("content copy");
    play.want(3, 1, "test");
    play.want(3, 2, "copy");
    play.said();
    play.release("content copy");
    check(
        play.said(),
        expect![[r#"
        follow copy 0 content x1
        records copy x1 in 1
        miss copy no common result
        confirm copy x1 in 1
        follow test 0 key x1
        run copy
        records test x1 in 1
        save copy(base()) x1, 1 nodes, 2 links
        reply 2 copy(base())
        load test test(copy(base())) of 0
        reply 1 test(copy(base()))
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

/// The last look before a run is for what is known by content, too, though the input is new.
///
/// Rows: C01, C06
#[test]
fn a_run_on_what_was_seen_is_looked_for_once_more() {
    let mut play = Play::new(None);
    play.job(
        1,
        &[
            step("base", &[]).ignored(),
            step("new", &[]),
            step("copy", &["base", "new"]).sees(0, "files"),
            step("blind", &["base", "new"]).sees(0, None),
        ],
    );
    play.want(1, 1, "copy");
    play.want(1, 2, "blind");
    check(
        play.said_of(&["confirm", "run"]),
        expect![[r#"
        confirm new x1 in 1
        run base
        run new
        confirm copy x1 in 1
        run copy
        run blind
    "#]],
    );
}

/// A copy that was found by its input's key is still the one that is found by what it saw: what is
/// made of it is found both ways.
///
/// Rows: C02, C03
#[test]
fn what_rests_on_a_result_is_found_by_every_way_to_it() {
    let mut play = Play::new(None);
    let steps = |base| {
        [
            step(base, &[]),
            step("copy", &[base]).sees(0, "files"),
            step("test", &["copy"]),
        ]
    };
    play.build(1, &steps("base")[..2], "copy");
    play.build(2, &steps("base"), "test");
    let said = play.build(3, &steps("other"), "test");
    let runs = said.iter().filter(|line| line.starts_with("run"));
    assert_eq!(runs.collect::<Vec<_>>(), ["run other"]);
}
