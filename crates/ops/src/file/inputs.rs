//! Which parts of its inputs a file op looks at (row L12): an input that is only copied from
//! counts by what is copied, one that is changed counts as a whole, by its own key.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use contenthash::{Selector, glob};
use llb::{ActionKind, Copy, File};
use oci::Digest;
use stdx::patterns::clean;
use stdx::sys::Root;

use super::owner;
use crate::{Error, Result};

/// A part of an input, its path as the op has it.
#[derive(Clone, Debug)]
struct Part {
    path: String,
    wildcard: bool,
    follow: bool,
    include: Vec<String>,
    exclude: Vec<String>,
    required: Vec<String>,
}

impl Part {
    fn of_copy(copy: &Copy) -> Part {
        Part {
            path: copy.src.clone(),
            wildcard: copy.allow_wildcard && glob::has_wildcards(copy.src.as_bytes()),
            follow: copy.follow_symlink,
            include: copy.include.clone(),
            exclude: copy.exclude.clone(),
            required: copy.required_paths.clone(),
        }
    }

    fn of_file(path: &str) -> Part {
        Part {
            path: path.to_owned(),
            wildcard: false,
            follow: true,
            include: Vec::new(),
            exclude: Vec::new(),
            required: Vec::new(),
        }
    }

    fn is_plain(&self) -> bool {
        !self.wildcard
            && self.include.is_empty()
            && self.exclude.is_empty()
            && self.required.is_empty()
    }

    fn selector(&self) -> Selector {
        Selector {
            path: PathBuf::from(clean(&format!("/{}", self.path))),
            wildcard: self.wildcard,
            follow_links: self.follow,
            include: self.include.clone(),
            exclude: self.exclude.clone(),
        }
    }
}

/// The parts, by input.
#[derive(Debug, Default)]
pub(super) struct Selectors(BTreeMap<usize, Vec<Part>>);

impl Selectors {
    pub(super) fn of(file: &File, inputs: usize) -> Result<Selectors> {
        let mut parts: BTreeMap<usize, Vec<Part>> = BTreeMap::new();
        let mut changed = BTreeSet::new();
        for action in &file.actions {
            changed.extend(action.input.map(|number| number as usize));
            if let ActionKind::Copy(copy) = &action.kind
                && let Some(from) = action
                    .secondary
                    .map(|number| number as usize)
                    .filter(|from| *from < inputs)
            {
                parts.entry(from).or_default().push(Part::of_copy(copy));
            }
            // Those of links never entered keys, and keys are kept.
            if matches!(action.kind, ActionKind::Symlink(_)) {
                continue;
            }
            for (number, path) in owner::files(action) {
                let number = usize::try_from(number)
                    .ok()
                    .filter(|number| *number < inputs);
                let bad = || {
                    Error::Invalid(format!(
                        "an owner is named in an input that is none of the {inputs} inputs"
                    ))
                };
                parts
                    .entry(number.ok_or_else(bad)?)
                    .or_default()
                    .push(Part::of_file(path));
            }
        }
        parts.retain(|number, _| !changed.contains(number));
        Ok(Selectors(parts))
    }

    /// What stands for the parts in the key.
    pub(super) fn digest(&self, input: usize) -> Option<Digest> {
        let mut paths: Vec<&str> = self
            .0
            .get(&input)?
            .iter()
            .map(|part| part.path.as_str())
            .collect();
        // Downwards: it began so, and keys are kept.
        paths.sort_unstable_by(|a, b| b.cmp(a));
        Some(Digest::of(paths.join("\0")))
    }

    /// The parts whose contents count, without those that lie in others.
    pub(super) fn parts(&self, input: usize) -> Option<Vec<Selector>> {
        let parts = self.0.get(&input)?;
        let plain = |follow: bool| {
            let paths: BTreeSet<&str> = parts
                .iter()
                .filter(|part| part.is_plain() && part.follow == follow)
                .map(|part| part.path.as_str())
                .collect();
            let inside = |path: &str| {
                let above = path.match_indices('/').map(|(at, _)| &path[..at]);
                above.into_iter().any(|above| paths.contains(above))
            };
            let kept = paths.iter().filter(|path| !inside(path));
            kept.map(|path| Part {
                follow,
                ..Part::of_file(path)
            })
            .collect::<Vec<_>>()
        };
        let mut all = plain(false);
        all.extend(plain(true));
        all.extend(parts.iter().filter(|part| !part.is_plain()).cloned());
        all.sort_by(|a, b| a.path.cmp(&b.path));
        Some(all.iter().map(Part::selector).collect())
    }

    /// Paths that must be there.
    pub(super) fn required(&self, input: usize) -> Vec<String> {
        let parts = self.0.get(&input).into_iter().flatten();
        parts.flat_map(|part| part.required.clone()).collect()
    }
}

/// Fails if one of these paths is not in the tree.
pub(super) fn check_required(root: &Root, required: &[String]) -> Result<()> {
    for path in required {
        root.lstat(path)
            .map_err(super::describe::failed("looking for", path))?;
    }
    Ok(())
}

/// The digests of parts of the empty tree.
pub(super) fn of_nothing(parts: &[Selector]) -> Result<Vec<Digest>> {
    let digest = |part: &Selector| match part.path.to_str() {
        Some("/") => Ok(Digest::of("")),
        _ => Err(Error::in_nothing(part.path.display().to_string())),
    };
    parts.iter().map(digest).collect()
}

/// One digest of several.
pub(super) fn join(digests: &[Digest]) -> Digest {
    let texts: Vec<String> = digests.iter().map(Digest::to_string).collect();
    Digest::of(texts.join("\0"))
}
