//! What is known in which store, and what of it can still be had.

use expect_test::expect;

use super::play::{ELSEWHERE, FARTHER, Play, step};
use super::{check, three_steps};
use crate::event::LOCAL;
use crate::index::Index as _;
use crate::key::ResultId;

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
