//! Every target: its kept corpus, and made inputs: so many that each takes some two seconds. The
//! same inputs each time, on any machine, so that a red build says something about the change.

fn play(name: &str, made: usize) {
    let targets = fuzz::all();
    let target = targets.iter().find(|target| target.name == name).unwrap();
    let budget = fuzz::Budget {
        until: fuzz::Until::Made(made),
        seed: 1,
    };
    match fuzz::run(target, budget) {
        Ok(outcome) => assert_eq!(outcome.made, made, "{name}: {outcome:?}"),
        Err(error) => panic!("{error}"),
    }
}

/// Rows: L01, L19
#[test]
fn graphs() {
    play("llb", 15_000);
}

/// Rows: F15
#[test]
fn dockerfiles() {
    play("dockerfile", 3_000);
}

/// Rows: B18, B19
#[test]
fn layers() {
    play("layer", 110);
}

/// Rows: N03, N04
#[test]
fn transfers() {
    play("fsutil", 180);
}

/// Rows: N01, N02
#[test]
fn session_frames() {
    play("session", 250);
}

/// Rows: G01, A01
#[test]
fn requests() {
    play("requests", 1_300);
}

/// Rows: S01, P13
#[test]
fn documents() {
    play("documents", 80_000);
}

/// Rows: R01
#[test]
fn caches() {
    play("cache", 6_500);
}

/// Rows: S01
#[test]
fn names() {
    play("names", 7_000);
}

/// Rows: S16, S17
#[test]
fn signatures() {
    play("signatures", 16_000);
}
