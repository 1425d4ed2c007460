//! Plugins, and programs of theirs, that outlive the kiln that started them.
//!
//! A plugin that is stopped halfway leaves things that nobody knows how to undo, and the
//! `iptables` it has started adds its rule all the same, perhaps after the undoing. So they
//! are left to come to their ends, which takes moments, and are killed only when they do not.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::cni::ATTACHMENT;

/// How long they may go on.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// How long killed ones may take to go, and a program to start.
const MOMENT: Duration = Duration::from_secs(2);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// Comes back when none runs for the attachment `id`; those that go on for longer than
/// `patience` are killed. Blocks.
pub(super) fn end(id: &str, patience: Duration) {
    let variable = format!("{ATTACHMENT}={id}");
    let begun = Instant::now();
    let mut starting = HashMap::new();
    while begun.elapsed() < patience + MOMENT {
        let running = running(variable.as_bytes(), &mut starting);
        let any_starts = starting.values().any(|seen| seen.elapsed() < MOMENT);
        if running.is_empty() && !any_starts {
            return;
        }
        if begun.elapsed() >= patience {
            for pid in running {
                tracing::warn!(id, ?pid, "killing a CNI plugin of a kiln that was killed");
                let _gone = kill_process(pid, Signal::KILL);
            }
        }
        std::thread::sleep(PAUSE);
    }
    tracing::warn!(id, "CNI plugins of a kiln that was killed still run");
}

/// The processes with this `variable`. Those that have no environment are put down in
/// `starting`, with the time they were seen first: a program that has just been executed
/// has none yet.
fn running(variable: &[u8], starting: &mut HashMap<i32, Instant>) -> Vec<Pid> {
    let mut found = Vec::new();
    let mut without = HashMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(number) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let Ok(environment) = std::fs::read(entry.path().join("environ")) else {
            continue;
        };
        if environment.is_empty() && has_program(&entry.path()) {
            let seen = starting.get(&number).copied();
            without.insert(number, seen.unwrap_or_else(Instant::now));
        }
        if environment
            .split(|byte| *byte == 0)
            .any(|one| one == variable)
        {
            found.extend(Pid::from_raw(number));
        }
    }
    *starting = without;
    found
}

/// Threads of the kernel and processes that have ended have none.
fn has_program(process: &Path) -> bool {
    std::fs::read_link(process.join("exe")).is_ok()
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    fn orphan(id: &str, seconds: &str) -> Child {
        let mut command = Command::new("sleep");
        command.arg(seconds).env(ATTACHMENT, id).spawn().unwrap()
    }

    /// Whether it does nothing any more. It has no program some moments before its status can be
    /// had.
    fn is_over(orphan: &mut Child) -> bool {
        let process = format!("/proc/{}", orphan.id());
        orphan.try_wait().unwrap().is_some() || !has_program(Path::new(&process))
    }

    /// Rows: X07
    #[test]
    fn one_that_ends_by_itself_is_waited_for() {
        for round in 0..20 {
            let id = format!("ends-{}-{round}", std::process::id());
            let mut orphan = orphan(&id, "0.1");
            // It is waited for although nobody has asked for its status yet.
            end(&id, PATIENCE);
            assert!(is_over(&mut orphan));
            assert!(orphan.wait().unwrap().success());
        }
    }

    /// Rows: X07
    #[test]
    fn one_that_does_not_end_is_killed_and_others_are_left_alone() {
        let [mine, other] = ["mine", "other"].map(|who| format!("{who}-{}", std::process::id()));
        let (mut long, mut left) = (orphan(&mine, "60"), orphan(&other, "60"));
        end(&mine, Duration::from_millis(50));
        assert!(is_over(&mut long));
        assert!(!long.wait().unwrap().success());
        assert_eq!(left.try_wait().unwrap(), None);
        left.kill().unwrap();
        left.wait().unwrap();
    }
}
