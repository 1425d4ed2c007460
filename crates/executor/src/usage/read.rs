//! From the kernel's files to samples. A file that is not there, or that says what we do not
//! understand, leaves its part out: nobody's build fails for what is only told.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::SystemTime;

use super::{
    CpuStat, IoStat, MemoryStat, NetStat, PidsStat, Pressure, PressureValues, ProcStat, Sample,
    SysCpuStat, SysMemoryStat, SysSample,
};
use crate::cgroup::Dir;

/// Where a container's samples come from.
pub(crate) struct Source {
    cgroups: Cgroups,
    /// A network of its own, and what had gone over it before.
    network: Option<(OwnedFd, Counts)>,
}

/// A container's directories.
pub(crate) enum Cgroups {
    /// Held open: of the second version, and those of the first by their controllers.
    Dirs(Option<Dir>, Vec<(String, Dir)>),
    /// The same path beneath where hierarchies usually are.
    Path(String),
}

impl Source {
    pub(crate) fn new(cgroups: Cgroups, network: Option<OwnedFd>) -> Source {
        let network = network.and_then(|network| {
            let counts = counts_of(&network)?;
            Some((network, counts))
        });
        Source { cgroups, network }
    }

    /// How it is now.
    pub(crate) fn sample(&self) -> Sample {
        let read = |controller: &str, file: &str| self.cgroups.read(controller, file);
        let network = self.network.as_ref().and_then(|(network, before)| {
            let now = counts_of(network)?;
            Some(now.since(before))
        });
        Sample {
            timestamp: SystemTime::now(),
            cpu_stat: cpu(&read),
            memory_stat: memory(&read),
            io_stat: io(&read),
            pids_stat: pids(&read),
            net_stat: network,
        }
    }
}

impl Cgroups {
    /// A file of the container's directory; without a controller that of the second version.
    fn read(&self, controller: &str, file: &str) -> Option<String> {
        match (self, controller) {
            (Cgroups::Dirs(dir, _), "") => dir.as_ref()?.read(file).ok(),
            (Cgroups::Dirs(_, dirs), controller) => {
                let (_, dir) = dirs.iter().find(|(name, _)| name == controller)?;
                dir.read(file).ok()
            }
            (Cgroups::Path(path), controller) => {
                let dir = PathBuf::from("/sys/fs/cgroup").join(controller).join(path);
                std::fs::read_to_string(dir.join(file)).ok()
            }
        }
    }
}

/// A file of a controller.
type Read<'a> = dyn Fn(&str, &str) -> Option<String> + 'a;

/// Lines of a name and a number.
fn pairs(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|line| {
        let (name, value) = line.split_once(' ')?;
        Some((name.trim_end_matches(':'), value.trim().parse().ok()?))
    })
}

fn single(text: Option<String>) -> Option<u64> {
    text?.trim().parse().ok()
}

pub(super) fn cpu(read: &Read<'_>) -> Option<CpuStat> {
    let mut stat = CpuStat::default();
    let second = read("", "cpu.stat").unwrap_or_default();
    for (name, value) in pairs(&second) {
        let nanos = Some(value.saturating_mul(1000));
        match name {
            "usage_usec" => stat.usage = nanos,
            "user_usec" => stat.user = nanos,
            "system_usec" => stat.system = nanos,
            "nr_periods" => stat.periods = u32::try_from(value).ok(),
            "nr_throttled" => stat.throttled = u32::try_from(value).ok(),
            "throttled_usec" => stat.throttled_time = nanos,
            _ => {}
        }
    }
    if let (None, Some(usage)) = (stat.usage, single(read("cpuacct", "cpuacct.usage"))) {
        stat.usage = Some(usage);
        stat.user = single(read("cpuacct", "cpuacct.usage_user"));
        stat.system = single(read("cpuacct", "cpuacct.usage_sys"));
    }
    let first = read("cpu", "cpu.stat").unwrap_or_default();
    for (name, value) in pairs(&first) {
        match name {
            "nr_periods" => stat.periods = u32::try_from(value).ok(),
            "nr_throttled" => stat.throttled = u32::try_from(value).ok(),
            "throttled_time" => stat.throttled_time = Some(value),
            _ => {}
        }
    }
    stat.pressure = pressure(read("", "cpu.pressure"));
    (stat != CpuStat::default()).then_some(stat)
}

pub(super) fn memory(read: &Read<'_>) -> Option<MemoryStat> {
    match read("", "memory.stat") {
        Some(text) => Some(memory_of_second(&text, read)),
        None => Some(memory_of_first(&read("memory", "memory.stat")?, read)),
    }
}

fn memory_of_second(text: &str, read: &Read<'_>) -> MemoryStat {
    let mut stat = MemoryStat::default();
    for (name, value) in pairs(text) {
        let to = match name {
            "anon" => &mut stat.anon,
            "file" => &mut stat.file,
            "kernel_stack" => &mut stat.kernel_stack,
            "pagetables" => &mut stat.page_tables,
            "sock" => &mut stat.sock,
            "shmem" => &mut stat.shmem,
            "file_mapped" => &mut stat.file_mapped,
            "file_dirty" => &mut stat.file_dirty,
            "file_writeback" => &mut stat.file_writeback,
            "slab" => &mut stat.slab,
            "pgscan" => &mut stat.pgscan,
            "pgsteal" => &mut stat.pgsteal,
            "pgfault" => &mut stat.pgfault,
            "pgmajfault" => &mut stat.pgmajfault,
            _ => continue,
        };
        *to = Some(value);
    }
    let events = read("", "memory.events").unwrap_or_default();
    for (name, value) in pairs(&events).filter(|(_, value)| *value > 0) {
        let to = match name {
            "low" => &mut stat.low_events,
            "high" => &mut stat.high_events,
            "max" => &mut stat.max_events,
            "oom" => &mut stat.oom_events,
            "oom_kill" => &mut stat.oom_kill_events,
            _ => continue,
        };
        *to = Some(value);
    }
    stat.peak = single(read("", "memory.peak"));
    stat.swap = single(read("", "memory.swap.current"));
    stat.pressure = pressure(read("", "memory.pressure"));
    stat
}

fn memory_of_first(text: &str, read: &Read<'_>) -> MemoryStat {
    let mut stat = MemoryStat::default();
    for (name, value) in pairs(text) {
        let to = match name {
            "rss" => &mut stat.anon,
            "cache" => &mut stat.file,
            "swap" => &mut stat.swap,
            "shmem" => &mut stat.shmem,
            "mapped_file" => &mut stat.file_mapped,
            "dirty" => &mut stat.file_dirty,
            "writeback" => &mut stat.file_writeback,
            "pgfault" => &mut stat.pgfault,
            "pgmajfault" => &mut stat.pgmajfault,
            _ => continue,
        };
        *to = Some(value);
    }
    let kills = read("memory", "memory.oom_control").unwrap_or_default();
    let kills = pairs(&kills).find(|(name, _)| *name == "oom_kill");
    stat.oom_kill_events = kills.map(|(_, count)| count).filter(|count| *count > 0);
    let limit_hit = single(read("memory", "memory.failcnt"));
    stat.max_events = limit_hit.filter(|count| *count > 0);
    stat.peak = single(read("memory", "memory.max_usage_in_bytes"));
    stat.sock = single(read("memory", "memory.kmem.tcp.usage_in_bytes"));
    stat
}

pub(super) fn io(read: &Read<'_>) -> Option<IoStat> {
    let mut stat = IoStat::default();
    let add = |to: &mut Option<u64>, value: u64| *to = Some(to.unwrap_or(0).saturating_add(value));
    let second = read("", "io.stat");
    for line in second.iter().flat_map(|text| text.lines()) {
        for part in line.split_whitespace().skip(1) {
            let Some((name, value)) = part.split_once('=') else {
                continue;
            };
            let Ok(value) = value.parse() else { continue };
            match name {
                "rbytes" => add(&mut stat.read_bytes, value),
                "wbytes" => add(&mut stat.write_bytes, value),
                "dbytes" => add(&mut stat.discard_bytes, value),
                "rios" => add(&mut stat.read_ios, value),
                "wios" => add(&mut stat.write_ios, value),
                "dios" => add(&mut stat.discard_ios, value),
                _ => {}
            }
        }
    }
    let bytes = read("blkio", "blkio.throttle.io_service_bytes");
    let counts = read("blkio", "blkio.throttle.io_serviced");
    for (text, ios) in [(&bytes, false), (&counts, true)] {
        for line in text.iter().flat_map(|text| text.lines()) {
            // `8:0 Read 4096`
            let mut words = line.split_whitespace().skip(1);
            let (Some(what), Some(value)) = (words.next(), words.next()) else {
                continue;
            };
            let Ok(value) = value.parse() else { continue };
            match (what, ios) {
                ("Read", false) => add(&mut stat.read_bytes, value),
                ("Write", false) => add(&mut stat.write_bytes, value),
                ("Discard", false) => add(&mut stat.discard_bytes, value),
                ("Read", true) => add(&mut stat.read_ios, value),
                ("Write", true) => add(&mut stat.write_ios, value),
                ("Discard", true) => add(&mut stat.discard_ios, value),
                _ => {}
            }
        }
    }
    stat.pressure = pressure(read("", "io.pressure"));
    // A container that read and wrote nothing has empty files.
    let known = second.is_some() || bytes.is_some() || stat.pressure.is_some();
    known.then_some(stat)
}

pub(super) fn pids(read: &Read<'_>) -> Option<PidsStat> {
    let file = "pids.current";
    let current = single(read("", file)).or_else(|| single(read("pids", file)))?;
    Some(PidsStat {
        current: Some(current),
    })
}

pub(super) fn pressure(text: Option<String>) -> Option<Pressure> {
    let mut pressure = Pressure::default();
    for line in text?.lines() {
        let mut words = line.split_whitespace();
        let kind = words.next();
        let mut values = PressureValues::default();
        for (name, value) in words.filter_map(|word| word.split_once('=')) {
            match name {
                "avg10" => values.avg10 = value.parse().ok(),
                "avg60" => values.avg60 = value.parse().ok(),
                "avg300" => values.avg300 = value.parse().ok(),
                "total" => values.total = value.parse().ok(),
                _ => {}
            }
        }
        match kind {
            Some("some") => pressure.some = Some(values),
            Some("full") => pressure.full = Some(values),
            _ => {}
        }
    }
    (pressure != Pressure::default()).then_some(pressure)
}

/// What went over the interfaces of a network, by the columns of the kernel's table.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Counts([u64; 8]);

impl Counts {
    /// From `/proc/net/dev`. What stays in the machine does not count.
    pub(super) fn parse(table: &str) -> Counts {
        let mut counts = Counts::default();
        for line in table.lines() {
            let Some((name, values)) = line.split_once(':') else {
                continue;
            };
            if name.trim() == "lo" {
                continue;
            }
            let values: Vec<u64> = values
                .split_whitespace()
                .filter_map(|value| value.parse().ok())
                .collect();
            // Bytes, packets, errors, drops; first what came in, then, after eight, what went out.
            for (at, count) in counts.0.iter_mut().enumerate() {
                let column = at % 4 + at / 4 * 8;
                *count += values.get(column).copied().unwrap_or(0);
            }
        }
        counts
    }

    pub(super) fn since(&self, before: &Counts) -> NetStat {
        let value = |at: usize| {
            let value = self.0[at].saturating_sub(before.0[at]);
            (value > 0).then_some(value)
        };
        NetStat {
            rx_bytes: value(0),
            rx_packets: value(1),
            rx_errors: value(2),
            rx_dropped: value(3),
            tx_bytes: value(4),
            tx_packets: value(5),
            tx_errors: value(6),
            tx_dropped: value(7),
        }
    }
}

/// Of a network namespace. Only the thread that looks is moved into it, and ends.
fn counts_of(network: &OwnedFd) -> Option<Counts> {
    let network = network.try_clone().ok()?;
    // A machine without threads to spare tells less.
    let looking = std::thread::Builder::new().spawn(move || {
        let kind = Some(rustix::thread::LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(network.as_fd(), kind).ok()?;
        std::fs::read_to_string("/proc/thread-self/net/dev").ok()
    });
    Some(Counts::parse(&looking.ok()?.join().ok()??))
}

/// What the machine's processors have done since it started.
pub(super) fn sys_cpu() -> Option<SysCpuStat> {
    cpu_of_system(&std::fs::read_to_string("/proc/stat").ok()?)
}

pub(super) fn cpu_of_system(text: &str) -> Option<SysCpuStat> {
    /// The kernel's unit for programs, on every architecture we run on.
    const TICKS: f64 = 100.0;
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let mut values = line
        .split_whitespace()
        .map(|value| value.parse::<f64>().unwrap_or(0.0) / TICKS);
    let mut next = || values.next().unwrap_or(0.0);
    Some(SysCpuStat {
        user: next(),
        nice: next(),
        system: next(),
        idle: next(),
        iowait: next(),
        irq: next(),
        softirq: next(),
        steal: next(),
        guest: next(),
        guest_nice: next(),
    })
}

impl SysSample {
    /// The machine as it is now.
    pub(super) fn take() -> SysSample {
        let read = |path: &str| std::fs::read_to_string(path).ok();
        let stat = read("/proc/stat").unwrap_or_default();
        SysSample {
            timestamp: SystemTime::now(),
            cpu_stat: cpu_of_system(&stat),
            proc_stat: Some(counts_of_system(&stat)),
            memory_stat: read("/proc/meminfo").map(|text| memory_of_system(&text)),
            cpu_pressure: pressure(read("/proc/pressure/cpu")),
            memory_pressure: pressure(read("/proc/pressure/memory")),
            io_pressure: pressure(read("/proc/pressure/io")),
        }
    }
}

pub(super) fn counts_of_system(text: &str) -> ProcStat {
    let count = |name: &str| {
        let found = pairs(text).find(|(found, _)| *found == name);
        found.map_or(0, |(_, count)| count)
    };
    ProcStat {
        context_switches: count("ctxt"),
        process_created: count("processes"),
        processes_running: count("procs_running"),
    }
}

pub(super) fn memory_of_system(text: &str) -> SysMemoryStat {
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let number = line.strip_prefix(':')?.trim();
        number.trim_end_matches("kB").trim().parse().ok()
    };
    SysMemoryStat {
        total: value("MemTotal"),
        free: value("MemFree"),
        available: value("MemAvailable"),
        buffers: value("Buffers"),
        cached: value("Cached"),
        active: value("Active"),
        inactive: value("Inactive"),
        swap: value("SwapTotal"),
        dirty: value("Dirty"),
        writeback: value("Writeback"),
        slab: value("Slab"),
    }
}
