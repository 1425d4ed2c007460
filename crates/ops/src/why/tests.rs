//! What is said for each way a step can differ from last time.

use std::sync::Arc;

use db::Db;
use solver::{Miss, Missed};

use super::*;

fn missed(why: Miss, imports: bool) -> Missed {
    let why = Arc::new(why);
    Missed { why, imports }
}

fn not_known() -> Missed {
    let record = Digest::of("record");
    missed(Miss::NoCommonResult { record }, false)
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

fn shape() -> Shape {
    let image = Input {
        name: "docker.io/library/alpine:3".into(),
        pin: format!("sha256:{}", "1".repeat(64)),
        id: "a".into(),
        ..Input::default()
    };
    let step = Input {
        name: "`[2/3] RUN make`".into(),
        id: "b".into(),
        ..Input::default()
    };
    let context = Input {
        name: "the build context".into(),
        id: "c".into(),
        files: Some(map(&[("a", "1"), ("b/", "2"), ("b/c", "3")])),
        ..Input::default()
    };
    Shape {
        text: "COPY a b /".into(),
        facts: map(&[(INSTRUCTION, "1"), ("variable or build argument A", "2")]),
        inputs: vec![image, step, context],
    }
}

#[track_caller]
fn check(change: impl FnOnce(&mut Shape), expected: &str) {
    let (then, mut now) = (shape(), shape());
    change(&mut now);
    assert_eq!(
        why(&not_known(), Some(&then), &now).as_deref(),
        Some(expected)
    );
}

/// Rows: K4, C13
#[test]
fn each_change_is_said_in_words() {
    check(
        |now| {
            now.text = "COPY a /".into();
            now.facts.insert(INSTRUCTION.into(), "9".into());
        },
        "the instruction changed (it was `COPY a b /`)",
    );
    // Names show values of variables.
    check(
        |now| {
            now.text = "COPY x b /".into();
            now.facts
                .insert("variable or build argument A".into(), "9".into());
        },
        "variable or build argument A changed",
    );
    check(
        |now| drop(now.facts.insert("the user".into(), "9".into())),
        "the user changed",
    );
    check(
        |now| now.inputs[0].pin = format!("sha256:{}", "2".repeat(64)),
        "image docker.io/library/alpine:3 changed (sha256:111111111111 is now sha256:222222222222)",
    );
    check(
        |now| now.inputs[0].name = "docker.io/library/alpine:4".into(),
        "it builds on docker.io/library/alpine:4 (it was docker.io/library/alpine:3)",
    );
    check(
        |now| now.inputs[1].id = "z".into(),
        "`[2/3] RUN make` was made anew",
    );
    check(|now| drop(now.inputs.pop()), "it works on other inputs");
    check(|_| (), "its earlier result was pruned");
}

/// Rows: K4, K5
#[test]
fn files_are_named_a_few_at_a_time() {
    let files = |pairs: &'static [(&str, &str)]| {
        move |now: &mut Shape| {
            now.inputs[2].id = "another state".into();
            now.inputs[2].files = Some(map(pairs));
        }
    };
    check(
        files(&[("a", "9"), ("b/", "2"), ("b/c", "3")]),
        "changed in the build context: a",
    );
    check(
        files(&[("a", "1"), ("b/", "2"), ("b/d", "3")]),
        "new in the build context: b/d, gone in the build context: b/c",
    );
    check(
        files(&[
            ("a", "8"),
            ("b/", "9"),
            ("b/c", "9"),
            ("d", "1"),
            ("e", "1"),
            ("f", "1"),
            ("g", "1"),
            ("h", "1"),
        ]),
        "changed in the build context: a, b/, b/c, new in the build context: d, e, f and 2 more",
    );
    // Another state of the directory with the same files in the part that counts.
    check(
        |now| now.inputs[2].id = "another state".into(),
        "its earlier result was pruned",
    );
}

fn file(path: &str, digest: &str) -> Listed {
    Listed {
        path: path.into(),
        dir: false,
        whole: false,
        digest: Digest::of(digest),
    }
}

/// Of many files, or of long names, some are not named. What is said stays true.
///
/// Rows: K4
#[test]
fn what_is_not_named_is_not_made_up() {
    let many = |first: usize, of_300: &str| {
        let mut input = Input::default();
        let files = (first..first + MAX_FILES).map(|n| match n {
            300 => file("300", of_300),
            n => file(&n.to_string(), ""),
        });
        input.name_files(files.collect());
        (input.all, input.name) = (format!("{first} {of_300}"), "the build context".into());
        input
    };
    let said = |then: &Input, now: &Input| of_inputs(then, now).unwrap_or_default();
    let then = many(0, "");
    assert!(then.cut);
    assert_eq!(said(&then, &then), "");
    assert_eq!(
        said(&then, &many(0, "x")),
        "changed in the build context: 300"
    );
    assert_eq!(
        said(&then, &many(1, "")),
        "changed in the build context: other files"
    );

    let mut long = Input::default();
    let name = |n: usize| format!("{n}{}", "x".repeat(4000));
    long.name_files((0..100).map(|n| file(&name(n), "")).collect());
    let names = long.files.unwrap();
    assert!(long.cut && names.keys().map(String::len).sum::<usize>() <= MAX_NAMES);
    assert_eq!(names.len(), 16);
}

/// Rows: K4
#[test]
fn what_is_too_large_is_not_kept() {
    let memory = LastTimes::open(Arc::new(Db::memory().unwrap())).unwrap();
    let (place, _) = Place::of("name");
    for (bytes, kept) in [(1 << 10, true), (1 << 20, false)] {
        let slots = place.slots("", &bytes.to_string());
        let text = "x".repeat(bytes);
        let shape = Shape {
            text: text.clone(),
            ..shape()
        };
        memory.put(&slots, &shape);
        assert_eq!(memory.get(&slots, &text).is_some(), kept, "{bytes}");
    }
}

/// Rows: K4
#[test]
fn what_was_not_done_before_is_said_only_of_imported_caches() {
    let record = Digest::of("record");
    assert_eq!(why(&not_known(), None, &shape()), None);
    let imported = missed(Miss::NoCommonResult { record }, true);
    let said = why(&imported, None, &shape()).unwrap();
    assert!(said.starts_with("no imported cache has it"), "{said}");
    let ignored = missed(Miss::Ignored, false);
    for then in [None, Some(&shape())] {
        let said = why(&ignored, then, &shape()).unwrap();
        assert!(said.contains("--no-cache"), "{said}");
    }
    let gone = missed(Miss::Gone { record }, false);
    let said = why(&gone, Some(&shape()), &shape()).unwrap();
    assert_eq!(said, "its cached result is not there any more");
}

/// A step is found by its place, then by its text, then whatever stood there; in its project.
///
/// Rows: K4
#[test]
fn steps_are_known_again() {
    let memory = LastTimes::open(Arc::new(Db::memory().unwrap())).unwrap();
    let put = |name: &str| {
        let (place, text) = Place::of(name);
        let shape = Shape {
            facts: map(&[("name", name)]),
            text: text.clone(),
            inputs: Vec::new(),
        };
        memory.put(&place.slots("project", &text), &shape);
    };
    let get = |project: &str, name: &str| {
        let (place, text) = Place::of(name);
        let found = memory.get(&place.slots(project, &text), &text)?;
        Some(found.facts["name"].clone())
    };
    for name in ["[a 1/3] RUN x", "[a 2/3] RUN y", "[a 3/3] RUN x", "free"] {
        put(name);
    }
    let found = |name: &str| get("project", name).unwrap_or_default();
    assert_eq!(found("[a 1/9] RUN x"), "[a 1/3] RUN x", "the same");
    assert_eq!(found("[a 3/4] RUN y"), "[a 2/3] RUN y", "moved");
    assert_eq!(found("[a 2/3] RUN z"), "[a 2/3] RUN y", "edited");
    assert_eq!(found("[a 7/7] RUN z"), "", "new");
    assert_eq!(found("[b 1/3] RUN x"), "", "in another stage");
    assert_eq!(found("free"), "free");
    assert_eq!(get("other", "[a 1/3] RUN x"), None);
}

/// Rows: K4
#[test]
fn the_oldest_are_forgotten() {
    let db = Arc::new(Db::memory().unwrap());
    let memory = LastTimes::open(db.clone()).unwrap();
    let (place, _) = Place::of("name");
    for number in 0..4500 {
        memory.put(&place.slots("", &number.to_string()), &shape());
    }
    let count = db.read(|tx| tx.row("SELECT COUNT(*) FROM last_times", [], |row| row.get(0)));
    let count: Option<i64> = count.unwrap();
    let expected = 4000..4400;
    assert!(expected.contains(&count.unwrap()), "{count:?}");
    assert!(memory.get(&place.slots("", "10"), "").is_none());
    assert!(memory.get(&place.slots("", "4499"), "").is_some());
}

/// Rows: V5
#[test]
fn the_pattern_that_hides_a_path_is_named() {
    let patterns = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
    for (texts, path, expected) in [
        (
            &["*.log", "src", "!src/kept"][..],
            "/src/main.rs",
            Some("src"),
        ),
        (&["*.log", "src", "!src/kept"], "/src/kept", None),
        (&["*.log", "src"], "/a.log", Some("*.log")),
        (&["*.log"], "/sub/a.log", None),
        (&[], "/a", None),
        (&["[", "a"], "/a", None),
    ] {
        let all = patterns(texts);
        assert_eq!(hides(&all, path), expected, "{texts:?} {path}");
    }
}
