//! Ways out of containers that were found in runc, crun and BuildKit, tried here.
//! Each test names what it tries; where a way is closed by the shape of the thing, the
//! test shows the shape.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use executor::testing::{self, Rootfs, gather, run, run_with};
use executor::{
    Control, Error, ExecProcess, Executor, Io, Mount, MountSource, Native, NativeOptions, Process,
};
use snapshot::Tree;

async fn native() -> Option<Native> {
    if !testing::is_root() {
        return None;
    }
    Some(
        Native::start(NativeOptions::default())
            .await
            .expect("root can start it"),
    )
}

fn tmpfs(target: &str) -> Mount {
    Mount {
        target: target.into(),
        source: MountSource::Tmpfs { size: None },
        readonly: false,
    }
}

fn bind(target: &str, tree: &Arc<Tree>, subpath: &str) -> Mount {
    let source = MountSource::Tree {
        tree: tree.clone(),
        subpath: subpath.into(),
    };
    Mount {
        target: target.into(),
        source,
        readonly: false,
    }
}

/// The helpers this process started.
fn helpers() -> Vec<u32> {
    let own = format!("PPid:\t{}\n", std::process::id());
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            status.contains(&own) && status.starts_with("Name:\tkiln-containers")
        })
        .collect()
}

/// The program of the helper cannot be written through the helper, not even by root.
/// Rows: X10
#[tokio::test]
async fn privileged_cve_2019_5736_overwriting_the_runtime_through_proc_exe() {
    let Some(native) = native().await else { return };
    for pid in helpers() {
        let exe = format!("/proc/{pid}/exe");
        let file = std::fs::File::open(exe).unwrap();
        let flags = rustix::fs::fstatvfs(&file).unwrap().f_flag;
        assert!(
            flags.contains(rustix::fs::StatVfsMountFlags::RDONLY),
            "writable as {flags:?}"
        );
    }
    // A program that is really ours must not do anything as part of the container.
    let rootfs = Rootfs::busybox();
    std::fs::write(rootfs.path().join("evil"), "#!/proc/self/exe\n").unwrap();
    for program in ["/proc/self/exe", "/evil"] {
        let _either = run(&native, Process::new(rootfs.tree(), [program])).await;
    }
    assert!(
        run(&native, rootfs.sh("true"))
            .await
            .unwrap()
            .exit
            .success()
    );
}

/// Rows: X10
#[tokio::test]
async fn privileged_cve_2016_9962_looking_into_an_entering_process() {
    let Some(native) = native().await else { return };
    let rootfs = Rootfs::busybox();
    let mut process = rootfs.sh(
        "while :; do for p in /proc/[0-9]*; do [ $p = /proc/1 ] || readlink $p/exe $p/cwd $p/root $p/fd/* 2>/dev/null; done; done",
    );
    process.name = Some("watched".into());
    let (control, controller, started) = Control::new();
    let (watcher, ()) = tokio::join!(run_with(&native, process, control), async {
        started.await.unwrap();
        for _ in 0..30 {
            let exec = ExecProcess {
                args: vec!["/bin/true".into()],
                ..ExecProcess::default()
            };
            native
                .exec("watched", exec, Io::none(), Control::none())
                .await
                .unwrap();
        }
        controller.signal(libc::SIGKILL).await;
    });
    let seen = watcher.unwrap().out;
    for secret in ["memfd", "/work", "deps/it", "cgroup.procs", "socket:"] {
        assert!(!seen.contains(secret), "the container saw {secret}");
    }
}

/// Rows: X02, X10
#[tokio::test]
async fn privileged_cve_2019_16884_mounting_over_proc() {
    let Some(native) = native().await else { return };
    let rootfs = Rootfs::busybox();
    symlink("/proc", rootfs.path().join("link")).unwrap();
    for target in [
        "/proc",
        "/proc/self/attr",
        "/link/sys",
        "/tmp/../proc/1",
        "/link",
    ] {
        let mut process = rootfs.sh("true");
        process.mounts = vec![tmpfs(target)];
        let error = run(&native, process).await.unwrap_err();
        assert!(matches!(error, Error::Target { .. }), "{target}: {error}");
    }
}

/// Also CVE-2023-27561 and CVE-2023-28642, and for crun CVE-2019-18837.
/// Rows: X02, X10
#[tokio::test]
async fn privileged_cve_2019_19921_system_directories_that_are_symlinks() {
    let Some(native) = native().await else { return };
    for name in ["proc", "dev", "sys"] {
        let rootfs = Rootfs::busybox();
        std::fs::create_dir(rootfs.path().join("elsewhere")).unwrap();
        symlink("elsewhere", rootfs.path().join(name)).unwrap();
        let error = run(&native, rootfs.sh("true")).await.unwrap_err();
        assert!(
            matches!(&error, Error::Target { target, .. } if target[1..] == *name),
            "{error}"
        );
    }
}

/// A directory shared with a running container changes into a symlink and back while
/// another container mounts there. Also CVE-2024-45310.
/// Rows: X02
#[tokio::test(flavor = "multi_thread")]
async fn privileged_cve_2021_30465_mount_targets_that_change_while_mounting() {
    let Some(native) = native().await else { return };
    let outside = tempfile::tempdir().unwrap();
    let shared = tempfile::tempdir().unwrap();
    let at = |name: &str| shared.path().join(name);
    std::fs::create_dir_all(at("real/x")).unwrap();
    symlink(outside.path(), at("trap")).unwrap();
    std::fs::create_dir(at("swap")).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let flipper = {
        let (stop, dir) = (stop.clone(), shared.path().to_path_buf());
        std::thread::spawn(move || {
            let flags = rustix::fs::RenameFlags::EXCHANGE;
            while !stop.load(Ordering::Relaxed) {
                let cwd = rustix::fs::CWD;
                let _racing =
                    rustix::fs::renameat_with(cwd, dir.join("swap"), cwd, dir.join("trap"), flags);
            }
        })
    };
    let tree = Arc::new(Tree::open(shared.path()).unwrap());
    let rootfs = Rootfs::busybox();
    for _ in 0..40 {
        let mut process = rootfs.sh("true");
        process.mounts = vec![
            bind("/a", &tree, ""),
            tmpfs("/a/swap/made"),
            bind("/b", &tree, "real/x"),
        ];
        let _either = run(&native, process).await;
    }
    stop.store(true, Ordering::Relaxed);
    flipper.join().unwrap();
    assert_eq!(
        std::fs::read_dir(outside.path()).unwrap().count(),
        0,
        "something got out"
    );
}

/// The same for sources.
/// Rows: X02
#[tokio::test(flavor = "multi_thread")]
async fn privileged_cve_2024_23651_mount_sources_that_change_while_mounting() {
    let Some(native) = native().await else { return };
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "host").unwrap();
    let shared = tempfile::tempdir().unwrap();
    std::fs::create_dir(shared.path().join("sub")).unwrap();
    std::fs::write(shared.path().join("sub/secret"), "inside").unwrap();
    symlink(outside.path(), shared.path().join("trap")).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let flipper = {
        let (stop, dir) = (stop.clone(), shared.path().to_path_buf());
        std::thread::spawn(move || {
            let flags = rustix::fs::RenameFlags::EXCHANGE;
            while !stop.load(Ordering::Relaxed) {
                let cwd = rustix::fs::CWD;
                let _racing =
                    rustix::fs::renameat_with(cwd, dir.join("sub"), cwd, dir.join("trap"), flags);
            }
        })
    };
    let tree = Arc::new(Tree::open(shared.path()).unwrap());
    let rootfs = Rootfs::busybox();
    for _ in 0..60 {
        let mut process = rootfs.sh("cat /m/secret");
        process.mounts = vec![bind("/m", &tree, "sub")];
        if let Ok(ran) = run(&native, process).await {
            assert_ne!(ran.out, "host");
        }
    }
    stop.store(true, Ordering::Relaxed);
    flipper.join().unwrap();
}

/// After the run, mount stubs are removed; the program made their path lead elsewhere.
/// Rows: X02
#[tokio::test]
async fn privileged_cve_2024_23652_stub_removal_led_astray() {
    let Some(native) = native().await else { return };
    let outside = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(outside.path().join("b/stub")).unwrap();
    std::fs::write(outside.path().join("b/empty"), "").unwrap();
    let rootfs = Rootfs::busybox();
    let host = outside.path().display();
    let mut process = rootfs.sh(&format!(
        "umount /a/b/stub 2>/dev/null; mv /a /old && ln -s {host} /a && echo moved"
    ));
    process.mounts = vec![tmpfs("/a/b/stub")];
    process.mounts.push(Mount {
        target: "/a/b/empty".into(),
        source: MountSource::File {
            bytes: "x".into(),
            mode: 0o600,
            uid: 0,
            gid: 0,
        },
        readonly: true,
    });
    process.remove_mount_stubs_recursive = true;
    assert_eq!(run(&native, process).await.unwrap().out, "moved\n");
    assert!(
        outside.path().join("b/stub").is_dir(),
        "a directory of the host was removed"
    );
    assert!(
        outside.path().join("b/empty").is_file(),
        "a file of the host was removed"
    );
}

/// A working directory that is a handle of the host.
/// Rows: X10
#[tokio::test]
async fn privileged_cve_2024_21626_working_directory_through_leaked_handles() {
    let Some(native) = native().await else { return };
    let rootfs = Rootfs::busybox();
    let mut first = rootfs.sh("exec sleep 60");
    first.name = Some("leaky".into());
    let (control, controller, started) = Control::new();
    let (_, ()) = tokio::join!(run_with(&native, first, control), async {
        started.await.unwrap();
        for number in 0..40 {
            let cwd = format!("/proc/self/fd/{number}");
            let mut process = rootfs.sh("ls ../../../../../../etc/passwd; ls /proc/self/fd");
            process.cwd.clone_from(&cwd);
            if let Ok(ran) = run(&native, process).await {
                panic!("fd {number} was a directory: {ran:?}");
            }
            let args = vec!["/bin/pwd".to_string()];
            let exec = ExecProcess {
                args,
                cwd,
                ..ExecProcess::default()
            };
            let (io, out, _err) = Io::channels(4);
            let (exit, out) =
                tokio::join!(native.exec("leaky", exec, io, Control::none()), gather(out));
            assert!(exit.is_err(), "fd {number} was a directory: {out}");
        }
        controller.cancel();
    });
    let ran = run(&native, rootfs.sh("ls /proc/self/fd")).await.unwrap();
    assert_eq!(
        ran.out.split_whitespace().collect::<Vec<_>>(),
        ["0", "1", "2", "3"],
        "3 is the listing"
    );
}

/// The image brings its own `/dev/null`; what is masked must stay masked.
/// Rows: X10
#[tokio::test]
async fn privileged_cve_2025_31133_a_null_device_that_is_something_else() {
    let Some(native) = native().await else { return };
    let rootfs = Rootfs::busybox();
    std::fs::create_dir(rootfs.path().join("dev")).unwrap();
    symlink(
        "/proc/sys/kernel/core_pattern",
        rootfs.path().join("dev/null"),
    )
    .unwrap();
    let script = "[ -c /dev/null ] && [ ! -L /dev/null ] && cat /proc/kcore /proc/keys | head -c 1 | wc -c; echo x > /proc/sys/kernel/core_pattern";
    let ran = run(&native, rootfs.sh(script)).await.unwrap();
    assert_eq!(ran.out.trim(), "0");
    assert!(ran.err.contains("Read-only file system"), "{ran:?}");
}

/// Rows: X10
#[tokio::test]
async fn privileged_cve_2025_52565_a_console_that_leads_elsewhere() {
    let Some(native) = native().await else { return };
    let rootfs = Rootfs::busybox();
    std::fs::create_dir_all(rootfs.path().join("dev/pts")).unwrap();
    symlink(
        "/proc/sys/kernel/core_pattern",
        rootfs.path().join("dev/console"),
    )
    .unwrap();
    symlink("/proc/sysrq-trigger", rootfs.path().join("dev/pts/0")).unwrap();
    symlink("/proc/sysrq-trigger", rootfs.path().join("dev/pts/ptmx")).unwrap();
    let mut process = rootfs.sh("[ -c /dev/console ] && [ ! -L /dev/console ] && tty");
    process.tty = true;
    let ran = run(&native, process).await.unwrap();
    assert!(ran.exit.success() && ran.out.contains("/dev/"), "{ran:?}");
}

/// Files of a fake `/proc` in the image get nothing of what set-up writes to the real one.
/// Rows: X10
#[tokio::test]
async fn privileged_cve_2025_52881_writes_to_proc_redirected() {
    let Some(native) = native().await else { return };
    let rootfs = Rootfs::busybox();
    let fake = rootfs.path().join("proc/self/attr");
    std::fs::create_dir_all(&fake).unwrap();
    std::fs::create_dir_all(rootfs.path().join("proc/sys")).unwrap();
    for file in ["self/attr/exec", "sys/kernel", "sysrq-trigger"] {
        std::fs::write(rootfs.path().join("proc").join(file), "untouched").unwrap();
    }
    let ran = run(&native, rootfs.sh("ls -d /proc/sys/kernel/"))
        .await
        .unwrap();
    assert!(ran.exit.success(), "{ran:?}");
    for file in ["self/attr/exec", "sys/kernel", "sysrq-trigger"] {
        let text = std::fs::read_to_string(rootfs.path().join("proc").join(file)).unwrap();
        assert_eq!(text, "untouched");
    }
}

/// With the host's network, abstract sockets of the host are reachable: we have none.
/// Rows: X07
#[tokio::test]
async fn privileged_cve_2020_15257_no_abstract_sockets() {
    let Some(native) = native().await else { return };
    let ran = run(&native, Rootfs::busybox().sh("cat /proc/net/unix"))
        .await
        .unwrap();
    // Others are files, which a daemon beside us may well have.
    let mut sockets = ran.out.lines().filter(|line| line.contains(" @"));
    assert!(!sockets.any(|line| line.contains("kiln")), "{}", ran.out);
}

/// A subpath never leaves its tree.
/// Rows: X02
#[tokio::test]
async fn privileged_cve_2021_25741_subpaths_that_are_symlinks_out() {
    let Some(native) = native().await else { return };
    let shared = tempfile::tempdir().unwrap();
    symlink("/etc", shared.path().join("etc")).unwrap();
    symlink("../../../../../../etc/passwd", shared.path().join("up")).unwrap();
    let tree = Arc::new(Tree::open(shared.path()).unwrap());
    let rootfs = Rootfs::busybox();
    for subpath in ["etc", "up", "../../etc", "etc/passwd"] {
        let mut process = rootfs.sh("true");
        process.mounts = vec![bind("/m", &tree, subpath)];
        let error = run(&native, process).await.unwrap_err();
        assert!(matches!(error, Error::Source { .. }), "{subpath}: {error}");
    }
    assert!(Path::new("/etc/passwd").exists());
}
