//! The first process of a container, from fork to exec.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::{filesystems, identity, mounts, terminal};
use crate::seccomp::Insn;
use crate::spec::{Failure, Part, Spec};
use crate::sys;

/// Where a failure is written; the last descriptor open before exec.
pub(super) const FAILURES: i32 = 3;

/// A step that failed.
pub(super) struct Broken {
    pub(super) part: Part,
    pub(super) error: io::Error,
}

/// Names the step that failed.
pub(super) trait Named<T> {
    fn named(self, step: &str) -> Result<T, Broken>;
}

impl<T> Named<T> for io::Result<T> {
    fn named(self, step: &str) -> Result<T, Broken> {
        self.map_err(|error| Broken {
            part: Part::Step(step.to_string()),
            error,
        })
    }
}

impl<T> Named<T> for rustix::io::Result<T> {
    fn named(self, step: &str) -> Result<T, Broken> {
        self.map_err(io::Error::from).named(step)
    }
}

/// Sets up the container and becomes its program.
pub(super) fn run(spec: &Spec, fds: &[OwnedFd], filter: &[Insn]) -> ! {
    let broken = match set_up(spec, fds, filter) {
        Ok(never) => match never {},
        Err(broken) => broken,
    };
    report(spec, fds, broken)
}

/// Tells what broke and ends.
pub(super) fn report(spec: &Spec, fds: &[OwnedFd], broken: Broken) -> ! {
    let errno = broken.error.raw_os_error().unwrap_or(libc::EINVAL);
    let failure = Failure {
        part: broken.part,
        errno,
    };
    let bytes = serde_json::to_vec(&failure).unwrap_or_default();
    // After `close_others` only the copy at `FAILURES` is still open.
    let open = fds
        .get(spec.failures)
        .is_some_and(|fd| rustix::io::write(fd, &bytes).is_ok());
    if !open {
        let _nobody_listens = rustix::io::write(sys::stdio(FAILURES), &bytes);
    }
    // SAFETY: ends this process at once, running none of our parent's exit handlers.
    unsafe { libc::_exit(125) }
}

fn set_up(
    spec: &Spec,
    fds: &[OwnedFd],
    filter: &[Insn],
) -> Result<std::convert::Infallible, Broken> {
    rustix::process::umask(rustix::fs::Mode::empty());
    rustix::process::setsid().named("starting a session")?;
    // Nobody may look into this process while it still holds handles of the host.
    sys::prctl(libc::PR_SET_DUMPABLE, 0, 0).named("hiding the starting process")?;
    sys::new_session_keyring().named("leaving the host's keys")?;
    for join in &spec.joins {
        rustix::io::write(&fds[*join], b"0").named("joining a cgroup")?;
    }
    if let Some(network) = spec.network {
        sys::setns(fds[network].as_fd(), libc::CLONE_NEWNET).named("entering the network")?;
    }
    let mut trees = mounts::open(spec, fds)?;
    let mut namespaces = libc::CLONE_NEWNS;
    if spec.cgroup.is_some() {
        namespaces |= libc::CLONE_NEWCGROUP;
    }
    sys::unshare(namespaces).named("leaving the host's mounts")?;
    let root = mounts::enter_root(spec, fds, &mut trees)?;
    let system = filesystems::mount(spec, root.as_fd())?;
    identity::choose_profile(spec, system.proc.as_fd())?;
    mounts::mount_all(spec, &trees, root.as_fd())?;
    filesystems::mask(spec, &system)?;
    if spec.own_network {
        sys::loopback_up().named("switching the loopback on")?;
    }
    rustix::system::sethostname(spec.hostname.as_bytes()).named("setting the host name")?;
    make_cwd(spec, root.as_fd())?;
    mounts::seal_root(spec, root.as_fd())?;
    if spec.console.is_some() {
        terminal::take(spec, fds, Some(&system))?;
    } else {
        take_stdio(spec, fds)?;
    }
    // Every handle is closed by number next: nothing may still own one.
    drop((root, system, trees));
    identity::finish(spec, &fds[spec.failures], filter)
}

/// The working directory is made when absent, owned by the user.
fn make_cwd(spec: &Spec, root: std::os::fd::BorrowedFd<'_>) -> Result<(), Broken> {
    let broken = |error| Broken {
        part: Part::Cwd,
        error,
    };
    let leaf = crate::walk::Leaf::Dir;
    let (_, made) = crate::walk::find_or_make(root, &spec.cwd, leaf, 0o755).map_err(broken)?;
    for one in made {
        let owner = (
            Some(rustix::fs::Uid::from_raw(spec.ids.uid)),
            Some(rustix::fs::Gid::from_raw(spec.ids.gid)),
        );
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::chownat(&one.parent, &one.name, owner.0, owner.1, flags)
            .map_err(|error| broken(error.into()))?;
    }
    Ok(())
}

/// Takes the streams; a pipe is given to the user, so that opening `/dev/stdout` works.
pub(super) fn take_stdio(spec: &Spec, fds: &[OwnedFd]) -> Result<(), Broken> {
    for (number, index) in (0..).zip(spec.stdio) {
        let fd = &fds[index];
        let stat = rustix::fs::fstat(fd).named("looking at a standard stream")?;
        if rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Fifo {
            let owner = Some(rustix::fs::Uid::from_raw(spec.ids.uid));
            rustix::fs::fchown(fd, owner, None).named("giving a standard stream away")?;
        }
        sys::become_stdio(fd.as_fd(), number).named("taking a standard stream")?;
    }
    Ok(())
}
