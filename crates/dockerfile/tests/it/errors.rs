//! What cannot be built is said, with its lines and a way out.

use frontend::Error;
use stdx::Kind;

use testkit::bridge::FakeBridge;

async fn fail(dockerfile: &str, options: &[(&str, &str)]) -> Error {
    let bridge = FakeBridge::new(dockerfile).options(options);
    dockerfile::build(&bridge)
        .await
        .expect_err("it cannot be built")
}

/// Line of the first place, and the message; without what says the same line once more.
async fn say(dockerfile: &str) -> String {
    let error = fail(dockerfile, &[]).await;
    let line = |l: &frontend::SourceLocation| l.ranges.first().map_or(0, |r| r.start.line);
    let line = error.locations().first().map_or(0, line);
    let told = error.to_string();
    let again = format!("dockerfile parse error on line {line}: ");
    format!("{line}: {}", told.strip_prefix(&again).unwrap_or(&told))
}

/// Rows: F15, F16
#[tokio::test]
async fn one_mistake_does_not_hide_the_next() {
    let error = fail("FROM base:1\nRUNN x\nCOPY --form=a b c\n", &[]).await;
    assert_eq!(
        error.to_string(),
        "dockerfile parse error on line 2: unknown instruction: RUNN (did you mean RUN?)"
    );
    assert_eq!(
        error.hints(),
        ["Dockerfile:3: unknown flag: --form (did you mean from?)"]
    );
    assert_eq!(error.kind(), Kind::InvalidInput);
    let at = &error.locations()[0];
    assert_eq!(at.to_string(), "Dockerfile:2");
    let excerpt = at.excerpt(1);
    assert_eq!(excerpt[1], (2, "RUNN x".to_owned(), true));
    assert_eq!(excerpt.len(), 3);
}

/// Rows: F20, F21, F24
#[tokio::test]
async fn stages_that_cannot_be() {
    assert_eq!(say("").await, "0: the Dockerfile cannot be empty");
    assert_eq!(
        say("# nothing\n").await,
        "0: dockerfile contains no stages to build"
    );
    assert_eq!(
        say("ARG a=1\n").await,
        "0: dockerfile contains no stages to build"
    );
    assert_eq!(
        say("FROM base:1 AS a\nCOPY --from=a x y").await,
        "2: circular dependency detected on stage: a (needs a)"
    );
    let round = "FROM base:1 AS a\nCOPY --from=b x y\nFROM base:1 AS b\nCOPY --from=a x y\n";
    assert_eq!(
        say(round).await,
        "4: circular dependency detected on stage: a (needs b, which needs a)"
    );
    let later = "FROM base:1 AS a\nCOPY --from=b x y\nFROM base:1 AS b\nFROM a\n";
    assert_eq!(
        say(later).await,
        "2: cannot copy from stage \"b\", it needs to be defined before current stage \"a\""
    );
    assert_eq!(
        say("FROM base:1\nCOPY --from=3 a b").await,
        "2: invalid stage index 3: there are 1 stages"
    );
    assert!(
        say("FROM base:1\nARG x=1\nCOPY --from=$x a b")
            .await
            .starts_with("3: variable expansion is not supported for --from")
    );
    assert_eq!(
        say("ARG IMAGE=base:1\nFROM ${IMGE}").await,
        "2: base name (${IMGE}) should not be blank (did you mean IMAGE?)"
    );
    assert_eq!(
        say("FROM Base:1").await,
        "1: failed to parse stage name \"Base:1\": invalid reference format"
    );
    assert_eq!(
        say("FROM --platform=$TARGETPLATFROM base:1").await,
        "1: empty platform value from expression $TARGETPLATFROM (did you mean TARGETPLATFORM?)"
    );
    assert_eq!(
        say("ARG MY_ARCH=amd64\nFROM --platform=linux/${MYARCH} base:1").await,
        "2: failed to parse platform linux/${MYARCH}: `linux/` is not a platform like linux/amd64 or linux/arm/v7 (did you mean MY_ARCH?)"
    );
}

/// Rows: F20
#[tokio::test]
async fn a_missing_target_or_image_has_a_suggestion() {
    let error = fail("FROM base:1 AS build\n", &[("target", "biuld")]).await;
    assert_eq!(
        error.to_string(),
        "target stage \"biuld\" could not be found (did you mean build?)"
    );
    assert_eq!(error.kind(), Kind::NotFound);
    let error = fail("FROM base:1 AS build\nFROM buidl\n", &[]).await;
    assert_eq!(error.to_string(), "buidl (did you mean build?)");
    assert_eq!(error.kind(), Kind::NotFound);
    assert_eq!(error.locations()[0].to_string(), "Dockerfile:2");
    let cause = std::error::Error::source(&error)
        .and_then(|e| e.source())
        .unwrap();
    assert_eq!(
        cause.to_string(),
        "docker.io/library/buidl:latest: not found"
    );
}

/// Rows: F14, F22, F23, F24, F26, F27
#[tokio::test]
async fn instructions_that_cannot_be() {
    for (line, message) in [
        (
            "ENV a=${b",
            "failed to process \"${b\": syntax error: missing '}'",
        ),
        (
            "LABEL a=\"b",
            "failed to process \"\\\"b\": unexpected end of statement while looking for matching double-quote",
        ),
        (
            "ARG a=${b:?give}",
            "failed to process \"${b:?give}\": b: give",
        ),
        (
            "RUN --mount=type=bnid,target=/a x",
            "invalid --mount=type=bnid,target=/a: unsupported mount type \"bnid\" (did you mean bind?)",
        ),
        ("RUN --mount=target=/ x", "invalid mount target \"/\""),
        (
            "RUN --network=some x",
            "invalid value \"some\" on flag --network: expecting default, none or host",
        ),
        (
            "RUN --netwrk=none x",
            "unknown flag: --netwrk (did you mean network?)",
        ),
        (
            "COPY --chmod=999 a b",
            "invalid chmod parameter: '999'. it should be octal string and between 0 and 07777",
        ),
        (
            "COPY https://a/b c",
            "source can't be a URL for COPY: use ADD",
        ),
        (
            "COPY git@a:b/c.git c",
            "source can't be a git ref for COPY: use ADD",
        ),
        ("COPY --checksum=x a b", "unknown flag: --checksum"),
        (
            "ADD --checksum=sha256:x a b",
            "checksum requires HTTP(S) or Git sources",
        ),
        (
            "ADD https://a/b.git?x=1 b",
            "invalid git source \"https://a/b.git?x=1\": unexpected query \"x\"",
        ),
        (
            "COPY a <<E\nE",
            "COPY cannot accept a heredoc as a destination",
        ),
        (
            "EXPOSE 99999",
            "invalid port \"99999\" in EXPOSE: it is no port and no range of ports",
        ),
        ("STOPSIGNAL SIGX", "invalid signal: SIGX"),
        (
            "VOLUME [\"\"]",
            "VOLUME specified can not be an empty string",
        ),
        (
            "CMD [1]",
            "when using JSON array syntax, arrays must be comprised of strings only",
        ),
    ] {
        assert_eq!(
            say(&format!("FROM base:1\n{line}\n")).await,
            format!("2: {message}"),
            "{line}"
        );
    }
}

/// Rows: F01, F02
#[tokio::test]
async fn what_we_cannot_do_is_refused() {
    let error = fail("FROM base:1", &[("requestid", "frontend.dream")]).await;
    assert_eq!(error.kind(), Kind::Unsupported);
}

/// Rows: F03
#[tokio::test]
async fn a_missing_dockerfile_is_named() {
    let error = fail("FROM base:1", &[("filename", "other/Dockerfile")]).await;
    assert_eq!(
        error.to_string(),
        "failed to read dockerfile: open other/Dockerfile: no such file or directory"
    );
    assert_eq!(error.kind(), Kind::NotFound);
}

/// Where a file is looked for may not be there itself. That is no answer about the file.
///
/// Rows: F03, S15
#[tokio::test]
async fn a_place_that_is_not_there_is_no_missing_dockerfile() {
    let mut bridge = FakeBridge::new("").options(&[("context", "https://a/b.git?branch=gone")]);
    let place = "git://a/b.git#refs/heads/gone".to_owned();
    bridge.broken.insert(place, Kind::NotFound);
    let error = dockerfile::build(&bridge).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert_eq!(error.to_string(), "loading git://a/b.git#refs/heads/gone");
}

/// A client that gives a Dockerfile and has no files needs none where none are copied.
///
/// Rows: F03
#[tokio::test]
async fn a_client_without_files_is_not_asked_what_to_ignore() {
    let mut bridge = FakeBridge::new("FROM base:1\nRUN x\n");
    for kind in [Kind::Unsupported, Kind::NotFound] {
        bridge.broken.insert("context".into(), kind);
        dockerfile::build(&bridge).await.unwrap();
    }
    bridge.broken.insert("context".into(), Kind::Internal);
    let error = dockerfile::build(&bridge).await.unwrap_err();
    assert_eq!(error.to_string(), "loading context");
}

/// Only what the target needs has to be right.
///
/// Rows: F20
#[tokio::test]
async fn an_unneeded_stage_is_not_looked_at() {
    let bridge = FakeBridge::new("FROM no/such:image AS a\nRUN x\nFROM base:1\nRUN y\n");
    dockerfile::build(&bridge).await.unwrap();
    assert_eq!(
        *bridge.resolved.lock().unwrap(),
        ["[internal] load metadata for docker.io/library/base:1"]
    );
}
