//! Running commands: how long they took, and how much memory they held.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::Error;

/// Ticks a second in `/proc`, on every Linux.
const TICKS: u64 = 100;

/// One measured run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// From the start of the first client to the end of the last.
    pub(crate) time: Duration,
    /// Processor time of the clients, the daemons and all they waited for. Whatever else the
    /// machine does meanwhile changes it little.
    pub(crate) cpu: Duration,
    /// Largest resident size of the clients, summed.
    pub(crate) client_bytes: u64,
    /// Largest resident size of the daemons, summed; none if there is no daemon.
    pub(crate) daemon_bytes: Option<u64>,
}

impl fmt::Display for Sample {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (time, cpu) = (self.time.as_secs_f64(), self.cpu.as_secs_f64());
        write!(out, "{time:>8.3} s  {cpu:>8.3} s of processors  ")?;
        write!(out, "client {} MiB", self.client_bytes >> 20)?;
        match self.daemon_bytes {
            Some(bytes) => write!(out, ", daemon {} MiB", bytes >> 20),
            None => Ok(()),
        }
    }
}

/// Runs the commands at once. What `daemon` and the processes it starts use counts as well.
pub(crate) fn timed(
    mut commands: Vec<Command>,
    log: &Path,
    daemon: Option<u32>,
) -> Result<Sample, Error> {
    let before = daemon.map(tree).unwrap_or_default();
    for pid in &before {
        forget_peak(*pid);
    }
    let mut children = Vec::new();
    let ticks_before: u64 = before.iter().map(|pid| ticks(*pid)).sum();
    let begun = Instant::now();
    for (number, command) in commands.iter_mut().enumerate() {
        let log = numbered(log, number);
        let file = File::create(&log).map_err(Error::io("making", &log))?;
        let both = file.try_clone().map_err(Error::io("opening", &log))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(both)
            .stderr(file)
            .spawn()
            .map_err(|source| Error::Start {
                program: shown(command),
                source,
            })?;
        children.push((shown(command), child.id(), log));
    }
    let mut client_bytes = 0;
    let mut cpu = Duration::ZERO;
    let mut failed = None;
    for (command, pid, log) in children {
        let end = wait(pid);
        client_bytes += end.peak_bytes;
        cpu += end.cpu;
        if end.status != 0 && failed.is_none() {
            failed = Some(Error::Failed {
                command,
                status: format!("wait status {:#x}", end.status),
                last_words: last_words(&log),
            });
        }
    }
    let time = begun.elapsed();
    // What ended meanwhile is in the numbers of who waited for it.
    let after = daemon.map(tree).unwrap_or_default();
    let ticks_after: u64 = after.iter().map(|pid| ticks(*pid)).sum();
    cpu += Duration::from_millis(ticks_after.saturating_sub(ticks_before) * 1000 / TICKS);
    let peaks = after.iter().filter_map(|pid| peak(*pid));
    match failed {
        Some(error) => Err(error),
        None => Ok(Sample {
            time,
            cpu,
            client_bytes,
            daemon_bytes: daemon.map(|_| peaks.sum()),
        }),
    }
}

/// Runs a command whose time does not matter.
pub(crate) fn untimed(command: Command, log: &Path) -> Result<(), Error> {
    timed(vec![command], log, None).map(drop)
}

/// Lets the disk finish what earlier runs left to write.
pub(crate) fn settle() {
    // SAFETY: sync takes nothing and cannot fail.
    unsafe { libc::sync() };
}

struct End {
    status: i32,
    cpu: Duration,
    peak_bytes: u64,
}

/// Waits for a child of ours; `wait4` also tells the largest process of its tree.
fn wait(pid: u32) -> End {
    let mut status = 0;
    // SAFETY: a rusage of zeros is a valid one.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to our own variables, which outlive the call.
        let waited = unsafe { libc::wait4(pid.cast_signed(), &raw mut status, 0, &raw mut usage) };
        let interrupted = std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted;
        if waited == -1 && interrupted {
            continue;
        }
        return End {
            status: if waited == -1 { -1 } else { status },
            cpu: duration(usage.ru_utime) + duration(usage.ru_stime),
            peak_bytes: u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024,
        };
    }
}

fn duration(time: libc::timeval) -> Duration {
    let micros = time.tv_sec * 1_000_000 + time.tv_usec;
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

/// Processor time of a process and of the children it waited for.
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, in brackets, may hold anything; four numbers that add up follow some way after.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields = after_name.split_whitespace().skip(11).take(4);
    fields.filter_map(|field| field.parse::<u64>().ok()).sum()
}

/// The process and all below it, as they are now.
pub(crate) fn tree(root: u32) -> Vec<u32> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter();
        for task in tasks.flatten().flatten() {
            let children = std::fs::read_to_string(task.path().join("children"));
            let children = children.unwrap_or_default();
            found.extend(
                children
                    .split_whitespace()
                    .filter_map(|pid| pid.parse::<u32>().ok()),
            );
        }
        next += 1;
    }
    found
}

fn peak(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// Sets `VmHWM` back to what is resident now. A process that is gone has no peak.
fn forget_peak(pid: u32) {
    let _ = std::fs::write(format!("/proc/{pid}/clear_refs"), "5");
}

fn numbered(log: &Path, number: usize) -> PathBuf {
    match number {
        0 => log.to_owned(),
        _ => log.with_extension(format!("{number}.log")),
    }
}

fn last_words(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}
