//! What is left when something is killed: nothing.

use std::time::{Duration, Instant};

use executor::testing::{self, Rootfs, run, run_with, succeeds};
use executor::{Control, Error, Native, NativeOptions};

fn processes_with(word: &str) -> usize {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines
        .filter(|line| {
            line.split(|byte| *byte == 0)
                .any(|arg| arg == word.as_bytes())
        })
        .count()
}

fn wait_until_gone(word: &str) {
    let begun = Instant::now();
    while processes_with(word) > 0 {
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "{word} still runs"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn helper_of(parent: u32) -> Option<rustix::process::Pid> {
    helpers_of(parent).into_iter().next()
}

pub(crate) fn helpers_of(parent: u32) -> Vec<rustix::process::Pid> {
    let own = format!("PPid:\t{parent}\n");
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let pids = pids.filter(|pid| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.contains(&own) && status.starts_with("Name:\tkiln-containers")
    });
    pids.filter_map(rustix::process::Pid::from_raw).collect()
}

/// Not a test: the program that is killed. Runs containers until then.
#[tokio::test]
#[ignore = "started by the tests below"]
async fn privileged_victim() {
    let parent = std::env::var("KILN_TEST_PARENT").expect("started by a test");
    let options = NativeOptions {
        cgroup_parent: parent,
        ..NativeOptions::default()
    };
    let native = Native::start(options).await.unwrap();
    let rootfs = Rootfs::busybox();
    let (control, _controller, _started) = Control::new();
    let process =
        rootfs.sh("trap '' TERM HUP INT; setsid sleep 98765 & while :; do sleep 98766; done");
    let _killed = run_with(&native, process, control).await;
}

fn victim(parent: &str) -> std::process::Child {
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::privileged_victim", "--ignored"])
        .env("KILN_TEST_PARENT", parent)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while processes_with("98765") == 0 || processes_with("98766") == 0 {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "the victim does not start"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    child
}

/// How many cgroups there are at `parent` and right beneath it, in all hierarchies.
pub(crate) fn cgroups(parent: &str) -> usize {
    let table = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let roots = table.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let root = fields.next()?;
        fields.next()?.starts_with("cgroup").then_some(root)
    });
    let dirs = roots.filter_map(|root| std::fs::read_dir(format!("{root}/{parent}")).ok());
    dirs.map(|dir| 1 + dir.flatten().filter(|entry| entry.path().is_dir()).count())
        .sum()
}

/// Waits for the helper, which cleans up after us.
pub(crate) async fn until_no_cgroups(parent: &str) {
    let begun = Instant::now();
    while cgroups(parent) > 0 {
        let waited = begun.elapsed();
        assert!(waited < Duration::from_secs(10), "cgroups stay at {parent}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Killed together with its helper in one blow, it leaves no process; its cgroups go
/// when the next executor starts. Killed alone, its helper cleans up at once.
/// Rows: X17
#[tokio::test(flavor = "multi_thread")]
async fn privileged_killing_the_owner_kills_its_containers() {
    if !testing::is_root() {
        return;
    }
    let parent = "kiln/test-crash";
    let mut child = victim(parent);
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until_gone("98765");
    wait_until_gone("98766");
    until_no_cgroups(parent).await;

    let mut child = victim(parent);
    let helper = helper_of(child.id()).unwrap();
    child.kill().unwrap();
    rustix::process::kill_process(helper, rustix::process::Signal::KILL).ok();
    child.wait().unwrap();
    wait_until_gone("98765");
    wait_until_gone("98766");
    let options = NativeOptions {
        cgroup_parent: parent.to_string(),
        ..NativeOptions::default()
    };
    let native = Native::start(options).await.unwrap();
    succeeds(&native, Rootfs::busybox().sh("true")).await;
    drop(native);
    until_no_cgroups(parent).await;
}

/// Not a test: starts one short container after the other until it is killed.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "started by the test below"]
async fn privileged_busy_victim() {
    let parent = std::env::var("KILN_TEST_PARENT").expect("started by a test");
    let dir = std::env::var("KILN_TEST_ROOT").expect("started by a test");
    let options = NativeOptions {
        cgroup_parent: parent,
        ..NativeOptions::default()
    };
    let native = Native::start(options).await.unwrap();
    let tree = std::sync::Arc::new(snapshot::Tree::open(dir).unwrap());
    loop {
        let args = ["/bin/sh", "-c", "setsid sleep 98769 & true"];
        let runs = (0..4).map(|_| run(&native, executor::Process::new(tree.clone(), args)));
        futures::future::join_all(runs).await;
    }
}

/// Killed at any moment, it leaves no process, no mount and no cgroup.
/// Rows: X17
#[tokio::test(flavor = "multi_thread")]
async fn privileged_killing_the_owner_at_any_moment_leaves_nothing() {
    if !testing::is_root() {
        return;
    }
    let parent = "kiln/test-crash-any";
    let rootfs = Rootfs::busybox();
    let mounts = || {
        std::fs::read_to_string("/proc/self/mounts")
            .unwrap()
            .lines()
            .count()
    };
    let before = mounts();
    // Mount points that are there already: these containers share one root.
    for dir in ["proc", "dev", "sys"] {
        std::fs::create_dir(rootfs.path().join(dir)).unwrap();
    }
    for file in ["etc/hosts", "etc/resolv.conf"] {
        std::fs::write(rootfs.path().join(file), "").unwrap();
    }
    for round in 0..25u64 {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::privileged_busy_victim", "--ignored"])
            .env("KILN_TEST_PARENT", parent)
            .env("KILN_TEST_ROOT", rootfs.path())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        // Spread over start-up and the first containers; the order does not matter.
        std::thread::sleep(Duration::from_millis(5 + round * 37 % 90));
        let helper = helper_of(child.id()).filter(|_| round % 3 == 0);
        child.kill().unwrap();
        if let Some(helper) = helper {
            rustix::process::kill_process(helper, rustix::process::Signal::KILL).ok();
        }
        child.wait().unwrap();
        wait_until_gone("98769");
    }
    // A process that is just dying still holds the lock of its instance: whoever starts
    // after it is gone sweeps.
    let begun = Instant::now();
    loop {
        let options = NativeOptions {
            cgroup_parent: parent.to_string(),
            ..NativeOptions::default()
        };
        let native = Native::start(options).await.unwrap();
        succeeds(&native, rootfs.sh("true")).await;
        drop(native);
        if cgroups(parent) == 0 || begun.elapsed() > Duration::from_secs(10) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!((cgroups(parent), mounts()), (0, before));
}

/// Rows: X17
#[tokio::test(flavor = "multi_thread")]
async fn privileged_killing_the_helper_is_an_error_and_the_next_run_works() {
    if !testing::is_root() {
        return;
    }
    let native = Native::start(NativeOptions::default()).await.unwrap();
    let rootfs = Rootfs::busybox();
    // Other tests in this process have helpers too: ours is the parent of the sleeper.
    let (control, _controller, started) = Control::new();
    let process = rootfs.sh("trap '' TERM; setsid sleep 98767 & exec sleep 98768");
    let (result, ()) = tokio::join!(run_with(&native, process, control), async {
        started.await.unwrap();
        let begun = Instant::now();
        let helper = loop {
            if let Some(helper) = parent_of("98768") {
                break helper;
            }
            assert!(begun.elapsed() < Duration::from_secs(10));
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        rustix::process::kill_process(helper, rustix::process::Signal::KILL).unwrap();
    });
    assert!(matches!(result, Err(Error::Helper { .. })), "{result:?}");
    wait_until_gone("98767");
    wait_until_gone("98768");
    succeeds(&native, rootfs.sh("true")).await;
}

fn parent_of(word: &str) -> Option<rustix::process::Pid> {
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if line == [b"sleep\0", word.as_bytes(), b"\0"].concat() {
            let status = std::fs::read_to_string(entry.path().join("status")).ok()?;
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("PPid:\t"))?;
            return rustix::process::Pid::from_raw(line.parse().ok()?);
        }
    }
    None
}
