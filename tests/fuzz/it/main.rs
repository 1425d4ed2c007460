//! Every target: its kept corpus, and a few seconds of made inputs (`FUZZ_SECONDS`, 2). The
//! same inputs each time, so that a red build says something about the change.

use std::time::Duration;

fn play(name: &str) {
    let seconds = std::env::var("FUZZ_SECONDS").ok();
    let seconds = seconds.and_then(|text| text.parse().ok()).unwrap_or(2);
    let targets = fuzz::all();
    let target = targets.iter().find(|target| target.name == name).unwrap();
    let budget = fuzz::Budget {
        time: Duration::from_secs(seconds),
        seed: 1,
    };
    match fuzz::run(target, budget) {
        Ok(outcome) => assert!(outcome.made > 0, "{name}: {outcome:?}"),
        Err(error) => panic!("{error}"),
    }
}

/// Rows: L01, L19
#[test]
fn graphs() {
    play("llb");
}

/// Rows: F15
#[test]
fn dockerfiles() {
    play("dockerfile");
}

/// Rows: B18, B19
#[test]
fn layers() {
    play("layer");
}

/// Rows: N03, N04
#[test]
fn transfers() {
    play("fsutil");
}

/// Rows: N01, N02
#[test]
fn session_frames() {
    play("session");
}

/// Rows: G01, A01
#[test]
fn requests() {
    play("requests");
}

/// Rows: S01, P13
#[test]
fn documents() {
    play("documents");
}

/// Rows: R01
#[test]
fn caches() {
    play("cache");
}

/// Rows: S01
#[test]
fn names() {
    play("names");
}
