//! Files as the kernel has them, and what is told of them.

use std::collections::BTreeMap;

use expect_test::{Expect, expect};

use super::read::{
    Counts, counts_of_system, cpu, cpu_of_system, io, memory, memory_of_system, pids,
};
use super::*;

/// A container whose files these are: `controller file` and text.
fn check(files: &[(&str, &str)], expected: Expect) {
    let files: BTreeMap<&str, &str> = files.iter().copied().collect();
    let read = |controller: &str, file: &str| {
        let name = format!("{controller} {file}");
        files.get(name.trim_start()).map(|text| (*text).to_owned())
    };
    let sample = Sample {
        timestamp: SystemTime::UNIX_EPOCH,
        cpu_stat: cpu(&read),
        memory_stat: memory(&read),
        io_stat: io(&read),
        pids_stat: pids(&read),
        net_stat: None,
    };
    expected.assert_eq(&serde_json::to_string(&sample).unwrap());
}

/// Rows: X16
#[test]
fn the_second_version_of_cgroups() {
    let pressure = "some avg10=1.23 avg60=0.50 avg300=0.00 total=3031\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=17\n";
    check(
        &[
            (
                "cpu.stat",
                "usage_usec 1234\nuser_usec 123\nsystem_usec 45\nnr_periods 10\nnr_throttled 5\nthrottled_usec 67\nnew 1\n",
            ),
            ("cpu.pressure", pressure),
            (
                "memory.stat",
                "anon 1024\nfile 2048\nkernel_stack 12\npagetables 13\nsock 14\nshmem 15\nfile_mapped 16\nfile_dirty 17\nfile_writeback 18\nslab 1503104\npgscan 23\npgsteal 24\npgfault 25\npgmajfault 26\n",
            ),
            ("memory.events", "low 4\nhigh 3\nmax 2\noom 1\noom_kill 0\n"),
            ("memory.peak", "123456\n"),
            ("memory.swap.current", "987654\n"),
            (
                "io.stat",
                "8:0 rbytes=1024 wbytes=2048 dbytes=4096 rios=16 wios=32 dios=64\n8:1 rbytes=512 wbytes=1024 dbytes=2048 rios=8 wios=16 dios=32\n8:2\n",
            ),
            ("pids.current", "3\n"),
        ],
        expect![[
            r#"{"timestamp":"1970-01-01T00:00:00Z","cpuStat":{"usageNanos":1234000,"userNanos":123000,"systemNanos":45000,"nrPeriods":10,"nrThrottled":5,"throttledNanos":67000,"pressure":{"some":{"avg10":1.23,"avg60":0.5,"avg300":0,"total":3031},"full":{"avg10":0,"avg60":0,"avg300":0,"total":17}}},"memoryStat":{"swapBytes":987654,"anon":1024,"file":2048,"kernelStack":12,"pageTables":13,"sock":14,"shmem":15,"fileMapped":16,"fileDirty":17,"fileWriteback":18,"slab":1503104,"pgscan":23,"pgsteal":24,"pgfault":25,"pgmajfault":26,"peak":123456,"lowEvents":4,"highEvents":3,"maxEvents":2,"oomEvents":1},"ioStat":{"readBytes":1536,"writeBytes":3072,"discardBytes":6144,"readIOs":24,"writeIOs":48,"discardIOs":96},"pidsStat":{"current":3}}"#
        ]],
    );
}

/// Rows: X16
#[test]
fn the_first_version_of_cgroups() {
    check(
        &[
            ("cpuacct cpuacct.usage", "5000\n"),
            ("cpuacct cpuacct.usage_user", "3000\n"),
            ("cpuacct cpuacct.usage_sys", "2000\n"),
            (
                "cpu cpu.stat",
                "nr_periods 2\nnr_throttled 1\nthrottled_time 900\n",
            ),
            (
                "memory memory.stat",
                "cache 10\nrss 20\nshmem 1\nmapped_file 2\ndirty 3\nwriteback 4\nswap 5\npgfault 6\npgmajfault 7\ntotal_rss 99\n",
            ),
            (
                "memory memory.oom_control",
                "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
            ),
            ("memory memory.failcnt", "0\n"),
            ("memory memory.max_usage_in_bytes", "40\n"),
            (
                "blkio blkio.throttle.io_service_bytes",
                "8:0 Read 100\n8:0 Write 200\n8:0 Total 300\n8:16 Read 1\nTotal 301\n",
            ),
            (
                "blkio blkio.throttle.io_serviced",
                "8:0 Read 3\n8:0 Write 4\n8:0 Discard 0\nTotal 7\n",
            ),
            ("pids pids.current", "1\n"),
        ],
        expect![[
            r#"{"timestamp":"1970-01-01T00:00:00Z","cpuStat":{"usageNanos":5000,"userNanos":3000,"systemNanos":2000,"nrPeriods":2,"nrThrottled":1,"throttledNanos":900},"memoryStat":{"swapBytes":5,"anon":20,"file":10,"shmem":1,"fileMapped":2,"fileDirty":3,"fileWriteback":4,"pgfault":6,"pgmajfault":7,"peak":40,"oomKillEvents":1},"ioStat":{"readBytes":101,"writeBytes":200,"readIOs":3,"writeIOs":4,"discardIOs":0},"pidsStat":{"current":1}}"#
        ]],
    );
}

/// Rows: X16
#[test]
fn what_is_not_there_or_not_understood_is_left_out() {
    check(&[], expect![[r#"{"timestamp":"1970-01-01T00:00:00Z"}"#]]);
    check(
        &[
            (
                "cpu.stat",
                "usage_usec many\nuser_usec 18446744073709551615\nalone\n",
            ),
            ("cpu.pressure", "some avg10=x nonsense\nother avg10=1\n\n"),
            ("memory.stat", ""),
            ("io.stat", "8:0 rbytes wbytes=-1 =\n"),
            ("pids.current", "max\n"),
        ],
        expect![[
            r#"{"timestamp":"1970-01-01T00:00:00Z","cpuStat":{"userNanos":18446744073709551615,"pressure":{"some":{"avg10":null,"avg60":null,"avg300":null,"total":null},"full":null}},"memoryStat":{},"ioStat":{}}"#
        ]],
    );
}

/// Rows: X16
#[test]
fn networks_count_from_the_start_of_the_step() {
    let table = |scale: u64| {
        let values: Vec<String> = (1..=16).map(|value| (value * scale).to_string()).collect();
        let values = values.join(" ");
        format!(
            "Inter-| Receive\n face |bytes\n    lo: {values}\n  eth0: {values}\n  eth1:{values}\n"
        )
    };
    let (before, after) = (Counts::parse(&table(1)), Counts::parse(&table(10)));
    let used = serde_json::to_string(&after.since(&before)).unwrap();
    expect![[r#"{"rxBytes":18,"rxPackets":36,"rxErrors":54,"rxDropped":72,"txBytes":162,"txPackets":180,"txErrors":198,"txDropped":216}"#]].assert_eq(&used);
    // An interface that was made anew counts from zero.
    assert_eq!(before.since(&after), NetStat::default());
}

/// Rows: X16
#[test]
fn the_whole_machine() {
    let stat = "cpu  1000 20 300 40000 50 6 7 8 9 10\ncpu0 1 1 1 1\nctxt 55\nprocesses 66\nprocs_running 2\n";
    let memory = "MemTotal:       100 kB\nMemFree:  90 kB\nMemAvailable: 95 kB\nBuffers: 1 kB\nCached: 2 kB\nSwapCached: 9 kB\nActive: 3 kB\nActive(anon): 8 kB\nInactive: 4 kB\nSwapTotal: 0 kB\nDirty: 5 kB\nWriteback: 6 kB\nSlab: 7 kB\n";
    let sample = SysSample {
        timestamp: SystemTime::UNIX_EPOCH,
        cpu_stat: cpu_of_system(stat),
        proc_stat: Some(counts_of_system(stat)),
        memory_stat: Some(memory_of_system(memory)),
        cpu_pressure: None,
        memory_pressure: None,
        io_pressure: None,
    };
    expect![[r#"{"timestamp":"1970-01-01T00:00:00Z","cpuStat":{"user":10,"nice":0.2,"system":3,"idle":400,"iowait":0.5,"irq":0.06,"softirq":0.07,"steal":0.08,"guest":0.09,"guestNice":0.1},"procStat":{"contextSwitches":55,"processCreated":66,"processesRunning":2},"memoryStat":{"total":100,"free":90,"available":95,"buffers":1,"cached":2,"active":3,"inactive":4,"swap":0,"dirty":5,"writeback":6,"slab":7}}"#]].assert_eq(&serde_json::to_string(&sample).unwrap());
    // This machine has all of it.
    let now = SysSample::take();
    assert!(now.cpu_stat.is_some_and(|cpu| cpu.idle > 0.0), "{now:?}");
    assert!(now.memory_stat.is_some_and(|memory| memory.total > Some(0)));
    assert!(
        now.proc_stat
            .is_some_and(|counts| counts.process_created > 0)
    );
}

/// Rows: X16
#[test]
fn a_long_step_has_few_samples_from_all_of_its_time() {
    let mut series = Series::default();
    let (mut taken, mut seconds) = (0, 0.0);
    while seconds < 100_000.0 {
        seconds += series.interval.as_secs_f64();
        series.add(seconds);
        taken += 1;
        assert!(series.kept.len() <= KEPT);
    }
    assert!(taken < 300, "{taken}");
    let gaps = series.kept.windows(2).map(|pair| pair[1] - pair[0]);
    let longest = gaps.fold(0.0, f64::max);
    assert!(
        series.kept.len() > KEPT / 2 - 2 && longest < 20_000.0,
        "{series:?}"
    );
}
