//! Processes and machines that stop at any moment.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use snapshot::testing::{layer, listing, write};
use snapshot::{Copies, Snapshotter};

/// The child of the next test: commits layers of two files until it is killed.
#[test]
fn child_that_commits_until_killed() {
    let Ok(dir) = std::env::var("KILN_SNAPSHOT_CRASH_CHILD") else {
        return;
    };
    let on = Copies::open(dir).unwrap();
    let mut lowers = Vec::new();
    loop {
        let made = layer(&on, &lowers, |root| {
            write(root, "a", "text");
            write(root, "b", "text");
        });
        lowers = vec![made];
    }
}

/// Rows: Z3
#[test]
fn kill_9_leaves_whole_layers_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let mut found = 0;
    for round in 0..12 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::child_that_commits_until_killed"])
            .env("KILN_SNAPSHOT_CRASH_CHILD", dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(20 + 5 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        let on = Copies::open(dir.path()).unwrap();
        on.settle();
        for layer in on.layers().unwrap() {
            assert_eq!(listing(&on.layer(&layer).unwrap()).len(), 2);
            on.remove(&layer).unwrap();
            found += 1;
        }
        on.settle();
        drop(on);
        for part in ["active", "trash", "owners", "layers"] {
            assert_eq!(
                fs::read_dir(dir.path().join(part)).unwrap().count(),
                0,
                "{part}"
            );
        }
    }
    assert!(found > 0);
}

/// Layers not flushed before the machine stopped may be torn, and go; flushed ones stay.
/// Rows: Z3
#[test]
fn a_crash_of_the_machine_takes_only_what_was_not_flushed() {
    let dir = tempfile::tempdir().unwrap();
    let on = Copies::open(dir.path()).unwrap();
    let safe = layer(&on, &[], |root| write(root, "safe", ""));
    on.sync().unwrap();
    let torn = layer(&on, &[], |root| write(root, "torn", ""));
    drop(on);
    let on = Copies::open(dir.path()).unwrap();
    assert!(
        on.contains(&safe) && on.contains(&torn),
        "a killed process loses nothing"
    );
    drop(on);
    let synced = dir.path().join("synced");
    let text = fs::read_to_string(&synced).unwrap();
    let (until, _) = text.split_once(' ').unwrap();
    fs::write(&synced, format!("{until} another-life-of-the-machine")).unwrap();
    let on = Copies::open(dir.path()).unwrap();
    assert!(on.contains(&safe) && !on.contains(&torn));
}

/// An owner that ended well may have thrown things away that were still on the disk then.
/// Rows: Z4
#[test]
fn what_nobody_alive_threw_away_goes_at_the_next_open() {
    let dir = tempfile::tempdir().unwrap();
    let living = Copies::open(dir.path()).unwrap();
    let trash = dir.path().join("trash");
    fs::create_dir_all(trash.join("4194999-0-18e9f03e6a721101-5/fs/etc")).unwrap();
    let next = Copies::open(dir.path()).unwrap();
    next.settle();
    assert_eq!(fs::read_dir(&trash).unwrap().count(), 0);
    drop(living);
}
