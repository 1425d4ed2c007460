//! `--call`: what a Dockerfile says of itself, byte for byte as BuildKit tells it.

use serde_json::Value;

use super::{Stop, both_ok, said};
use crate::harness::json;

const TALKATIVE: &str = "\
ARG UNUSED=1
from BASE as one
ARG SECRET_TOKEN=x
# what it does
ARG VERSION=1
MAINTAINER me
ENV a b
RUN --mount=type=secret,id=tok,required echo hi
RUN --mount=type=ssh,id=k echo
FROM one AS Two
# the last
CMD echo $UNDEF
COPY nothere /
ENTRYPOINT foo
FROM scratch AS three
WORKDIR rel
";

/// The answer without what names a session, and with warnings in one order.
fn plain(mut answer: Value) -> Value {
    for source in answer["sources"].as_array_mut().into_iter().flatten() {
        source["definition"].take();
    }
    if let Some(warnings) = answer["warnings"].as_array_mut() {
        warnings.sort_by_key(|warning| warning["location"].to_string());
    }
    answer
}

/// Rows: F07, F34
#[test]
fn they_are_answered_as_buildkit_answers() {
    let Some(stop) = Stop::at("calls") else {
        return;
    };
    for (text, clean) in [
        ("FROM BASE AS one\nARG WORD=1\nRUN echo $WORD\n", true),
        (TALKATIVE, false),
    ] {
        stop.dockerfile(text);
        for call in [
            "outline",
            "targets",
            "outline,format=json",
            "targets,format=json",
        ] {
            let [theirs, ours] = both_ok(stop.both(&["build", &format!("--call={call}"), "ctx"]));
            assert_eq!(ours.text(), theirs.text(), "{call}");
        }
        for check in [&["--call=check"][..], &["--check"]] {
            let [theirs, ours] = stop.both(&[&["build"], check, &["ctx"]].concat());
            assert_eq!(ours.text(), theirs.text(), "{check:?}");
            assert_eq!(ours.code(), theirs.code());
            assert_eq!(ours.code() == Some(0), clean);
        }
        let [theirs, ours] = stop.both(&["build", "--call=check,format=json", "ctx"]);
        let keys = |answer: &[u8]| -> Vec<String> {
            let answer = json(answer);
            let source = answer["sources"][0].as_object().expect("a source").keys();
            let keys = answer.as_object().expect("an object").keys();
            keys.chain(source).cloned().collect()
        };
        assert_eq!(keys(&ours.stdout), keys(&theirs.stdout));
        assert_eq!(plain(json(&ours.stdout)), plain(json(&theirs.stdout)));
    }
    let [theirs, ours] = stop.both(&["build", "--call=foo", "ctx"]);
    for ran in [theirs.fails(), ours.fails()] {
        assert!(
            said(&ran.stderr).concat().contains("unsupported request"),
            "{ran}"
        );
    }
}
