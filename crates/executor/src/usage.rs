//! What a container uses of the machine, and what the machine has to do meanwhile (row X16):
//! samples in the shape of BuildKit's provenance. Fields are called as in the kernel's files.

mod read;

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

pub(crate) use read::{Cgroups, Source};

/// The time between two samples, at first.
const INTERVAL: Duration = Duration::from_secs(2);
/// So many are kept; then every other one goes, and the next ones come half as often.
const KEPT: usize = 20;

/// Takes down what one container uses. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Recorder(Arc<Mutex<Record>>);

#[derive(Debug, Default)]
struct Record {
    samples: Series<Sample>,
    before: Option<SysCpuStat>,
    during: Option<SysCpuStat>,
}

impl Recorder {
    fn lock(&self) -> MutexGuard<'_, Record> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The container is about to start. Blocks for a moment.
    pub(crate) fn begin(&self, cgroups: Cgroups, network: Option<OwnedFd>) -> Arc<Source> {
        self.lock().before = read::sys_cpu();
        Arc::new(Source::new(cgroups, network))
    }

    fn add(&self, sample: Sample, last: bool) {
        let mut record = self.lock();
        record.samples.add(sample);
        if let (true, Some(before), Some(now)) = (last, record.before, read::sys_cpu()) {
            record.during = Some(now.since(&before));
        }
    }

    /// What was taken down.
    pub fn samples(&self) -> Samples {
        let record = self.lock();
        Samples {
            samples: record.samples.kept.clone(),
            sys_cpu_stat: record.during,
        }
    }

    /// Does `work`, during which `source` is sampled.
    pub(crate) async fn around<T>(
        recorder: Option<&Recorder>,
        source: Option<Arc<Source>>,
        work: impl Future<Output = T>,
    ) -> T {
        let (Some(recorder), Some(source)) = (recorder, source) else {
            return work.await;
        };
        let mut work = std::pin::pin!(work);
        loop {
            let pause = recorder.lock().samples.interval;
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep(pause) => {}
            }
            let source = source.clone();
            let sample = stdx::task::blocking(move || source.sample());
            tokio::select! {
                done = &mut work => return done,
                sample = sample => recorder.add(sample, false),
            }
        }
    }

    /// The container's process has ended, its cgroup is still there. Blocks for a moment.
    pub(crate) fn end(recorder: Option<&Recorder>, source: Option<&Source>) {
        if let (Some(recorder), Some(source)) = (recorder, source) {
            recorder.add(source.sample(), true);
        }
    }
}

/// Samples, never many of them.
#[derive(Clone, Debug)]
struct Series<T> {
    kept: Vec<T>,
    interval: Duration,
}

impl<T> Default for Series<T> {
    fn default() -> Series<T> {
        Series {
            kept: Vec::new(),
            interval: INTERVAL,
        }
    }
}

impl<T> Series<T> {
    fn add(&mut self, sample: T) {
        if self.kept.len() >= KEPT {
            let mut number = 0;
            self.kept.retain(|_| {
                number += 1;
                number % 2 == 1
            });
            self.interval *= 2;
        }
        self.kept.push(sample);
    }
}

/// Takes down what the whole machine does. Dropped, it stops.
pub struct SystemRecorder {
    series: Arc<Mutex<Series<SysSample>>>,
    _task: stdx::task::Task<()>,
}

impl SystemRecorder {
    /// Begins.
    pub fn start() -> SystemRecorder {
        let series = Arc::<Mutex<Series<SysSample>>>::default();
        let into = series.clone();
        let task = stdx::task::spawn("system-usage", async move {
            loop {
                let interval = lock(&into).interval;
                tokio::time::sleep(interval).await;
                let sample = stdx::task::blocking(SysSample::take).await;
                lock(&into).add(sample);
            }
        });
        SystemRecorder {
            series,
            _task: task,
        }
    }

    /// What was taken down, and how it is now.
    pub async fn samples(&self) -> Vec<SysSample> {
        let mut samples = lock(&self.series).kept.clone();
        samples.push(stdx::task::blocking(SysSample::take).await);
        samples
    }
}

fn lock<T>(series: &Mutex<Series<T>>) -> MutexGuard<'_, Series<T>> {
    series.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What one container used.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Samples {
    /// One after the other; the last when its process had ended.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<Sample>,
    /// What the machine's processors did meanwhile.
    #[serde(rename = "sysCPUStat", skip_serializing_if = "Option::is_none")]
    pub sys_cpu_stat: Option<SysCpuStat>,
}

/// What a container used up to one moment.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    #[serde(serialize_with = "timestamp")]
    pub timestamp: SystemTime,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_stat: Option<CpuStat>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_stat: Option<MemoryStat>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io_stat: Option<IoStat>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids_stat: Option<PidsStat>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub net_stat: Option<NetStat>,
}

/// Values of the kernel, each told if the host has it.
macro_rules! values {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty as $key:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Serialize)]
        pub struct $name {
            $(
                #[serde(rename = $key, skip_serializing_if = "Option::is_none")]
                pub $field: Option<$type>,
            )*
        }
    };
}

values! {
    /// Of processors.
    CpuStat {
        usage: u64 as "usageNanos",
        user: u64 as "userNanos",
        system: u64 as "systemNanos",
        periods: u32 as "nrPeriods",
        throttled: u32 as "nrThrottled",
        throttled_time: u64 as "throttledNanos",
        pressure: Pressure as "pressure",
    }
}

values! {
    /// Of memory, in bytes and events. Counts of events that there were none of are not told.
    MemoryStat {
        swap: u64 as "swapBytes",
        anon: u64 as "anon",
        file: u64 as "file",
        kernel_stack: u64 as "kernelStack",
        page_tables: u64 as "pageTables",
        sock: u64 as "sock",
        shmem: u64 as "shmem",
        file_mapped: u64 as "fileMapped",
        file_dirty: u64 as "fileDirty",
        file_writeback: u64 as "fileWriteback",
        slab: u64 as "slab",
        pgscan: u64 as "pgscan",
        pgsteal: u64 as "pgsteal",
        pgfault: u64 as "pgfault",
        pgmajfault: u64 as "pgmajfault",
        peak: u64 as "peak",
        low_events: u64 as "lowEvents",
        high_events: u64 as "highEvents",
        max_events: u64 as "maxEvents",
        oom_events: u64 as "oomEvents",
        oom_kill_events: u64 as "oomKillEvents",
        pressure: Pressure as "pressure",
    }
}

values! {
    /// Of disks.
    IoStat {
        read_bytes: u64 as "readBytes",
        write_bytes: u64 as "writeBytes",
        discard_bytes: u64 as "discardBytes",
        read_ios: u64 as "readIOs",
        write_ios: u64 as "writeIOs",
        discard_ios: u64 as "discardIOs",
        pressure: Pressure as "pressure",
    }
}

values! {
    /// How many processes there are.
    PidsStat { current: u64 as "current" }
}

values! {
    /// What went over a network of its own. What is zero is not told.
    NetStat {
        rx_bytes: u64 as "rxBytes",
        rx_packets: u64 as "rxPackets",
        rx_errors: u64 as "rxErrors",
        rx_dropped: u64 as "rxDropped",
        tx_bytes: u64 as "txBytes",
        tx_packets: u64 as "txPackets",
        tx_errors: u64 as "txErrors",
        tx_dropped: u64 as "txDropped",
    }
}

/// How long something was waited for.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Pressure {
    /// By someone.
    pub some: Option<PressureValues>,
    /// By everyone.
    pub full: Option<PressureValues>,
}

/// As parts of a hundred, and in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PressureValues {
    #[serde(serialize_with = "maybe_number")]
    pub avg10: Option<f64>,
    #[serde(serialize_with = "maybe_number")]
    pub avg60: Option<f64>,
    #[serde(serialize_with = "maybe_number")]
    pub avg300: Option<f64>,
    pub total: Option<u64>,
}

/// What the machine's processors did, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SysCpuStat {
    #[serde(serialize_with = "number")]
    pub user: f64,
    #[serde(serialize_with = "number")]
    pub nice: f64,
    #[serde(serialize_with = "number")]
    pub system: f64,
    #[serde(serialize_with = "number")]
    pub idle: f64,
    #[serde(serialize_with = "number")]
    pub iowait: f64,
    #[serde(serialize_with = "number")]
    pub irq: f64,
    #[serde(serialize_with = "number")]
    pub softirq: f64,
    #[serde(serialize_with = "number")]
    pub steal: f64,
    #[serde(serialize_with = "number")]
    pub guest: f64,
    #[serde(serialize_with = "number")]
    pub guest_nice: f64,
}

impl SysCpuStat {
    fn since(&self, before: &SysCpuStat) -> SysCpuStat {
        SysCpuStat {
            user: self.user - before.user,
            nice: self.nice - before.nice,
            system: self.system - before.system,
            idle: self.idle - before.idle,
            iowait: self.iowait - before.iowait,
            irq: self.irq - before.irq,
            softirq: self.softirq - before.softirq,
            steal: self.steal - before.steal,
            guest: self.guest - before.guest,
            guest_nice: self.guest_nice - before.guest_nice,
        }
    }
}

/// The whole machine at one moment.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SysSample {
    #[serde(serialize_with = "timestamp")]
    pub timestamp: SystemTime,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_stat: Option<SysCpuStat>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proc_stat: Option<ProcStat>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_stat: Option<SysMemoryStat>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_pressure: Option<Pressure>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_pressure: Option<Pressure>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io_pressure: Option<Pressure>,
}

/// Counts of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcStat {
    pub context_switches: u64,
    pub process_created: u64,
    pub processes_running: u64,
}

/// Of the machine's memory, in KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct SysMemoryStat {
    pub total: Option<u64>,
    pub free: Option<u64>,
    pub available: Option<u64>,
    pub buffers: Option<u64>,
    pub cached: Option<u64>,
    pub active: Option<u64>,
    pub inactive: Option<u64>,
    pub swap: Option<u64>,
    pub dirty: Option<u64>,
    pub writeback: Option<u64>,
    pub slab: Option<u64>,
}

fn timestamp<S: Serializer>(at: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
    let at = time::OffsetDateTime::from(*at);
    let text = at.format(&time::format_description::well_known::Rfc3339);
    to.serialize_str(&text.unwrap_or_default())
}

fn maybe_number<S: Serializer>(value: &Option<f64>, to: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => number(value, to),
        None => to.serialize_none(),
    }
}

/// Three digits, and as Go writes numbers: whole ones without a point.
fn number<S: Serializer>(value: &f64, to: S) -> Result<S::Ok, S::Error> {
    let value = (value * 1000.0).round() / 1000.0;
    if value.fract() == 0.0 && value.abs() < 1e15 {
        to.serialize_i64(value as i64)
    } else {
        to.serialize_f64(value)
    }
}

#[cfg(test)]
mod tests;
