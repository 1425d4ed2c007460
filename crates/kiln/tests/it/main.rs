//! The program as it is started: names, exit codes, and what it says when it cannot.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output};

fn kiln(name: &str, args: &[&str], dir: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kiln"))
        .arg0(name)
        .args(args)
        .current_dir(dir)
        .env_clear()
        .env("HOME", dir)
        .env("KILN_STATE", dir.join("state"))
        .output()
        .unwrap()
}

/// The one place where tests look at what went wrong.
#[track_caller]
fn check_fails(args: &[&str], code: i32, says: &str) {
    let dir = tempfile::tempdir().unwrap();
    let output = kiln("kiln", args, dir.path());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(stderr.contains(says), "{stderr}");
    assert!(output.stdout.is_empty(), "data only on standard output");
}

/// Rows: D02
#[test]
fn it_says_who_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let version =
        |name, args: &[&str]| String::from_utf8(kiln(name, args, dir.path()).stdout).unwrap();
    assert!(version("kiln", &["version"]).starts_with("kiln 0."));
    assert!(version("/usr/bin/buildkitd", &["-version"]).starts_with("buildkitd kiln 0."));
    assert!(version("kiln", &["build", "--help"]).contains("--build-arg"));
}

/// Rows: F16
#[test]
fn mistakes_on_the_command_line_are_told_with_the_nearest_right_thing() {
    check_fails(&["bild"], 2, "'build'");
    check_fails(&["build", "--no-cach", "."], 2, "'--no-cache'");
    check_fails(
        &["build", "--network", "moon", "."],
        2,
        "default, none, host",
    );
    check_fails(&["build", "--progress", "fancy", "."], 2, "rawjson");
    check_fails(&["build", "--progress", "tty", "."], 1, "needs a terminal");
    check_fails(&["build", "--call", "dance", "."], 2, "outline");
}

/// Rows: D15
#[test]
fn settings_that_cannot_be_taken_are_told() {
    check_fails(&["du", "--config", "nowhere.toml"], 1, "nowhere.toml");
    check_fails(
        &["--config", "/dev/null", "--addr", "unix:///x", "du"],
        1,
        "has settings of its own",
    );
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("kiln.toml");
    std::fs::write(&file, "[registri]\n").unwrap();
    check_fails(&["--config", file.to_str().unwrap(), "du"], 1, "registri");
}

/// Rows: F03
#[test]
fn what_is_not_there_is_told_before_anything_starts() {
    check_fails(&["build", "nowhere"], 1, "nowhere");
    check_fails(&["build", "."], 1, "no Dockerfile at \"./Dockerfile\"");
    check_fails(&["build", "-"], 1, "standard input is empty");
    check_fails(
        &[
            "build",
            "--secret",
            "id=a,src=/nonexistent",
            "-f",
            "/dev/null",
            ".",
        ],
        2,
        "--secret",
    );
    check_fails(
        &["--addr", "unix:///nonexistent.sock", "du"],
        1,
        "could not connect",
    );
    check_fails(
        &["--addr", "carrier-pigeon", "du"],
        1,
        "is no address of a daemon",
    );
}

/// Rows: D03, D21
#[test]
fn a_daemon_that_cannot_start_says_why() {
    check_fails(
        &["daemon", "--config", "/nonexistent.toml"],
        1,
        "no configuration file at",
    );
    check_fails(
        &["daemon", "--root", "state", "--addr", "ftp://x"],
        1,
        "use unix://, tcp:// or fd://",
    );
    check_fails(&["daemon", "--rooot", "x"], 2, "'--root'");
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("c.toml"), "[grpc]\naddres = []\n").unwrap();
    let output = kiln("buildkitd", &["-config", "c.toml"], dir.path());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stderr.contains("c.toml:2: unknown field `addres`"),
        "{stderr}"
    );
}

/// Rows: D37
#[test]
fn variables_that_are_set_in_vain_are_told_once() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    // It cannot listen in a file, and so ends at once.
    let address = format!("unix://{}/file/socket", dir.path().display());
    let output = Command::new(env!("CARGO_BIN_EXE_kiln"))
        .args(["daemon", "--root", "state", "--addr", &address])
        .current_dir(dir.path())
        .env_clear()
        .env("HOME", dir.path())
        .env("NO_COLOR", "1")
        .env("BUILDKIT_DEBUG_EXEC_OUTPUT", "1")
        .env("BUILDKIT_SCHEDULER_DEBUG", "1")
        .env("BUILDKIT_STEP_LOG_MAX_SIZE", "-1")
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{stderr}");
    let told = stderr.matches("means nothing to kiln").count();
    assert_eq!(told, 1, "{stderr}");
    assert!(
        stderr.contains("BUILDKIT_DEBUG_EXEC_OUTPUT is set"),
        "{stderr}"
    );
}
