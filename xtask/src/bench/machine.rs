//! The machine the numbers are from.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use super::peers::Peers;

/// Whether we may mount.
pub(crate) fn is_root() -> bool {
    // Real, effective, saved, and that of the file system.
    field("/proc/self/status", "Uid:").split_whitespace().nth(1) == Some("0")
}

/// One paragraph: processor, memory, kernel, disk, and who took part.
pub(crate) fn describe(peers: &Peers, kiln: &Path) -> String {
    let mut text = String::new();
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let memory: u64 = field("/proc/meminfo", "MemTotal:")
        .split_whitespace()
        .next()
        .and_then(|kib| kib.parse().ok())
        .unwrap_or(0);
    let _ = write!(
        text,
        "{cpus} × {}, {} GiB memory, Linux {}, {}, cgroup {}.",
        field("/proc/cpuinfo", "model name").trim_start_matches(['\t', ':', ' ']),
        memory >> 20,
        first_line(Command::new("uname").arg("-r")),
        first_line(Command::new("findmnt").args(["-no", "FSTYPE", "-T", "/var/tmp"])),
        if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
            "v2"
        } else {
            "v1"
        },
    );
    let _ = write!(text, "\n{}", first_line(Command::new(kiln).arg("version")));
    for (program, argument) in [
        ("dockerd", "--version"),
        ("/usr/libexec/docker/cli-plugins/docker-buildx", "version"),
        ("containerd", "--version"),
        ("runc", "--version"),
        ("buildah", "--version"),
        ("crun", "--version"),
        ("docker-registry", "--version"),
    ] {
        let _ = write!(
            text,
            "; {}",
            first_line(peers.command(program).arg(argument))
        );
    }
    text
}

fn first_line(command: &mut Command) -> String {
    let output = command
        .output()
        .map(|output| output.stdout)
        .unwrap_or_default();
    let text = String::from_utf8_lossy(&output);
    text.lines().next().unwrap_or_default().trim().to_owned()
}

/// What follows `name` on its line of a file in `/proc`.
fn field(path: &str, name: &str) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .unwrap_or_default()
        .trim()
        .to_owned()
}
