//! What the kernel tells about one file.

/// A point in time as files carry it: seconds since 1970 and nanoseconds on top.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    /// Seconds since 1970-01-01 UTC; negative before.
    pub seconds: i64,
    /// Nanoseconds on top, below one thousand million.
    pub nanos: u32,
}

impl Time {
    /// A whole second.
    pub fn from_seconds(seconds: i64) -> Time {
        Time { seconds, nanos: 0 }
    }

    pub(crate) fn timespec(self) -> rustix::fs::Timespec {
        rustix::fs::Timespec {
            tv_sec: self.seconds,
            tv_nsec: i64::from(self.nanos) as _,
        }
    }
}

/// What a directory entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A character device; 0/0 is overlayfs's whiteout.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A unix socket.
    Socket,
}

/// Owner, mode, size, times and identity of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// What it is.
    pub kind: FileKind,
    /// Permission bits with setuid, setgid and sticky (`0o7777`).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length in bytes.
    pub size: u64,
    /// Last change of the contents.
    pub mtime: Time,
    /// Last read of the contents.
    pub atime: Time,
    /// Last change of the inode.
    pub ctime: Time,
    /// Which file system.
    pub dev: u64,
    /// Which inode there.
    pub ino: u64,
    /// How many names it has.
    pub nlink: u64,
    /// Space taken on disk in bytes.
    pub allocated: u64,
    /// Device number, when it is a device.
    pub rdev: u64,
}

impl Stat {
    /// Whether this is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == FileKind::Dir
    }

    /// Whether this is a regular file.
    pub fn is_file(&self) -> bool {
        self.kind == FileKind::File
    }

    /// Whether this is a symbolic link.
    pub fn is_symlink(&self) -> bool {
        self.kind == FileKind::Symlink
    }

    /// Whether overlayfs means "the lower file is gone" by this.
    pub fn is_whiteout(&self) -> bool {
        self.kind == FileKind::CharDevice && self.rdev == 0
    }

    /// Major and minor number of a device.
    pub fn device(&self) -> (u32, u32) {
        (rustix::fs::major(self.rdev), rustix::fs::minor(self.rdev))
    }
}

impl FileKind {
    pub(crate) fn from_rustix(kind: rustix::fs::FileType) -> FileKind {
        use rustix::fs::FileType as T;
        match kind {
            T::Directory => FileKind::Dir,
            T::Symlink => FileKind::Symlink,
            T::CharacterDevice => FileKind::CharDevice,
            T::BlockDevice => FileKind::BlockDevice,
            T::Fifo => FileKind::Fifo,
            T::Socket => FileKind::Socket,
            T::RegularFile | T::Unknown => FileKind::File,
        }
    }

    pub(crate) fn to_rustix(self) -> rustix::fs::FileType {
        use rustix::fs::FileType as T;
        match self {
            FileKind::Dir => T::Directory,
            FileKind::Symlink => T::Symlink,
            FileKind::CharDevice => T::CharacterDevice,
            FileKind::BlockDevice => T::BlockDevice,
            FileKind::Fifo => T::Fifo,
            FileKind::Socket => T::Socket,
            FileKind::File => T::RegularFile,
        }
    }
}

#[allow(
    clippy::unnecessary_cast,
    reason = "field widths differ between machines"
)]
impl From<rustix::fs::Stat> for Stat {
    fn from(raw: rustix::fs::Stat) -> Stat {
        let time = |seconds: i64, nanos: u64| Time {
            seconds,
            nanos: nanos as u32,
        };
        Stat {
            kind: FileKind::from_rustix(rustix::fs::FileType::from_raw_mode(raw.st_mode)),
            mode: raw.st_mode as u32 & 0o7777,
            uid: raw.st_uid,
            gid: raw.st_gid,
            size: raw.st_size as u64,
            mtime: time(raw.st_mtime as i64, raw.st_mtime_nsec as u64),
            atime: time(raw.st_atime as i64, raw.st_atime_nsec as u64),
            ctime: time(raw.st_ctime as i64, raw.st_ctime_nsec as u64),
            dev: raw.st_dev as u64,
            ino: raw.st_ino as u64,
            nlink: raw.st_nlink as u64,
            allocated: raw.st_blocks as u64 * 512,
            rdev: raw.st_rdev as u64,
        }
    }
}
