//! The terminal of a process that asked for one.
//!
//! It is opened from the container's own terminals by handle, checked to be one, and
//! its master is sent to the executor (CVE-2025-52565: a console taken by path can be
//! redirected).

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags};

use super::container::{Broken, Named};
use super::filesystems::System;
use crate::spec::Spec;
use crate::sys;

const DEVPTS_MAGIC: i64 = 0x1cd1;

/// Makes a terminal, sends its master away, and makes it the standard streams. In a
/// running container there is no `system`; its `/dev/pts` is then checked to be real.
pub(super) fn take(spec: &Spec, fds: &[OwnedFd], system: Option<&System>) -> Result<(), Broken> {
    let master = match system {
        Some(system) => open_master(&system.pts),
        None => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::open("/dev/pts", flags, Mode::empty())
                .map_err(io::Error::from)
                .and_then(|pts| open_master(&pts))
        }
    };
    let master = master.named("opening a terminal")?;
    rustix::pty::unlockpt(&master).named("unlocking the terminal")?;
    let terminal = sys::terminal_peer(master.as_fd()).named("opening the terminal's other end")?;
    let owner = Some(rustix::fs::Uid::from_raw(spec.ids.uid));
    rustix::fs::fchown(&terminal, owner, None).named("giving the terminal to the user")?;
    let console = spec.console.and_then(|index| fds.get(index));
    let console = console.ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF));
    let console = console.named("sending the terminal")?;
    sys::send(console.as_fd(), b"terminal", &[master.as_fd()]).named("sending the terminal")?;
    drop(master);
    if let Some(system) = system {
        show_console(system, &terminal).named("making /dev/console")?;
    }
    sys::set_controlling_terminal(terminal.as_fd()).named("taking the terminal")?;
    for number in 0..3 {
        sys::become_stdio(terminal.as_fd(), number).named("taking the terminal")?;
    }
    Ok(())
}

fn open_master(pts: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if rustix::fs::fstatfs(pts)?.f_type as i64 != DEVPTS_MAGIC {
        return Err(io::Error::from_raw_os_error(libc::ENOTTY));
    }
    let master = rustix::fs::openat(pts, "ptmx", flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&master)?;
    let is_master = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && stat.st_rdev == rustix::fs::makedev(5, 2);
    if is_master {
        Ok(master)
    } else {
        Err(io::Error::from_raw_os_error(libc::ENOTTY))
    }
}

fn show_console(system: &System, terminal: &OwnedFd) -> io::Result<()> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::openat(&system.dev, "console", flags, Mode::from_raw_mode(0o620))?;
    let over = super::filesystems::open_inside(system.dev.as_fd(), "console")?
        .ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))?;
    let tree = sys::copy_mount(terminal.as_fd(), false)?;
    sys::attach(tree.as_fd(), over.as_fd())
}
