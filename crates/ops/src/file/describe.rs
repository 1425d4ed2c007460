//! Owner, mode, times and extended attributes, from one file to another.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::fs::{Gid, Mode, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use stdx::sys::{Root, Stat, Time};

use super::mode::Change;
use super::owner::Owner;
use crate::Error;

/// A time in nanoseconds as files carry it.
pub(super) fn time(nanos: i64) -> Time {
    Time {
        seconds: nanos.div_euclid(1_000_000_000),
        nanos: nanos.rem_euclid(1_000_000_000) as u32,
    }
}

/// Something with the file at `path` (as it was written) failed.
pub(super) fn failed(doing: &'static str, path: &str) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| match source.kind() {
        io::ErrorKind::NotFound => Error::NotFound { path },
        _ => Error::Io {
            doing: format!("{doing} {path}"),
            source,
        },
    }
}

/// What is changed about files while they are copied, and what we know of ourselves.
#[derive(Debug)]
pub(super) struct Describe {
    pub(super) owner: Option<Owner>,
    pub(super) mode: Change,
    pub(super) time: Option<Time>,
    /// The owner of what this process makes.
    us: Owner,
    /// The bits that are missing from what this process makes.
    umask: u32,
}

/// How a directory treats what is made in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Habit {
    /// Everything gets its group.
    pub(super) group: bool,
    /// Everything gets its access list.
    pub(super) acl: bool,
}

impl Habit {
    pub(super) fn of(dir: &Root) -> io::Result<Habit> {
        let mode = Stat::from(rustix::fs::fstat(dir)?).mode;
        let acl = rustix::fs::fgetxattr(dir, "system.posix_acl_default", &mut [0; 0][..]).is_ok();
        Ok(Habit {
            group: mode & 0o2000 != 0,
            acl,
        })
    }
}

impl Describe {
    pub(super) fn new(owner: Option<Owner>, mode: Change, time: Option<Time>) -> Describe {
        Describe {
            owner,
            mode,
            time,
            us: (
                rustix::process::geteuid().as_raw(),
                rustix::process::getegid().as_raw(),
            ),
            umask: umask(),
        }
    }

    fn owner(&self, stat: &Stat) -> Owner {
        self.owner.unwrap_or((stat.uid, stat.gid))
    }

    /// The mode of the copy.
    pub(super) fn mode(&self, stat: &Stat) -> u32 {
        self.mode.apply(stat.mode, stat.is_dir())
    }

    fn times(&self, stat: &Stat) -> Timestamps {
        let spec = |time: Time| rustix::fs::Timespec {
            tv_sec: time.seconds,
            tv_nsec: i64::from(time.nanos) as _,
        };
        Timestamps {
            last_access: spec(self.time.unwrap_or(stat.atime)),
            last_modification: spec(self.time.unwrap_or(stat.mtime)),
        }
    }

    /// Everything about a file or directory that is open. With `habit` it is a file we have
    /// just made with the right mode in a directory that does so: less is left to do.
    pub(super) fn opened(
        &self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        stat: &Stat,
        habit: Option<Habit>,
    ) -> io::Result<()> {
        let owner = self.owner(stat);
        if habit.is_none_or(|habit| habit.group) || owner != self.us {
            rustix::fs::fchown(
                to,
                Some(Uid::from_raw(owner.0)),
                Some(Gid::from_raw(owner.1)),
            )?;
        }
        let mode = self.mode(stat);
        if habit.is_none_or(|habit| habit.acl) || mode & (self.umask | 0o7000) != 0 {
            rustix::fs::fchmod(to, Mode::from_raw_mode(mode))?;
        }
        attributes(from, to)?;
        self.opened_times(to, stat)
    }

    /// Whether a copy of a regular file would be like the file itself in all but its inode.
    pub(super) fn leaves(&self, file: (&Root, &OsStr), stat: &Stat) -> io::Result<bool> {
        let same = self.owner(stat) == (stat.uid, stat.gid)
            && self.mode(stat) == stat.mode
            && self.time.is_none_or(|time| time == stat.mtime);
        Ok(same && file.0.xattr_names(file.1)?.iter().all(|name| travels(name)))
    }

    /// The times of what is open.
    pub(super) fn opened_times(&self, to: BorrowedFd<'_>, stat: &Stat) -> io::Result<()> {
        Ok(rustix::fs::futimens(to, &self.times(stat))?)
    }

    /// Everything about a link, a device or a pipe, by its name.
    pub(super) fn named(
        &self,
        from: (&Root, &OsStr),
        to: (&Root, &OsStr),
        stat: &Stat,
    ) -> io::Result<()> {
        let (uid, gid) = self.owner(stat);
        to.0.chown(to.1, uid, gid)?;
        if !stat.is_symlink() {
            to.0.chmod(to.1, self.mode(stat))?;
        }
        for (name, value) in from.0.xattrs(from.1)? {
            if travels(&name) {
                lenient(&name, to.0.set_xattr(to.1, &name, &value));
            }
        }
        to.0.set_times(
            to.1,
            self.time.unwrap_or(stat.atime),
            self.time.unwrap_or(stat.mtime),
        )
    }
}

/// Copies extended attributes.
fn attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let mut names = vec![0; 256];
    let length = loop {
        match rustix::fs::flistxattr(from, &mut names[..]) {
            Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(()),
            Ok(length) => break length,
            Err(Errno::RANGE) => names.resize(names.len() * 4, 0),
            Err(error) => return Err(error.into()),
        }
    };
    for name in names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        let name = OsString::from_vec(name.to_vec());
        if travels(&name)
            && let Some(value) = value(from, &name)?
        {
            lenient(
                &name,
                rustix::fs::fsetxattr(to, &name, &value, XattrFlags::empty())
                    .map_err(io::Error::from),
            );
        }
    }
    Ok(())
}

fn value(from: BorrowedFd<'_>, name: &OsStr) -> io::Result<Option<Vec<u8>>> {
    let mut value = vec![0; 256];
    loop {
        match rustix::fs::fgetxattr(from, name, &mut value[..]) {
            Ok(length) => {
                value.truncate(length);
                return Ok(Some(value));
            }
            Err(Errno::RANGE) => value.resize(value.len() * 4, 0),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Attributes of overlayfs and the host's labels say nothing about the file.
fn travels(name: &OsStr) -> bool {
    let name = name.as_bytes();
    let overlay = name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.");
    let label = name.starts_with(b"security.") && name != b"security.capability";
    !overlay && !label
}

/// A file system that cannot hold an attribute is no reason not to have the file.
fn lenient(name: &OsStr, set: io::Result<()>) {
    if let Err(error) = set {
        tracing::debug!(name = %name.display(), %error, "extended attribute not copied");
    }
}

/// What the kernel takes out of the mode of what we make; all of it if it does not say.
fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    line.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok())
        .unwrap_or(0o777)
}
