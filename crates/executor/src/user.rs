//! Who a process runs as: names looked up in the root filesystem's own files.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// A passwd or group file larger than this is not one.
const MOST_BYTES: u64 = 16 << 20;

/// Numbers a process runs with, and where its home is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ids {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Supplementary groups.
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

/// Finds `spec` (`user[:group]`, names or numbers, empty = root) in `root`.
pub(crate) fn find(root: BorrowedFd<'_>, spec: &str) -> Result<Ids, Error> {
    let passwd = read(root, "etc/passwd", spec)?;
    let group = read(root, "etc/group", spec)?;
    lookup(spec, &passwd, &group)
}

/// The same over the text of the two files.
fn lookup(spec: &str, passwd: &str, group: &str) -> Result<Ids, Error> {
    let failed = |reason: &str| Error::User {
        user: spec.to_string(),
        reason: reason.to_string(),
    };
    let (user, wanted_group) = match spec.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (spec, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let entry = entries(passwd).find(|entry| {
        entry[0] == user || (user.parse::<u32>().is_ok() && number(entry, 2) == number(&[user], 0))
    });
    let uid = match &entry {
        Some(entry) => {
            number(entry, 2).ok_or_else(|| failed("its line in /etc/passwd is broken"))?
        }
        None if user == "root" => 0,
        None => user
            .parse()
            .map_err(|_| failed("no matching entries in passwd file"))?,
    };
    let mut gid = entry
        .as_ref()
        .and_then(|entry| number(entry, 3))
        .unwrap_or(0);
    let mut groups = Vec::new();
    if let Some(wanted) = wanted_group {
        let found = entries(group).find(|entry| {
            entry[0] == wanted
                || (wanted.parse::<u32>().is_ok() && number(entry, 2) == number(&[wanted], 0))
        });
        gid = match found {
            Some(entry) => {
                number(&entry, 2).ok_or_else(|| failed("its line in /etc/group is broken"))?
            }
            None if wanted == "root" => 0,
            None => wanted
                .parse()
                .map_err(|_| failed("no matching entries in group file"))?,
        };
    } else if let Some(user) = &entry {
        groups = entries(group)
            .filter(|entry| {
                entry
                    .get(3)
                    .is_some_and(|list| list.split(',').any(|m| m == user[0]))
            })
            .filter_map(|entry| number(&entry, 2))
            .collect();
    }
    if uid > i32::MAX.cast_unsigned() || gid > i32::MAX.cast_unsigned() {
        return Err(failed("uids and gids must be in range 0-2147483647"));
    }
    // Its own group stands among the others, too: a process that changes its group must not
    // get past permissions that are there to keep the first one out (CVE-2023-25173).
    if !groups.contains(&gid) {
        groups.insert(0, gid);
    }
    let home = entry.and_then(|entry| entry.get(5).map(ToString::to_string));
    let home = home
        .filter(|home| !home.is_empty())
        .unwrap_or_else(|| "/".to_string());
    Ok(Ids {
        uid,
        gid,
        groups,
        home,
    })
}

fn entries(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split(':').collect())
}

fn number(entry: &[&str], index: usize) -> Option<u32> {
    entry.get(index)?.trim().parse().ok()
}

/// Reads a file of the root; one that is missing is empty. Anything but a regular
/// file of bearable size is refused: the root may be hostile.
fn read(root: BorrowedFd<'_>, path: &str, spec: &str) -> Result<String, Error> {
    let failed = |reason: String| Error::User {
        user: spec.to_string(),
        reason,
    };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let fd = match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
        Ok(fd) => fd,
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(String::new()),
        Err(error) => return Err(failed(format!("/{path}: {error}"))),
    };
    // Opening a device can already do something, so look first.
    let stat = rustix::fs::fstat(fd.as_fd()).map_err(|error| failed(error.to_string()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(failed(format!("/{path} is not a regular file")));
    }
    let same = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let fd = rustix::fs::open(same, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| failed(format!("/{path}: {error}")))?;
    let mut bytes = Vec::new();
    let mut limited = File::from(fd).take(MOST_BYTES + 1);
    limited
        .read_to_end(&mut bytes)
        .map_err(|error| failed(format!("/{path}: {error}")))?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(failed(format!("/{path} is larger than {MOST_BYTES} bytes")));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n# no\nweb:x:33:34:w:/srv:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nweb:x:34:\naudio:x:29:web,root\nvideo:x:44:web\n";

    fn ids(spec: &str) -> (u32, u32, Vec<u32>, String) {
        let ids = lookup(spec, PASSWD, GROUP).unwrap();
        (ids.uid, ids.gid, ids.groups, ids.home)
    }

    /// Rows: X15
    #[test]
    fn users_and_groups_by_name_and_number() {
        assert_eq!(ids(""), (0, 0, vec![0, 29], "/root".into()));
        assert_eq!(ids("web"), (33, 34, vec![34, 29, 44], "/srv".into()));
        assert_eq!(ids("33"), (33, 34, vec![34, 29, 44], "/srv".into()));
        assert_eq!(ids("web:audio"), (33, 29, vec![29], "/srv".into()));
        assert_eq!(ids("1000:1001"), (1000, 1001, vec![1001], "/".into()));
        assert_eq!(ids("1000"), (1000, 0, vec![0], "/".into()));
        assert_eq!(lookup("root", "", "").unwrap().uid, 0);
    }

    /// Rows: X15
    #[test]
    fn unknown_and_broken_users_are_refused() {
        for spec in [
            "nobody",
            "web:nogroup",
            "4294967295",
            "-1",
            "web:99999999999",
            "a:b:c",
        ] {
            let error = lookup(spec, PASSWD, GROUP).unwrap_err();
            assert_eq!(error.kind(), stdx::Kind::InvalidInput, "{spec}");
        }
    }
}
