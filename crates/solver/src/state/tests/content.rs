//! What is found by what is in its inputs, and what follows from what.

use expect_test::expect;

use super::check;
use super::play::{ELSEWHERE, Play, Step, step};
use crate::event::LOCAL;

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
