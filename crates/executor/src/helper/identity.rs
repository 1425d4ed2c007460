//! The last steps before exec: limits, capabilities, the syscall filter, the user.

use std::ffi::CString;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use super::container::{Broken, FAILURES, Named};
use crate::seccomp::Insn;
use crate::spec::{Part, Spec};
use crate::sys;

/// Docker's default fourteen: chown, dac_override, fowner, fsetid, kill, setgid,
/// setuid, setpcap, net_bind_service, net_raw, sys_chroot, mknod, audit_write, setfcap.
pub(crate) const DEFAULT_CAPABILITIES: u64 = 1 << 0
    | 1 << 1
    | 1 << 3
    | 1 << 4
    | 1 << 5
    | 1 << 6
    | 1 << 7
    | 1 << 8
    | 1 << 10
    | 1 << 13
    | 1 << 18
    | 1 << MKNOD
    | 1 << 29
    | 1 << 31;

const MKNOD: u32 = 27;

const PROC_MAGIC: i64 = 0x9fa0;

/// Has the kernel run the program under the AppArmor profile. `proc` is a `/proc`.
pub(super) fn choose_profile(spec: &Spec, proc: BorrowedFd<'_>) -> Result<(), Broken> {
    let Some(profile) = &spec.apparmor else {
        return Ok(());
    };
    let choose = || -> io::Result<()> {
        if rustix::fs::fstatfs(proc)?.f_type as i64 != PROC_MAGIC {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        let open = |path: &str| {
            let flags = OFlags::WRONLY | OFlags::CLOEXEC;
            rustix::fs::openat(proc, path, flags, Mode::empty())
        };
        // The first is for kernels with several security modules at once.
        let file = open("thread-self/attr/apparmor/exec");
        let file = file.or_else(|_| open("thread-self/attr/exec"))?;
        let order = format!("exec {profile}");
        match rustix::io::write(file, order.as_bytes())? {
            whole if whole == order.len() => Ok(()),
            _ => Err(io::ErrorKind::WriteZero.into()),
        }
    };
    choose().named(&format!("choosing the AppArmor profile {profile}"))
}

/// Gives up everything the program must not have and becomes it.
pub(super) fn finish(
    spec: &Spec,
    failures: &OwnedFd,
    filter: &[Insn],
) -> Result<std::convert::Infallible, Broken> {
    for (resource, soft, hard) in &spec.rlimits {
        sys::set_rlimit(*resource, *soft, *hard).named("setting an ulimit")?;
    }
    // No handle of the host may reach the program, nor be a way for its working
    // directory to lead out (CVE-2024-21626): close first, then change directory.
    sys::move_to(failures, FAILURES).named("moving the failure pipe")?;
    sys::close_from((FAILURES + 1).cast_unsigned()).named("closing handles of the host")?;
    enter_cwd(&spec.cwd).map_err(|error| Broken {
        part: Part::Cwd,
        error,
    })?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    drop_privileges(spec, filter)?;
    let error = exec(spec);
    Err(Broken {
        part: Part::Program,
        error,
    })
}

fn enter_cwd(cwd: &str) -> io::Result<()> {
    rustix::process::chdir(if cwd.is_empty() { "/" } else { cwd })?;
    // A directory outside of the root has no path from here.
    let path = rustix::process::getcwd(Vec::new())?;
    if path.to_bytes().first() != Some(&b'/') {
        return Err(io::Error::from_raw_os_error(libc::ENOENT));
    }
    Ok(())
}

fn drop_privileges(spec: &Spec, filter: &[Insn]) -> Result<(), Broken> {
    let (last, held) = bounding_set();
    let mut keep = if spec.insecure {
        held
    } else {
        DEFAULT_CAPABILITIES & held
    };
    if spec.nodev && !spec.insecure {
        keep &= !(1 << MKNOD);
    }
    for capability in (0..=last).filter(|capability| keep & (1 << capability) == 0) {
        sys::prctl(libc::PR_CAPBSET_DROP, capability, 0).named("dropping a capability")?;
    }
    // The filter needs CAP_SYS_ADMIN, because programs may gain privileges (sudo works
    // in a build step), so it comes before the user and allows what follows here.
    if !spec.insecure {
        sys::load_filter(filter).named("loading the syscall filter")?;
    }
    sys::prctl(libc::PR_SET_KEEPCAPS, 1, 0).named("keeping capabilities")?;
    sys::become_user(spec.ids.uid, spec.ids.gid, &spec.ids.groups).named("becoming the user")?;
    let inheritable = if spec.insecure { keep } else { 0 };
    sys::set_capabilities(keep, inheritable).named("setting capabilities")?;
    if spec.insecure {
        const RAISE: u64 = 2;
        for capability in (0..=last).filter(|capability| keep & (1 << capability) != 0) {
            sys::prctl(libc::PR_CAP_AMBIENT, RAISE, capability).named("raising a capability")?;
        }
    }
    // After the user: changing it clears this.
    sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as u64, 0).named("tying to the helper")?;
    Ok(())
}

/// The kernel's highest capability, and those this process may hand on.
fn bounding_set() -> (u64, u64) {
    let (mut last, mut held) = (0, 0);
    for capability in 0..64 {
        match sys::prctl(libc::PR_CAPBSET_READ, capability, 0) {
            Ok(has) => {
                last = capability;
                held |= u64::from(has != 0) << capability;
            }
            Err(_) => break,
        }
    }
    (last, held)
}

/// Executes the program, found in `PATH` when its name has no slash.
fn exec(spec: &Spec) -> io::Error {
    let strings = |list: &[String]| -> Option<Vec<CString>> {
        list.iter()
            .map(|one| CString::new(one.as_str()).ok())
            .collect()
    };
    let (Some(args), Some(env)) = (strings(&spec.args), strings(&spec.env)) else {
        return io::Error::from_raw_os_error(libc::EINVAL);
    };
    let Some(program) = spec.args.first() else {
        return io::Error::from_raw_os_error(libc::EINVAL);
    };
    if program.contains('/') {
        return sys::execve(program, &args, &env);
    }
    let path = spec
        .env
        .iter()
        .rev()
        .find_map(|one| one.strip_prefix("PATH="));
    let mut denied = None;
    for dir in path.unwrap_or(crate::process::DEFAULT_PATH).split(':') {
        let dir = if dir.is_empty() { "." } else { dir };
        let error = sys::execve(&format!("{dir}/{program}"), &args, &env);
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => {}
            Some(libc::EACCES) => denied = Some(error),
            _ => return error,
        }
    }
    denied.unwrap_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))
}
