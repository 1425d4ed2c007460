//! Upper directories as the kernel makes them, against the walk of whole trees.

use std::path::Path;
use std::process::Command;

use layer::{ApplyOptions, Whiteouts, apply, compare, diff, holds_more};
use stdx::sys::{Root, Time};

use super::{is_root, listing, temp};

/// A real overlay mount, gone when dropped.
struct Mounted {
    dir: tempfile::TempDir,
}

impl Mounted {
    fn new() -> Mounted {
        let dir = tempfile::tempdir().unwrap();
        for name in ["lower", "upper", "work", "merged"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        Mounted { dir }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn root(&self, name: &str) -> Root {
        Root::open(self.path(name)).unwrap()
    }

    fn mount(&self) {
        let at = |name| self.path(name).display().to_string();
        let options = format!(
            "lowerdir={},upperdir={},workdir={},redirect_dir=off,metacopy=off",
            at("lower"),
            at("upper"),
            at("work")
        );
        let status = Command::new("mount")
            .args(["-t", "overlay", "overlay", "-o", &options])
            .arg(self.path("merged"))
            .status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount")
            .arg("-l")
            .arg(self.path("merged"))
            .status();
    }
}

fn sh(dir: &Path, script: &str) {
    let status = Command::new("sh")
        .args(["-ec", script])
        .current_dir(dir)
        .status();
    assert!(status.unwrap().success());
}

const BEFORE: &str = "
    mkdir -p a/deep/er keep gone reborn
    echo 1 > a/file; echo 2 > a/deep/er/x; echo 3 > keep/k; echo 4 > gone/g
    echo 5 > reborn/same; echo 6 > reborn/other; echo 7 > reborn/linked
    ln reborn/linked reborn/linked2; ln -s k keep/sym; echo 8 > 'a-b'; echo 9 > touched
    find . -exec touch -h -d @1600000000 {} +
";

const CHANGE: &str = "
    rm -r gone; rm a/file; mkdir a/file; echo n > a/file/n; chmod 700 a/deep/er
    cp -a reborn saved; rm -r reborn; mv saved reborn; rm reborn/other; echo o > reborn/p
    ln -sf elsewhere keep/sym; echo new > 'a-b'; ln 'a-b' keep/k2; mv touched tmp; mv tmp touched
    mkfifo pipe; mknod null c 1 3; mkdir -p fresh/empty; touch -d '2021-01-01 00:00:00.25' sub
";

/// The upper directory gives what a comparison of the whole trees gives, and
/// unpacking it on the old tree gives the new one.
///
/// Rows: B15, B17, B18, B19
#[test]
fn privileged_a_real_upper_directory_gives_the_difference_of_the_trees() {
    if !is_root() {
        return;
    }
    let overlay = Mounted::new();
    sh(&overlay.path("lower"), BEFORE);
    overlay.mount();
    sh(&overlay.path("merged"), CHANGE);
    let upper = diff(
        &overlay.root("upper"),
        Some(&overlay.root("lower")),
        Vec::new(),
    )
    .unwrap();
    let (_old_dir, old) = temp();
    let options = ApplyOptions {
        whiteouts: Whiteouts::Remove,
        ..ApplyOptions::default()
    };
    let lower = compare(&overlay.root("lower"), None, Vec::new()).unwrap();
    apply(&lower[..], &old, &options).unwrap();
    apply(&upper[..], &old, &options).unwrap();
    assert_eq!(listing(&old), listing(&overlay.root("merged")));

    let whole = compare(
        &overlay.root("merged"),
        Some(&overlay.root("lower")),
        Vec::new(),
    )
    .unwrap();
    let names = |tar: &[u8]| {
        let mut reader = layer::tar::Reader::new(tar);
        let mut names = Vec::new();
        while let Some(entry) = reader.entry().unwrap() {
            names.push(format!(
                "{} {:?} {:o}",
                entry.display(),
                entry.kind,
                entry.mode
            ));
        }
        names
    };
    assert_eq!(names(&upper), names(&whole));
    assert!(
        names(&upper)
            .iter()
            .any(|name| name.starts_with(".wh.gone "))
    );
    assert!(
        !names(&upper).iter().any(|name| name.contains("touched")),
        "touched is as it was"
    );
    assert!(upper == whole);
}

/// Files that were moved away and back, and directories that were copied up for what is gone
/// again, are in an upper directory and no change. All else there is one.
///
/// Rows: B18
#[test]
fn privileged_an_upper_directory_holds_more_than_its_changes() {
    if !is_root() {
        return;
    }
    for (change, more) in [
        ("true", false),
        (
            "echo new > a/file; rm keep/k; mkdir fresh; touch fresh/x",
            false,
        ),
        ("rm -r gone; mkdir gone; touch gone/g", false),
        ("chmod 700 a; touch -d @1 touched", false),
        ("mv touched tmp; mv tmp touched", true),
        ("mv a/file tmp; mv tmp a/file; touch a/z", true),
        ("touch a/deep/x; rm a/deep/x", true),
        ("touch a/deep/x; rm a/deep/x; touch a/zz", true),
        ("touch a/deep/x; rm a/deep/x; touch keep/z", true),
        ("touch keep/x; rm keep/x; touch a/deep/new", true),
    ] {
        let overlay = Mounted::new();
        sh(&overlay.path("lower"), BEFORE);
        overlay.mount();
        sh(&overlay.path("merged"), change);
        let found = holds_more(&overlay.root("upper"), &overlay.root("lower")).unwrap();
        assert_eq!(found, more, "{change}");
    }
}

/// Behind the first thing that is no change, there is something that cannot be read.
///
/// Rows: B18
#[test]
fn privileged_nothing_is_looked_at_once_the_answer_is_known() {
    if !is_root() {
        return;
    }
    let ((_below, below), (_upper, upper)) = (temp(), temp());
    for root in [&below, &upper] {
        root.mkdir("a", 0o755).unwrap();
        drop(root.create_file("b", 0o644).unwrap());
        let time = Time::from_seconds(1);
        root.set_times("b", time, time).unwrap();
    }
    drop(upper.create_file("a/new", 0o644).unwrap());
    upper.mkdir("z", 0o755).unwrap();
    let redirect = "trusted.overlay.redirect".as_ref();
    upper.set_xattr("z", redirect, b"/x").unwrap();
    assert!(holds_more(&upper, &below).unwrap());
    upper.unlink("b").unwrap();
    assert!(holds_more(&upper, &below).is_err());
}

/// Rows: B18
#[test]
fn privileged_a_redirected_directory_is_refused() {
    if !is_root() {
        return;
    }
    let (_dir, root) = temp();
    root.mkdir("d", 0o755).unwrap();
    root.set_xattr("d", "trusted.overlay.redirect".as_ref(), b"/x")
        .unwrap();
    let error = diff(&root, None, Vec::new()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`d` uses overlayfs redirect_dir, which a layer cannot express"
    );
    assert_eq!(error.kind(), stdx::Kind::Unsupported);
}

/// Rows: B19
#[test]
fn a_very_deep_tree_is_written_and_read() {
    let (_dir, root) = temp();
    let mut here = root.try_clone().unwrap();
    for _ in 0..300 {
        here.mkdir("ddddddddddd", 0o755).unwrap();
        here = here.open_dir("ddddddddddd").unwrap();
    }
    let tar = diff(&root, None, Vec::new()).unwrap();
    let mut reader = layer::tar::Reader::new(&tar[..]);
    let mut count = 0;
    while let Some(entry) = reader.entry().unwrap() {
        count += 1;
        assert_eq!(entry.path.len(), count * 12);
    }
    assert_eq!(count, 300);
    root.remove_contents().unwrap();
}
