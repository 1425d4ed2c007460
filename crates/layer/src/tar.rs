//! The tar format: headers as values, and values as headers.
//!
//! The reader takes what Docker, Go, GNU tar and bsdtar write (ustar, PAX, GNU
//! long names, base-256 numbers, all sparse forms). The writer makes the bytes
//! Go's `archive/tar` makes in its PAX mode, because layer digests are compared.

pub(crate) mod block;
pub(crate) mod pax;
mod read;
mod write;

use std::collections::BTreeMap;

use stdx::sys::Time;

pub use read::Reader;
pub use write::Writer;
pub(crate) use write::padding;

/// What a tar entry makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A second name for an earlier entry.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A directory.
    Dir,
    /// A named pipe.
    Fifo,
}

/// A stretch of data in a sparse file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where in the file.
    pub offset: u64,
    /// How many bytes.
    pub length: u64,
}

/// One entry of a tar, whatever headers it took to say it. Names are bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Name as written; directories end in `/` when we write them.
    pub path: Vec<u8>,
    /// What it makes.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Length of the file, holes included.
    pub size: u64,
    /// Last change.
    pub mtime: Time,
    /// Last read, when the tar says.
    pub atime: Option<Time>,
    /// Where a link points.
    pub link: Vec<u8>,
    /// Major and minor device number.
    pub device: (u64, u64),
    /// Extended attributes by name.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Where the data goes, when the file has holes.
    pub sparse: Option<Vec<Extent>>,
}

impl Entry {
    /// An entry of root's with nothing in it.
    pub fn new(path: impl Into<Vec<u8>>, kind: Kind) -> Entry {
        Entry {
            path: path.into(),
            kind,
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: Time::default(),
            atime: None,
            link: Vec::new(),
            device: (0, 0),
            xattrs: BTreeMap::new(),
            sparse: None,
        }
    }

    /// The name for messages.
    pub fn display(&self) -> String {
        String::from_utf8_lossy(&self.path).into_owned()
    }
}
