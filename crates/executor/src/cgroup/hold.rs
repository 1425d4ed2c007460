//! A directory of our own in one hierarchy, and how it and what had to be made above it
//! go away again.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
    above: Above,
}

/// Directories of one hierarchy that were not there before. Whoever leaves one last removes it,
/// also when another made it.
#[derive(Default)]
pub(crate) struct Made(Mutex<BTreeSet<Vec<String>>>);

/// Directories that go with what was made in them. Dropped, those that are empty are removed.
struct Above {
    /// Innermost first, with their paths.
    dirs: Vec<(Dir, Vec<String>)>,
    made: Arc<Made>,
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
    pub(crate) fn claim(
        root: BorrowedFd<'_>,
        path: &[String],
        name: &str,
        made: &Arc<Made>,
    ) -> io::Result<Hold> {
        let mut tries = 0;
        loop {
            // Someone else's sweep, or their removing of an empty parent, may come
            // between two of these steps.
            match Hold::try_claim(root, path, name, made) {
                Err(_) if tries < 20 => std::thread::sleep(Duration::from_millis(2)),
                done => return done,
            }
            tries += 1;
        }
    }

    fn try_claim(
        root: BorrowedFd<'_>,
        path: &[String],
        name: &str,
        made: &Arc<Made>,
    ) -> io::Result<Hold> {
        let mut above = Above {
            dirs: Vec::new(),
            made: made.clone(),
        };
        let mut at = Dir::root(root)?;
        let ours = is_ours(path);
        for (depth, name) in path.iter().enumerate() {
            at.enable(CONTROLLERS);
            let so_far = &path[..=depth];
            let (next, goes) = {
                // Under one lock, as removing is: else who removes the last one would forget
                // the next one, which has just been made.
                let mut made = made.lock();
                let (next, is_new) = at.make_or_find(name)?;
                if is_new {
                    made.insert(so_far.to_vec());
                }
                (next, ours || made.contains(so_far))
            };
            let again = next.again();
            if goes {
                above.dirs.insert(0, (next, so_far.to_vec()));
            }
            at = again?;
        }
        at.enable(CONTROLLERS);
        at.sweep_unlocked();
        let dir = at.make(name)?;
        if let Err(error) = dir.lock() {
            dir.remove_if_empty();
            return Err(error);
        }
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
            for dir in found {
                dir.remove_if_empty();
            }
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
        let above = self.above.dirs.iter().map(|(dir, _)| one(dir, true));
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
    }
}

impl Drop for Above {
    fn drop(&mut self) {
        for (dir, path) in &self.dirs {
            let mut made = self.made.lock();
            if dir.remove_if_empty() {
                made.remove(path);
            }
        }
    }
}

impl Made {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<Vec<String>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Left {
    /// Removes it.
    pub(crate) fn remove(self) {
        let dir = Dir::from_handles(self.parent, self.name, self.dir);
        match self.if_empty {
            true => drop(dir.remove_if_empty()),
            false => dir.kill_and_remove(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    /// What was made on the way goes again when the last part cannot be made, and what others are
    /// in stays until the last of them goes.
    #[test]
    fn privileged_a_failed_try_leaves_nothing() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let root = super::super::Parents::discover().v2.unwrap();
        let (made, top) = (Arc::default(), super::super::instance_name());
        let claim = |under: &str, name: &str| {
            let path = [top.clone(), under.to_owned()];
            Hold::claim(root.as_fd(), &path, name, &made)
        };
        let is_there = || Dir::root(root.as_fd()).unwrap().child(&top).is_ok();
        assert!(claim("a", "no/such").is_err());
        assert!(!is_there(), "after a failed try");
        let (first, second) = (claim("a", "x").unwrap(), claim("b", "y").unwrap());
        drop(first);
        assert!(is_there(), "the second is in it");
        drop(second);
        assert!(!is_there(), "after the last");
        assert!(made.lock().is_empty());
    }
}
