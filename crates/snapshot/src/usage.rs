//! How much disk a directory takes.

use std::collections::HashMap;
use std::io;

use stdx::sys::{FileKind, Root};

/// Disk taken by a directory and everything beneath it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Allocated bytes of what is nowhere else. A file with several names counts once.
    pub bytes: u64,
    /// Files, directories, links and devices, shared ones too.
    pub inodes: u64,
    /// Files that have names outside the directory, too. Whoever adds up several directories
    /// counts each once.
    pub shared: Vec<SharedFile>,
}

/// A file that more than one directory has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SharedFile {
    /// Which it is, among all layers and kept directories of a snapshotter: they are on one file
    /// system.
    pub ino: u64,
    /// Allocated bytes.
    pub bytes: u64,
}

/// A file with several names, as far as they were met.
struct Met {
    bytes: u64,
    names: u64,
    of: u64,
}

/// Counts a directory: `du` without its options.
pub fn disk_usage(root: &Root) -> io::Result<Usage> {
    let mut met: HashMap<u64, Met> = HashMap::new();
    let own = root.lstat(".")?;
    let mut usage = Usage {
        bytes: own.allocated,
        inodes: 1,
        shared: Vec::new(),
    };
    // Each directory is opened from its parent's handle, so depth costs no path lengths.
    let mut open = vec![root.open_dir(".")?];
    while let Some(dir) = open.pop() {
        for entry in dir.read_dir(".")? {
            let stat = match dir.lstat(&entry.name) {
                Ok(stat) => stat,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if stat.nlink > 1 && stat.kind != FileKind::Dir {
                let file = met.entry(stat.ino).or_insert(Met {
                    bytes: stat.allocated,
                    names: 0,
                    of: stat.nlink,
                });
                file.names += 1;
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
    for (ino, Met { bytes, names, of }) in met {
        usage.inodes += 1;
        match names < of {
            true => usage.shared.push(SharedFile { ino, bytes }),
            false => usage.bytes += bytes,
        }
    }
    usage.shared.sort_unstable();
    Ok(usage)
}
