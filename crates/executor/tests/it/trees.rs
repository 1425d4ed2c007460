//! Trees as the snapshotters give them: detached mounts and plain directories.

use std::sync::Arc;

use executor::testing::{self, Rootfs, run};
use executor::{Executor, Mount, Native, NativeOptions, Process};
use snapshot::{Choice, Overlay, Snapshotter};

async fn through(open: impl FnOnce(&std::path::Path) -> snapshot::Result<Arc<dyn Snapshotter>>) {
    if !testing::is_root() {
        return;
    }
    let native: Arc<dyn Executor> =
        Arc::new(Native::start(NativeOptions::default()).await.unwrap());
    let dir = tempfile::tempdir().unwrap();
    let snapshots = open(dir.path()).unwrap();
    let base = base_layer(&*snapshots);

    let active = snapshots.begin(std::slice::from_ref(&base)).unwrap();
    let script = "echo new > /made; rm /etc/group; mkdir /kept";
    let step = Process::new(active.tree().clone(), ["/bin/sh", "-c", script]);
    assert!(run(&*native, step).await.unwrap().exit.success());
    let change = snapshots.commit(active).unwrap();

    // Several containers read the same tree at once, as a root and as a mount.
    let stack = [base.clone(), change];
    let view = snapshots.view(&stack).unwrap();
    let roots: Vec<_> = (0..3).map(|_| snapshots.begin(&stack).unwrap()).collect();
    let runs = roots.iter().map(|root| {
        let script = "cat /made /m/made; ls /etc/group; echo no > /m/x; ls -d /proc /etc/hosts";
        let mut process = Process::new(root.tree().clone(), ["/bin/sh", "-c", script]);
        process.mounts = vec![
            Mount::tree("/m", view.clone()),
            Mount::tree("/sub", view.clone()),
        ];
        if let executor::MountSource::Tree { subpath, .. } = &mut process.mounts[1].source {
            *subpath = "kept".to_string();
        }
        run(&*native, process)
    });
    for ran in futures::future::join_all(runs).await {
        let ran = ran.unwrap();
        assert_eq!(
            ran.out,
            "new\nnew\n/proc\n/etc/hosts\n".replace("/proc\n/etc/hosts", "/etc/hosts\n/proc"),
            "{ran:?}"
        );
        assert!(ran.err.contains("Read-only file system"), "{ran:?}");
    }
}

fn base_layer(snapshots: &dyn Snapshotter) -> snapshot::LayerId {
    let rootfs = Rootfs::busybox();
    let active = snapshots.new_layer().unwrap();
    let target = format!(
        "/proc/self/fd/{}",
        std::os::fd::AsRawFd::as_raw_fd(&std::os::fd::AsFd::as_fd(active.tree().root()))
    );
    let status = std::process::Command::new("/bin/busybox")
        .args(["cp", "-a"])
        .arg(rootfs.path().join("."))
        .arg(std::fs::read_link(target).unwrap())
        .status()
        .unwrap();
    assert!(status.success());
    snapshots.commit(active).unwrap()
}

/// Rows: X02
#[tokio::test(flavor = "multi_thread")]
async fn privileged_overlay_trees_are_roots_and_mounts() {
    through(|dir| snapshot::open(dir, Choice::Overlay)).await;
}

/// Kernels before 6.15 copy no detached mounts.
/// Rows: X02
#[tokio::test(flavor = "multi_thread")]
async fn privileged_overlay_trees_of_older_kernels_are_roots_and_mounts() {
    through(|dir| Ok(Arc::new(Overlay::open_as_on_old_kernels(dir)?))).await;
}

/// Rows: X02
#[tokio::test(flavor = "multi_thread")]
async fn privileged_copied_trees_are_roots_and_mounts() {
    through(|dir| snapshot::open(dir, Choice::Native)).await;
}

/// The proxy's authority is in no layer, whatever kind they are of; nor is anything that was
/// made to put it there. A step's own changes are, also beside it.
///
/// Rows: X08
#[tokio::test(flavor = "multi_thread")]
async fn privileged_no_layer_has_the_proxys_authority() {
    if !testing::is_root() {
        return;
    }
    const BUNDLE: &str = "etc/ssl/certs/ca-certificates.crt";
    let native = Native::start(NativeOptions::default()).await.unwrap();
    for kind in [Choice::Overlay, Choice::Native] {
        let dir = tempfile::tempdir().unwrap();
        let snapshots = snapshot::open(dir.path(), kind).unwrap();
        let mut base = vec![base_layer(&*snapshots)];
        let active = snapshots.begin(&base).unwrap();
        let root = active.tree().root();
        root.create_dir_all("etc/ssl/certs", 0o755).unwrap();
        std::io::Write::write_all(&mut root.create_file(BUNDLE, 0o644).unwrap(), b"theirs\n")
            .unwrap();
        base.push(snapshots.commit(active).unwrap());
        let step = async |script: &str| {
            let active = snapshots.begin(&base).unwrap();
            let script = format!("grep -q 'kiln proxy CA end' /{BUNDLE} || exit 9; {script}");
            let mut process = Process::new(active.tree().clone(), ["/bin/sh", "-c", &script]);
            process.proxy = Some(Arc::new(testing::Teller));
            assert_eq!(run(&native, process).await.unwrap().exit.code, 0);
            let layer = snapshots.commit(active).unwrap();
            snapshots.layer(&layer).unwrap()
        };
        let names = |tree: &snapshot::Tree, path: &str| {
            let entries = tree.root().read_dir_sorted(path).unwrap();
            let names = entries
                .into_iter()
                .map(|entry| entry.name.into_string().unwrap());
            names.collect::<Vec<_>>()
        };
        let layer = step("echo new > /made").await;
        assert_eq!(names(&layer, "."), ["made"]);
        let layer = step("echo new > /etc/ssl/certs/other").await;
        assert_eq!(names(&layer, "."), ["etc"]);
        assert_eq!(names(&layer, "etc/ssl/certs"), ["other"]);
        let layer = step(&format!("echo more >> /{BUNDLE}")).await;
        assert_eq!(names(&layer, "etc/ssl/certs"), ["ca-certificates.crt"]);
        let mut file = layer.root().open_file(BUNDLE).unwrap();
        assert_eq!(
            std::io::read_to_string(&mut file).unwrap(),
            "theirs\nmore\n"
        );
    }
}
