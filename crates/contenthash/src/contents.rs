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
///
/// What is known of a directory's names is always all of them: a change in one whose
/// names were never read only makes what was known of it void.
#[derive(Clone, Debug)]
pub struct Contents {
    pub(crate) top: Dir,
    /// More or else is known than when it was made, read or last saved.
    pub(crate) changed: bool,
}

impl PartialEq for Contents {
    fn eq(&self, other: &Contents) -> bool {
        self.top == other.top
    }
}

impl Eq for Contents {}

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
            changed: false,
        }
    }

    /// An empty tree, into which files come one by one from a client
    /// ([`Contents::put`]). Nobody sends the facts of its top directory, so that counts
    /// as empty.
    pub fn of_sent_files() -> Contents {
        Contents {
            top: Dir {
                header: Some(Digest::of(b"")),
                digest: None,
                children: Some(BTreeMap::new()),
            },
            changed: true,
        }
    }

    /// A file came or changed; `digest` is that of its header and bytes. Returns
    /// whether that is news.
    pub fn put(&mut self, path: &Path, header: &Header, digest: Digest) -> bool {
        if self.is_known(path, header.kind, digest) {
            return false;
        }
        let Some(parent) = self.invalidate(path) else {
            return true;
        };
        let Some(name) = path.file_name() else {
            return true;
        };
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
        true
    }

    /// `path` is another name of the file at `target` now, and so has its digest.
    pub fn put_link(&mut self, path: &Path, target: &Path) {
        let digest = match self.peek(target) {
            Some(Node::File(digest)) => *digest,
            _ => None,
        };
        if digest.is_some()
            && matches!(self.peek(path), Some(Node::File(known)) if *known == digest)
        {
            return;
        }
        if let (Some(parent), Some(name)) = (self.invalidate(path), path.file_name()) {
            parent.insert(name.to_owned(), Node::File(digest));
        }
    }

    /// A file, or a directory with all in it, is gone.
    pub fn remove(&mut self, path: &Path) {
        if self.peek(path).is_none() {
            return;
        }
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
            self.changed = true;
            return Ok(());
        };
        let top = self.first_unknown(path);
        let (path, name) = match &top {
            Some(top) => (top.as_path(), top.file_name().unwrap_or(name)),
            None => (path, name),
        };
        let Some(beside) = self.invalidate(path) else {
            return Ok(());
        };
        let node = match root.lstat(path) {
            Ok(stat) => Some(unhashed(root, path, stat.kind)?),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                None
            }
            Err(error) => return Err(Error::io(path)(error)),
        };
        match node {
            Some(node) => drop(beside.insert(name.to_owned(), node)),
            None => drop(beside.remove(name)),
        }
        Ok(())
    }

    /// How many names it knows.
    pub fn names(&self) -> usize {
        let mut names = 0;
        let mut dirs = vec![&self.top];
        while let Some(dir) = dirs.pop() {
            let children = dir.children.iter().flat_map(BTreeMap::values);
            dirs.extend(children.filter_map(|node| match node {
                Node::Dir(dir) => Some(dir),
                _ => None,
            }));
            names += dir.children.as_ref().map_or(0, BTreeMap::len);
        }
        names
    }

    /// The outermost directory above `path` that is not known to be one.
    fn first_unknown(&self, path: &Path) -> Option<PathBuf> {
        let mut dir = &self.top;
        let mut so_far = PathBuf::new();
        for step in names(path.parent()?) {
            so_far.push(step);
            match dir.children.as_ref()?.get(step) {
                Some(Node::Dir(next)) => dir = next,
                _ => return Some(so_far),
            }
        }
        None
    }

    /// Whether just this is known of `path` already.
    fn is_known(&self, path: &Path, kind: FileKind, digest: Digest) -> bool {
        let known = match self.peek(path) {
            Some(Node::Dir(dir)) if kind == FileKind::Dir => dir.header,
            Some(Node::Link { digest, .. }) if kind == FileKind::Symlink => *digest,
            Some(Node::File(digest)) if !matches!(kind, FileKind::Dir | FileKind::Symlink) => {
                *digest
            }
            _ => None,
        };
        known == Some(digest)
    }

    /// What is known of a path, without looking at the disk.
    fn peek(&self, path: &Path) -> Option<&Node> {
        let mut dir = &self.top;
        for step in names(path.parent()?) {
            match dir.children.as_ref()?.get(step)? {
                Node::Dir(next) => dir = next,
                _ => return None,
            }
        }
        dir.children.as_ref()?.get(path.file_name()?)
    }

    /// Marks the directories above `path` as changed. Gives the names beside it, if
    /// they were ever read.
    fn invalidate(&mut self, path: &Path) -> Option<&mut BTreeMap<OsString, Node>> {
        self.changed = true;
        let mut dir = &mut self.top;
        dir.digest = None;
        for step in names(path.parent()?) {
            // Where the names were not read nothing below can be known either.
            let children = dir.children.as_mut()?;
            if !matches!(children.get(step), Some(Node::Dir(_))) {
                // It must have become a directory, with no one knows what in it.
                children.insert(step.to_owned(), Node::Dir(Dir::default()));
            }
            match children.get_mut(step) {
                Some(Node::Dir(next)) => dir = next,
                _ => unreachable!("it was just made one"),
            }
            dir.digest = None;
        }
        dir.children.as_mut()
    }

    /// Follows links in `path` (the last one too, if `last`) inside the tree. Gives
    /// the steps without any link, or `None` when there is nothing.
    pub(crate) fn resolve(
        &mut self,
        root: Option<&Root>,
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
    pub(crate) fn node(&mut self, root: Option<&Root>, path: &Path) -> Result<Option<&mut Node>> {
        Ok(self.node_and_flag(root, path)?.map(|(node, _)| node))
    }

    /// The same, with the mark to be set when more of it becomes known.
    pub(crate) fn node_and_flag(
        &mut self,
        root: Option<&Root>,
        path: &Path,
    ) -> Result<Option<(&mut Node, &mut bool)>> {
        let Contents { top, changed } = self;
        let steps = steps(path);
        let Some((name, parents)) = steps.split_last() else {
            return Ok(None);
        };
        let mut dir = top;
        let mut so_far = PathBuf::new();
        for step in parents {
            *changed |= dir.read(root, &so_far)?;
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
        *changed |= dir.read(root, &so_far)?;
        Ok(dir
            .children
            .as_mut()
            .and_then(|children| children.get_mut(name))
            .map(|node| (node, changed)))
    }

    /// The directory at a path without links, with the mark to be set when more of it
    /// becomes known.
    pub(crate) fn dir(
        &mut self,
        root: Option<&Root>,
        path: &Path,
    ) -> Result<Option<(&mut Dir, &mut bool)>> {
        if names(path).next().is_none() {
            return Ok(Some((&mut self.top, &mut self.changed)));
        }
        match self.node_and_flag(root, path)? {
            Some((Node::Dir(dir), changed)) => Ok(Some((dir, changed))),
            _ => Ok(None),
        }
    }
}

impl Dir {
    /// Reads the names, if that was not done before. Returns whether it did.
    pub(crate) fn read(&mut self, root: Option<&Root>, path: &Path) -> Result<bool> {
        if self.children.is_some() {
            return Ok(false);
        }
        let root = root.ok_or(Error::Unread)?;
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
        Ok(true)
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
fn names(path: &Path) -> impl Iterator<Item = &OsStr> {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name),
        _ => None,
    })
}

/// The same, to keep.
pub(crate) fn steps(path: &Path) -> Vec<OsString> {
    names(path).map(OsStr::to_owned).collect()
}

fn steps_with_parents(path: &Path) -> Vec<OsString> {
    path.components()
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
        .map(|part| part.as_os_str().to_owned())
        .collect()
}
