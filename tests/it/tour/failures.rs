//! Builds that fail say so as BuildKit does, or better.

use super::{Stop, said};

/// The last line: what buildx says the build failed of.
fn error(text: &str) -> String {
    let lines = said(text);
    let last = lines.iter().rfind(|line| line.starts_with("ERROR: "));
    last.unwrap_or_else(|| panic!("no error in {text}")).clone()
}

/// The lines of the Dockerfile that are shown.
fn excerpt(text: &str) -> Vec<String> {
    let shown = |line: &String| line.contains(" | ") || line.starts_with("Dockerfile:");
    said(text).into_iter().filter(shown).collect()
}

/// The error of each build, the peer's first; the excerpts are equal.
#[track_caller]
fn errors(stop: &Stop, args: &[&str]) -> [String; 2] {
    let [theirs, ours] = stop.builds(args);
    assert_eq!(ours.code(), theirs.code());
    let [theirs, ours] = [theirs.fails(), ours.fails()];
    assert_eq!(
        excerpt(&ours.stderr),
        excerpt(&theirs.stderr),
        "{theirs}\n{ours}"
    );
    [error(&theirs.stderr), error(&ours.stderr)]
}

/// Rows: A16, X17
#[test]
fn the_same_errors_word_for_word() {
    let Some(stop) = Stop::at("word-for-word") else {
        return;
    };
    for text in [
        "FROM BASE\nRUN exit 3\n",
        "FROM BASE\nRUN no-such-program\n",
        "",
        "FROM scratch\nCOPY --from=x:y:z / /\n",
    ] {
        stop.dockerfile(text);
        let [theirs, ours] = errors(&stop, &["ctx"]);
        assert_eq!(ours, theirs, "{text}");
    }
    stop.dockerfile("FROM BASE\nRUN true\n");
    for args in [
        &["--target=none", "ctx"][..],
        &["-f", "ctx/None", "ctx"],
        &["nowhere"],
    ] {
        let [theirs, ours] = errors(&stop, args);
        assert_eq!(ours, theirs, "{args:?}");
    }
}

/// Where the words are others, both say the same thing and show the same lines.
///
/// Rows: A16, S01
#[test]
fn the_same_lines_and_causes() {
    let Some(stop) = Stop::at("causes") else {
        return;
    };
    let missing = format!("{}/no/such:1", stop.rig.registry.host());
    for (text, words) in [
        (
            "FROM BASE\nCOPY nothing /x\n",
            &["failed to compute cache key", "\"/nothing\": not found"][..],
        ),
        (
            &format!("FROM {missing}\nRUN x\n"),
            &["failed to resolve source metadata", &missing, "not found"],
        ),
        (
            "FROM 127.0.0.1:1/no:1\n",
            &["failed to resolve source metadata", "onnection refused"],
        ),
        ("FROM BASE\nBLAH x\n", &["unknown instruction: BLAH"]),
        (
            "FROM BASE\nRUN --mount=type=secret,id=tok,required true\n",
            &["secret tok", "not found"],
        ),
        (
            "FROM BASE\nRUN --mount=type=ssh,required true\n",
            &["unset ssh forward key default"],
        ),
    ] {
        stop.dockerfile(text);
        for error in errors(&stop, &["ctx"]) {
            for word in words {
                assert!(error.contains(word), "no {word:?} in {error}");
            }
            assert!(
                !error.contains("NotFound: ") && !error.contains("InvalidArgument: "),
                "{error}"
            );
        }
    }
    // The peer shows both ends of the circle, kiln says how it goes.
    stop.dockerfile("FROM BASE AS a\nCOPY --from=b / /\nFROM BASE AS b\nCOPY --from=a / /\n");
    for ran in stop.builds(&["ctx"]) {
        let ran = ran.fails();
        ran.says(&["circular dependency detected on stage: a", "Dockerfile:4"]);
    }
}
