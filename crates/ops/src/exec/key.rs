//! How the inputs of an exec count for its cache key (rows L06, L07).

use llb::{ContentCache, Exec, MountKind};
use oci::Digest;
use solver::InputMap;

use crate::{Error, Result};

/// How one input counts: by which parts of it, and whether by what is in them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct InputKey {
    /// In the order of the mounts.
    selectors: Vec<String>,
    by_content: bool,
}

impl InputKey {
    /// Of each input of an op.
    pub(super) fn of_all(exec: &Exec, inputs: usize) -> Result<Vec<InputKey>> {
        let mut keys = vec![InputKey::default(); inputs];
        for mount in &exec.mounts {
            if !matches!(mount.kind, MountKind::Bind | MountKind::Cache(_)) {
                continue;
            }
            let Some(input) = mount.input else { continue };
            let missing = || Error::Invalid(format!("mount {} has no input {input}", mount.target));
            let key = keys.get_mut(input as usize).ok_or_else(missing)?;
            let part = clean(&mount.selector);
            // The last mount of an input decides: so do BuildKit's keys.
            key.by_content = by_content(mount, &part)?;
            key.selectors.push(part);
        }
        Ok(keys)
    }

    /// As the solver wants it.
    pub(super) fn map(&self) -> InputMap {
        let selector = match &self.selectors[..] {
            [] => None,
            selectors => Some(Digest::of(selectors.join("\0"))),
        };
        InputMap {
            selector,
            by_content: self.by_content,
        }
    }

    /// The parts whose content counts: none twice, none inside another, sorted.
    pub(super) fn parts(&self) -> Vec<String> {
        if self.selectors.is_empty() || self.selectors.iter().any(|part| part == "/") {
            return vec!["/".to_owned()];
        }
        let mut parts: Vec<String> = Vec::new();
        let mut sorted = self.selectors.clone();
        sorted.sort();
        for part in sorted {
            let inside = |outer: &String| {
                let rest = part.strip_prefix(outer.as_str());
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            };
            if !parts.iter().any(inside) {
                parts.push(part);
            }
        }
        parts
    }
}

/// Whether what is in a mount may stand for the input it is of. Not when files that
/// are not in the mount would go on to the next step with it.
fn by_content(mount: &llb::Mount, part: &str) -> Result<bool> {
    let safe = mount.output.is_none() || mount.readonly || part == "/";
    match mount.content_cache {
        ContentCache::Off => Ok(false),
        ContentCache::On if safe => Ok(true),
        ContentCache::On => Err(Error::Invalid(format!(
            "mount {} cannot be cached by its content: it is written and is only a part",
            mount.target
        ))),
        // Reading a whole root costs more than it is worth.
        ContentCache::Default => Ok(safe && mount.target != "/"),
    }
}

/// An absolute path without `.`, `..` and doubled slashes.
pub(super) fn clean(path: &str) -> String {
    let mut names = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    format!("/{}", names.join("/"))
}
