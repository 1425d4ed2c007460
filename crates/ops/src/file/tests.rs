//! Trees in temporary directories, changed and looked at.

mod changes;
mod copies;
mod golden;
mod works;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;

use llb::Copy;
use stdx::sys::{FileKind, Root, Time};

use super::owner::Owner;
use super::{Cancelled, copy};
use crate::Result;

/// A tree, and the directory it is in, which nothing may touch.
pub(super) struct Place {
    outside: tempfile::TempDir,
    pub(super) root: Root,
}

/// A tree of files: `dir/` is a directory, `link -> target` a link, `name = text` a file.
pub(super) fn place(lines: &[&str]) -> Place {
    let outside = tempfile::tempdir().unwrap();
    std::fs::create_dir(outside.path().join("root")).unwrap();
    std::fs::write(outside.path().join("victim"), "untouched").unwrap();
    let root = Root::open(outside.path().join("root")).unwrap();
    for line in lines {
        if let Some((path, target)) = line.split_once(" -> ") {
            parent(&root, path);
            root.symlink(target, path).unwrap();
        } else if let Some((path, text)) = line.split_once(" = ") {
            parent(&root, path);
            root.create_file(path, 0o644)
                .unwrap()
                .write_all(text.as_bytes())
                .unwrap();
        } else {
            root.create_dir_all(line, 0o755).unwrap();
        }
    }
    Place { outside, root }
}

fn parent(root: &Root, path: &str) {
    if let Some((dir, _)) = path.rsplit_once('/') {
        root.create_dir_all(dir, 0o755).unwrap();
    }
}

impl Place {
    /// All in it, as it is written to make it.
    pub(super) fn lines(&self) -> Vec<String> {
        let outside = std::fs::read_to_string(self.outside.path().join("victim")).unwrap();
        assert_eq!(outside, "untouched");
        assert_eq!(
            std::fs::read_dir(self.outside.path()).unwrap().count(),
            2,
            "something was made outside"
        );
        let mut lines = Vec::new();
        list(&self.root, Path::new(""), &mut lines);
        lines
    }
}

fn list(root: &Root, dir: &Path, lines: &mut Vec<String>) {
    let here = if dir.as_os_str().is_empty() {
        Path::new(".")
    } else {
        dir
    };
    for entry in root.read_dir_sorted(here).unwrap() {
        let path = dir.join(&entry.name);
        let shown = path.display();
        match root.lstat(&path).unwrap().kind {
            FileKind::Dir => {
                lines.push(format!("{shown}/"));
                list(root, &path, lines);
            }
            FileKind::Symlink => lines.push(format!(
                "{shown} -> {}",
                root.read_link(&path).unwrap().display()
            )),
            FileKind::File => lines.push(format!("{shown} = {}", text(root, &path))),
            other => lines.push(format!("{shown}: {other:?}")),
        }
    }
}

pub(super) fn text(root: &Root, path: impl AsRef<Path>) -> String {
    let mut bytes = Vec::new();
    root.open_file(path)
        .unwrap()
        .read_to_end(&mut bytes)
        .unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

pub(super) fn set_time(root: &Root, path: &str, seconds: i64) {
    root.set_times(
        path,
        Time::from_seconds(seconds),
        Time::from_seconds(seconds),
    )
    .unwrap();
}

pub(super) fn mtime(root: &Root, path: &str) -> i64 {
    root.lstat(path).unwrap().mtime.seconds
}

/// What `COPY` asks for.
pub(super) fn wanted(src: &str, dest: &str) -> Copy {
    Copy {
        follow_symlink: true,
        dir_copy_contents: true,
        create_dest_path: true,
        allow_wildcard: true,
        allow_empty_wildcard: true,
        ..Copy::new(src, dest)
    }
}

pub(super) fn run(from: &Place, to: &Place, wanted: &Copy) -> Result<()> {
    owned(from, to, wanted, None)
}

pub(super) fn owned(from: &Place, to: &Place, wanted: &Copy, owner: Option<Owner>) -> Result<()> {
    copy::copy(
        &from.root,
        &to.root,
        wanted,
        owner,
        None,
        &Cancelled::default(),
    )
}

/// Attributes of a file.
pub(super) fn attributes(root: &Root, path: &str) -> BTreeMap<String, Vec<u8>> {
    let found = root.xattrs(path).unwrap().into_iter();
    found
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value))
        .collect()
}

/// Whether we may give files away; says so when not.
pub(super) fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        tracing::warn!("skipped: only root gives files to others");
    }
    root
}
