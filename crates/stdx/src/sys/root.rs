//! A directory held open, and what can be done beneath it.
//!
//! Every path is taken as one inside the directory: `/etc` and `../../etc` both
//! mean its own `etc`, and symbolic links in it are followed as if it were `/`
//! (openat2 with `RESOLVE_IN_ROOT`). Calls that make, change or remove a name
//! resolve the parent so and never follow the last component.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, ResolveFlags, Timestamps, Uid};
use rustix::io::Errno;

use super::{FileKind, Stat, Time};

/// A directory held open, and everything beneath it.
#[derive(Debug)]
pub struct Root(OwnedFd);

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The name alone.
    pub name: OsString,
    /// What it is, as the directory says; `None` when the file system does not tell.
    pub kind: Option<FileKind>,
}

/// A directory and a name in it that is not followed.
pub(super) struct At<'a> {
    dir: Held<'a>,
    pub(super) name: OsString,
}

enum Held<'a> {
    Here(BorrowedFd<'a>),
    Opened(OwnedFd),
}

impl At<'_> {
    pub(super) fn dir(&self) -> BorrowedFd<'_> {
        match &self.dir {
            Held::Here(dir) => *dir,
            Held::Opened(dir) => dir.as_fd(),
        }
    }
}

const DIRECTORY: OFlags = OFlags::DIRECTORY
    .union(OFlags::CLOEXEC)
    .union(OFlags::RDONLY);
const NAME_ONLY: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);
/// As many links in a row as the kernel allows.
const MAX_LINKS: usize = 40;

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Root {
    fn from(fd: OwnedFd) -> Root {
        Root(fd)
    }
}

impl From<Root> for OwnedFd {
    fn from(root: Root) -> OwnedFd {
        root.0
    }
}

/// Opening and reading.
impl Root {
    /// Opens a directory of the host by its path, following links.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Root> {
        Ok(Root(rustix::fs::open(
            path.as_ref(),
            DIRECTORY,
            Mode::empty(),
        )?))
    }

    /// A root over a directory that is open already (an `O_PATH` handle will do).
    pub fn from_fd(fd: OwnedFd) -> Root {
        Root(fd)
    }

    /// A second handle to the same directory.
    pub fn try_clone(&self) -> io::Result<Root> {
        Ok(Root(self.0.try_clone()?))
    }

    /// Opens `path` with any flags, following links inside the root.
    pub fn open_with(&self, path: impl AsRef<Path>, flags: OFlags) -> io::Result<OwnedFd> {
        Ok(self.resolve_with(path.as_ref(), flags)?)
    }

    /// An `O_PATH` handle to what `path` leads to, links followed.
    pub fn resolve(&self, path: impl AsRef<Path>) -> io::Result<OwnedFd> {
        self.open_with(path, NAME_ONLY)
    }

    /// An `O_PATH` handle to `path` itself, even if it is a link.
    pub fn resolve_nofollow(&self, path: impl AsRef<Path>) -> io::Result<OwnedFd> {
        self.open_with(path, NAME_ONLY | OFlags::NOFOLLOW)
    }

    /// Opens a regular file for reading, following links inside the root.
    /// Anything that is no regular file is refused (a pipe would block us).
    pub fn open_file(&self, path: impl AsRef<Path>) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = self.open_with(path, flags)?;
        if !Stat::from(rustix::fs::fstat(&fd)?).is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a regular file",
            ));
        }
        Ok(File::from(fd))
    }

    /// Opens a directory beneath, as a root of its own.
    pub fn open_dir(&self, path: impl AsRef<Path>) -> io::Result<Root> {
        Ok(Root(self.open_with(path, DIRECTORY)?))
    }

    /// Opens a directory beneath unless its last component is a link.
    pub fn open_dir_nofollow(&self, path: impl AsRef<Path>) -> io::Result<Root> {
        Ok(Root(self.open_with(path, DIRECTORY | OFlags::NOFOLLOW)?))
    }

    /// The directory that holds `path`, and the last component, not followed.
    /// The name is `.` when the path is the root or ends in `..`.
    pub fn parent(&self, path: impl AsRef<Path>) -> io::Result<(Root, OsString)> {
        let at = self.at(path.as_ref())?;
        let dir = match at.dir {
            Held::Here(dir) => dir.try_clone_to_owned()?,
            Held::Opened(dir) => dir,
        };
        Ok((Root(dir), at.name))
    }

    /// What `path` is, links followed.
    pub fn stat(&self, path: impl AsRef<Path>) -> io::Result<Stat> {
        Ok(rustix::fs::fstat(self.resolve(path)?)?.into())
    }

    /// What `path` itself is, even if it is a link.
    pub fn lstat(&self, path: impl AsRef<Path>) -> io::Result<Stat> {
        let at = self.at(path.as_ref())?;
        Ok(rustix::fs::statat(at.dir(), &at.name, AtFlags::SYMLINK_NOFOLLOW)?.into())
    }

    /// Where a link points.
    pub fn read_link(&self, path: impl AsRef<Path>) -> io::Result<PathBuf> {
        let at = self.at(path.as_ref())?;
        let target = rustix::fs::readlinkat(at.dir(), &at.name, Vec::new())?;
        Ok(PathBuf::from(OsString::from_vec(target.into_bytes())))
    }

    /// The names in a directory, in the order the file system has them.
    pub fn read_dir(&self, path: impl AsRef<Path>) -> io::Result<Vec<DirEntry>> {
        let dir = self.open_dir(path)?;
        let mut entries = Vec::new();
        for_each_entry(dir.as_fd(), |name, kind| {
            entries.push(DirEntry {
                name: name.to_owned(),
                kind,
            });
        })?;
        Ok(entries)
    }

    /// Like [`Root::read_dir`], sorted by name as bytes.
    pub fn read_dir_sorted(&self, path: impl AsRef<Path>) -> io::Result<Vec<DirEntry>> {
        let mut entries = self.read_dir(path)?;
        entries.sort_by(|a, b| a.name.as_bytes().cmp(b.name.as_bytes()));
        Ok(entries)
    }

    /// `path` with every link in it followed inside the root, relative to the
    /// root. Components that do not exist (and those after them) stay as they are.
    pub fn canonical(&self, path: impl AsRef<Path>) -> io::Result<PathBuf> {
        let mut rest: Vec<OsString> = components(path.as_ref());
        rest.reverse();
        let mut done = PathBuf::new();
        let mut links = 0;
        while let Some(name) = rest.pop() {
            if name == ".." {
                done.pop();
                continue;
            }
            let next = done.join(&name);
            match self.read_link(&next) {
                Ok(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Errno::LOOP.into());
                    }
                    if target.has_root() {
                        done = PathBuf::new();
                    }
                    rest.extend(components(&target).into_iter().rev());
                }
                // Not a link, or not there: it stays.
                Err(error) if is_one_of(&error, &[Errno::INVAL, Errno::NOENT, Errno::NOTDIR]) => {
                    done = next;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn resolve_with(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        loop {
            match rustix::fs::openat2(&self.0, path, flags, Mode::empty(), how) {
                // A rename or mount happened while the kernel walked; it asks to try again.
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other,
            }
        }
    }

    pub(super) fn at(&self, path: &Path) -> io::Result<At<'_>> {
        let Some(name) = path.file_name() else {
            // The root itself, or something that ends in `..`.
            let dir = if components(path).is_empty() {
                Held::Here(self.0.as_fd())
            } else {
                Held::Opened(self.resolve_with(path, DIRECTORY | OFlags::PATH)?)
            };
            return Ok(At {
                dir,
                name: ".".into(),
            });
        };
        let parent = path.parent().unwrap_or(Path::new(""));
        let dir = if components(parent).is_empty() {
            Held::Here(self.0.as_fd())
        } else {
            Held::Opened(self.resolve_with(parent, DIRECTORY | OFlags::PATH)?)
        };
        Ok(At {
            dir,
            name: name.to_owned(),
        })
    }

    pub(super) fn borrow_entries(dir: BorrowedFd<'_>) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for_each_entry(dir, |name, _| names.push(name.to_owned()))?;
        Ok(names)
    }
}

/// Making, changing and removing. None of these follows the last component.
impl Root {
    /// Makes a new file for writing with exactly this mode; what is there
    /// already is an error.
    pub fn create_file(&self, path: impl AsRef<Path>, mode: u32) -> io::Result<File> {
        let at = self.at(path.as_ref())?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW;
        let wanted = Mode::from_raw_mode(mode);
        let fd = rustix::fs::openat(at.dir(), &at.name, flags | OFlags::CLOEXEC, Mode::RWXU)?;
        rustix::fs::fchmod(&fd, wanted)?;
        Ok(File::from(fd))
    }

    /// Makes a directory with exactly this mode, whatever the umask.
    pub fn mkdir(&self, path: impl AsRef<Path>, mode: u32) -> io::Result<()> {
        let at = self.at(path.as_ref())?;
        make_dir(at.dir(), &at.name, mode)
    }

    /// Makes a directory and the missing ones above it, following links inside
    /// the root, dangling ones too. Gives the paths of those it made.
    pub fn create_dir_all(&self, path: impl AsRef<Path>, mode: u32) -> io::Result<Vec<PathBuf>> {
        if self
            .resolve_with(path.as_ref(), DIRECTORY | OFlags::PATH)
            .is_ok()
        {
            return Ok(Vec::new());
        }
        let mut made = Vec::new();
        let mut here = self.try_clone()?;
        let mut so_far = PathBuf::new();
        for name in components(&self.canonical(path)?) {
            so_far.push(&name);
            match make_dir(here.as_fd(), &name, mode) {
                Ok(()) => made.push(so_far.clone()),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
            here = here.open_dir_nofollow(&name)?;
        }
        Ok(made)
    }

    /// Makes a symbolic link at `path` that says `target`, whatever that is.
    pub fn symlink(&self, target: impl AsRef<Path>, path: impl AsRef<Path>) -> io::Result<()> {
        let at = self.at(path.as_ref())?;
        Ok(rustix::fs::symlinkat(target.as_ref(), at.dir(), &at.name)?)
    }

    /// Gives the file at `existing` (a link is not followed) a second name.
    pub fn link(&self, existing: impl AsRef<Path>, path: impl AsRef<Path>) -> io::Result<()> {
        let from = self.at(existing.as_ref())?;
        let to = self.at(path.as_ref())?;
        Ok(rustix::fs::linkat(
            from.dir(),
            &from.name,
            to.dir(),
            &to.name,
            AtFlags::empty(),
        )?)
    }

    /// Makes a device, pipe or socket with exactly this mode.
    pub fn mknod(
        &self,
        path: impl AsRef<Path>,
        kind: FileKind,
        mode: u32,
        device: (u32, u32),
    ) -> io::Result<()> {
        let at = self.at(path.as_ref())?;
        let dev = rustix::fs::makedev(device.0, device.1);
        let mode_now = Mode::from_raw_mode(mode);
        rustix::fs::mknodat(at.dir(), &at.name, kind.to_rustix(), mode_now, dev)?;
        change_mode(at.dir(), &at.name, mode)
    }

    /// Makes what overlayfs takes for "the file below is gone".
    pub fn whiteout(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let at = self.at(path.as_ref())?;
        let kind = FileKind::CharDevice.to_rustix();
        Ok(rustix::fs::mknodat(
            at.dir(),
            &at.name,
            kind,
            Mode::empty(),
            0,
        )?)
    }

    /// Removes a name that is no directory.
    pub fn unlink(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let at = self.at(path.as_ref())?;
        Ok(rustix::fs::unlinkat(at.dir(), &at.name, AtFlags::empty())?)
    }

    /// Removes an empty directory.
    pub fn rmdir(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let at = self.at(path.as_ref())?;
        Ok(rustix::fs::unlinkat(
            at.dir(),
            &at.name,
            AtFlags::REMOVEDIR,
        )?)
    }

    /// Moves a name, replacing what has the new one.
    pub fn rename(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
        let from = self.at(from.as_ref())?;
        let to = self.at(to.as_ref())?;
        Ok(rustix::fs::renameat(
            from.dir(),
            &from.name,
            to.dir(),
            &to.name,
        )?)
    }

    /// Sets owner and group. Clears setuid and setgid, so set the mode after it.
    pub fn chown(&self, path: impl AsRef<Path>, uid: u32, gid: u32) -> io::Result<()> {
        let at = self.at(path.as_ref())?;
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        Ok(rustix::fs::chownat(
            at.dir(),
            &at.name,
            Some(uid),
            Some(gid),
            flags,
        )?)
    }

    /// Sets the permission bits. A link has none: nothing happens to it.
    pub fn chmod(&self, path: impl AsRef<Path>, mode: u32) -> io::Result<()> {
        let at = self.at(path.as_ref())?;
        change_mode(at.dir(), &at.name, mode)
    }

    /// Sets the times of last read and last change.
    pub fn set_times(&self, path: impl AsRef<Path>, atime: Time, mtime: Time) -> io::Result<()> {
        let at = self.at(path.as_ref())?;
        let times = Timestamps {
            last_access: atime.timespec(),
            last_modification: mtime.timespec(),
        };
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        Ok(rustix::fs::utimensat(at.dir(), &at.name, &times, flags)?)
    }
}

fn components(path: &Path) -> Vec<OsString> {
    path.components()
        .filter(|c| matches!(c, Component::Normal(_) | Component::ParentDir))
        .map(|c| c.as_os_str().to_owned())
        .collect()
}

fn is_one_of(error: &io::Error, wanted: &[Errno]) -> bool {
    wanted
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

fn for_each_entry(
    dir: BorrowedFd<'_>,
    mut each: impl FnMut(&OsStr, Option<FileKind>),
) -> io::Result<()> {
    let mut entries = rustix::fs::Dir::read_from(dir)?;
    while let Some(entry) = entries.read() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let kind = match entry.file_type() {
            rustix::fs::FileType::Unknown => None,
            kind => Some(FileKind::from_rustix(kind)),
        };
        each(OsStr::from_bytes(name), kind);
    }
    Ok(())
}

fn make_dir(dir: BorrowedFd<'_>, name: &OsStr, mode: u32) -> io::Result<()> {
    rustix::fs::mkdirat(dir, name, Mode::RWXU)?;
    let made = rustix::fs::openat(dir, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
    Ok(rustix::fs::fchmod(made, Mode::from_raw_mode(mode))?)
}

/// chmod of the name itself: an `O_PATH` handle pins the inode, /proc reaches it.
fn change_mode(dir: BorrowedFd<'_>, name: &OsStr, mode: u32) -> io::Result<()> {
    let file = rustix::fs::openat(dir, name, NAME_ONLY | OFlags::NOFOLLOW, Mode::empty())?;
    if Stat::from(rustix::fs::fstat(&file)?).is_symlink() {
        return Ok(());
    }
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(rustix::fs::chmod(path, Mode::from_raw_mode(mode))?)
}
