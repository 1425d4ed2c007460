//! The crate from outside: golden layers, hostile tars, real overlay mounts.

mod golden;
mod hostile;
mod overlay;
mod pack;

use std::ffi::OsStr;
use std::path::Path;

use stdx::sys::{FileKind, Root};

/// Whether this process may set owners and make devices; says so when not.
pub(crate) fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        // A test that is skipped silently would look like one that passed.
        let reason = "skipped: needs root to set owners, make devices and mount";
        std::io::Write::write_all(&mut std::io::stderr(), reason.as_bytes()).unwrap();
    }
    root
}

pub(crate) fn temp() -> (tempfile::TempDir, Root) {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::open(dir.path()).unwrap();
    (dir, root)
}

/// All of a tree as text, one line a file, for comparing.
pub(crate) fn listing(root: &Root) -> String {
    let mut out = String::new();
    list(root, Path::new(""), &mut out);
    out
}

fn list(root: &Root, dir: &Path, out: &mut String) {
    for entry in root.read_dir_sorted(dir).unwrap() {
        let path = dir.join(&entry.name);
        let stat = root.lstat(&path).unwrap();
        let extra = match stat.kind {
            FileKind::File => {
                let bytes = std::io::read_to_string(root.open_file(&path).unwrap());
                format!("{:?}", bytes.unwrap_or_default())
            }
            FileKind::Symlink => format!("-> {}", root.read_link(&path).unwrap().display()),
            FileKind::CharDevice | FileKind::BlockDevice => format!("{:?}", stat.device()),
            _ => String::new(),
        };
        let opaque = root
            .xattr(&path, OsStr::new("trusted.overlay.opaque"))
            .unwrap();
        let mark = if opaque.is_some() { " opaque" } else { "" };
        let kind = stat.kind;
        out.push_str(&format!(
            "{} {kind:?} {:o} {extra}{mark}\n",
            path.display(),
            stat.mode
        ));
        if stat.is_dir() {
            list(root, &path, out);
        }
    }
}
