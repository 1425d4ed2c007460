//! Mounts a container's trees where an OCI runtime binary finds them, and becomes it.
//!
//! The mounts are in a mount namespace of this process only: they are gone with the
//! binary, however it ends.

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use super::container::{self, Broken, Named};
use super::{mounts, read_spec};
use crate::spec::Spec;
use crate::sys;

/// Serves the plan that comes over standard input: `[stage, program, arguments…]`,
/// where an empty stage means that nothing is to be mounted.
pub(super) fn run(args: impl Iterator<Item = OsString>) -> ! {
    sys::reset_signals();
    let Ok(fds) = receive() else {
        std::process::exit(125)
    };
    let Ok(spec) = read_spec(&fds) else {
        std::process::exit(125)
    };
    let args: Vec<OsString> = args.collect();
    match launch(&spec, &fds, args) {
        Ok(never) => match never {},
        Err(broken) => container::report(&spec, &fds, broken),
    }
}

fn receive() -> io::Result<Vec<OwnedFd>> {
    let socket = rustix::io::fcntl_dupfd_cloexec(sys::stdio(0), 10)?;
    Ok(sys::receive(socket.as_fd())?.1)
}

fn launch(
    spec: &Spec,
    fds: &[OwnedFd],
    args: Vec<OsString>,
) -> Result<std::convert::Infallible, Broken> {
    let strings: Result<Vec<CString>, _> = args
        .into_iter()
        .map(|arg| CString::new(arg.into_vec()))
        .collect();
    let strings = strings.map_err(|_| io::Error::from_raw_os_error(libc::EINVAL));
    let strings = strings.named("reading the runtime's arguments")?;
    let [stage, args @ ..] = &strings[..] else {
        let missing = Err(io::Error::from_raw_os_error(libc::EINVAL));
        return missing.named("reading the runtime's arguments");
    };
    rustix::process::setsid().named("starting a session")?;
    if !stage.is_empty() {
        let stage = stage.to_string_lossy();
        let mut trees = mounts::open(spec, fds)?;
        sys::unshare(libc::CLONE_NEWNS).named("leaving the host's mounts")?;
        mounts::stage_all(spec, fds, &mut trees, &stage)?;
    }
    for (number, index) in (0..).zip(spec.stdio) {
        sys::become_stdio(fds[index].as_fd(), number).named("taking a standard stream")?;
    }
    if spec.console.is_some() {
        sys::set_controlling_terminal(sys::stdio(0)).named("taking the terminal")?;
    }
    let program = args[0].to_string_lossy().into_owned();
    let env: Vec<CString> =
        [c"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()].into();
    let error = sys::execve(&program, args, &env);
    Err(error).named("starting the runtime")
}
