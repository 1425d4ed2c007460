//! Which paths one has to have so that some paths can be followed: the paths, the
//! links on the way, and what these lead to.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use stdx::sys::Root;

use crate::Result;
use crate::patterns::{Patterns, clean};

/// As many links in a row as the kernel allows, and some patterns more.
const MAX_STEPS: usize = 10_000;

/// Include patterns for `paths` and what the links in them lead to. A last part of a
/// path may be a pattern. `None` when one of them is the directory itself: then
/// everything is wanted.
pub fn follow(root: &Root, paths: &[String]) -> Result<Option<Vec<String>>> {
    let mut found = BTreeSet::new();
    let mut open: Vec<(PathBuf, Vec<OsString>)> = Vec::new();
    for path in paths {
        let path = clean(path);
        let parts = parts(Path::new(&path));
        if parts.is_empty() {
            return Ok(None);
        }
        open.push((PathBuf::new(), parts));
    }
    let mut steps = 0;
    while let Some((done, mut rest)) = open.pop() {
        steps += 1;
        if rest.is_empty() {
            found.insert(done);
            continue;
        }
        if steps > MAX_STEPS {
            break;
        }
        let name = rest.remove(0);
        if name == ".." {
            open.push((done.parent().map(Path::to_owned).unwrap_or_default(), rest));
            continue;
        }
        let text = name.to_string_lossy();
        if text.contains(['*', '?', '[']) && rest.is_empty() {
            let pattern = Patterns::new([text.as_ref()])?;
            for entry in root.read_dir(&done).unwrap_or_default() {
                if pattern.matches(&entry.name.to_string_lossy()) {
                    open.push((done.clone(), vec![entry.name]));
                }
            }
            found.insert(done.join(&name));
            continue;
        }
        let here = done.join(&name);
        match root.read_link(&here) {
            Ok(target) => {
                let new = found.insert(here);
                let from = if target.is_absolute() {
                    PathBuf::new()
                } else {
                    done
                };
                let mut whole = parts(&target);
                whole.extend(rest);
                // A link seen before with nothing new behind it is a loop.
                if new || steps < MAX_STEPS / 2 {
                    open.push((from, whole));
                }
            }
            Err(_) => open.push((here, rest)),
        }
    }
    if found.contains(Path::new("")) {
        return Ok(None);
    }
    Ok(Some(
        found
            .into_iter()
            .map(|path| path.to_string_lossy().into_owned())
            .collect(),
    ))
}

fn parts(path: &Path) -> Vec<OsString> {
    path.components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect()
}
