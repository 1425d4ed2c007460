//! The container's root and the mounts asked for.
//!
//! Everything of the host is opened first. Then the process moves into its root and
//! lets go of the host's mounts; only after that are mount points looked up, so no
//! symlink and no race can lead anywhere but into the container.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountPropagationFlags, UnmountFlags};

use super::container::{Broken, Named};
use crate::spec::{MountKind, MountRef, Part, Spec, TreeRef};
use crate::sys;
use crate::walk::{self, Leaf};

const PROC_MAGIC: i64 = 0x9fa0;

/// Detached mounts, ready to be attached.
pub(super) struct Trees {
    root: OwnedFd,
    /// One for each bind in `spec.mounts`.
    binds: Vec<Option<OwnedFd>>,
}

/// Takes copies of every tree of the host that will be mounted.
pub(super) fn open(spec: &Spec, fds: &[OwnedFd]) -> Result<Trees, Broken> {
    let root = copy(spec.root, fds).named("copying the root mount")?;
    let mut binds = Vec::new();
    for mount in &spec.mounts {
        binds.push(match &mount.kind {
            MountKind::Bind { tree, .. } => {
                Some(copy(*tree, fds).named(&format!("copying the mount for {}", mount.target))?)
            }
            MountKind::Tmpfs { .. } | MountKind::File { .. } => None,
        });
    }
    Ok(Trees { root, binds })
}

/// Before Linux 6.15 a detached mount cannot be copied; the one we are given then is ours alone,
/// and is moved.
fn copy(tree: TreeRef, fds: &[OwnedFd]) -> io::Result<OwnedFd> {
    let fd = &fds[tree.fd];
    let copied = match sys::copy_mount(fd.as_fd(), tree.recursive) {
        Err(error) if tree.detached && error.raw_os_error() == Some(libc::EINVAL) => fd.try_clone(),
        copied => copied,
    }?;
    if tree.readonly {
        sys::set_attributes(copied.as_fd(), sys::RDONLY, tree.recursive)?;
    }
    Ok(copied)
}

/// Makes the container's root the root of this process and forgets the host's mounts.
pub(super) fn enter_root(
    spec: &Spec,
    fds: &[OwnedFd],
    trees: &mut Trees,
) -> Result<OwnedFd, Broken> {
    // Over the host's /proc, which is everywhere, in our mount namespace only.
    stage(spec, fds, trees, "/proc")?;
    rustix::process::fchdir(&trees.root).named("entering the root")?;
    rustix::process::pivot_root(".", ".").named("changing the root")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).named("letting go of the host's mounts")?;
    rustix::process::chdir("/").named("entering the root")?;
    open_path(rustix::fs::CWD, "/").named("opening the root")
}

/// Mounts a memory filesystem over `path`, with the files made of bytes in it and the
/// root at `root`. Nothing of it reaches another mount namespace.
fn stage(spec: &Spec, fds: &[OwnedFd], trees: &mut Trees, path: &str) -> Result<OwnedFd, Broken> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).named("keeping mounts to ourselves")?;
    let options = [("mode", "0700"), ("size", "64m")];
    let stage =
        sys::detached("tmpfs", &options, sys::NOSUID | sys::NODEV).named("staging mounts")?;
    let over = open_path(rustix::fs::CWD, path).named("staging mounts")?;
    sys::attach(stage.as_fd(), over.as_fd()).named("staging mounts")?;
    write_files(spec, fds, trees, stage.as_fd()).named("writing files for the container")?;
    rustix::fs::mkdirat(&stage, "root", Mode::from_raw_mode(0o700)).named("staging the root")?;
    let over = open_path(stage.as_fd(), "root").named("staging the root")?;
    sys::attach(trees.root.as_fd(), over.as_fd()).named("mounting the root")?;
    Ok(stage)
}

/// For a runtime binary: everything at a path of its own beneath `path`, the root at
/// `root` and the mount with index N at `mN`, where the binary finds them.
pub(super) fn stage_all(
    spec: &Spec,
    fds: &[OwnedFd],
    trees: &mut Trees,
    path: &str,
) -> Result<(), Broken> {
    let stage = stage(spec, fds, trees, path)?;
    for (index, tree) in trees.binds.iter().enumerate() {
        let Some(tree) = tree else { continue };
        let name = format!("m{index}");
        let place = walk::find(stage.as_fd(), &name).named("staging a mount")?;
        let leaf = leaf(&spec.mounts[index].kind);
        let (at, _made) = walk::make(place, leaf, 0o700).named("staging a mount")?;
        sys::attach(tree.as_fd(), at.as_fd()).named("staging a mount")?;
    }
    Ok(())
}

fn open_path(dir: BorrowedFd<'_>, path: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, path, flags, Mode::empty())?)
}

/// Copies the content of secrets and the like into memory and makes each a mount.
fn write_files(
    spec: &Spec,
    fds: &[OwnedFd],
    trees: &mut Trees,
    stage: BorrowedFd<'_>,
) -> io::Result<()> {
    for (index, mount) in spec.mounts.iter().enumerate() {
        let MountKind::File {
            content,
            mode,
            uid,
            gid,
        } = mount.kind
        else {
            continue;
        };
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(stage, index.to_string(), flags, Mode::from_raw_mode(0o600))?;
        let mut file = File::from(fd);
        io::copy(&mut File::from(fds[content].try_clone()?), &mut file)?;
        let owner = (
            rustix::fs::Uid::from_raw(uid),
            rustix::fs::Gid::from_raw(gid),
        );
        rustix::fs::fchown(&file, Some(owner.0), Some(owner.1))?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o7777))?;
        let tree = sys::copy_mount(file.as_fd(), false)?;
        let attributes = sys::RDONLY | sys::NOSUID | sys::NODEV | sys::NOEXEC;
        sys::set_attributes(tree.as_fd(), attributes, false)?;
        trees.binds[index] = Some(tree);
    }
    Ok(())
}

/// Mounts what was asked for, in its order.
pub(super) fn mount_all(spec: &Spec, trees: &Trees, root: BorrowedFd<'_>) -> Result<(), Broken> {
    for (mount, tree) in spec.mounts.iter().zip(&trees.binds) {
        let refused = |reason: String, error: io::Error| Broken {
            part: Part::Target {
                target: mount.target.clone(),
                reason,
            },
            error,
        };
        let failed = |error: io::Error| refused(error.to_string(), error);
        let found = walk::find_or_make(root, &mount.target, leaf(&mount.kind), 0o755);
        let (at, made_here) = found.map_err(failed)?;
        let was_there = made_here.is_empty();
        // A mount over a process's files in /proc could fake what we or a monitor read
        // (CVE-2019-16884, CVE-2023-28642); asking the filesystem sees through symlinks.
        let kind = rustix::fs::fstatfs(&at).map_err(|error| failed(error.into()))?;
        if kind.f_type as i64 == PROC_MAGIC {
            let error = io::Error::from_raw_os_error(libc::EPERM);
            return Err(refused(
                "it is inside /proc, where nothing may be mounted".into(),
                error,
            ));
        }
        let made;
        let tree = match tree {
            Some(tree) => {
                let attributes = attributes(spec, mount);
                if attributes != 0 {
                    sys::set_attributes(tree.as_fd(), attributes, true).map_err(failed)?;
                }
                tree
            }
            None => {
                made = tmpfs(mount, was_there.then_some(at.as_fd())).map_err(failed)?;
                &made
            }
        };
        sys::attach(tree.as_fd(), at.as_fd()).map_err(|error| match error.raw_os_error() {
            Some(libc::ENOTDIR) => refused("one is a directory and the other is not".into(), error),
            _ => failed(error),
        })?;
    }
    Ok(())
}

fn leaf(kind: &MountKind) -> Leaf {
    match kind {
        MountKind::Bind { is_dir: true, .. } | MountKind::Tmpfs { .. } => Leaf::Dir,
        MountKind::Bind { is_dir: false, .. } | MountKind::File { .. } => Leaf::File,
    }
}

fn attributes(spec: &Spec, mount: &MountRef) -> u64 {
    let readonly = if mount.readonly { sys::RDONLY } else { 0 };
    let nodev = if spec.nodev && !spec.insecure {
        sys::NODEV
    } else {
        0
    };
    readonly | nodev | mount.attributes
}

/// An empty memory filesystem with the mode of the directory it covers, or 1777.
fn tmpfs(mount: &MountRef, covered: Option<BorrowedFd<'_>>) -> io::Result<OwnedFd> {
    let MountKind::Tmpfs { size } = mount.kind else {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    };
    let mode = match covered {
        Some(dir) => rustix::fs::fstat(dir)?.st_mode & 0o7777,
        None => 0o1777,
    };
    let (mode, size) = (format!("{mode:o}"), size.map(|size| size.to_string()));
    let mut options = vec![("mode", mode.as_str())];
    options.extend(size.as_deref().map(|size| ("size", size)));
    let readonly = if mount.readonly { sys::RDONLY } else { 0 };
    sys::detached("tmpfs", &options, sys::NOSUID | sys::NODEV | readonly)
}

/// Makes the root read-only, and blind to device nodes where nothing else guards them.
pub(super) fn seal_root(spec: &Spec, root: BorrowedFd<'_>) -> Result<(), Broken> {
    let readonly = if spec.readonly_root { sys::RDONLY } else { 0 };
    let nodev = if spec.nodev && !spec.insecure {
        sys::NODEV
    } else {
        0
    };
    if readonly | nodev == 0 {
        return Ok(());
    }
    sys::set_attributes(root, readonly | nodev, false).named("sealing the root")
}
