//! A directory of our own in one hierarchy, and how it and what had to be made above it
//! go away again.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use super::{CONTROLLERS, Dir};

/// Parents that are ours alone: whoever finds one empty removes it, also when an
/// instance made it that did not live to do so.
const OURS: &[&str] = &["kiln", "kiln-runtime"];

/// A locked directory. Dropped, everything in it is killed, it goes, and so do the
/// directories above it that were made for it, unless someone else is in them.
pub(crate) struct Hold {
    dir: Dir,
    base: Dir,
    /// Innermost first.
    above: Vec<Dir>,
}

/// One directory that must not stay: handles to send to another process.
pub(crate) struct Left {
    pub(crate) parent: OwnedFd,
    pub(crate) name: String,
    pub(crate) dir: OwnedFd,
    /// Only when it is empty; else what is in it is killed.
    pub(crate) if_empty: bool,
}

impl Hold {
    /// Makes `path` beneath `root`, removes what dead instances left in it, and makes
    /// the directory `name` there, locked for as long as the handle (or a copy of it)
    /// is open anywhere.
    pub(crate) fn claim(root: BorrowedFd<'_>, path: &[String], name: &str) -> io::Result<Hold> {
        let mut tries = 0;
        loop {
            // Someone else's sweep, or their removing of an empty parent, may come
            // between two of these steps.
            match Hold::try_claim(root, path, name) {
                Err(_) if tries < 20 => std::thread::sleep(Duration::from_millis(2)),
                done => return done,
            }
            tries += 1;
        }
    }

    fn try_claim(root: BorrowedFd<'_>, path: &[String], name: &str) -> io::Result<Hold> {
        let mut above = Vec::new();
        let mut at = Dir::root(root)?;
        let ours = is_ours(path);
        for name in path {
            at.enable(CONTROLLERS);
            let (next, made) = at.make_or_find(name)?;
            if made || ours {
                let (parent, name, fd) = next.handles()?;
                above.insert(0, Dir::from_handles(parent, name, fd));
            }
            at = next;
        }
        at.enable(CONTROLLERS);
        at.sweep_unlocked();
        let dir = at.make(name)?;
        dir.lock()?;
        if !dir.is_linked() {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Hold {
            dir,
            base: at,
            above,
        })
    }

    /// Removes `path` if it is ours alone and empty; with `instances` first what dead
    /// ones left in it.
    pub(crate) fn sweep(root: BorrowedFd<'_>, path: &[String], instances: bool) {
        let mut found = Vec::new();
        let Ok(mut at) = Dir::root(root) else { return };
        for name in path {
            let Ok(next) = at.child(name) else { return };
            found.insert(0, std::mem::replace(&mut at, next));
        }
        if instances {
            at.sweep_unlocked();
        }
        if is_ours(path) {
            found.insert(0, at);
            found.iter().for_each(Dir::remove_if_empty);
        }
    }

    /// Our own directory.
    pub(crate) fn dir(&self) -> &Dir {
        &self.dir
    }

    /// The directory it is in.
    pub(crate) fn base(&self) -> &Dir {
        &self.base
    }

    /// What has to go when we are gone, in this order.
    pub(crate) fn left(&self) -> io::Result<Vec<Left>> {
        let one = |dir: &Dir, if_empty| {
            let (parent, name, dir) = dir.handles()?;
            Ok(Left {
                parent,
                name,
                dir,
                if_empty,
            })
        };
        let above = self.above.iter().map(|dir| one(dir, true));
        std::iter::once(one(&self.dir, false))
            .chain(above)
            .collect()
    }
}

fn is_ours(path: &[String]) -> bool {
    path.first()
        .is_some_and(|name| OURS.contains(&name.as_str()))
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.dir.kill_and_remove();
        for dir in &self.above {
            dir.remove_if_empty();
        }
    }
}

impl Left {
    /// Removes it.
    pub(crate) fn remove(self) {
        let dir = Dir::from_handles(self.parent, self.name, self.dir);
        match self.if_empty {
            true => dir.remove_if_empty(),
            false => dir.kill_and_remove(),
        }
    }
}
