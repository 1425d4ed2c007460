//! What is known below an edge, as it is exported.

use oci::Digest;

use super::play::{ELSEWHERE, Play, step};
use crate::event::LOCAL;
use crate::key::{KeyDigest, KeyId};

/// Inputs come first, each once; what means something here only has no record.
///
/// Rows: C09
#[test]
fn a_picture_has_every_edge_once_inputs_first() {
    let mut play = Play::new(None);
    play.job(
        1,
        &[
            step("dir", &[]).local(),
            step("base", &[])
                .does("inside")
                .first_known_by("manifest")
                .outputs(2),
            step("copy", &["dir", "base.1"]).sees(0, "files"),
            step("both", &["copy", "base"]),
        ],
    );
    play.want(1, 1, "both");
    let picture = play.state.picture((play.id(1, "both"), 0));
    let names = |name: &str| KeyDigest::Stable(Digest::of(name));
    let seen: Vec<_> = picture
        .iter()
        .map(|found| (found.vertex, found.number, found.output.as_deref()))
        .collect();
    let copied = "copy(dir(),inside().1)";
    assert_eq!(
        seen,
        [
            (play.id(1, "dir"), 0, Some("dir()")),
            (play.id(1, "base"), 1, Some("inside().1")),
            (play.id(1, "copy"), 0, Some(copied)),
            (play.id(1, "base"), 0, Some("inside()")),
            (
                play.id(1, "both"),
                0,
                Some(&*format!("both({copied},inside())"))
            ),
        ]
    );
    let [dir, second, copy, first, both] = &picture[..] else {
        panic!("{picture:?}");
    };
    assert_eq!((&dir.records, &dir.keys), (&vec![], &vec![]));
    // A source is known by each of its keys.
    let records = |output| {
        vec![
            names("manifest").record(output),
            names("inside").record(output),
        ]
    };
    assert_eq!(first.records, records(0));
    assert_eq!(second.records, records(1));
    let roots = |output| {
        let keys = records(output).into_iter();
        keys.map(|key| (None, KeyId(key))).collect::<Vec<_>>()
    };
    assert_eq!(first.keys, roots(0));
    assert_eq!(second.keys, roots(1));
    let part = Some(Digest::of("part"));
    let files = Some(Digest::of("files"));
    assert_eq!(copy.inputs, [(0, part, files), (1, None, None)]);
    assert_eq!(copy.records, [names("copy").record(0)]);
    assert_eq!(both.inputs, [(2, None, None), (3, None, None)]);
    assert_eq!(both.records, [names("both").record(0)]);
    // A source with two keys is named by the first.
    let ways = [
        (KeyId::content(Digest::of("files")), None),
        (KeyId(names("manifest").record(1)), None),
    ];
    let id = KeyId::reached(names("copy").record(0), &ways);
    assert_eq!(copy.keys, [(Some(LOCAL), id)]);
    assert_eq!(both.keys.len(), 1);
}

/// What was made without looking has a name in the store all the same.
///
/// Rows: C06, C09
#[test]
fn what_was_made_anew_is_in_the_picture_too() {
    let mut play = Play::new(None);
    let steps = [step("base", &[]).ignored(), step("make", &["base"])];
    play.job(1, &steps);
    play.want(1, 1, "make");
    let picture = play.state.picture((play.id(1, "make"), 0));
    let [base, make] = &picture[..] else {
        panic!("{picture:?}");
    };
    assert_eq!(base.keys, []);
    assert_eq!(base.records.len(), 1);
    assert_eq!(make.keys.len(), 1, "it was saved");
    assert_eq!(make.inputs, [(0, None, None)]);
}

/// What was not made, because nothing asked for it, is known by its key only; what is not known
/// at all has no place in the picture.
///
/// Rows: C09
#[test]
fn a_picture_of_a_hit_has_keys_without_outputs() {
    let mut play = Play::new(None);
    let steps = super::three_steps();
    play.build(1, &steps, "test");
    play.job(2, &steps);
    assert!(play.state.picture((play.id(2, "test"), 0)).is_empty());
    play.want(2, 2, "test");
    let picture = play.state.picture((play.id(2, "test"), 0));
    let outputs: Vec<_> = picture
        .iter()
        .map(|found| found.output.as_deref())
        .collect();
    assert_eq!(outputs, [None, None, Some("test(make(base()))")]);
    let keys: Vec<_> = picture.iter().map(|found| found.keys.len()).collect();
    assert_eq!(keys, [1, 1, 1]);
}

/// What came from elsewhere has its name there and its name here.
///
/// Rows: C04, C09
#[test]
fn what_was_taken_over_has_two_names() {
    let mut play = Play::new(None);
    let steps = super::three_steps();
    play.saves_to = ELSEWHERE;
    play.build(1, &steps, "make");
    play.saves_to = LOCAL;
    play.job_with(2, ELSEWHERE, &steps);
    play.want(2, 2, "make");
    let picture = play.state.picture((play.id(2, "make"), 0));
    let stores = picture[1].keys.iter().map(|(store, _)| *store);
    assert_eq!(stores.collect::<Vec<_>>(), [Some(LOCAL), Some(ELSEWHERE)]);
}

/// A step with inputs is known by the last of its keys.
///
/// Rows: C02, C09
#[test]
fn a_step_with_inputs_has_one_key() {
    let mut play = Play::new(None);
    let make = step("make", &["base"]).first_known_by("cheap");
    play.job(1, &[step("base", &[]), make]);
    play.want(1, 1, "make");
    let picture = play.state.picture((play.id(1, "make"), 0));
    let key = KeyDigest::Stable(Digest::of("make"));
    assert_eq!(picture[1].records, [key.record(0)]);
}
