//! The repository's files.

use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// Where the repository is: as cargo says now, since two clones may share a build directory.
pub(crate) fn root() -> PathBuf {
    let xtask = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    xtask
        .parent()
        .expect("xtask lies in the repository")
        .to_owned()
}

/// All files below `dir` (relative to the repository) with this ending, sorted;
/// paths are relative to the repository. Build directories are left out.
pub(crate) fn files(dir: &str, ending: &str) -> Result<Vec<PathBuf>> {
    let root = root();
    let mut found = Vec::new();
    let mut open = vec![root.join(dir)];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).map_err(Error::file(&dir))? {
            let entry = entry.map_err(Error::file(&dir))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type().map_err(Error::file(entry.path()))?;
            if kind.is_dir() {
                if name != ".git" && !name.starts_with("target") {
                    open.push(entry.path());
                }
            } else if kind.is_file() && name.ends_with(ending) {
                let path = entry.path();
                found.push(path.strip_prefix(&root).expect("found below it").to_owned());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The text of a file of the repository.
pub(crate) fn read(path: impl AsRef<Path>) -> Result<String> {
    let path = root().join(path);
    std::fs::read_to_string(&path).map_err(Error::file(path))
}
