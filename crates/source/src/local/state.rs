//! Whether anything in a kept directory changed, as the kernel sees it: each
//! entry's inode and time of change. No file is read for that.

use std::io;
use std::os::fd::AsFd;

use oci::{Digest, Hasher};
use rustix::fs::{AtFlags, statat};
use stdx::sys::Root;

/// A digest that differs whenever something below `root` was changed.
pub(super) fn of(root: &Root) -> io::Result<Digest> {
    let mut hasher = Hasher::default();
    walk(root, &mut hasher)?;
    Ok(hasher.finish())
}

fn walk(root: &Root, hasher: &mut Hasher) -> io::Result<()> {
    let mut entries = root.read_dir(".")?;
    entries.sort_by(|one, other| one.name.cmp(&other.name));
    hasher.update(&(entries.len() as u64).to_le_bytes());
    for entry in entries {
        let stat = statat(root.as_fd(), &entry.name, AtFlags::SYMLINK_NOFOLLOW)?;
        let name = entry.name.as_encoded_bytes();
        hasher.update(&(name.len() as u64).to_le_bytes());
        hasher.update(name);
        let is_dir = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir();
        // A folder's times are set anew with each transfer. What is in it is looked
        // at anyway, and its own facts are these.
        let changed = if is_dir {
            (0, 0)
        } else {
            (stat.st_ctime as u64, stat.st_ctime_nsec as u64)
        };
        let owner = u64::from(stat.st_uid) << 32 | u64::from(stat.st_gid);
        for number in [
            stat.st_ino,
            changed.0,
            changed.1,
            u64::from(stat.st_mode),
            owner,
        ] {
            hasher.update(&number.to_le_bytes());
        }
        if is_dir {
            for (name, value) in root.xattrs(&entry.name)? {
                for bytes in [name.as_encoded_bytes(), &value] {
                    hasher.update(&(bytes.len() as u64).to_le_bytes());
                    hasher.update(bytes);
                }
            }
        }
        if is_dir {
            walk(&root.open_dir_nofollow(&entry.name)?, hasher)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_is_noticed_and_rest_is_rest() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::create_dir(path("d")).unwrap();
        std::fs::write(path("d/f"), "1").unwrap();
        let mut seen = vec![of(&Root::open(dir.path()).unwrap()).unwrap()];
        let mut next = |what: &str| {
            // Times of change are as coarse as the kernel's clock ticks.
            std::thread::sleep(std::time::Duration::from_millis(20));
            let now = of(&Root::open(dir.path()).unwrap()).unwrap();
            assert_ne!(seen.last(), Some(&now), "{what}");
            seen.push(now);
        };
        std::fs::write(path("d/f"), "2").unwrap();
        next("bytes");
        std::fs::set_permissions(path("d/f"), std::fs::Permissions::from_mode(0o600)).unwrap();
        next("mode");
        std::fs::write(path("d/g"), "").unwrap();
        next("a new file");
        std::fs::remove_file(path("d/g")).unwrap();
        next("a removed file");
        assert_eq!(
            of(&Root::open(dir.path()).unwrap()).unwrap(),
            *seen.last().unwrap()
        );
    }
}
