//! One cgroup directory, held open together with its parent.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::fs::{Dir as ReadDir, FileType, FlockOperation, Mode, OFlags};

/// A cgroup directory.
pub(crate) struct Dir {
    parent: OwnedFd,
    name: String,
    fd: OwnedFd,
}

/// Opens a directory by path.
pub(crate) fn open(path: &str) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, flags(), Mode::empty())?)
}

fn flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

impl Dir {
    /// From handles another process sent.
    pub(crate) fn from_handles(parent: OwnedFd, name: String, fd: OwnedFd) -> Dir {
        Dir { parent, name, fd }
    }

    /// The same directory by handles of its own.
    pub(crate) fn again(&self) -> io::Result<Dir> {
        let (parent, name, fd) = self.handles()?;
        Ok(Dir::from_handles(parent, name, fd))
    }

    /// Copies of its handles, to send to another process.
    pub(crate) fn handles(&self) -> io::Result<(OwnedFd, String, OwnedFd)> {
        Ok((
            self.parent.try_clone()?,
            self.name.clone(),
            self.fd.try_clone()?,
        ))
    }

    /// The root of a hierarchy.
    pub(crate) fn root(root: BorrowedFd<'_>) -> io::Result<Dir> {
        Ok(Dir {
            parent: root.try_clone_to_owned()?,
            name: ".".to_string(),
            fd: root.try_clone_to_owned()?,
        })
    }

    /// The directory `name` in this one, and whether it had to be made.
    pub(crate) fn make_or_find(&self, name: &str) -> io::Result<(Dir, bool)> {
        match self.make(name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Ok((self.child(name)?, false))
            }
            made => Ok((made?, true)),
        }
    }

    /// A new directory in this one.
    pub(crate) fn make(&self, name: &str) -> io::Result<Dir> {
        rustix::fs::mkdirat(&self.fd, name, Mode::from_raw_mode(0o755))?;
        self.child(name)
    }

    pub(crate) fn child(&self, name: &str) -> io::Result<Dir> {
        let fd = rustix::fs::openat(&self.fd, name, flags(), Mode::empty())?;
        Ok(Dir {
            parent: self.fd.try_clone()?,
            name: name.to_string(),
            fd,
        })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(crate) fn open_file(&self, name: &str, flags: OFlags) -> io::Result<OwnedFd> {
        Ok(rustix::fs::openat(
            &self.fd,
            name,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
        )?)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        rustix::fs::accessat(
            &self.fd,
            name,
            rustix::fs::Access::EXISTS,
            rustix::fs::AtFlags::empty(),
        )
        .is_ok()
    }

    pub(crate) fn write(&self, name: &str, value: &str) -> io::Result<()> {
        File::from(self.open_file(name, OFlags::WRONLY)?).write_all(value.as_bytes())
    }

    pub(crate) fn read(&self, name: &str) -> io::Result<String> {
        let mut text = String::new();
        File::from(self.open_file(name, OFlags::RDONLY)?).read_to_string(&mut text)?;
        Ok(text)
    }

    /// Hands controllers down to directories in this one, as far as the host has them
    /// and lets us. What is missing shows when a limit needs it.
    pub(crate) fn enable(&self, controllers: &[&str]) {
        let Ok(there) = self.read("cgroup.controllers") else {
            return;
        };
        let on = self.read("cgroup.subtree_control").unwrap_or_default();
        for controller in controllers {
            if there.split_whitespace().any(|name| name == *controller)
                && !on.split_whitespace().any(|name| name == *controller)
            {
                let _shows_later = self.write("cgroup.subtree_control", &format!("+{controller}"));
            }
        }
    }

    /// Takes the lock that says that someone alive uses it.
    pub(crate) fn lock(&self) -> io::Result<()> {
        Ok(rustix::fs::flock(
            &self.fd,
            FlockOperation::NonBlockingLockExclusive,
        )?)
    }

    /// Whether it is still there under its name.
    pub(crate) fn is_linked(&self) -> bool {
        let flags = rustix::fs::AtFlags::empty();
        rustix::fs::statat(&self.parent, &self.name, flags).is_ok()
    }

    /// Removes every instance's directory in this one that nobody holds a lock on.
    pub(crate) fn sweep_unlocked(&self) {
        let instances = self.children().into_iter();
        for name in instances.filter(|name| name.starts_with(super::INSTANCE)) {
            // A handle of its own: locks belong to the open file, not to the process.
            let Ok(dir) = self.child(&name) else { continue };
            if dir.lock().is_ok() {
                tracing::info!(%name, "removing the cgroup of an instance that is gone");
                dir.kill_and_remove();
            }
        }
    }

    fn children(&self) -> Vec<String> {
        let Ok(entries) = ReadDir::read_from(&self.fd) else {
            return Vec::new();
        };
        entries
            .flatten()
            .filter(|entry| entry.file_type() == FileType::Directory)
            .filter_map(|entry| Some(entry.file_name().to_str().ok()?.to_string()))
            .filter(|name| name != "." && name != "..")
            .collect()
    }

    /// Kills everything in it and beneath it.
    pub(crate) fn kill(&self) {
        if self.write("cgroup.kill", "1").is_ok() {
            return;
        }
        for name in self.children() {
            if let Ok(child) = self.child(&name) {
                child.kill();
            }
        }
        for pid in self.read("cgroup.procs").unwrap_or_default().lines() {
            if let Some(pid) = pid.parse().ok().and_then(rustix::process::Pid::from_raw) {
                let _gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }

    /// Kills and removes it. The kernel lets go of a cgroup a moment after its last
    /// process, so this tries for a while.
    pub(crate) fn kill_and_remove(&self) {
        for round in 0..200u64 {
            if self.remove() {
                return;
            }
            if round % 20 == 0 {
                self.kill();
            }
            std::thread::sleep(Duration::from_millis(round.min(10) + 1));
        }
        tracing::warn!(name = %self.name, "a cgroup stays: something in it does not die");
    }

    /// Removes it unless something is in it, as when another instance uses it. Tells whether it
    /// is gone.
    pub(crate) fn remove_if_empty(&self) -> bool {
        let flags = rustix::fs::AtFlags::REMOVEDIR;
        self.name != "."
            && matches!(
                rustix::fs::unlinkat(&self.parent, &self.name, flags),
                Ok(()) | Err(rustix::io::Errno::NOENT | rustix::io::Errno::NODEV)
            )
    }

    fn remove(&self) -> bool {
        use rustix::io::Errno;
        let unlink =
            || rustix::fs::unlinkat(&self.parent, &self.name, rustix::fs::AtFlags::REMOVEDIR);
        match unlink() {
            Ok(()) | Err(Errno::NOENT | Errno::NODEV) => return true,
            Err(_) => {}
        }
        for name in self.children() {
            if let Ok(child) = self.child(&name) {
                child.remove();
            }
        }
        matches!(unlink(), Ok(()) | Err(Errno::NOENT | Errno::NODEV))
    }
}
