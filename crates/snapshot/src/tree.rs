//! A directory tree held open.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

/// A readable or writable directory tree: a plain directory, or a mount that no mount
/// table shows (it is gone with the last handle, whatever happens to the program).
#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
    mount: bool,
}

impl Tree {
    /// A plain directory.
    pub fn open_dir(path: impl AsRef<Path>) -> io::Result<Tree> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path.as_ref(), flags, Mode::empty())?;
        Ok(Tree { root, mount: false })
    }

    /// A directory that is open already.
    pub fn from_dir(root: OwnedFd) -> Tree {
        Tree { root, mount: false }
    }

    /// A detached mount, as `fsmount` or `open_tree` give it.
    pub fn from_mount(root: OwnedFd) -> Tree {
        Tree { root, mount: true }
    }

    /// Its root directory.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Whether it is a detached mount rather than a plain directory.
    pub fn is_mount(&self) -> bool {
        self.mount
    }
}
