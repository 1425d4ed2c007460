//! What every container finds in `/proc`, `/dev` and `/sys`, and what is hidden there.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};

use super::container::{Broken, Named};
use crate::devices::{INSECURE_NODES, NODES};
use crate::process::{Device, DeviceKind};
use crate::spec::{Part, Spec};
use crate::sys::{self, NODEV, NOEXEC, NOSUID, RDONLY};

/// Hidden: they tell about the host or let one harm it.
pub(crate) const MASKED_PROC: &[&str] = &[
    "acpi",
    "asound",
    "interrupts",
    "kcore",
    "keys",
    "latency_stats",
    "sched_debug",
    "scsi",
    "timer_list",
    "timer_stats",
];
pub(crate) const MASKED_SYS: &[&str] = &["firmware", "devices/virtual/powercap"];
/// Visible but not writable.
pub(crate) const READONLY_PROC: &[&str] = &["bus", "fs", "irq", "sys", "sysrq-trigger"];

/// The filesystems that the rest of the set-up works on, by handle: what a path means
/// may have been arranged by the image.
pub(super) struct System {
    pub(super) proc: OwnedFd,
    sys: OwnedFd,
    pub(super) dev: OwnedFd,
    pub(super) pts: OwnedFd,
}

/// Mounts `/proc`, `/dev` with all in it, and `/sys`.
pub(super) fn mount(spec: &Spec, root: BorrowedFd<'_>) -> Result<System, Broken> {
    let proc = sys::detached("proc", &[], NOSUID | NODEV | NOEXEC).named("making /proc")?;
    attach_at(root, "proc", &proc)?;
    let options = [("mode", "0755"), ("size", "65536k")];
    let dev = sys::detached("tmpfs", &options, NOSUID).named("making /dev")?;
    attach_at(root, "dev", &dev)?;
    let pts = fill_dev(spec, &dev)?;
    let readonly = if spec.insecure { 0 } else { RDONLY };
    let attributes = NOSUID | NODEV | NOEXEC | readonly;
    let sysfs = sys::detached("sysfs", &[], attributes).named("making /sys")?;
    attach_at(root, "sys", &sysfs)?;
    if spec.cgroup.is_some()
        && let Some(over) =
            open_inside(sysfs.as_fd(), "fs/cgroup").named("finding /sys/fs/cgroup")?
    {
        let cgroup = sys::detached("cgroup2", &[], attributes).named("making /sys/fs/cgroup")?;
        sys::attach(cgroup.as_fd(), over.as_fd()).named("mounting /sys/fs/cgroup")?;
    }
    Ok(System {
        proc,
        sys: sysfs,
        dev,
        pts,
    })
}

/// Attaches at a directory of the root that must be one itself: through a symlink the
/// image would choose where (CVE-2019-19921, CVE-2023-27561).
fn attach_at(root: BorrowedFd<'_>, name: &str, tree: &OwnedFd) -> Result<(), Broken> {
    let broken = |error: io::Error| {
        let reason = match error.raw_os_error() {
            Some(libc::ENOTDIR | libc::ELOOP) => {
                "it must be a directory, not a symlink or file".into()
            }
            _ => error.to_string(),
        };
        Broken {
            part: Part::Target {
                target: format!("/{name}"),
                reason,
            },
            error,
        }
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || rustix::fs::openat(root, name, flags, Mode::empty());
    let over = match open() {
        Err(rustix::io::Errno::NOENT) => {
            rustix::fs::mkdirat(root, name, Mode::from_raw_mode(0o755))
                .map_err(|e| broken(e.into()))?;
            open()
        }
        opened => opened,
    };
    let over = over.map_err(|error| broken(error.into()))?;
    sys::attach(tree.as_fd(), over.as_fd()).map_err(broken)
}

/// Device nodes, links, terminals, shared memory and message queues.
fn fill_dev(spec: &Spec, dev: &OwnedFd) -> Result<OwnedFd, Broken> {
    for (name, major, minor) in NODES {
        node(dev, name, *major, *minor).named("making device nodes")?;
    }
    if spec.insecure {
        rustix::fs::mkdirat(dev, "net", Mode::from_raw_mode(0o755)).named("making device nodes")?;
        for (name, major, minor) in INSECURE_NODES {
            node(dev, name, *major, *minor).named("making device nodes")?;
        }
        for minor in 0..8 {
            let kind = FileType::BlockDevice;
            let device = rustix::fs::makedev(7, minor);
            let mode = Mode::from_raw_mode(0o660);
            rustix::fs::mknodat(dev, format!("loop{minor}"), kind, mode, device)
                .named("making device nodes")?;
        }
    }
    for device in &spec.devices {
        extra_node(dev, device).named(&format!("making the device {}", device.path))?;
    }
    for (target, link) in [
        ("/proc/self/fd", "fd"),
        ("/proc/self/fd/0", "stdin"),
        ("/proc/self/fd/1", "stdout"),
        ("/proc/self/fd/2", "stderr"),
        ("/proc/kcore", "core"),
        ("pts/ptmx", "ptmx"),
    ] {
        rustix::fs::symlinkat(target, dev, link).named("making links in /dev")?;
    }
    let options = [
        ("newinstance", ""),
        ("ptmxmode", "0666"),
        ("mode", "0620"),
        ("gid", "5"),
    ];
    let pts = sys::detached("devpts", &options[1..], NOSUID | NOEXEC).named("making /dev/pts")?;
    attach_in_dev(dev, "pts", &pts)?;
    let size = spec.shm_size.to_string();
    let options = [("mode", "1777"), ("size", size.as_str())];
    let shm = sys::detached("tmpfs", &options, NOSUID | NODEV | NOEXEC).named("making /dev/shm")?;
    attach_in_dev(dev, "shm", &shm)?;
    let queues =
        sys::detached("mqueue", &[], NOSUID | NODEV | NOEXEC).named("making /dev/mqueue")?;
    attach_in_dev(dev, "mqueue", &queues)?;
    Ok(pts)
}

fn node(dev: &OwnedFd, name: &str, major: u32, minor: u32) -> io::Result<()> {
    let device = rustix::fs::makedev(major, minor);
    let mode = Mode::from_raw_mode(0o666);
    Ok(rustix::fs::mknodat(
        dev,
        name,
        FileType::CharacterDevice,
        mode,
        device,
    )?)
}

/// A device asked for; it may take the place of a usual one, and be in a directory.
fn extra_node(dev: &OwnedFd, device: &Device) -> io::Result<()> {
    let path = device.path.trim_start_matches("/dev/");
    let mut made = String::new();
    for dir in path.rsplit_once('/').map_or("", |(dir, _)| dir).split('/') {
        made.push_str(dir);
        match rustix::fs::mkdirat(dev, &made, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST | rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        made.push('/');
    }
    let kind = match device.kind {
        DeviceKind::Block => FileType::BlockDevice,
        DeviceKind::Character => FileType::CharacterDevice,
    };
    let number = rustix::fs::makedev(device.major, device.minor);
    let mode = Mode::from_raw_mode(device.mode & 0o7777);
    let make = || rustix::fs::mknodat(dev, path, kind, mode, number);
    if make() == Err(rustix::io::Errno::EXIST) {
        rustix::fs::unlinkat(dev, path, rustix::fs::AtFlags::empty())?;
        make()?;
    }
    let owner = (
        device.uid.map(rustix::fs::Uid::from_raw),
        device.gid.map(rustix::fs::Gid::from_raw),
    );
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    Ok(rustix::fs::chownat(dev, path, owner.0, owner.1, flags)?)
}

fn attach_in_dev(dev: &OwnedFd, name: &str, tree: &OwnedFd) -> Result<(), Broken> {
    let step = format!("mounting /dev/{name}");
    rustix::fs::mkdirat(dev, name, Mode::from_raw_mode(0o755)).named(&step)?;
    let over = open_inside(dev.as_fd(), name).named(&step)?;
    let over = over
        .ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))
        .named(&step)?;
    sys::attach(tree.as_fd(), over.as_fd()).named(&step)
}

/// Hides and protects paths. They are looked up inside filesystems we made, by handle;
/// any failure but "not there" stops the container.
pub(super) fn mask(spec: &Spec, system: &System) -> Result<(), Broken> {
    if spec.insecure {
        return Ok(());
    }
    let null = open_inside(system.dev.as_fd(), "null")
        .and_then(check_null)
        .named("hiding paths")?;
    let mut empty: Option<OwnedFd> = None;
    let mut hide = |fs: &OwnedFd, path: &str| -> io::Result<()> {
        let Some(over) = open_inside(fs.as_fd(), path)? else {
            return Ok(());
        };
        let is_dir =
            FileType::from_raw_mode(rustix::fs::fstat(&over)?.st_mode) == FileType::Directory;
        let cover = match (&empty, is_dir) {
            (_, false) => sys::copy_mount(null.as_fd(), false)?,
            (Some(empty), true) => sys::copy_mount(empty.as_fd(), false)?,
            (None, true) => sys::detached("tmpfs", &[], RDONLY | NOSUID | NODEV | NOEXEC)?,
        };
        sys::attach(cover.as_fd(), over.as_fd())?;
        if is_dir {
            empty = Some(cover);
        }
        Ok(())
    };
    for path in MASKED_PROC {
        hide(&system.proc, path).named(&format!("hiding /proc/{path}"))?;
    }
    for path in MASKED_SYS {
        hide(&system.sys, path).named(&format!("hiding /sys/{path}"))?;
    }
    for cpu in 0.. {
        let path = format!("devices/system/cpu/cpu{cpu}");
        if open_inside(system.sys.as_fd(), &path)
            .named("looking for CPUs")?
            .is_none()
        {
            break;
        }
        hide(&system.sys, &format!("{path}/thermal_throttle")).named("hiding CPU throttling")?;
    }
    for path in READONLY_PROC {
        protect(&system.proc, path).named(&format!("protecting /proc/{path}"))?;
    }
    Ok(())
}

/// The null device must be the null device: what it covers would otherwise be shown
/// or handed out (CVE-2025-31133).
fn check_null(null: Option<OwnedFd>) -> io::Result<OwnedFd> {
    let null = null.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))?;
    let stat = rustix::fs::fstat(&null)?;
    let is_null = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && stat.st_rdev == rustix::fs::makedev(1, 3);
    if is_null {
        Ok(null)
    } else {
        Err(io::Error::from_raw_os_error(libc::ENODEV))
    }
}

fn protect(fs: &OwnedFd, path: &str) -> io::Result<()> {
    let Some(over) = open_inside(fs.as_fd(), path)? else {
        return Ok(());
    };
    let same = sys::copy_mount(over.as_fd(), true)?;
    sys::set_attributes(same.as_fd(), RDONLY | NOSUID | NODEV | NOEXEC, true)?;
    sys::attach(same.as_fd(), over.as_fd())
}

/// Opens a path of a filesystem we made, without following or leaving it.
pub(super) fn open_inside(fs: BorrowedFd<'_>, path: &str) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    match rustix::fs::openat2(fs, path, flags, Mode::empty(), resolve) {
        Ok(fd) => Ok(Some(fd)),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
