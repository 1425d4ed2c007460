//! How much disk a directory takes.

use std::collections::HashSet;
use std::io;

use stdx::sys::{FileKind, Root};

/// Disk taken by a directory and everything beneath it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Allocated bytes. A file with several names counts once.
    pub bytes: u64,
    /// Files, directories, links and devices.
    pub inodes: u64,
}

/// Counts a directory: `du` without its options.
pub fn disk_usage(root: &Root) -> io::Result<Usage> {
    let mut seen = HashSet::new();
    let mut usage = Usage::default();
    let own = root.lstat(".")?;
    usage.bytes += own.allocated;
    usage.inodes += 1;
    // Each directory is opened from its parent's handle, so depth costs no path lengths.
    let mut open = vec![root.open_dir(".")?];
    while let Some(dir) = open.pop() {
        for entry in dir.read_dir(".")? {
            let stat = match dir.lstat(&entry.name) {
                Ok(stat) => stat,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if stat.nlink > 1 && stat.kind != FileKind::Dir && !seen.insert(stat.ino) {
                continue;
            }
            usage.bytes += stat.allocated;
            usage.inodes += 1;
            if stat.is_dir() {
                match dir.open_dir_nofollow(&entry.name) {
                    Ok(child) => open.push(child),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }
    Ok(usage)
}
