//! Paths opened beneath a root, and what tries to lead out of it.

use std::ffi::OsStr;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::MetadataExt;

use super::{FileKind, Root, Time, copy_data};

fn root() -> (tempfile::TempDir, Root) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("inside")).unwrap();
    std::fs::write(dir.path().join("secret"), "outside").unwrap();
    let root = Root::open(dir.path().join("inside")).unwrap();
    (dir, root)
}

fn write(root: &Root, path: &str, text: &str) {
    root.create_file(path, 0o644)
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
}

fn read(root: &Root, path: &str) -> std::io::Result<String> {
    let mut text = String::new();
    root.open_file(path)?.read_to_string(&mut text)?;
    Ok(text)
}

/// Rows: C07
#[test]
fn no_path_and_no_link_leads_out() {
    let (dir, root) = root();
    write(&root, "secret", "mine");
    root.symlink("/secret", "absolute").unwrap();
    root.symlink("../../../secret", "climbing").unwrap();
    root.symlink(dir.path().join("secret"), "host").unwrap();
    for path in [
        "secret",
        "/secret",
        "../secret",
        "../../secret",
        "absolute",
        "climbing",
    ] {
        assert_eq!(read(&root, path).unwrap(), "mine", "{path}");
    }
    assert_eq!(read(&root, "host").unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn the_last_component_is_not_followed_by_what_changes_names() {
    let (dir, root) = root();
    root.symlink("../secret", "link").unwrap();
    assert_eq!(
        root.create_file("link", 0o600).unwrap_err().kind(),
        ErrorKind::AlreadyExists
    );
    root.chmod("link", 0o777).unwrap();
    root.set_times(
        "link",
        Time::from_seconds(1),
        Time {
            seconds: 2,
            nanos: 3,
        },
    )
    .unwrap();
    assert_eq!(
        root.lstat("link").unwrap().mtime,
        Time {
            seconds: 2,
            nanos: 3
        }
    );
    root.link("link", "twin").unwrap();
    assert!(root.lstat("twin").unwrap().is_symlink());
    root.unlink("link").unwrap();
    assert_eq!(
        std::fs::read_to_string(dir.path().join("secret")).unwrap(),
        "outside"
    );
    assert_eq!(
        std::fs::metadata(dir.path().join("secret")).unwrap().mode() & 0o777,
        0o644
    );
}

#[test]
fn directories_are_made_through_links_even_dangling_ones() {
    let (dir, root) = root();
    root.symlink("/run", "var-run").unwrap();
    root.symlink("../../../up", "climb").unwrap();
    assert_eq!(root.create_dir_all("/var-run/a/b", 0o750).unwrap().len(), 3);
    assert_eq!(root.create_dir_all("/var-run/a/b", 0o755).unwrap().len(), 0);
    root.create_dir_all("climb/x", 0o755).unwrap();
    assert_eq!(root.stat("run/a/b").unwrap().mode, 0o750);
    assert!(root.stat("up/x").unwrap().is_dir());
    assert!(!dir.path().join("up").exists());
    assert_eq!(
        root.canonical("var-run/../x/../var-run/q").unwrap(),
        OsStr::new("run/q")
    );
    root.symlink("loop", "loop").unwrap();
    assert!(root.canonical("loop").is_err());
}

#[test]
fn attributes_and_times_come_back() {
    let (_dir, root) = root();
    root.mkdir("d", 0o1777).unwrap();
    write(&root, "d/f", "x");
    root.set_xattr("d/f", OsStr::new("user.kiln"), b"\0v")
        .unwrap();
    assert_eq!(
        root.xattrs("d/f").unwrap(),
        [("user.kiln".into(), b"\0v".to_vec())]
    );
    root.remove_xattr("d/f", OsStr::new("user.kiln")).unwrap();
    assert_eq!(root.xattr("d/f", OsStr::new("user.kiln")).unwrap(), None);
    root.mknod("pipe", FileKind::Fifo, 0o622, (0, 0)).unwrap();
    let pipe = root.lstat("pipe").unwrap();
    assert_eq!((pipe.kind, pipe.mode), (FileKind::Fifo, 0o622));
    assert_eq!(
        root.open_file("pipe").unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    assert_eq!(root.stat("d").unwrap().mode, 0o1777);
    let names: Vec<_> = root
        .read_dir_sorted("")
        .unwrap()
        .into_iter()
        .map(|e| e.name)
        .collect();
    assert_eq!(names, ["d", "pipe"]);
}

#[test]
fn a_very_deep_tree_is_removed_and_what_links_point_to_stays() {
    let (dir, root) = root();
    root.symlink(dir.path(), "out").unwrap();
    let mut here = root.open_dir("").unwrap();
    for _ in 0..1200 {
        here.mkdir("deeper", 0o755).unwrap();
        write(&here, "file", "x");
        here = here.open_dir("deeper").unwrap();
    }
    drop(here);
    root.mkdir("other", 0o755).unwrap();
    root.remove_tree("deeper").unwrap();
    root.remove_tree("missing/too").unwrap();
    root.remove_contents().unwrap();
    assert_eq!(root.read_dir("").unwrap(), []);
    assert!(dir.path().join("secret").exists());
}

#[test]
fn data_is_copied_and_holes_stay() {
    let (_dir, root) = root();
    let mut from = root.create_file("from", 0o644).unwrap();
    from.set_len(64 << 20).unwrap();
    from.write_all(b"begin").unwrap();
    rustix::fs::seek(&from, rustix::fs::SeekFrom::Start(32 << 20)).unwrap();
    from.write_all(b"middle").unwrap();
    let mut to = root.create_file("to", 0o644).unwrap();
    assert_eq!(copy_data(&from, &to).unwrap(), 64 << 20);
    assert!(root.stat("to").unwrap().allocated < 1 << 20);
    let (mut a, mut b) = (Vec::new(), Vec::new());
    std::io::Seek::rewind(&mut from).unwrap();
    std::io::Seek::rewind(&mut to).unwrap();
    from.read_to_end(&mut a).unwrap();
    to.read_to_end(&mut b).unwrap();
    assert!(a == b);
}
