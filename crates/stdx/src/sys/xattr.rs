//! Extended attributes of the very file a name stands for; links are not followed.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::root::{At, Root};

/// The same file as a path: there are no `*at` calls for attributes before
/// Linux 6.13, and a directory handle's entry in /proc is as safe.
fn path_of(dir: BorrowedFd<'_>, name: &OsStr) -> PathBuf {
    let mut path = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
    path.push(name);
    path
}

impl Root {
    /// Sets an extended attribute.
    pub fn set_xattr(&self, path: impl AsRef<Path>, name: &OsStr, value: &[u8]) -> io::Result<()> {
        let at = self.at(path.as_ref())?;
        let path = path_of(at.dir(), &at.name);
        Ok(rustix::fs::lsetxattr(
            path,
            name,
            value,
            XattrFlags::empty(),
        )?)
    }

    /// Reads an extended attribute; `None` when it is not set or the file
    /// system has none.
    pub fn xattr(&self, path: impl AsRef<Path>, name: &OsStr) -> io::Result<Option<Vec<u8>>> {
        let at = self.at(path.as_ref())?;
        read_value(&path_of(at.dir(), &at.name), name)
    }

    /// Removes an extended attribute; one that is not there is no error.
    pub fn remove_xattr(&self, path: impl AsRef<Path>, name: &OsStr) -> io::Result<()> {
        let at = self.at(path.as_ref())?;
        match rustix::fs::lremovexattr(path_of(at.dir(), &at.name), name) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The names of all extended attributes, in no order.
    pub fn xattr_names(&self, path: impl AsRef<Path>) -> io::Result<Vec<OsString>> {
        let at: At<'_> = self.at(path.as_ref())?;
        read_names(&path_of(at.dir(), &at.name))
    }

    /// All extended attributes with their values, sorted by name.
    pub fn xattrs(&self, path: impl AsRef<Path>) -> io::Result<Vec<(OsString, Vec<u8>)>> {
        let at: At<'_> = self.at(path.as_ref())?;
        let path = path_of(at.dir(), &at.name);
        let mut found = Vec::new();
        for name in read_names(&path)? {
            if let Some(value) = read_value(&path, &name)? {
                found.push((name, value));
            }
        }
        found.sort();
        Ok(found)
    }
}

fn read_names(path: &Path) -> io::Result<Vec<OsString>> {
    let mut buffer = vec![0; 256];
    loop {
        match rustix::fs::llistxattr(path, &mut buffer[..]) {
            Ok(length) => {
                let names = buffer[..length]
                    .split(|b| *b == 0)
                    .filter(|name| !name.is_empty());
                return Ok(names
                    .map(|name| OsStr::from_bytes(name).to_owned())
                    .collect());
            }
            Err(Errno::RANGE) => buffer.resize(buffer.len() * 4, 0),
            Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
    }
}

fn read_value(path: &Path, name: &OsStr) -> io::Result<Option<Vec<u8>>> {
    let name = OsString::from_vec(name.as_bytes().to_vec());
    let mut buffer = vec![0; 256];
    loop {
        match rustix::fs::lgetxattr(path, &name, &mut buffer[..]) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(Some(buffer));
            }
            Err(Errno::RANGE) => buffer.resize(buffer.len() * 4, 0),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}
