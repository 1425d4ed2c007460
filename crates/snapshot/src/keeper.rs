//! Copies of mounts on kernels that cannot copy detached ones (before Linux 6.15).
//!
//! There a mount is copied only by somebody in the mount namespace it is attached in. So a
//! thread keeps a namespace with nothing in it but a memory file system. A mount is attached
//! to a directory of that when it is to be copied for the first time, and the thread makes
//! the copies. Nobody else sees the namespace; with the process it goes, and all that is
//! attached in it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::fs::{CWD, Mode};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags, fsconfig_create, fsmount, fsopen, mount_change, move_mount,
    open_tree, unmount,
};
use rustix::thread::UnshareFlags;

type Job = Box<dyn FnOnce() + Send>;

/// Work for the thread, once it has begun.
static KEEPER: Mutex<Option<Sender<Job>>> = Mutex::new(None);

/// A mount attached in the keeper's namespace; dropped, it is attached nowhere.
#[derive(Debug)]
pub(crate) struct Place {
    name: String,
}

impl Place {
    /// Attaches a detached mount. Blocks.
    pub(crate) fn attach(mount: BorrowedFd<'_>) -> io::Result<Place> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("/{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let (mount, point) = (mount.try_clone_to_owned()?, name.clone());
        ask(move || {
            rustix::fs::mkdir(&point, Mode::RWXU)?;
            attach(&mount, &point)
        })?;
        Ok(Place { name })
    }

    /// A detached copy of the mount with `dir`, a file or directory of it, as its root. Blocks.
    pub(crate) fn copy(&self, dir: BorrowedFd<'_>) -> io::Result<OwnedFd> {
        let dir = dir.try_clone_to_owned()?;
        ask(move || clone(dir.as_fd()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let name = std::mem::take(&mut self.name);
        // Nobody waits for it: the kernel takes its time.
        let _ended = send(Box::new(move || {
            let gone = unmount(&name, UnmountFlags::DETACH);
            if let Err(error) = gone.and_then(|()| rustix::fs::rmdir(&name)) {
                tracing::debug!(%error, "a mount stays until the end");
            }
        }));
    }
}

/// Whether this kernel copies detached mounts, so that no keeper is needed. Where it cannot
/// even make one, that is for others to say.
pub(crate) fn copies_detached() -> bool {
    static COPIES: OnceLock<bool> = OnceLock::new();
    *COPIES.get_or_init(|| match memory() {
        Ok(mount) => clone(mount.as_fd()).is_ok(),
        Err(_) => true,
    })
}

fn clone(dir: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    Ok(open_tree(dir, "", flags)?)
}

fn attach(mount: &OwnedFd, point: &str) -> io::Result<()> {
    let empty_path = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(move_mount(mount, "", CWD, point, empty_path)?)
}

/// A new memory file system, attached nowhere.
fn memory() -> io::Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(context.as_fd())?;
    let flags = (FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty());
    Ok(fsmount(context.as_fd(), flags.0, flags.1)?)
}

/// Does `work` in the keeper's namespace and waits for it.
fn ask<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    let (reply, answer) = channel();
    send(Box::new(move || {
        let _asker_left = reply.send(work());
    }))?;
    let ended = |_| io::Error::other("the thread that keeps mounts has ended");
    answer.recv().map_err(ended)?
}

fn send(job: Job) -> io::Result<()> {
    let mut keeper = KEEPER.lock().unwrap_or_else(PoisonError::into_inner);
    let jobs = match &*keeper {
        Some(jobs) => jobs,
        None => keeper.insert(start()?),
    };
    let ended = |_| io::Error::other("the thread that keeps mounts has ended");
    jobs.send(job).map_err(ended)
}

fn start() -> io::Result<Sender<Job>> {
    let (jobs, work) = channel::<Job>();
    let (reply, begun) = channel();
    let thread = std::thread::Builder::new().name("mounts".to_owned());
    thread.spawn(move || {
        let entered = enter();
        let failed = entered.is_err();
        let _nobody_left = reply.send(entered);
        if !failed {
            work.into_iter().for_each(|job| job());
        }
    })?;
    let ended = |_| io::Error::other("the thread that keeps mounts has ended");
    begun.recv().map_err(ended)??;
    Ok(jobs)
}

/// Puts this thread into a mount namespace of its own and lets go of all that is mounted on
/// the host: it must not stay in use because of us.
fn enter() -> io::Result<()> {
    // SAFETY: a new mount namespace and file-system context of this thread alone; descriptors
    // stay shared, and the thread does nothing but look after mounts.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }?;
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )?;
    let stage = memory()?;
    // Over the host's /proc, which is everywhere, in this namespace only.
    attach(&stage, "/proc")?;
    rustix::process::fchdir(&stage)?;
    rustix::process::pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir("/")?)
}
