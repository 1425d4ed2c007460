//! What the digest of a part of a tree is made of, name by name: to say afterwards what changed.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use oci::Digest;
use stdx::sys::Root;

use crate::contents::{Contents, Dir, Node};
use crate::select::Selector;
use crate::{Error, Result};

/// A name, and what is known by a digest there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// From the top of the tree.
    pub path: PathBuf,
    /// A directory: its own facts, or all that is in it if `whole`.
    pub dir: bool,
    /// What is below is not listed but part of the digest.
    pub whole: bool,
    /// Of the facts and bytes.
    pub digest: Digest,
}

impl Contents {
    /// What [`Contents::digest`] of this part was made of. Directories are opened from the top
    /// while there are fewer than `limit` names; the others stand for what is in them. What
    /// was digested already costs no reading.
    pub fn list(&mut self, root: &Root, selector: &Selector, limit: usize) -> Result<Vec<Listed>> {
        self.digest(root, selector)?;
        let root = Some(root);
        if let Some(picked) = self.picked(root, selector)? {
            let mut listed = Vec::new();
            for path in picked.into_iter().take(limit) {
                let dir = self.dir(root, &path)?.is_some();
                let digest = self.one(root, &path, selector.follow_links)?;
                let whole = false;
                listed.push(Listed {
                    path,
                    dir,
                    whole,
                    digest,
                });
            }
            return Ok(listed);
        }
        let missing = || Error::NotFound(selector.path.clone());
        let path = self
            .resolve(root, &selector.path, selector.follow_links)?
            .ok_or_else(missing)?;
        if let Some((dir, _)) = self.dir(root, &path)? {
            return Ok(breadth_first(&path, dir, limit));
        }
        let digest = self.one(root, &path, false)?;
        Ok(vec![Listed {
            path,
            dir: false,
            whole: false,
            digest,
        }])
    }
}

fn breadth_first(path: &Path, top: &Dir, limit: usize) -> Vec<Listed> {
    let mut listed = Vec::new();
    let mut look = VecDeque::from([(path.to_owned(), top)]);
    while let Some((path, dir)) = look.pop_front() {
        let names = dir
            .children
            .as_ref()
            .map_or(0, std::collections::BTreeMap::len);
        let whole = listed.len() + look.len() + names >= limit;
        let digest = if whole { dir.digest } else { dir.header };
        listed.extend(digest.map(|digest| Listed {
            path: path.clone(),
            dir: true,
            whole,
            digest,
        }));
        if whole {
            continue;
        }
        for (name, node) in dir.children.iter().flatten() {
            let path = path.join(name);
            match node {
                Node::Dir(deeper) => look.push_back((path, deeper)),
                Node::File(digest) | Node::Link { digest, .. } => {
                    listed.extend(digest.map(|digest| Listed {
                        path,
                        dir: false,
                        whole: false,
                        digest,
                    }));
                }
            }
        }
    }
    listed
}
