//! Overlayfs for real, which needs root.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use snapshot::testing::{layer, listing, write};
use snapshot::{Overlay, Snapshotter};

fn as_root<T>(open: impl FnOnce() -> snapshot::Result<T>) -> Option<T> {
    if !rustix::process::geteuid().is_root() {
        eprintln_once("overlayfs is tested as root only");
        return None;
    }
    Some(open().unwrap())
}

#[expect(clippy::print_stderr, reason = "a test says why it did nothing")]
fn eprintln_once(why: &str) {
    eprintln!("skipped: {why}");
}

fn overlay(dir: &Path) -> Option<Arc<dyn Snapshotter>> {
    as_root(|| Overlay::open(dir)).map(|on| Arc::new(on) as Arc<dyn Snapshotter>)
}

fn overlay_on_old_kernels(dir: &Path) -> Option<Arc<dyn Snapshotter>> {
    as_root(|| Overlay::open_as_on_old_kernels(dir)).map(|on| Arc::new(on) as Arc<dyn Snapshotter>)
}

mod privileged_overlay {
    snapshot::suite!(super::overlay);
}

mod privileged_overlay_on_old_kernels {
    snapshot::suite!(super::overlay_on_old_kernels);
}

fn mounts() -> String {
    std::fs::read_to_string("/proc/self/mountinfo").unwrap()
}

/// More layers than one overlay takes, by both ways of asking, and nothing in the mount table.
#[test]
fn privileged_hundreds_of_layers() {
    for (open, count) in [
        (overlay as fn(&Path) -> _, 100),
        (overlay, 600),
        (overlay_on_old_kernels, 150),
        (overlay_on_old_kernels, 300),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let Some(on): Option<Arc<dyn Snapshotter>> = open(dir.path()) else {
            return;
        };
        let before = mounts();
        let layers: Vec<_> = (0..count)
            .map(|n| layer(&*on, &[], |root| write(root, &format!("file-{n}"), "")))
            .collect();
        let began = Instant::now();
        let view = on.view(&layers).unwrap();
        tracing::info!(count, elapsed = ?began.elapsed(), "mounted");
        assert_eq!(listing(&view).len(), count);
        let active = on.begin(&layers).unwrap();
        active.tree().root().unlink("file-0").unwrap();
        active
            .tree()
            .root()
            .unlink(format!("file-{}", count - 1))
            .unwrap();
        assert_eq!(listing(active.tree()).len(), count - 2);
        assert_eq!(mounts(), before, "mounts are detached");
    }
}

#[test]
fn privileged_too_many_layers_is_said_clearly() {
    let dir = tempfile::tempdir().unwrap();
    let Some(on) = overlay(dir.path()) else {
        return;
    };
    let one = layer(&*on, &[], |_| ());
    let error = on.view(&vec![one; 1000]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "1000 layers are more than the 899 that can be stacked"
    );
}

/// What a container gets: its own mount of a tree it can be given or not be allowed to write.
#[test]
fn privileged_trees_can_be_mounted_again() {
    let dir = tempfile::tempdir().unwrap();
    let Some(on) = overlay(dir.path()) else {
        return;
    };
    let a = layer(&*on, &[], |root| write(root, "file", "text"));
    let lowers = [a];
    let (view, active, plain) = (
        on.view(&lowers).unwrap(),
        on.begin(&lowers).unwrap(),
        on.begin(&[]).unwrap(),
    );
    assert!(view.is_mount() && active.tree().is_mount() && !plain.tree().is_mount());
    for tree in [&view, active.tree(), plain.tree()] {
        for readonly in [true, false] {
            let mount = stdx::sys::Root::from_fd(tree.clone_mount(readonly).unwrap());
            let made = mount.mkdir("new", 0o755);
            assert_eq!(made.is_ok(), !readonly && !tree.is_readonly());
        }
    }
    assert!(active.tree().root().lstat("new").is_ok());
}
