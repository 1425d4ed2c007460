//! One more process in a container that runs already.
//!
//! Entering a process namespace counts for children only, so a go-between enters and
//! forks the real process as its own sibling: a child of the helper like all others.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::container::{self, Broken, Named};
use super::{identity, read_spec, terminal};
use crate::seccomp::Insn;
use crate::spec::Spec;
use crate::sys::{self, Clone3, Forked};

/// Starts the process; its number and handle.
pub(super) fn start(
    fds: Vec<OwnedFd>,
    filter: &[Insn],
) -> Result<(i32, OwnedFd), (&'static str, io::Error)> {
    const STEP: &str = "entering the container";
    let spec = read_spec(&fds).map_err(|error| ("reading what to run", error))?;
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|error| (STEP, error.into()))?;
    let how = Clone3 {
        flags: 0,
        cgroup: None,
    };
    // SAFETY: the helper never starts a thread.
    let between = match unsafe { sys::clone3(&how) }.map_err(|error| (STEP, error))? {
        Forked::Child => go_between(&spec, &fds, &write, filter),
        Forked::Parent { pid, .. } => pid,
    };
    drop((write, fds));
    let mut number = [0; 4];
    let got = rustix::io::read(&read, &mut number);
    sys::reap(between).map_err(|error| (STEP, error))?;
    if got != Ok(number.len()) {
        return Err((STEP, io::Error::from_raw_os_error(libc::ESRCH)));
    }
    let pid = i32::from_ne_bytes(number);
    let failed = |error: rustix::io::Errno| (STEP, io::Error::from(error));
    let handle = rustix::process::Pid::from_raw(pid).ok_or(rustix::io::Errno::SRCH);
    let flags = rustix::process::PidfdFlags::empty();
    let pidfd = handle
        .and_then(|pid| rustix::process::pidfd_open(pid, flags))
        .map_err(failed)?;
    Ok((pid, pidfd))
}

fn go_between(spec: &Spec, fds: &[OwnedFd], write: &OwnedFd, filter: &[Insn]) -> ! {
    let broken = match fork_inside(spec, fds) {
        Ok(Some(pid)) => {
            let _told = rustix::io::write(write, &pid.to_ne_bytes());
            // SAFETY: ends this process at once, running no exit handlers.
            unsafe { libc::_exit(0) }
        }
        Ok(None) => match become_process(spec, fds, filter) {
            Ok(never) => match never {},
            Err(broken) => broken,
        },
        Err(broken) => broken,
    };
    container::report(spec, fds, broken)
}

/// Enters the container's namespaces and forks; none in the new process.
fn fork_inside(spec: &Spec, fds: &[OwnedFd]) -> Result<Option<i32>, Broken> {
    // Before anyone inside can see this process (CVE-2016-9962).
    sys::prctl(libc::PR_SET_DUMPABLE, 0, 0).named("hiding the starting process")?;
    for join in &spec.joins {
        rustix::io::write(&fds[*join], b"0").named("joining a cgroup")?;
    }
    let mut namespaces = libc::CLONE_NEWNS
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET;
    if spec.cgroup.is_some() {
        namespaces |= libc::CLONE_NEWCGROUP;
    }
    let container = fds
        .get(1)
        .ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF));
    let container = container.named("entering the container")?;
    sys::setns(container.as_fd(), namespaces).named("entering the container")?;
    let cgroup = spec
        .cgroup
        .and_then(|index| fds.get(index))
        .map(AsFd::as_fd);
    let how = Clone3 {
        flags: libc::CLONE_PARENT as u64,
        cgroup,
    };
    // SAFETY: the go-between has one thread, as the helper it came from.
    match unsafe { sys::clone3(&how) }.named("starting a process")? {
        Forked::Parent { pid, .. } => Ok(Some(pid)),
        Forked::Child => Ok(None),
    }
}

fn become_process(
    spec: &Spec,
    fds: &[OwnedFd],
    filter: &[Insn],
) -> Result<std::convert::Infallible, Broken> {
    rustix::process::setsid().named("starting a session")?;
    if spec.apparmor.is_some() {
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
        let proc = rustix::fs::open("/proc", flags, rustix::fs::Mode::empty());
        identity::choose_profile(spec, proc.named("opening /proc")?.as_fd())?;
    }
    if spec.console.is_some() {
        terminal::take(spec, fds, None)?;
    } else {
        container::take_stdio(spec, fds)?;
    }
    identity::finish(spec, &fds[spec.failures], filter)
}
