//! Overlayfs for real, which needs root.

use std::os::fd::AsFd;
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

/// A directory in which something was made and removed again is no part of the change, as one
/// that really changed is.
#[test]
fn privileged_directories_that_did_not_change_are_not_in_a_layer() {
    let dir = tempfile::tempdir().unwrap();
    let Some(on) = overlay(dir.path()) else {
        return;
    };
    let base = layer(&*on, &[], |root| {
        root.create_dir_all("etc/deep/er", 0o755).unwrap();
        root.create_dir_all("var/kept", 0o755).unwrap();
        root.create_dir_all("gone", 0o755).unwrap();
        write(root, "gone/file", "");
        root.symlink("etc", "link").unwrap();
    });
    let change = layer(&*on, std::slice::from_ref(&base), |root| {
        for (path, parents) in [("etc/deep/er", 3), ("var/kept", 2)] {
            let parents: Vec<_> = std::path::Path::new(path)
                .ancestors()
                .take(parents)
                .collect();
            let times: Vec<_> = parents.iter().map(|dir| root.lstat(dir).unwrap()).collect();
            write(root, &format!("{path}/stub"), "");
            root.unlink(format!("{path}/stub")).unwrap();
            for (dir, was) in parents.iter().zip(times) {
                root.set_times(dir, was.atime, was.mtime).unwrap();
            }
        }
        root.chmod("var/kept", 0o700).unwrap();
        // Made anew it is another directory, which hides what was in the first.
        let was = root.lstat("gone").unwrap();
        root.remove_tree("gone").unwrap();
        root.mkdir("gone", 0o755).unwrap();
        root.set_times("gone", was.atime, was.mtime).unwrap();
        root.unlink("link").unwrap();
        root.mkdir("link", 0o755).unwrap();
        root.mkdir("link/deep", 0o755).unwrap();
    });
    let listed = listing(&on.layer(&change).unwrap());
    let names: Vec<String> = listed.into_keys().collect();
    assert_eq!(names, ["gone", "link", "link/deep", "var", "var/kept"]);
    let view = on.view(&[base, change]).unwrap();
    assert!(view.root().lstat("gone/file").is_err());
    assert!(view.root().lstat("etc/deep/er").is_ok());
}

/// What containers get on kernels that cannot copy detached mounts: as many mounts of a tree,
/// or of something in it, as they want.
#[test]
fn privileged_trees_are_copied_for_older_kernels() {
    let dir = tempfile::tempdir().unwrap();
    let Some(on) = overlay_on_old_kernels(dir.path()) else {
        return;
    };
    let a = layer(&*on, &[], |root| {
        root.mkdir("sub", 0o755).unwrap();
        write(root, "sub/file", "text");
    });
    let lowers = [a];
    let (view, active, plain) = (
        on.view(&lowers).unwrap(),
        on.begin(&lowers).unwrap(),
        on.begin(&[]).unwrap(),
    );
    assert!(view.is_mount() && active.tree().is_mount() && !plain.tree().is_mount());
    for tree in [&view, active.tree()] {
        for name in ["one", "two"] {
            let copy = tree.copy_of_mount(tree.as_fd()).unwrap().unwrap();
            let copy = stdx::sys::Root::from_fd(copy);
            assert!(copy.lstat("sub/file").is_ok());
            assert_eq!(copy.mkdir(name, 0o755).is_ok(), !tree.is_readonly());
        }
        let sub = tree.root().open_dir("sub").unwrap();
        let sub = tree.copy_of_mount(sub.as_fd()).unwrap().unwrap();
        assert!(stdx::sys::Root::from_fd(sub).lstat("file").is_ok());
    }
    assert!(active.tree().root().lstat("two").is_ok());
    let copy = plain.tree().copy_of_mount(plain.tree().as_fd()).unwrap();
    assert!(copy.is_none(), "everybody can");
    // A copy outlives what it was made of.
    let copy = view.copy_of_mount(view.as_fd()).unwrap().unwrap();
    drop((view, active, on));
    assert!(stdx::sys::Root::from_fd(copy).lstat("sub/file").is_ok());
}
