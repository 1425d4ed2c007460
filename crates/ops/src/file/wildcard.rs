//! Which paths of a tree a wildcard path means.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use contenthash::glob;
use stdx::patterns::clean;
use stdx::sys::{FileKind, Root};

use super::describe::failed;
use crate::{Error, Result};

/// The paths, relative to the root and in the order of a walk. A path without wildcards is
/// given as it is, whether it exists or not. What lies before the first wildcard may lead
/// through links, in the last part of it only with `follow`; what comes after may not.
pub(super) fn matches(root: &Root, pattern: &str, follow: bool) -> Result<Vec<PathBuf>> {
    let cleaned = clean(&format!("/{pattern}"));
    let parts: Vec<&str> = cleaned.split('/').filter(|part| !part.is_empty()).collect();
    let wild = parts
        .iter()
        .position(|part| glob::has_wildcards(part.as_bytes()));
    let Some(wild) = wild else {
        return Ok(vec![PathBuf::from(parts.join("/"))]);
    };
    let start = resolve(root, Path::new(&parts[..wild].join("/")), follow)
        .map_err(failed("looking for", pattern))?;
    if !root
        .lstat(&start)
        .map_err(failed("looking for", pattern))?
        .is_dir()
    {
        return Ok(Vec::new());
    }
    let mut found = vec![start];
    for (at, part) in parts.iter().enumerate().skip(wild) {
        let deeper = at + 1 < parts.len();
        let mut next = Vec::new();
        for dir in found {
            inside(root, &dir, part, deeper, pattern, &mut next)?;
        }
        found = next;
    }
    Ok(found)
}

/// The names in one directory that match one part.
fn inside(
    root: &Root,
    dir: &Path,
    part: &str,
    deeper: bool,
    pattern: &str,
    found: &mut Vec<PathBuf>,
) -> Result<()> {
    let shown = if dir.as_os_str().is_empty() {
        Path::new(".")
    } else {
        dir
    };
    for entry in root
        .read_dir_sorted(shown)
        .map_err(failed("looking for", pattern))?
    {
        let bad = || Error::Invalid(format!("syntax error in pattern {pattern}"));
        if !glob::matches(part.as_bytes(), entry.name.as_bytes()).ok_or_else(bad)? {
            continue;
        }
        let path = dir.join(&entry.name);
        if deeper {
            let kind = match entry.kind {
                Some(kind) => kind,
                None => {
                    root.lstat(&path)
                        .map_err(failed("looking at", pattern))?
                        .kind
                }
            };
            if kind != FileKind::Dir {
                continue;
            }
        }
        found.push(path);
    }
    Ok(())
}

/// A path without links in it, relative to the root; a link at its end stays unless `follow`.
pub(super) fn resolve(root: &Root, path: &Path, follow: bool) -> std::io::Result<PathBuf> {
    let path = Path::new("/").join(path);
    if follow {
        return root.canonical(path);
    }
    let path = PathBuf::from(OsStr::from_bytes(clean_bytes(&path).as_bytes()));
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok(root.canonical(parent)?.join(name)),
        _ => Ok(PathBuf::new()),
    }
}

/// Takes `.` and `..` out without looking at the disk.
fn clean_bytes(path: &Path) -> std::ffi::OsString {
    let mut cleaned = PathBuf::from("/");
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => drop(cleaned.pop()),
            std::path::Component::Normal(part) => cleaned.push(part),
            _ => {}
        }
    }
    cleaned.into_os_string()
}
