//! Mount points made in the root filesystem for the run, and taken away after it.
//!
//! They are made and removed through handles of the directories they are in, opened
//! before the program ran: whatever it turned the path into, removal happens where
//! the stub was made and nowhere else.

use std::os::fd::BorrowedFd;

use crate::error::Error;
use crate::walk::{self, Leaf, Made};

/// The stubs of one run, removed when dropped.
pub(crate) struct Stubs {
    made: Vec<Vec<Made>>,
    /// Also remove directories made on the way to a mount point.
    recursive: bool,
}

/// A mount point that will be needed.
pub(crate) struct Wanted<'a> {
    pub(crate) target: &'a str,
    pub(crate) leaf: Leaf,
}

impl Stubs {
    /// Makes what is missing in `root`. Targets beneath an earlier target are left to
    /// the container: they belong to the tree mounted there.
    pub(crate) fn make(
        root: BorrowedFd<'_>,
        wanted: &[Wanted<'_>],
        recursive: bool,
    ) -> Result<Stubs, Error> {
        let mut stubs = Stubs {
            made: Vec::new(),
            recursive,
        };
        for (index, want) in wanted.iter().enumerate() {
            let covered = wanted[..index]
                .iter()
                .any(|other| is_beneath(want.target, other.target));
            if !covered {
                stubs.make_one(root, want)?;
            }
        }
        Ok(stubs)
    }

    /// For a tree that is never to be written, perhaps a layer shared by many: all mount
    /// points must be there.
    pub(crate) fn none_needed(root: BorrowedFd<'_>, wanted: &[Wanted<'_>]) -> Result<Stubs, Error> {
        for (index, want) in wanted.iter().enumerate() {
            let covered = wanted[..index]
                .iter()
                .any(|other| is_beneath(want.target, other.target));
            let place = walk::find(root, want.target);
            if !covered && place.is_ok_and(|place| !place.missing.is_empty()) {
                let reason = "it is missing and the root is read-only".to_string();
                return Err(Error::Target {
                    target: want.target.to_string(),
                    reason,
                });
            }
        }
        Ok(Stubs {
            made: Vec::new(),
            recursive: false,
        })
    }

    fn make_one(&mut self, root: BorrowedFd<'_>, want: &Wanted<'_>) -> Result<(), Error> {
        let failed = |source: std::io::Error| Error::Target {
            target: want.target.to_string(),
            reason: source.to_string(),
        };
        let place = walk::find(root, want.target).map_err(failed)?;
        if place.missing.is_empty() {
            return check_leaf(want, place.is_dir);
        }
        let parent = rustix::io::fcntl_dupfd_cloexec(&place.at, 3).map_err(|e| failed(e.into()))?;
        let (_, made) = walk::keeping_times(std::os::fd::AsFd::as_fd(&parent), || {
            walk::make(place, want.leaf, 0o755)
        })
        .map_err(failed)?;
        self.made.push(made);
        Ok(())
    }
}

/// Removes what is still empty: the mount points, and if asked also the directories
/// made on the way to them. What cannot be removed stays: it is inside the root
/// filesystem and harmless.
impl Drop for Stubs {
    fn drop(&mut self) {
        for made in self.made.iter().rev() {
            let most = if self.recursive { made.len() } else { 1 };
            for one in made.iter().rev().take(most) {
                if let Err(error) = one.remove_if_empty() {
                    tracing::warn!(name = ?one.name, %error, "mount stub stays");
                    break;
                }
            }
        }
    }
}

fn check_leaf(want: &Wanted<'_>, is_dir: bool) -> Result<(), Error> {
    let reason = match (want.leaf, is_dir) {
        (Leaf::Dir, false) => "it is there and not a directory",
        (Leaf::File, true) => "it is a directory, and the source is a file",
        _ => return Ok(()),
    };
    Err(Error::Target {
        target: want.target.to_string(),
        reason: reason.to_string(),
    })
}

fn is_beneath(path: &str, dir: &str) -> bool {
    let dir = dir.trim_end_matches('/');
    path.strip_prefix(dir)
        .is_some_and(|rest| rest.starts_with('/'))
}
