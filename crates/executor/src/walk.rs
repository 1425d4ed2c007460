//! Finding (and making) a path inside a root that may be hostile.
//!
//! Each step opens one component without following it and keeps the handle, so
//! nothing that changes underneath can lead the walk out of the root. Unlike
//! `openat2`, it also says where a path *would* be: through dangling symlinks, and
//! with the names that are still missing.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};

/// As many symlinks as the kernel follows.
const MOST_LINKS: usize = 40;

/// How often others may be faster to make the same path.
const MOST_TRIES: usize = 100;

/// Where a path leads.
pub(crate) struct Place {
    /// Handle (`O_PATH`) of the deepest thing that is there.
    pub(crate) at: OwnedFd,
    /// Names missing beneath it; empty when the path is there.
    pub(crate) missing: Vec<OsString>,
    /// Whether `at` is a directory.
    pub(crate) is_dir: bool,
}

/// Walks `path` inside `root`, following symlinks as if `root` were `/`.
pub(crate) fn find(root: BorrowedFd<'_>, path: &str) -> io::Result<Place> {
    let mut above: Vec<OwnedFd> = Vec::new();
    let mut at = open_step(root, OsStr::new("."))?;
    let mut is_dir = true;
    let mut todo: VecDeque<OsString> = components(path.as_bytes());
    let mut links = 0;
    while let Some(name) = todo.pop_front() {
        if !is_dir {
            return Err(io::Error::from_raw_os_error(libc::ENOTDIR));
        }
        if name == ".." {
            if let Some(parent) = above.pop() {
                at = parent;
            }
            continue;
        }
        let next = match open_step(at.as_fd(), &name) {
            Ok(next) => next,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let missing = lexical(name, todo);
                return Ok(Place {
                    at,
                    missing,
                    is_dir: true,
                });
            }
            Err(error) => return Err(error),
        };
        match FileType::from_raw_mode(rustix::fs::fstat(&next)?.st_mode) {
            FileType::Symlink => {
                links += 1;
                if links > MOST_LINKS {
                    return Err(io::Error::from_raw_os_error(libc::ELOOP));
                }
                let target = rustix::fs::readlinkat(&next, "", Vec::new())?.into_bytes();
                if target.first() == Some(&b'/') {
                    above.clear();
                    at = open_step(root, OsStr::new("."))?;
                }
                for part in components(&target).into_iter().rev() {
                    todo.push_front(part);
                }
            }
            kind => {
                is_dir = kind == FileType::Directory;
                above.push(std::mem::replace(&mut at, next));
            }
        }
    }
    Ok(Place {
        at,
        missing: Vec::new(),
        is_dir,
    })
}

/// What is still to be made, `..` taken away by name: nothing there can be a symlink.
fn lexical(first: OsString, rest: VecDeque<OsString>) -> Vec<OsString> {
    let mut names = vec![first];
    for name in rest {
        if name == ".." {
            names.pop();
        } else {
            names.push(name);
        }
    }
    names
}

fn components(path: &[u8]) -> VecDeque<OsString> {
    path.split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .map(|part| OsString::from_vec(part.to_vec()))
        .collect()
}

fn open_step(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?)
}

/// What a made path ends in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaf {
    Dir,
    File,
}

/// Something made by [`make`]: the directory it is in, and its name there.
pub(crate) struct Made {
    pub(crate) parent: OwnedFd,
    pub(crate) name: OsString,
}

/// Makes the missing names of `place` (directories, the last as `leaf` says) and gives
/// a handle of the last, with a note of each thing made.
pub(crate) fn make(place: Place, leaf: Leaf, mode: u32) -> io::Result<(OwnedFd, Vec<Made>)> {
    let mut made = Vec::new();
    let at = make_noting(place, leaf, mode, &mut made)?;
    Ok((at, made))
}

fn make_noting(place: Place, leaf: Leaf, mode: u32, made: &mut Vec<Made>) -> io::Result<OwnedFd> {
    let mut at = place.at;
    let last = place.missing.len().saturating_sub(1);
    for (index, name) in place.missing.into_iter().enumerate() {
        if index == last && leaf == Leaf::File {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            rustix::fs::openat(&at, &name, flags, Mode::from_raw_mode(0o644))?;
        } else {
            rustix::fs::mkdirat(&at, &name, Mode::from_raw_mode(mode))?;
        }
        let next = open_step(at.as_fd(), &name)?;
        made.push(Made {
            parent: std::mem::replace(&mut at, next),
            name,
        });
    }
    Ok(at)
}

/// [`find`] and [`make`] in a tree that others may be changing, such as a cache that several
/// containers have: what somebody else was faster to make, or took away, is looked for again.
/// Gives the handle, and what was missing and made here.
pub(crate) fn find_or_make(
    root: BorrowedFd<'_>,
    path: &str,
    leaf: Leaf,
    mode: u32,
) -> io::Result<(OwnedFd, Vec<Made>)> {
    let mut made = Vec::new();
    let mut tries = 0;
    loop {
        match make_noting(find(root, path)?, leaf, mode, &mut made) {
            Err(error) if is_beaten(&error) && tries < MOST_TRIES => tries += 1,
            done => return Ok((done?, made)),
        }
    }
}

fn is_beaten(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound
    )
}

impl Made {
    /// Takes it away again if it is still an empty directory or an empty file, and
    /// puts the times of its directory back.
    pub(crate) fn remove_if_empty(&self) -> io::Result<()> {
        let stat = match rustix::fs::statat(&self.parent, &self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(rustix::io::Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let flags = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => AtFlags::REMOVEDIR,
            FileType::RegularFile if stat.st_size == 0 => AtFlags::empty(),
            _ => return Ok(()),
        };
        keeping_times(self.parent.as_fd(), || {
            match rustix::fs::unlinkat(&self.parent, &self.name, flags) {
                Err(error) if error != rustix::io::Errno::NOTEMPTY => Err(error.into()),
                _ => Ok(()),
            }
        })
    }
}

/// Runs `change` and gives the directory `dir` its times from before.
pub(crate) fn keeping_times<T>(
    dir: BorrowedFd<'_>,
    change: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    let before = rustix::fs::fstat(dir)?;
    let result = change()?;
    let times = rustix::fs::Timestamps {
        last_access: rustix::fs::Timespec {
            tv_sec: before.st_atime,
            tv_nsec: before.st_atime_nsec.cast_signed(),
        },
        last_modification: rustix::fs::Timespec {
            tv_sec: before.st_mtime,
            tv_nsec: before.st_mtime_nsec.cast_signed(),
        },
    };
    // An `O_PATH` handle cannot be given to `futimens`; "." beneath it can.
    rustix::fs::utimensat(dir, ".", &times, AtFlags::empty())?;
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn names(place: &Place) -> Vec<&str> {
        place
            .missing
            .iter()
            .map(|name| name.to_str().unwrap())
            .collect()
    }

    /// Rows: X02
    #[test]
    fn no_link_leads_out_of_the_root() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::create_dir(outside.path().join("secret")).unwrap();
        let dir = outside.path().join("root");
        std::fs::create_dir(&dir).unwrap();
        symlink("../secret", dir.join("up")).unwrap();
        symlink(outside.path().join("secret"), dir.join("absolute")).unwrap();
        symlink("loop", dir.join("loop")).unwrap();
        symlink("/var/dangling", dir.join("dangling")).unwrap();
        let root = rustix::fs::open(&dir, OFlags::DIRECTORY, Mode::empty()).unwrap();
        assert_eq!(names(&find(root.as_fd(), "/up").unwrap()), ["secret"]);
        assert_eq!(
            names(&find(root.as_fd(), "dangling/x").unwrap()),
            ["var", "dangling", "x"]
        );
        assert_eq!(
            names(&find(root.as_fd(), "../../../secret").unwrap()),
            ["secret"]
        );
        assert!(!find(root.as_fd(), "/absolute").unwrap().missing.is_empty());
        assert_eq!(
            find(root.as_fd(), "loop").err().unwrap().raw_os_error(),
            Some(libc::ELOOP)
        );
    }

    /// Containers that share a cache make their mount points in it at the same time.
    ///
    /// Rows: X02, X03
    #[test]
    fn who_was_not_first_takes_what_is_there() {
        for round in 0..200 {
            let dir = tempfile::tempdir().unwrap();
            let root = rustix::fs::open(dir.path(), OFlags::DIRECTORY, Mode::empty()).unwrap();
            let leaf = [Leaf::Dir, Leaf::File][round % 2];
            let together = std::sync::Barrier::new(4);
            let made: usize = std::thread::scope(|scope| {
                let one = || {
                    together.wait();
                    let (at, made) = find_or_make(root.as_fd(), "/a/b/c", leaf, 0o755).unwrap();
                    let kind = FileType::from_raw_mode(rustix::fs::fstat(&at).unwrap().st_mode);
                    assert_eq!(kind == FileType::Directory, leaf == Leaf::Dir);
                    made.len()
                };
                let all: Vec<_> = (0..4).map(|_| scope.spawn(one)).collect();
                all.into_iter().map(|one| one.join().unwrap()).sum()
            });
            assert!(made <= 3, "{made} of three things were made");
        }
        // What can never be made is not tried for ever.
        let dir = tempfile::tempdir().unwrap();
        let root = rustix::fs::open(dir.path(), OFlags::DIRECTORY, Mode::empty()).unwrap();
        std::fs::write(dir.path().join("f"), "").unwrap();
        assert!(find_or_make(root.as_fd(), "/f/x", Leaf::Dir, 0o755).is_err());
    }

    /// Rows: X02
    #[test]
    fn what_was_made_goes_again_and_the_directory_keeps_its_times() {
        let dir = tempfile::tempdir().unwrap();
        let root = rustix::fs::open(dir.path(), OFlags::DIRECTORY, Mode::empty()).unwrap();
        let before = std::fs::metadata(dir.path()).unwrap().modified().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(15));
        let place = find(root.as_fd(), "/etc/hosts").unwrap();
        let made = keeping_times(root.as_fd(), || make(place, Leaf::File, 0o755))
            .unwrap()
            .1;
        assert!(dir.path().join("etc/hosts").is_file());
        for one in made.iter().rev() {
            one.remove_if_empty().unwrap();
        }
        assert!(!dir.path().join("etc").exists());
        assert_eq!(
            std::fs::metadata(dir.path()).unwrap().modified().unwrap(),
            before
        );
    }
}
