//! What is left when everything has ended: nothing.

use std::fs;
use std::process::Command;
use std::sync::Once;
use std::time::{Duration, Instant};

use super::place::Place;

/// A helper may need a moment to clean up after its parent.
const MOMENT: Duration = Duration::from_secs(5);

impl Place {
    /// Everything that was started here has ended: no mounts, no processes, no cgroups,
    /// no temporary files.
    #[track_caller]
    pub(crate) fn assert_nothing_left(&self) {
        let deadline = Instant::now() + MOMENT;
        loop {
            let left = self.left();
            if left.is_empty() {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "left behind:\n{}",
                left.join("\n")
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn left(&self) -> Vec<String> {
        let mut left = self.mounts();
        left.extend(self.processes());
        left.extend(self.cgroups());
        left.extend(self.temporary_files());
        left
    }

    fn mounts(&self) -> Vec<String> {
        let ours = self.root().to_string_lossy().into_owned();
        let table = fs::read_to_string("/proc/self/mountinfo").expect("a mount table");
        let lines = table.lines().filter(|line| line.contains(&ours));
        lines.map(|line| format!("mount: {line}")).collect()
    }

    /// How many processes in containers of kilns started here have this command line.
    pub(crate) fn processes_in_containers(&self, command: &str) -> usize {
        let processes = self.processes();
        processes
            .iter()
            .filter(|line| line.contains(command))
            .count()
    }

    /// Processes that know of our folder, or that are in a cgroup of a kiln started here.
    fn processes(&self) -> Vec<String> {
        let ours = self.root().to_string_lossy().into_owned();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").expect("processes").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Ok(pid) = name.parse::<u32>() else {
                continue;
            };
            if pid == std::process::id() {
                continue;
            }
            let read = |file: &str| {
                let bytes = fs::read(entry.path().join(file)).unwrap_or_default();
                String::from_utf8_lossy(&bytes).replace('\0', " ")
            };
            // What has ended and waits for its parent is not running.
            if read("stat")
                .rsplit_once(") ")
                .is_none_or(|(_, rest)| rest.starts_with('Z'))
            {
                continue;
            }
            let command = read("cmdline");
            let in_ours = self.names().any(|name| read("cgroup").contains(&name));
            let knows = [&command, &read("environ")]
                .iter()
                .any(|text| text.contains(&ours));
            if (in_ours || knows) && !command.contains("docker-registry") {
                found.push(format!("process {pid}: {command}"));
            }
        }
        found
    }

    /// How the cgroups of processes started here begin: `/kiln-instance-PID-`.
    fn names(&self) -> impl Iterator<Item = String> {
        let pids = self.pids.lock().expect("not poisoned").clone();
        pids.into_iter().map(|pid| format!("/kiln-instance-{pid}-"))
    }

    /// Cgroups of processes started here, and parents of them that are empty.
    fn cgroups(&self) -> Vec<String> {
        let found = all_cgroups();
        let ours: Vec<String> = self.names().collect();
        let mut left: Vec<String> = found
            .lines()
            .filter(|line| ours.iter().any(|name| line.contains(name)))
            .map(str::to_owned)
            .collect();
        let empty = empty_parents(&found);
        left.extend(empty);
        left.iter().map(|line| format!("cgroup: {line}")).collect()
    }

    fn temporary_files(&self) -> Vec<String> {
        let dirs = ["tmp", "state/scratch", "state/networks"];
        let entries = dirs
            .iter()
            .filter_map(|dir| fs::read_dir(self.path(dir)).ok());
        let paths = entries.flatten().flatten().map(|entry| entry.path());
        paths
            .map(|path| format!("temporary: {}", path.display()))
            .collect()
    }
}

/// A line for each cgroup, in the hierarchies this machine shows and in the second version's,
/// which may be mounted nowhere.
fn all_cgroups() -> String {
    with_cgroups("find /sys/fs/cgroup /mnt -type d")
}

/// Removes empty parents of kiln's cgroups that were left by who does not run any more, so that
/// those left by the tests are seen. Once for all tests of a process.
pub(super) fn remove_empty_parents() {
    static REMOVED: Once = Once::new();
    REMOVED.call_once(|| {
        let names =
            PARENTS.map(|name| format!("/sys/fs/cgroup{name} /sys/fs/cgroup/*{name} /mnt{name}"));
        with_cgroups(&format!("rmdir {}", names.join(" ")));
    });
}

/// What a command says where all hierarchies are mounted, the second version's at `/mnt`.
fn with_cgroups(command: &str) -> String {
    let script = format!("{{ mount -t cgroup2 none /mnt; {command}; }} 2>/dev/null");
    let found = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", &script])
        .output()
        .expect("unshare can be run");
    String::from_utf8_lossy(&found.stdout).into_owned()
}

/// Parents of kiln's cgroups, with the built-in executor and with a binary.
const PARENTS: [&str; 2] = ["/kiln", "/kiln-runtime"];

/// The parents of kiln's cgroups that have nothing in them.
fn empty_parents(cgroups: &str) -> Vec<String> {
    let empty = |line: &&str| {
        let inside = format!("{line}/");
        PARENTS.iter().any(|name| line.ends_with(name))
            && !cgroups.lines().any(|other| other.starts_with(&inside))
    };
    cgroups.lines().filter(empty).map(str::to_owned).collect()
}
