//! A tree known by digests, as far as anybody has asked.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use oci::Digest;
use stdx::sys::{FileKind, Root};

use crate::{Error, Header, Result};

/// As many links in a row as BuildKit follows.
const MAX_LINKS: usize = 255;

/// What is in a directory tree, by digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    pub(crate) top: Dir,
}

/// One name in the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    File(Option<Digest>),
    Link {
        target: Vec<u8>,
        digest: Option<Digest>,
    },
    Dir(Dir),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dir {
    /// Of the directory's own facts.
    pub(crate) header: Option<Digest>,
    /// Of the header and everything in it.
    pub(crate) digest: Option<Digest>,
    /// `None` until the directory was read.
    pub(crate) children: Option<BTreeMap<OsString, Node>>,
}

impl Default for Contents {
    fn default() -> Contents {
        Contents::new()
    }
}

impl Contents {
    /// A tree nothing is known of yet.
    pub fn new() -> Contents {
        Contents {
            top: Dir::default(),
        }
    }

    /// A tree that came file by file from a client ([`Contents::put`]). Nobody sends
    /// the facts of its top directory, so that counts as empty.
    pub fn of_sent_files() -> Contents {
        Contents {
            top: Dir {
                header: Some(Digest::of(b"")),
                ..Dir::default()
            },
        }
    }

    /// A file came or changed; `digest` is that of its header and bytes.
    pub fn put(&mut self, path: &Path, header: &Header, digest: Digest) {
        let Some(parent) = self.invalidate(path) else {
            return;
        };
        let Some(name) = path.file_name() else { return };
        let node = match header.kind {
            FileKind::Dir => {
                // What is in a directory that was one already stays known.
                let children = match parent.remove(name) {
                    Some(Node::Dir(dir)) => dir.children,
                    _ => Some(BTreeMap::new()),
                };
                Node::Dir(Dir {
                    header: Some(digest),
                    digest: None,
                    children,
                })
            }
            FileKind::Symlink => Node::Link {
                target: header.link.clone(),
                digest: Some(digest),
            },
            _ => Node::File(Some(digest)),
        };
        parent.insert(name.to_owned(), node);
    }

    /// A file, or a directory with all in it, is gone.
    pub fn remove(&mut self, path: &Path) {
        if let (Some(parent), Some(name)) = (self.invalidate(path), path.file_name()) {
            parent.remove(name);
        }
    }

    /// Something at or below `path` changed in a way that is not known: what is there
    /// now is found out, and hashed when somebody asks.
    pub fn refresh(&mut self, root: &Root, path: &Path) -> Result<()> {
        let Some(name) = path.file_name() else {
            self.top.digest = None;
            self.top.children = None;
            return Ok(());
        };
        let node = match root.lstat(path) {
            Ok(stat) => Some(unhashed(root, path, stat.kind)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(Error::io(path)(error)),
        };
        if self.top.children.is_none() {
            return Ok(());
        }
        let Some(beside) = self.invalidate(path) else {
            return Ok(());
        };
        match node {
            Some(node) => drop(beside.insert(name.to_owned(), node)),
            None => drop(beside.remove(name)),
        }
        Ok(())
    }

    /// Marks the directories above `path` as changed; gives the names beside it.
    fn invalidate(&mut self, path: &Path) -> Option<&mut BTreeMap<OsString, Node>> {
        let mut dir = &mut self.top;
        dir.digest = None;
        let parents = steps(path.parent()?);
        for step in parents {
            let children = dir.children.get_or_insert_default();
            let next = children.entry(step).or_insert_with(|| {
                Node::Dir(Dir {
                    children: Some(BTreeMap::new()),
                    ..Dir::default()
                })
            });
            if !matches!(next, Node::Dir(_)) {
                *next = Node::Dir(Dir {
                    children: Some(BTreeMap::new()),
                    ..Dir::default()
                });
            }
            let Node::Dir(next) = next else {
                unreachable!("it was just made one")
            };
            next.digest = None;
            dir = next;
        }
        Some(dir.children.get_or_insert_default())
    }

    /// Follows links in `path` (the last one too, if `last`) inside the tree. Gives
    /// the steps without any link, or `None` when there is nothing.
    pub(crate) fn resolve(
        &mut self,
        root: &Root,
        path: &Path,
        last: bool,
    ) -> Result<Option<PathBuf>> {
        let mut rest: Vec<OsString> = steps_with_parents(path);
        rest.reverse();
        let mut here = PathBuf::new();
        let mut links = 0;
        while let Some(step) = rest.pop() {
            if step == ".." {
                here.pop();
                continue;
            }
            let next = here.join(&step);
            let target = match self.node(root, &next)? {
                None => return Ok(None),
                Some(Node::Link { target, .. }) if last || !rest.is_empty() => target.clone(),
                Some(Node::Dir(_)) => {
                    here = next;
                    continue;
                }
                Some(_) if rest.is_empty() => return Ok(Some(next)),
                Some(_) => return Ok(None),
            };
            links += 1;
            if links > MAX_LINKS {
                return Err(Error::TooManyLinks(path.to_owned()));
            }
            let target = Path::new(OsStr::from_bytes(&target));
            if target.has_root() {
                here = PathBuf::new();
            }
            rest.extend(steps_with_parents(target).into_iter().rev());
        }
        Ok(Some(here))
    }

    /// The node at a path without links, directories above it read as needed.
    /// `None` for a missing one; the top is never asked for.
    pub(crate) fn node(&mut self, root: &Root, path: &Path) -> Result<Option<&mut Node>> {
        let steps = steps(path);
        let Some((name, parents)) = steps.split_last() else {
            return Ok(None);
        };
        let mut dir = &mut self.top;
        let mut so_far = PathBuf::new();
        for step in parents {
            dir.read(root, &so_far)?;
            so_far.push(step);
            match dir
                .children
                .as_mut()
                .and_then(|children| children.get_mut(step))
            {
                Some(Node::Dir(next)) => dir = next,
                _ => return Ok(None),
            }
        }
        dir.read(root, &so_far)?;
        Ok(dir
            .children
            .as_mut()
            .and_then(|children| children.get_mut(name)))
    }

    /// The directory at a path without links.
    pub(crate) fn dir(&mut self, root: &Root, path: &Path) -> Result<Option<&mut Dir>> {
        if steps(path).is_empty() {
            return Ok(Some(&mut self.top));
        }
        match self.node(root, path)? {
            Some(Node::Dir(dir)) => Ok(Some(dir)),
            _ => Ok(None),
        }
    }
}

impl Dir {
    /// Reads the names, if that was not done before.
    pub(crate) fn read(&mut self, root: &Root, path: &Path) -> Result<()> {
        if self.children.is_some() {
            return Ok(());
        }
        let failed = || Error::io(path);
        let dir = match root.open_dir_nofollow(path) {
            Ok(dir) => dir,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NotFound(path.to_owned()));
            }
            Err(error) => return Err(failed()(error)),
        };
        let mut children = BTreeMap::new();
        for entry in dir.read_dir("").map_err(failed())? {
            let kind = match entry.kind {
                Some(kind) => kind,
                None => dir.lstat(&entry.name).map_err(failed())?.kind,
            };
            let node = match kind {
                FileKind::Dir => Node::Dir(Dir::default()),
                FileKind::Symlink => {
                    let target = dir.read_link(&entry.name).map_err(failed())?;
                    let target = target.into_os_string().as_bytes().to_vec();
                    Node::Link {
                        target,
                        digest: None,
                    }
                }
                _ => Node::File(None),
            };
            children.insert(entry.name, node);
        }
        self.children = Some(children);
        Ok(())
    }
}

fn unhashed(root: &Root, path: &Path, kind: FileKind) -> Result<Node> {
    Ok(match kind {
        FileKind::Dir => Node::Dir(Dir::default()),
        FileKind::Symlink => {
            let target = root.read_link(path).map_err(Error::io(path))?;
            let target = target.into_os_string().as_bytes().to_vec();
            Node::Link {
                target,
                digest: None,
            }
        }
        _ => Node::File(None),
    })
}

/// The plain names in a path; what climbs is dropped.
pub(crate) fn steps(path: &Path) -> Vec<OsString> {
    let plain = path
        .components()
        .filter(|part| matches!(part, Component::Normal(_)));
    plain.map(|part| part.as_os_str().to_owned()).collect()
}

fn steps_with_parents(path: &Path) -> Vec<OsString> {
    path.components()
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
        .map(|part| part.as_os_str().to_owned())
        .collect()
}
