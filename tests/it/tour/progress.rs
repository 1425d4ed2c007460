//! How a build is shown, how its end is told, and how it is stopped.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{Stop, Who, both_ok};
use crate::harness::json;

/// Rows: B06, A04
#[test]
fn every_way_of_showing_a_build() {
    let Some(stop) = Stop::at("shown") else {
        return;
    };
    stop.dockerfile("FROM BASE\nRUN echo said by the step; echo and on the other line >&2\n");
    let oci = "--output=type=oci,dest=OUT/i.tar";
    let build = |mode: &str, more: &[&str]| {
        let mode = format!("--progress={mode}");
        let args = [
            &["build", &mode, "--network=none", "--no-cache", oci],
            more,
            &["ctx"],
        ]
        .concat();
        both_ok(stop.both(&args))
    };
    for mode in ["auto", "plain"] {
        for ran in build(mode, &[]) {
            let mut step = ran.step("RUN echo");
            step.log.sort();
            let said = ["and on the other line", "said by the step"];
            assert_eq!(step.log, said, "{ran}");
        }
    }
    for ran in build("quiet", &[]) {
        assert_eq!(ran.stderr.trim(), "", "{ran}");
    }
    for ran in build("none", &["--quiet"]) {
        assert!(ran.text().starts_with("sha256:"), "{ran}");
    }
    let [theirs, ours] = build("rawjson", &[]).map(|ran| {
        let lines = ran.stderr.lines().filter(|line| line.starts_with('{'));
        let mut names: Vec<String> = Vec::new();
        let mut logs = String::new();
        for line in lines {
            let line = json(line.as_bytes());
            for vertex in line["vertexes"].as_array().into_iter().flatten() {
                let name = vertex["name"].as_str().unwrap_or_default();
                if vertex["completed"].is_string() {
                    names.push(name.to_owned());
                }
            }
            for log in line["logs"].as_array().into_iter().flatten() {
                logs.push_str(log["data"].as_str().unwrap_or_default());
            }
        }
        names.sort();
        names.dedup();
        assert!(!logs.is_empty());
        names
    });
    assert_eq!(ours, theirs);
}

/// Rows: A01, X17
#[test]
fn a_build_that_is_interrupted_ends_everywhere() {
    let Some(stop) = Stop::at("interrupted") else {
        return;
    };
    stop.dockerfile("FROM BASE\nRUN echo began; sleep 1234567\n");
    let args = ["build", "--progress=plain", "--network=none", "ctx"];
    let mut running = stop.start(stop.command(Who::Kiln, &args));
    running.wait_for_output("began");
    let since = Instant::now();
    running.signal(Signal::INT);
    let ran = running.wait().fails();
    assert!(
        ran.stderr.contains("CANCELED") || ran.stderr.contains("canceled"),
        "{ran}"
    );
    assert!(since.elapsed() < Duration::from_secs(10));
    let deadline = Instant::now() + Duration::from_secs(5);
    while stop.rig.place.processes_in_containers("sleep 1234567") > 0 {
        assert!(Instant::now() < deadline, "the step runs on");
        std::thread::sleep(Duration::from_millis(20));
    }
}
