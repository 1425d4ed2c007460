//! What is hashed of one file: a few facts as text, then its bytes.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;

use oci::{Digest, Hasher};
use stdx::sys::{FileKind, Root, Stat};

/// The facts about a file that its digest covers. Its name is not among them (the
/// directory has it), nor are times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// What it is.
    pub kind: FileKind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length, for regular files.
    pub size: u64,
    /// Where a symbolic link points.
    pub link: Vec<u8>,
    /// Device number.
    pub device: (u32, u32),
    /// Extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Header {
    /// The header of a file on disk.
    pub fn of(dir: &Root, name: &OsStr) -> io::Result<Header> {
        let stat = dir.lstat(name)?;
        let mut header = Header::from_stat(&stat);
        if stat.is_symlink() {
            header.link = dir.read_link(name)?.into_os_string().as_bytes().to_vec();
        }
        for (key, value) in dir.xattrs(name)? {
            header.xattrs.insert(key.as_bytes().to_vec(), value);
        }
        Ok(header)
    }

    /// A header without link target and attributes.
    pub fn from_stat(stat: &Stat) -> Header {
        Header {
            kind: stat.kind,
            mode: stat.mode,
            uid: stat.uid,
            gid: stat.gid,
            size: if stat.is_file() { stat.size } else { 0 },
            link: Vec::new(),
            device: stat.device(),
            xattrs: BTreeMap::new(),
        }
    }

    /// Begins the digest; the bytes of a regular file follow.
    pub fn hasher(&self) -> FileHasher {
        let mut hasher = Hasher::default();
        hasher.update(&self.preimage());
        FileHasher(hasher)
    }

    /// Digest of something that has no bytes of its own.
    pub fn digest(&self) -> Digest {
        self.hasher().finish()
    }

    /// Keys and values one after the other, as the tar checksums of old Docker had them.
    fn preimage(&self) -> Vec<u8> {
        let is_device = matches!(self.kind, FileKind::CharDevice | FileKind::BlockDevice);
        let (major, minor) = if is_device { self.device } else { (0, 0) };
        let mode = if self.kind == FileKind::Symlink {
            0o777
        } else {
            self.mode & 0o7777
        };
        let (uid, gid, size) = (self.uid, self.gid, self.size);
        let flag = match self.kind {
            FileKind::File | FileKind::Socket => '0',
            FileKind::Symlink => '2',
            FileKind::CharDevice => '3',
            FileKind::BlockDevice => '4',
            FileKind::Dir => '5',
            FileKind::Fifo => '6',
        };
        let mut out =
            format!("namemode{mode}uid{uid}gid{gid}size{size}typeflag{flag}linkname").into_bytes();
        out.extend_from_slice(&self.link);
        out.extend_from_slice(format!("unamegnamedevmajor{major}devminor{minor}").as_bytes());
        for (key, value) in self.xattrs.iter().filter(|(key, _)| counts(key)) {
            out.extend_from_slice(key);
            out.extend_from_slice(value);
        }
        out
    }
}

/// Labels of security modules and ACLs differ from host to host; overlayfs's notes
/// are no part of the tree.
fn counts(xattr: &[u8]) -> bool {
    const HOST: [&[u8]; 5] = [
        b"security.",
        b"system.",
        b"com.apple.",
        b"trusted.overlay.",
        b"user.overlay.",
    ];
    xattr == b"security.capability" || !HOST.iter().any(|prefix| xattr.starts_with(prefix))
}

/// The digest of a file whose bytes are still coming.
#[derive(Clone, Debug)]
pub struct FileHasher(Hasher);

impl FileHasher {
    /// Takes in more of the file's bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of header and bytes.
    pub fn finish(self) -> Digest {
        self.0.finish()
    }
}
