//! Work stops at the moment the last one that wants it leaves.

use expect_test::expect;

use super::play::{Play, Step, step};
use super::{check, three_steps};

/// Every kind of work, by the line that begins it.
const WORK: [(&str, &str); 9] = [
    ("map base", "map base 0"),
    ("records base", "records base x1 in 1"),
    ("load base", "load base base() of 0"),
    ("follow make", "follow make 0 key x1"),
    ("content copy", "content copy 0"),
    ("follow copy 0 content", "follow copy 0 content x1"),
    ("records copy", "records copy x1 in 1"),
    ("confirm test", "confirm test x1 in 1"),
    ("run test", "run test"),
];

fn steps() -> [Step; 4] {
    [
        step("base", &[]),
        step("make", &["base"]),
        step("copy", &["make"]).sees(0, "files"),
        step("test", &["copy"]).limited(),
    ]
}

/// Something is known, so that each kind of work happens.
fn begun(held: &str, jobs: u64) -> Play {
    let mut play = Play::new(Some(1));
    play.build(1, &[step("base", &[])], "base");
    let other = step("other", &[]);
    play.build(
        2,
        &[other, step("copy", &["other"]).sees(0, "files")],
        "copy",
    );
    play.hold(held);
    for job in 3..3 + jobs {
        play.job(job, &steps());
        play.want(job, job, "test");
    }
    play
}

/// Rows: C10
#[test]
fn all_work_stops_when_the_build_leaves() {
    for (held, line) in WORK {
        let mut play = begun(held, 1);
        assert_eq!(play.open(), [line]);
        play.said();
        play.leave(3);
        let said = play.said();
        let first = ["reply 3 Canceled".to_owned(), format!("stop {line}")];
        assert_eq!(said[..2], first, "{said:?}");
        assert!(play.open().is_empty() && play.state.is_empty(), "{line}");
    }
}

/// Rows: C10
#[test]
fn all_work_stops_when_the_question_is_taken_back() {
    for (held, line) in WORK {
        let mut play = begun(held, 1);
        play.said();
        play.withdraw(3);
        assert_eq!(play.said(), [format!("stop {line}")]);
        // Asked again, it goes on where it was and comes to its end.
        play.want(3, 4, "test");
        assert_eq!(play.open(), [line]);
        play.release(held);
        let said = play.said();
        let last = said.last().expect("there is an answer");
        assert_eq!(last, "reply 4 test(copy(other()))", "{held}: {said:?}");
        play.leave(3);
        assert!(play.state.is_empty(), "{line}");
    }
}

/// Rows: C10
#[test]
fn no_work_stops_while_someone_wants_it() {
    for (held, line) in WORK {
        let mut play = begun(held, 2);
        play.said();
        play.leave(3);
        assert_eq!(play.said(), ["reply 3 Canceled"], "{line}");
        assert_eq!(play.open(), [line]);
        play.release(held);
        let said = play.said();
        assert_eq!(
            said.last().unwrap(),
            "reply 4 test(copy(other()))",
            "{held}"
        );
        play.leave(4);
        assert!(play.state.is_empty(), "{line}");
    }
}

/// The work that began for the one that left may fail for want of its session: it is done again
/// for the one that stays, and nobody is told.
///
/// Rows: C10, C11
#[test]
fn work_that_failed_for_one_that_left_is_done_again() {
    for (held, line) in WORK {
        let kinds = ["map", "load", "content", "run"];
        if !kinds.iter().any(|kind| line.starts_with(kind)) {
            continue;
        }
        let mut play = begun(held, 2);
        play.leave(3);
        play.said();
        play.fail(line);
        assert_eq!(play.said(), [line], "again, and nothing else");
        assert_eq!(play.open(), [line]);
        play.release(held);
        let said = play.said();
        assert_eq!(
            said.last().unwrap(),
            "reply 4 test(copy(other()))",
            "{held}"
        );
        play.leave(4);
        assert!(play.state.is_empty(), "{line}");
    }
}

/// Two want different things of one step: less is done when the one that wants more leaves.
///
/// Rows: C10
#[test]
fn what_only_one_of_two_wanted_stops() {
    let mut play = Play::new(None);
    play.hold("run base");
    play.job(1, &three_steps());
    play.job(2, &three_steps());
    play.want(1, 1, "base");
    play.want(2, 2, "test");
    assert_eq!(play.open(), ["run base"]);
    play.withdraw(2);
    assert_eq!(play.open(), ["run base"], "the first still wants it");
    play.said();
    play.withdraw(1);
    assert_eq!(play.said(), ["stop run base"]);
    play.want(2, 3, "make");
    play.said();
    play.release("run base");
    check(
        play.said(),
        expect![[r#"
        save base() x1, 0 nodes, 0 links
        confirm make x1 in 1
        run make
        save make(base()) x1, 1 nodes, 1 links
        reply 3 make(base())
    "#]],
    );
}

/// A hit below, half loaded, is let go when the step above is not wanted, and kept for later.
///
/// Rows: C10
#[test]
fn a_load_that_was_stopped_begins_again() {
    let mut play = Play::new(None);
    play.build(1, &three_steps(), "make");
    play.hold("load make");
    play.job(2, &three_steps());
    play.want(2, 2, "test");
    play.withdraw(2);
    play.said();
    play.want(2, 3, "make");
    check(
        play.said(),
        expect![[r#"
        load make make(base()) of 0
    "#]],
    );
}

/// A build that asks for two outputs of a step and takes one question back still gets the other.
///
/// Rows: C10
#[test]
fn one_output_of_two_can_be_taken_back() {
    let mut play = Play::new(None);
    play.hold("run base");
    play.job(1, &[step("base", &[]).outputs(2)]);
    play.want(1, 1, "base.0");
    play.want(1, 2, "base.1");
    play.said();
    play.withdraw(1);
    assert_eq!(play.open(), ["run base"]);
    play.release("run base");
    assert_eq!(play.said_of(&["stop", "reply"]), ["reply 2 base().1"]);
    play.want(1, 3, "base.0");
    assert_eq!(play.said(), ["reply 3 base()"]);
}

/// What nobody knows any more is forgotten, what is shared stays.
///
/// Rows: C10
#[test]
fn a_vertex_is_forgotten_with_its_last_build() {
    let mut play = Play::new(None);
    play.job(1, &three_steps());
    play.job(2, &three_steps()[..2]);
    play.leave(1);
    assert_eq!(play.said(), ["forget test"]);
    play.leave(2);
    assert_eq!(play.said(), ["forget make", "forget base"]);
    play.leave(2);
    play.withdraw(7);
    assert_eq!(play.said(), Vec::<String>::new());
}

/// A record is loaded for who wants the output; who only looks for what rests on it needs none.
///
/// Rows: C10
#[test]
fn a_load_stops_when_only_the_key_is_wanted() {
    let mut play = Play::new(None);
    play.build(1, &three_steps(), "make");
    play.hold("load make");
    play.hold("follow test");
    play.job(2, &three_steps());
    play.want(2, 2, "test");
    play.want(2, 3, "make");
    assert_eq!(
        play.open(),
        ["follow test 0 key x1", "load make make(base()) of 0"]
    );
    play.said();
    play.withdraw(3);
    assert_eq!(play.said(), ["stop load make make(base()) of 0"]);
    play.release("follow test");
    assert_eq!(play.open(), ["load make make(base()) of 0"], "it has to be");
    play.release("load make");
    assert_eq!(
        play.said_of(&["run", "reply"]),
        ["run test", "reply 2 test(make(base()))"]
    );
}

/// Content is digested for who looks for a step as well as for who wants it.
///
/// Rows: C10
#[test]
fn digesting_goes_on_while_the_key_is_wanted() {
    let mut play = Play::new(None);
    play.hold("content copy");
    let steps = [
        step("base", &[]).local(),
        step("copy", &["base"]).sees(0, "files").outputs(2),
        step("test", &["copy"]),
    ];
    play.job(1, &steps);
    play.want(1, 1, "test");
    play.want(1, 2, "copy.1");
    assert_eq!(play.open(), ["content copy 0"]);
    play.said();
    play.withdraw(2);
    assert_eq!(play.said(), Vec::<String>::new());
    play.release("content copy");
    assert_eq!(play.said_of(&["reply"]), ["reply 1 test(copy(base()))"]);
    play.leave(1);
    assert!(play.state.is_empty());
}

/// A run goes on while it may be what gives the other output; it stops when that was loaded.
///
/// Rows: C10
#[test]
fn a_run_stops_when_all_that_is_wanted_of_it_was_found() {
    let mut play = Play::new(None);
    let steps = [step("base", &[]).outputs(2)];
    play.build(1, &steps, "base");
    play.forget("base()");
    play.hold("run base");
    play.hold("load base");
    play.job(2, &steps);
    play.want(2, 1, "base.0");
    play.want(2, 2, "base.1");
    play.withdraw(1);
    assert_eq!(play.open(), ["run base", "load base base().1 of 0"]);
    play.said();
    play.done("load base base().1 of 0");
    check(
        play.said(),
        expect![[r#"
        reply 2 base().1
        stop run base
    "#]],
    );
}

/// Whatever one asks for and takes back, at whatever moment, another one who asks gets an answer:
/// before, meanwhile and afterwards.
///
/// Rows: C01, C10
#[test]
fn who_stays_gets_an_answer_whatever_the_other_one_wanted() {
    const EDGES: [&str; 4] = ["base", "make", "copy", "test"];
    /// Results that are gone before.
    const LOST: [&[&str]; 4] = [
        &[],
        &["test(copy(other()))"],
        &["test(copy(other()))", "copy(other())"],
        &["make(base())", "test(copy(other()))", "copy(other())"],
    ];
    let loads = EDGES.map(|edge| format!("load {edge}"));
    let held = WORK.iter().map(|(held, _)| *held);
    let held: Vec<&str> = held.chain(loads.iter().map(String::as_str)).collect();
    let mut plays = 0;
    for (built, lost) in LOST.iter().flat_map(|lost| [(false, lost), (true, lost)]) {
        for held in &held {
            for (wanted, stays) in EDGES.iter().flat_map(|one| EDGES.map(|two| (one, two))) {
                for moment in 0..3 {
                    let mut play = begun("nothing", 0);
                    if built {
                        play.build(9, &steps(), "test");
                        play.build(10, &steps(), "make");
                    }
                    for lost in *lost {
                        play.forget(lost);
                    }
                    play.hold(held);
                    for job in [3, 4] {
                        play.job(job, &steps());
                    }
                    if moment == 0 {
                        play.want(4, 4, stays);
                    }
                    play.want(3, 3, wanted);
                    if moment == 1 {
                        play.want(4, 4, stays);
                    }
                    play.leave(3);
                    if moment == 2 {
                        play.want(4, 4, stays);
                    }
                    play.release(held);
                    let said = play.said();
                    let answered = said.iter().any(|line| line.starts_with("reply 4 "));
                    assert!(
                        answered,
                        "{held}, {wanted}, {stays}, {moment}, {built}, {lost:?}: {said:?}"
                    );
                    play.leave(4);
                    assert!(play.state.is_empty());
                    plays += 1;
                }
            }
        }
    }
    assert!(plays > 4000, "{plays}");
}
