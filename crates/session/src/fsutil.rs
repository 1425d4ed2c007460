//! The file transfer: one side walks a directory and tells what is there, the other
//! asks for the files it has not and makes its own directory equal (features N04).
//!
//! ```text
//! sender                         receiver
//!   STAT dir                ->      makes it
//!   STAT dir/a  (id 1)      ->      has it already: nothing
//!   STAT dir/b  (id 2)      ->      makes it empty
//!                           <-    REQ 2
//!   STAT (nothing)          ->      that was all
//!   DATA 2 "…" …, DATA 2 "" ->      fills it
//!                           <-    FIN
//!   FIN                     ->
//! ```
//!
//! Nobody waits for an answer before going on, so a hundred thousand files cost a
//! few round trips. Entries come in path order, which is what makes removing the
//! rest, and refusing lies, possible with little memory.

mod follow;
mod link;
mod receive;
mod send;
mod walk;

use bytes::Bytes;
use proto::fsutil::types::{Packet, Stat, Xattr, packet::PacketType};
use stdx::sys::{FileKind, Time};

use crate::{Error, Result};

pub use follow::follow;
pub use link::{Batch, Link};
pub use receive::{Owner, Receive, receive};
pub use send::{dated, send};
pub use walk::{Entry, Filter, walk};

/// How much of a file one packet carries.
const PIECE: usize = 32 << 10;

pub(crate) fn packet(kind: PacketType) -> Packet {
    Packet {
        r#type: kind.into(),
        ..Packet::default()
    }
}

/// What the other side is told when we give up.
pub(crate) fn sorry(error: &Error) -> Packet {
    Packet {
        data: Bytes::from(error.to_string()),
        ..packet(PacketType::PacketErr)
    }
}

/// File modes travel as Go counts them.
mod go_mode {
    pub(super) const DIR: u32 = 1 << 31;
    pub(super) const SYMLINK: u32 = 1 << 27;
    pub(super) const DEVICE: u32 = 1 << 26;
    pub(super) const PIPE: u32 = 1 << 25;
    pub(super) const SOCKET: u32 = 1 << 24;
    pub(super) const SETUID: u32 = 1 << 23;
    pub(super) const SETGID: u32 = 1 << 22;
    pub(super) const CHAR: u32 = 1 << 21;
    pub(super) const STICKY: u32 = 1 << 20;
    pub(super) const IRREGULAR: u32 = 1 << 19;
}

/// A mode as Go counts it.
pub fn to_go_mode(kind: FileKind, mode: u32) -> u32 {
    let kind = match kind {
        FileKind::File => 0,
        FileKind::Dir => go_mode::DIR,
        FileKind::Symlink => go_mode::SYMLINK,
        FileKind::CharDevice => go_mode::DEVICE | go_mode::CHAR,
        FileKind::BlockDevice => go_mode::DEVICE,
        FileKind::Fifo => go_mode::PIPE,
        FileKind::Socket => go_mode::SOCKET,
    };
    let bit = |unix: u32, go: u32| if mode & unix != 0 { go } else { 0 };
    kind | mode & 0o777
        | bit(0o4000, go_mode::SETUID)
        | bit(0o2000, go_mode::SETGID)
        | bit(0o1000, go_mode::STICKY)
}

/// What a Go mode means: kind and permission bits.
pub fn from_go_mode(mode: u32) -> Result<(FileKind, u32)> {
    let kinds = go_mode::DIR
        | go_mode::SYMLINK
        | go_mode::DEVICE
        | go_mode::PIPE
        | go_mode::SOCKET
        | go_mode::CHAR
        | go_mode::IRREGULAR;
    const CHAR_DEVICE: u32 = go_mode::DEVICE | go_mode::CHAR;
    let kind = match mode & kinds {
        0 => FileKind::File,
        go_mode::DIR => FileKind::Dir,
        go_mode::SYMLINK => FileKind::Symlink,
        CHAR_DEVICE => FileKind::CharDevice,
        go_mode::DEVICE => FileKind::BlockDevice,
        go_mode::PIPE => FileKind::Fifo,
        go_mode::SOCKET => FileKind::Socket,
        other => return Err(Error::Protocol(format!("a file of kind {other:#x}"))),
    };
    let bit = |go: u32, unix: u32| if mode & go != 0 { unix } else { 0 };
    let bits = mode & 0o777
        | bit(go_mode::SETUID, 0o4000)
        | bit(go_mode::SETGID, 0o2000)
        | bit(go_mode::STICKY, 0o1000);
    Ok((kind, bits))
}

fn nanos(time: Time) -> i64 {
    time.seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(i64::from(time.nanos))
}

fn time(nanos: i64) -> Time {
    Time {
        seconds: nanos.div_euclid(1_000_000_000),
        nanos: u32::try_from(nanos.rem_euclid(1_000_000_000)).expect("a remainder of 1e9"),
    }
}

fn stat_of(entry: &Entry) -> Stat {
    use std::os::unix::ffi::OsStrExt as _;
    let stat = &entry.stat;
    let device = matches!(stat.kind, FileKind::CharDevice | FileKind::BlockDevice);
    let (major, minor) = if device { stat.device() } else { (0, 0) };
    let link = entry
        .link
        .as_ref()
        .map(|l| Bytes::copy_from_slice(l.as_os_str().as_bytes()));
    Stat {
        path: Bytes::copy_from_slice(entry.path.as_os_str().as_bytes()),
        mode: to_go_mode(stat.kind, stat.mode),
        uid: stat.uid,
        gid: stat.gid,
        size: match stat.kind {
            FileKind::File => i64::try_from(stat.size).unwrap_or(i64::MAX),
            FileKind::Symlink => link.as_ref().map_or(0, |l| l.len() as i64),
            _ => 0,
        },
        mod_time: nanos(stat.mtime),
        linkname: link.unwrap_or_default(),
        devmajor: major.into(),
        devminor: minor.into(),
        xattrs: entry
            .xattrs
            .iter()
            .map(|(name, value)| Xattr {
                key: Bytes::copy_from_slice(name.as_bytes()),
                value: Bytes::copy_from_slice(value),
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests;
