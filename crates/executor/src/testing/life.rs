//! Promises about a process's life: its output, its end, and what it leaves behind.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Rootfs, gather, output, run, run_with};
use crate::usage::Recorder;
use crate::{Control, Error, ExecProcess, Executor, Input, Io, Output, WinSize};

/// What it writes and how it exits is told.
///
/// Rows: X17
pub async fn exit_codes_and_streams_arrive(executor: Arc<dyn Executor>) {
    let rootfs = Rootfs::busybox();
    let ran = run(&*executor, rootfs.sh("echo out; echo err >&2; exit 3"))
        .await
        .unwrap();
    assert_eq!(
        (ran.exit.code, ran.exit.signal, ran.exit.oom),
        (3, None, false)
    );
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("out\n", "err\n"));
}

/// A signal that ends it shows in the exit code.
///
/// Rows: X17
pub async fn a_signal_that_ends_it_is_told(executor: Arc<dyn Executor>) {
    let rootfs = Rootfs::busybox();
    let script = "(sleep 0.1; kill -9 $$) & exec sh -c 'sh -c \"kill -TERM $$\"; exit 143'";
    let ran = run(&*executor, rootfs.sh(script)).await.unwrap();
    assert_eq!(ran.exit.code, 143);
    let (control, controller, started) = Control::new();
    let process = rootfs.sh("echo up; exec sleep 60");
    let (ran, ()) = tokio::join!(run_with(&*executor, process, control), async {
        started.await.unwrap();
        controller.signal(libc::SIGKILL).await;
    });
    let ran = ran.unwrap();
    assert_eq!((ran.exit.code, ran.exit.success()), (137, false));
}

/// Signals sent to it arrive.
///
/// Rows: X17
pub async fn a_signal_reaches_its_handler(executor: Arc<dyn Executor>) {
    let rootfs = Rootfs::busybox();
    let (control, controller, _started) = Control::new();
    let process = rootfs.sh("trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done");
    let (io, mut out, _err) = Io::channels(4);
    let (exit, ()) = tokio::join!(executor.run(process, io, control), async {
        assert_eq!(out.recv().await.as_deref(), Some(&b"ready\n"[..]));
        controller.signal(libc::SIGTERM).await;
    });
    assert_eq!(exit.unwrap().code, 5);
}

/// What cannot be executed is an error with the code shells give.
///
/// Rows: X17
pub async fn a_program_that_is_not_there_is_an_error(executor: Arc<dyn Executor>) {
    let rootfs = Rootfs::busybox();
    let mut process = rootfs.sh("");
    process.args = vec!["no-such-program".into()];
    let error = run(&*executor, process.clone()).await.unwrap_err();
    assert_eq!(error.exit_code(), Some(127), "{error:?}");
    process.args = vec!["/etc/passwd".into()];
    let error = run(&*executor, process).await.unwrap_err();
    assert_eq!(error.exit_code(), Some(126), "{error:?}");
    assert_eq!(error.kind(), stdx::Kind::InvalidInput);
}

/// Everything a process writes arrives, also what it wrote last and much of it.
/// Rows: D36
pub async fn much_output_arrives_whole(executor: Arc<dyn Executor>) {
    let out = output(&*executor, "seq 1 200000; echo last").await;
    assert_eq!(out.lines().count(), 200_001);
    assert!(out.ends_with("200000\nlast\n"));
}

/// Input arrives whole, and its end does.
pub async fn input_arrives_and_ends(executor: Arc<dyn Executor>) {
    let rootfs = Rootfs::busybox();
    let (to, from) = tokio::sync::mpsc::channel(4);
    let (out_to, out) = tokio::sync::mpsc::channel(4);
    let io = Io {
        stdin: Input::Channel(from),
        stdout: Output::Channel(out_to),
        stderr: Output::Discard,
    };
    let write = async move {
        for _ in 0..100 {
            to.send(Bytes::from(vec![b'x'; 10_000])).await.unwrap();
        }
    };
    let (exit, out, ()) = tokio::join!(
        executor.run(rootfs.sh("wc -c"), io, Control::none()),
        gather(out),
        write
    );
    assert!(exit.unwrap().success());
    assert_eq!(out.trim(), "1000000");
}

/// Whatever it leaves running dies with it.
///
/// Rows: X17
pub async fn nothing_survives_its_end(executor: Arc<dyn Executor>) {
    let rootfs = Rootfs::busybox();
    let script = "for i in 1 2 3; do setsid sh -c 'trap \"\" TERM HUP; while :; do sleep 4321; done' & done; sleep 0.1; echo done";
    let begun = Instant::now();
    let ran = run(&*executor, rootfs.sh(script)).await.unwrap();
    assert_eq!(ran.out, "done\n");
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "it waited for what was left behind"
    );
    assert_eq!(processes_with("4321"), 0);
}

/// A cancelled process is gone when `run` returns.
///
/// Rows: X17
pub async fn cancelling_kills_it(executor: Arc<dyn Executor>) {
    let rootfs = Rootfs::busybox();
    let (control, controller, started) = Control::new();
    let process = rootfs.sh("trap '' TERM INT; while :; do sleep 4322; done");
    let (error, ()) = tokio::join!(run_with(&*executor, process, control), async {
        started.await.unwrap();
        controller.cancel();
    });
    assert!(matches!(error.unwrap_err(), Error::Canceled));
    assert_eq!(processes_with("4322"), 0);
}

/// Nobody waits for it any more: it is killed.
///
/// Rows: X17
pub async fn dropping_the_run_kills_it(executor: Arc<dyn Executor>) {
    let rootfs = Rootfs::busybox();
    let (control, _controller, started) = Control::new();
    let run = executor.run(rootfs.sh("exec sleep 4323"), Io::none(), control);
    tokio::select! {
        _ = run => panic!("it sleeps"),
        _ = started => {}
    }
    let begun = Instant::now();
    while processes_with("4323") > 0 {
        assert!(begun.elapsed() < Duration::from_secs(10), "it still runs");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// With `tty` it has a terminal that can be resized.
pub async fn a_terminal_is_one_and_changes_size(executor: Arc<dyn Executor>) {
    let rootfs = Rootfs::busybox();
    let mut process =
        rootfs.sh("test -t 0 && test -t 1 && tty; while [ \"$(stty size)\" != '33 77' ]; do sleep 0.05; done; stty size");
    process.tty = true;
    let (control, controller, started) = Control::new();
    let (ran, ()) = tokio::join!(run_with(&*executor, process, control), async {
        started.await.unwrap();
        controller.resize(WinSize { rows: 33, cols: 77 });
    });
    let ran = ran.unwrap();
    assert!(ran.exit.success(), "{ran:?}");
    assert!(
        ran.out.contains("/dev/pts/0") || ran.out.contains("/dev/console"),
        "{ran:?}"
    );
    assert!(ran.out.contains("33 77"), "{ran:?}");
}

/// Containers do not get in each other's way.
///
/// Rows: X01
pub async fn many_run_at_once(executor: Arc<dyn Executor>) {
    let roots: Vec<Rootfs> = (0..16).map(|_| Rootfs::busybox()).collect();
    let runs = roots.iter().zip(0..).map(|(root, number)| {
        run(
            &*executor,
            root.sh(&format!("echo {number}; exit {number}")),
        )
    });
    for (number, ran) in (0..).zip(futures::future::join_all(runs).await) {
        let ran = ran.unwrap();
        assert_eq!((ran.exit.code, ran.out), (number, format!("{number}\n")));
    }
}

/// `exec` runs in the container of the first process, and only while that lives.
pub async fn a_second_process_joins_the_first(executor: Arc<dyn Executor>) {
    let rootfs = Rootfs::busybox();
    let mut process = rootfs.sh("echo here > /tmp/mark; exec sleep 60");
    process.name = Some("first".into());
    process.env = vec!["FROM=first".into()];
    let (control, controller, started) = Control::new();
    let (first, ()) = tokio::join!(run_with(&*executor, process, control), async {
        started.await.unwrap();
        let (io, out, err) = Io::channels(4);
        let exec = ExecProcess {
            args: vec![
                "/bin/sh".into(),
                "-c".into(),
                "sleep 0.2; cat /tmp/mark; echo $FROM; id -u; ps | grep -c sleep; exit 4".into(),
            ],
            user: "web".into(),
            ..ExecProcess::default()
        };
        let exec = executor.exec("first", exec, io, Control::none());
        let (exit, out, err) = tokio::join!(exec, gather(out), gather(err));
        assert_eq!(exit.unwrap().code, 4, "{err}");
        assert!(out.starts_with("here\nfirst\n33\n"), "{out} {err}");
        let missing = ExecProcess {
            args: vec!["nowhere".into()],
            ..ExecProcess::default()
        };
        let error = executor
            .exec("first", missing, Io::none(), Control::none())
            .await
            .unwrap_err();
        assert_eq!(error.exit_code(), Some(127), "{error:?}");
        controller.cancel();
    });
    assert!(matches!(first.unwrap_err(), Error::Canceled));
    let exec = ExecProcess {
        args: vec!["true".into()],
        ..ExecProcess::default()
    };
    let error = executor
        .exec("first", exec, Io::none(), Control::none())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), stdx::Kind::NotFound);
}

/// The end of a container takes nothing from a newer one of the same name.
pub async fn the_newest_of_a_name_can_be_joined(executor: Arc<dyn Executor>) {
    let roots = [Rootfs::busybox(), Rootfs::busybox()];
    let named = |who: &str, root: &Rootfs| {
        let mut process = root.sh("exec sleep 60");
        process.name = Some("both".into());
        process.env = vec![format!("WHO={who}")];
        process
    };
    let (older, end_older, older_runs) = Control::new();
    let (newer, end_newer, newer_runs) = Control::new();
    let (newer_may, may) = tokio::sync::oneshot::channel();
    let newer = async {
        may.await.unwrap();
        run_with(&*executor, named("newer", &roots[1]), newer).await
    };
    let older = async {
        let ended = run_with(&*executor, named("older", &roots[0]), older).await;
        assert!(matches!(ended.unwrap_err(), Error::Canceled));
        let (io, out, err) = Io::channels(4);
        let exec = ExecProcess {
            args: vec!["/bin/sh".into(), "-c".into(), "echo $WHO".into()],
            ..ExecProcess::default()
        };
        let exec = executor.exec("both", exec, io, Control::none());
        let (exit, out, err) = tokio::join!(exec, gather(out), gather(err));
        end_newer.cancel();
        assert_eq!(exit.unwrap().code, 0, "{err}");
        assert_eq!(out, "newer\n");
    };
    let ending = async {
        older_runs.await.unwrap();
        newer_may.send(()).unwrap();
        newer_runs.await.unwrap();
        end_older.cancel();
    };
    let ((), ended, ()) = tokio::join!(older, newer, ending);
    assert!(matches!(ended.unwrap_err(), Error::Canceled));
}

/// What it uses is taken down while it runs, and once more when it has ended.
///
/// Rows: X16
pub async fn what_it_uses_is_taken_down(executor: Arc<dyn Executor>) {
    let rootfs = Rootfs::busybox();
    let recorder = Recorder::default();
    let mut process = rootfs.sh("i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; sleep 4.5");
    process.usage = Some(recorder.clone());
    let ran = run(&*executor, process).await.unwrap();
    assert!(ran.exit.success(), "{}", ran.err);
    let used = recorder.samples();
    let [first, .., last] = &used.samples[..] else {
        panic!("{used:?}")
    };
    assert!(first.timestamp < last.timestamp, "{used:?}");
    let cpu = last.cpu_stat.as_ref().and_then(|cpu| cpu.usage);
    // The loop takes some tenths of a second.
    assert!(cpu > Some(20_000_000), "{used:?}");
    let during = used.sys_cpu_stat.expect("all processors");
    assert!(during.user + during.system > 0.02, "{used:?}");
    let memory = first.memory_stat.as_ref().expect("memory is told here");
    assert!(memory.anon > Some(0) || memory.peak > Some(0), "{used:?}");
    let processes = first.pids_stat.as_ref().and_then(|pids| pids.current);
    assert!(processes >= Some(1), "{used:?}");
    assert!(first.io_stat.is_some(), "{used:?}");
    // A network that is shared is nobody's.
    assert_eq!(last.net_stat, None);

    let unasked = run(&*executor, rootfs.sh("true")).await.unwrap();
    assert!(unasked.exit.success());
    assert_eq!(recorder.samples(), used, "nothing comes after the end");
}

/// How many processes of this machine have `word` among their arguments.
pub(super) fn processes_with(word: &str) -> usize {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return 0;
    };
    let lines = entries
        .flatten()
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines
        .filter(|line| {
            line.split(|byte| *byte == 0)
                .any(|arg| arg == word.as_bytes())
        })
        .count()
}
