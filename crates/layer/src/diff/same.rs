//! Whether two files are the same as far as a layer can tell.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;

use stdx::sys::{Root, Stat};

pub(super) const CAPABILITY: &[u8] = b"security.capability";

/// File capabilities; `None` when there are none.
pub(super) fn capability(dir: &Root, name: &OsStr) -> io::Result<Option<Vec<u8>>> {
    let value = dir.xattr(name, OsStr::from_bytes(CAPABILITY))?;
    Ok(value.filter(|value| !value.is_empty()))
}

/// A file of one of the two trees.
#[derive(Clone, Copy)]
pub(super) struct Side<'a> {
    pub(super) dir: &'a Root,
    pub(super) name: &'a OsStr,
    pub(super) stat: &'a Stat,
}

/// Equal owner, mode and capabilities, and for all but directories equal size,
/// time and contents. Contents are read only when both times may have been cut
/// to seconds by a tar; otherwise an equal time says enough.
pub(super) fn same(a: Side<'_>, b: Side<'_>) -> io::Result<bool> {
    let (x, y) = (a.stat, b.stat);
    if (x.dev, x.ino) == (y.dev, y.ino) {
        return Ok(true);
    }
    if (x.kind, x.mode, x.uid, x.gid, x.rdev) != (y.kind, y.mode, y.uid, y.gid, y.rdev) {
        return Ok(false);
    }
    if capability(a.dir, a.name)? != capability(b.dir, b.name)? {
        return Ok(false);
    }
    if x.is_dir() {
        return Ok(true);
    }
    if x.size != y.size || x.mtime != y.mtime {
        return Ok(false);
    }
    if x.mtime.nanos != 0 {
        return Ok(true);
    }
    if x.is_symlink() {
        return Ok(a.dir.read_link(a.name)? == b.dir.read_link(b.name)?);
    }
    if !x.is_file() || x.size == 0 {
        return Ok(true);
    }
    same_contents(a.dir.open_file(a.name)?, b.dir.open_file(b.name)?)
}

fn same_contents(mut a: File, mut b: File) -> io::Result<bool> {
    const CHUNK: u64 = 128 << 10;
    let (mut left, mut right) = (Vec::new(), Vec::new());
    loop {
        left.clear();
        right.clear();
        (&mut a).take(CHUNK).read_to_end(&mut left)?;
        (&mut b).take(CHUNK).read_to_end(&mut right)?;
        if left != right {
            return Ok(false);
        }
        if left.is_empty() {
            return Ok(true);
        }
    }
}
