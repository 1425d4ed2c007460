//! What is known of the received directory by content, kept in step with it.
//!
//! Files are hashed as they come, so nobody has to read them again to know them. The
//! facts hashed are the ones that were sent, with the owner the files have here.

use std::path::{Path, PathBuf};

use contenthash::{Contents, FileHasher, Header};
use proto::fsutil::types::Stat;
use stdx::sys::{FileKind, Root};

use super::Owner;
use crate::fsutil::from_go_mode;
use crate::{Error, Result};

/// Nothing is hashed without `known`.
pub(super) struct Hashes {
    known: Option<Contents>,
    owner: Owner,
    /// Further names of files, with the first ones. Those may still be on their way.
    links: Vec<(PathBuf, PathBuf)>,
}

/// A file some of whose bytes have come.
pub(super) struct Coming {
    hasher: FileHasher,
    size: u64,
}

impl Hashes {
    pub(super) fn new(known: Option<Contents>, owner: Owner) -> Hashes {
        Hashes {
            known,
            owner,
            links: Vec::new(),
        }
    }

    /// Something without bytes of its own is there. Returns whether that is news.
    pub(super) fn put(&mut self, path: &Path, stat: &Stat) -> Result<bool> {
        let Some(known) = &mut self.known else {
            return Ok(false);
        };
        let header = header(stat, self.owner)?;
        Ok(known.put(path, &header, header.digest()))
    }

    /// Begins a file.
    pub(super) fn begin(&self, stat: &Stat) -> Result<Option<Coming>> {
        let begin = |header: Header| Coming {
            hasher: header.hasher(),
            size: 0,
        };
        match self.known {
            None => Ok(None),
            Some(_) => Ok(Some(begin(header(stat, self.owner)?))),
        }
    }

    /// A file is here. One that has other than the told size (it changed while it was
    /// sent) is to be read again by whoever wants to know.
    pub(super) fn end(
        &mut self,
        root: &Root,
        path: &Path,
        stat: &Stat,
        coming: Option<Coming>,
    ) -> Result<()> {
        let (Some(known), Some(coming)) = (&mut self.known, coming) else {
            return Ok(());
        };
        let header = header(stat, self.owner)?;
        match coming.size == header.size {
            true => drop(known.put(path, &header, coming.hasher.finish())),
            false => known.refresh(root, path).map_err(hashing(path))?,
        }
        Ok(())
    }

    /// A file has another name.
    pub(super) fn link(&mut self, path: &Path, target: PathBuf) {
        if self.known.is_some() {
            self.links.push((path.to_owned(), target));
        }
    }

    /// What has the name is gone.
    pub(super) fn remove(&mut self, path: &Path) {
        if let Some(known) = &mut self.known {
            known.remove(path);
        }
    }

    /// Something happened there that nobody told of.
    pub(super) fn refresh(&mut self, root: &Root, path: &Path) -> Result<()> {
        match &mut self.known {
            Some(known) => known.refresh(root, path).map_err(hashing(path)),
            None => Ok(()),
        }
    }

    pub(super) fn finish(self) -> Option<Contents> {
        let mut known = self.known?;
        for (path, target) in self.links {
            known.put_link(&path, &target);
        }
        Some(known)
    }
}

impl Coming {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
    }
}

fn hashing(path: &Path) -> impl FnOnce(contenthash::Error) -> Error {
    move |error| {
        Error::io(
            format!("hashing {}", path.display()),
            std::io::Error::other(error),
        )
    }
}

fn header(stat: &Stat, owner: Owner) -> Result<Header> {
    let (kind, mode) = from_go_mode(stat.mode)?;
    let (uid, gid) = match owner {
        Owner::Fixed(uid, gid) => (uid, gid),
        Owner::AsSaid => (stat.uid, stat.gid),
        Owner::Ours => (
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        ),
    };
    let number = |number: i64| u64::try_from(number).unwrap_or_default();
    let device = |number: i64| u32::try_from(number).unwrap_or_default();
    let xattr = |xattr: &proto::fsutil::types::Xattr| (xattr.key.to_vec(), xattr.value.to_vec());
    Ok(Header {
        kind,
        mode,
        uid,
        gid,
        size: match kind {
            FileKind::File => number(stat.size),
            _ => 0,
        },
        link: match kind {
            FileKind::Symlink => stat.linkname.to_vec(),
            _ => Vec::new(),
        },
        device: (device(stat.devmajor), device(stat.devminor)),
        xattrs: match kind {
            FileKind::Symlink => Default::default(),
            _ => stat.xattrs.iter().map(xattr).collect(),
        },
    })
}
