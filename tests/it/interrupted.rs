//! Builds that are interrupted: they end soon, say so, and leave nothing running.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{BaseImage, Daemon, Place};

/// A step that lasts, and says when it runs.
fn write_slow(place: &Place) {
    place.context(&format!(
        "FROM {}\nRUN echo quick > /quick\nRUN trap '' TERM INT; echo it runs; sleep 600; sleep 600\n",
        BaseImage::name()
    ));
}

fn write_quick(place: &Place) {
    place.context(&format!(
        "FROM {}\nRUN echo quick > /quick\n",
        BaseImage::name()
    ));
}

/// Longer than an interrupted build may need.
const SOON: Duration = Duration::from_secs(12);

#[track_caller]
fn interrupt(signal: Signal) {
    let place = Place::new();
    write_slow(&place);
    let mut build = place.start_build(&[]);
    build.wait_for_output("it runs");
    let since = Instant::now();
    build.signal(signal);
    let ran = build.wait();
    assert!(since.elapsed() < SOON, "{ran}");
    assert!(ran.code().is_none_or(|code| code != 0), "{ran}");
    assert!(!ran.stderr.contains("panicked"), "{ran}");
    place.assert_nothing_left();
    write_quick(&place);
    let ran = place.build(&[]).ok();
    assert!(
        ran.step("RUN echo quick").cached,
        "what was done is kept: {ran}"
    );
    place.assert_nothing_left();
}

/// Rows: X17, D25
#[test]
fn ctrl_c_ends_a_build_and_keeps_what_was_done() {
    interrupt(Signal::INT);
}

/// Rows: X17, D25
#[test]
fn sigterm_ends_a_build_and_keeps_what_was_done() {
    interrupt(Signal::TERM);
}

/// Rows: X17, D21
#[test]
fn killed_it_takes_its_containers_along() {
    interrupt(Signal::KILL);
}

/// Rows: A01, C01, N02
#[test]
fn a_client_that_vanishes_ends_its_build_and_nobody_elses() {
    let place = Place::new();
    write_slow(&place);
    let daemon = Daemon::start(&place, "");
    let mut build = daemon.start_build(&[]);
    build.wait_for_output("it runs");
    assert!(sleeping(&place) > 0);
    build.signal(Signal::KILL);
    build.wait();
    let deadline = Instant::now() + Duration::from_secs(30);
    while sleeping(&place) > 0 {
        assert!(
            Instant::now() < deadline,
            "the step still runs:\n{}",
            daemon.log()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    write_quick(&place);
    let ran = daemon.build(&[]).ok();
    assert!(ran.step("RUN echo quick").cached, "{ran}");
    daemon.stop();
    place.assert_nothing_left();
}

/// The step counts its runs, and ends when it is told to.
///
/// Rows: C01, C10
#[test]
fn two_builds_share_a_step_and_one_may_leave() {
    let place = Place::new();
    let base = BaseImage::name();
    let cached = "RUN --mount=type=cache,id=shared,target=/c";
    let shared = format!(
        "FROM {base}\n{cached} echo once >> /c/runs; while [ ! -e /c/go ]; do echo it runs; sleep 0.1; done\n"
    );
    place.context(&shared);
    let daemon = Daemon::start(&place, "");
    let mut one = daemon.start_build(&[]);
    one.wait_for_output("it runs");
    let mut other = daemon.start_build(&[]);
    other.wait_for_output("it runs");
    one.signal(Signal::INT);
    assert_ne!(one.wait().code(), Some(0));
    assert!(!other.ended(), "{}", other.said());
    place.context(&format!("FROM {base}\n{cached} touch /c/go\n"));
    daemon.build(&[]).ok();
    other.wait().ok();
    place.context(&shared);
    assert_eq!(daemon.build(&[]).ok().made().len(), 0);
    place.context(&format!("FROM {base}\n{cached} cat /c/runs\n"));
    let runs = daemon.build(&[]).ok();
    assert_eq!(runs.step("cat /c/runs").log, ["once"], "{runs}");
    daemon.stop();
    place.assert_nothing_left();
}

/// Rows: D25
#[test]
fn a_daemon_that_is_stopped_ends_its_builds() {
    let place = Place::new();
    write_slow(&place);
    let daemon = Daemon::start(&place, "");
    let mut build = daemon.start_build(&[]);
    build.wait_for_output("it runs");
    let since = Instant::now();
    daemon.stop();
    assert!(since.elapsed() < SOON);
    build.wait().fails();
    place.assert_nothing_left();
}

/// Rows: D21
#[test]
fn a_second_daemon_on_the_same_state_is_refused() {
    let place = Place::new();
    let daemon = Daemon::start(&place, "");
    let state = place.path("state");
    let address = format!("unix://{}", place.path("e.sock").display());
    let state = state.to_str().expect("text");
    let ran = place.run(&["daemon", "--root", state, "--addr", &address]);
    ran.fails().says(&[state]);
    daemon.stop();
    place.assert_nothing_left();
}

/// Without `--addr` a build on the state of a daemon becomes its client.
///
/// Rows: D21, O04
#[test]
fn a_build_without_daemon_finds_the_one_that_has_the_state() {
    let place = Place::new();
    write_quick(&place);
    let daemon = Daemon::start(&place, "");
    place.build(&[]).ok();
    assert_eq!(
        daemon.build(&[]).ok().made().len(),
        0,
        "it was the daemon's build"
    );
    daemon.stop();
    place.assert_nothing_left();
}

/// How many processes of the slow step run: those whose command line is its sleep, in a
/// cgroup of a process of this place.
fn sleeping(place: &Place) -> usize {
    place.processes_in_containers("sleep 600")
}
