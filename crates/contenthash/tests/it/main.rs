//! Digests against what BuildKit hashed, and trees that change.

mod golden;
mod tree;

use std::io::Write;

use stdx::sys::Root;

pub(crate) fn temp() -> (tempfile::TempDir, Root) {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::open(dir.path()).unwrap();
    (dir, root)
}

pub(crate) fn write(root: &Root, path: &str, text: &str) {
    root.create_dir_all(std::path::Path::new(path).parent().unwrap(), 0o755)
        .unwrap();
    root.remove_tree(path).unwrap();
    root.create_file(path, 0o644)
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
}
