//! Which part of a tree is meant, and its digest.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use oci::{Digest, Hasher};
use stdx::patterns::{Above, Filter};
use stdx::sys::Root;

use crate::contents::{Contents, Dir, Node, steps};
use crate::{Error, Result, glob, sum};

/// A part of a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selector {
    /// Path from the top of the tree, with or without the leading slash.
    pub path: PathBuf,
    /// The path may have wildcards.
    pub wildcard: bool,
    /// If the path is a link, what it leads to is meant.
    pub follow_links: bool,
    /// Only what these match, relative to the path.
    pub include: Vec<String>,
    /// Not what these match.
    pub exclude: Vec<String>,
}

impl Selector {
    /// One path, links followed.
    pub fn path(path: impl Into<PathBuf>) -> Selector {
        Selector {
            path: path.into(),
            follow_links: true,
            ..Selector::default()
        }
    }

    fn is_wild(&self) -> bool {
        self.wildcard && glob::has_wildcards(self.path.as_os_str().as_bytes())
    }
}

/// Something that was selected one by one.
struct Included {
    /// What stands for its name in the digest.
    key: Vec<u8>,
    path: PathBuf,
}

/// A walk that picks.
struct Picking {
    filter: Filter,
    /// Directories on the way that are taken once something in them is.
    pending: Vec<Included>,
    picked: Vec<Included>,
    /// Names were read on the way.
    read: bool,
}

impl Contents {
    /// The digest of a part of the tree under `root`. Asking again costs little.
    pub fn digest(&mut self, root: &Root, selector: &Selector) -> Result<Digest> {
        self.digest_of(Some(root), selector)
    }

    /// The same without the tree; nothing if it would have to be looked at.
    pub fn known(&mut self, selector: &Selector) -> Result<Option<Digest>> {
        match self.digest_of(None, selector) {
            Ok(digest) => Ok(Some(digest)),
            Err(Error::Unread) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Without a root only what is known already can be told; else it fails with `Unread`.
    fn digest_of(&mut self, root: Option<&Root>, selector: &Selector) -> Result<Digest> {
        match self.pick_all(root, selector)? {
            None => self.whole(root, &selector.path, selector.follow_links),
            Some((bases, picked)) => {
                self.add_up(root, &bases, selector.is_wild(), selector, picked)
            }
        }
    }

    /// The paths that are selected one by one; nothing where a whole path is meant.
    pub(crate) fn picked(
        &mut self,
        root: Option<&Root>,
        selector: &Selector,
    ) -> Result<Option<Vec<PathBuf>>> {
        let picked = self.pick_all(root, selector)?;
        Ok(picked.map(|(_, picked)| picked.into_iter().map(|one| one.path).collect()))
    }

    /// What is selected one by one, and where the looking began; nothing where a whole path
    /// is meant.
    fn pick_all(
        &mut self,
        root: Option<&Root>,
        selector: &Selector,
    ) -> Result<Option<(Vec<PathBuf>, Vec<Included>)>> {
        let wildcard = selector.is_wild();
        if !wildcard && selector.include.is_empty() && selector.exclude.is_empty() {
            return Ok(None);
        }
        let mut picking = Picking {
            filter: Filter::new(&selector.include, &selector.exclude)?,
            pending: Vec::new(),
            picked: Vec::new(),
            read: false,
        };
        let bases = if wildcard {
            self.matching(root, &selector.path)?
        } else {
            let found = self.resolve(root, &selector.path, false)?;
            vec![found.ok_or_else(|| Error::NotFound(selector.path.clone()))?]
        };
        for base in &bases {
            self.pick(root, base, wildcard, selector, &mut picking)?;
        }
        Ok(Some((bases, picking.picked)))
    }

    fn whole(&mut self, root: Option<&Root>, path: &Path, follow: bool) -> Result<Digest> {
        let missing = || Error::NotFound(path.to_owned());
        let path = self.resolve(root, path, follow)?.ok_or_else(missing)?;
        if let Some((dir, changed)) = self.dir(root, &path)? {
            return sum::dir(root, &path, dir, changed);
        }
        match self.node_and_flag(root, &path)? {
            Some((Node::File(slot) | Node::Link { digest: slot, .. }, changed)) => {
                sum::file(root, &path, slot, changed)
            }
            _ => Err(missing()),
        }
    }

    /// Paths that match a wildcard path, sorted. Links are followed before the first
    /// wildcard and not after it.
    fn matching(&mut self, root: Option<&Root>, pattern: &Path) -> Result<Vec<PathBuf>> {
        let parts = steps(pattern);
        let wild = parts
            .iter()
            .position(|part| glob::has_wildcards(part.as_bytes()));
        let (plain, wild) = parts.split_at(wild.unwrap_or(parts.len()));
        let unescaped: PathBuf = plain.iter().map(|part| unescape(part.as_bytes())).collect();
        let Some(start) = self.resolve(root, &unescaped, true)? else {
            return Ok(Vec::new());
        };
        let mut found = vec![start];
        for part in wild {
            let mut next = Vec::new();
            for base in found {
                let Some((dir, changed)) = self.dir(root, &base)? else {
                    continue;
                };
                *changed |= dir.read(root, &base)?;
                for name in dir.children.iter().flatten().map(|(name, _)| name) {
                    let bad = || Error::Wildcard(pattern.display().to_string());
                    if glob::matches(part.as_bytes(), name.as_bytes()).ok_or_else(bad)? {
                        next.push(base.join(name));
                    }
                }
            }
            found = next;
        }
        Ok(found)
    }

    fn pick(
        &mut self,
        root: Option<&Root>,
        base: &Path,
        wildcard: bool,
        selector: &Selector,
        picking: &mut Picking,
    ) -> Result<()> {
        let name = base.file_name().filter(|_| wildcard).map(OsStr::as_bytes);
        let key = name.map_or_else(Vec::new, |name| [b"\0", name].concat());
        picking.pending.clear();
        let Some((dir, changed)) = self.dir(root, base)? else {
            // Patterns are about what is in a directory: a file is copied whatever they say.
            let key = if key.is_empty() { vec![0] } else { key };
            picking.take(Included {
                key,
                path: base.to_owned(),
            });
            return Ok(());
        };
        // A path with a slash at its end means what is in the directory only.
        let header = wildcard || !selector.path.as_os_str().as_bytes().ends_with(b"/");
        if header {
            let key = if key.is_empty() { vec![0] } else { key.clone() };
            picking.enter(
                Included {
                    key,
                    path: base.to_owned(),
                },
                picking.filter.judge("", &Above::default()).taken(),
            );
        }
        let walked = picking.walk(root, base, &key, "", dir, &Above::default());
        *changed |= std::mem::take(&mut picking.read);
        walked
    }

    fn add_up(
        &mut self,
        root: Option<&Root>,
        bases: &[PathBuf],
        wildcard: bool,
        selector: &Selector,
        picked: Vec<Included>,
    ) -> Result<Digest> {
        if picked.is_empty() {
            return Ok(Digest::of(b""));
        }
        let wanted: HashSet<PathBuf> = picked.iter().map(|one| one.path.clone()).collect();
        for base in bases {
            if let Some((dir, changed)) = self.dir(root, base)? {
                sum::some(root, base, dir, changed, &wanted)?;
            }
        }
        let mut hasher = Hasher::default();
        let alone = picked.len() == 1;
        for one in picked {
            let digest = self.one(root, &one.path, selector.follow_links)?;
            if alone && !wildcard && self.dir(root, &one.path)?.is_none() {
                return Ok(digest);
            }
            hasher.update(&one.key);
            hasher.update(digest.to_string().as_bytes());
        }
        Ok(hasher.finish())
    }

    /// The header of a directory, a file, or where a link leads.
    pub(crate) fn one(&mut self, root: Option<&Root>, path: &Path, follow: bool) -> Result<Digest> {
        if let Some((dir, changed)) = self.dir(root, path)? {
            return sum::file(root, path, &mut dir.header, changed);
        }
        if follow && matches!(self.node(root, path)?, Some(Node::Link { .. })) {
            match self.whole(root, path, true) {
                // A link to nowhere is copied as it is.
                Err(Error::NotFound(_) | Error::TooManyLinks(_)) => {}
                found => return found,
            }
        }
        self.whole(root, path, false)
    }
}

impl Picking {
    fn take(&mut self, one: Included) {
        self.picked.append(&mut self.pending);
        self.picked.push(one);
    }

    /// Goes into a directory: its header counts if it is selected itself or once
    /// something in it is.
    fn enter(&mut self, header: Included, taken: bool) {
        if taken {
            self.take(header);
        } else {
            self.pending.push(header);
        }
    }

    fn walk(
        &mut self,
        root: Option<&Root>,
        path: &Path,
        key: &[u8],
        relative: &str,
        dir: &mut Dir,
        above: &Above,
    ) -> Result<()> {
        self.read |= dir.read(root, path)?;
        for (name, node) in dir.children.iter_mut().flatten() {
            let path = path.join(name);
            let key = [key, b"\0", name.as_bytes()].concat();
            let name = name.to_string_lossy();
            let relative = if relative.is_empty() {
                name.into_owned()
            } else {
                format!("{relative}/{name}")
            };
            let judged = self.filter.judge(&relative, above);
            let taken = judged.taken();
            let Node::Dir(deeper) = node else {
                if taken {
                    self.take(Included { key, path });
                }
                continue;
            };
            if !taken && self.filter.nothing_in(&relative, &judged) {
                continue;
            }
            let depth = self.pending.len();
            self.enter(
                Included {
                    key: key.clone(),
                    path: path.clone(),
                },
                taken,
            );
            self.walk(root, &path, &key, &relative, deeper, &judged.here)?;
            self.pending.truncate(depth);
        }
        Ok(())
    }
}

fn unescape(part: &[u8]) -> std::ffi::OsString {
    let mut out = Vec::with_capacity(part.len());
    let mut bytes = part.iter();
    while let Some(byte) = bytes.next() {
        out.push(if *byte == b'\\' {
            *bytes.next().unwrap_or(byte)
        } else {
            *byte
        });
    }
    OsStr::from_bytes(&out).to_owned()
}
