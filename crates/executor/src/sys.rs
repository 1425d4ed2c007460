//! System calls that no crate wraps for us, each as a safe function.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags};

pub(crate) const NOSUID: u64 = 0x2;
pub(crate) const NODEV: u64 = 0x4;
pub(crate) const NOEXEC: u64 = 0x8;
pub(crate) const RDONLY: u64 = 0x1;

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// A new filesystem, mounted nowhere yet.
pub(crate) fn detached(
    kind: &str,
    options: &[(&str, &str)],
    attributes: u64,
) -> io::Result<OwnedFd> {
    let fs = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        rustix::mount::fsconfig_set_string(&fs, *key, *value)?;
    }
    rustix::mount::fsconfig_create(&fs)?;
    let attributes = u32::try_from(attributes).expect("mount attributes are small");
    let attributes = MountAttrFlags::from_bits_retain(attributes);
    Ok(rustix::mount::fsmount(
        &fs,
        FsMountFlags::FSMOUNT_CLOEXEC,
        attributes,
    )?)
}

/// A copy of the mount `fd` is in, with `fd` as its root, mounted nowhere yet.
pub(crate) fn copy_mount(fd: BorrowedFd<'_>, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(rustix::mount::open_tree(fd, "", flags)?)
}

/// Puts the detached mount `from` on the thing `to` is open on.
pub(crate) fn attach(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(from, "", to, "", flags)?)
}

/// Sets attributes of the mount whose root `fd` is open on.
pub(crate) fn set_attributes(
    fd: BorrowedFd<'_>,
    attributes: u64,
    recursive: bool,
) -> io::Result<()> {
    let wanted = [attributes, 0, 0, 0];
    let mut flags = libc::AT_EMPTY_PATH;
    if recursive {
        flags |= libc::AT_RECURSIVE;
    }
    // SAFETY: the path is an empty C string and `wanted` is a `struct mount_attr` of
    // the size given; the kernel only reads both.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            c"".as_ptr(),
            flags,
            wanted.as_ptr(),
            size_of_val(&wanted),
        )
    };
    check(result).map(drop)
}

/// How to make a process.
pub(crate) struct Clone3<'a> {
    /// `CLONE_NEW…` and others.
    pub(crate) flags: u64,
    /// Cgroup it is born into.
    pub(crate) cgroup: Option<BorrowedFd<'a>>,
}

/// Who returns from [`clone3`].
pub(crate) enum Forked {
    Child,
    Parent { pidfd: OwnedFd, pid: i32 },
}

/// Makes a process.
///
/// # Safety
/// The calling process must have one thread only: the child gets a copy of its memory
/// with whatever locks other threads held, forever.
pub(crate) unsafe fn clone3(how: &Clone3<'_>) -> io::Result<Forked> {
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let mut pidfd: RawFd = -1;
    let mut arguments = [0u64; 11];
    arguments[0] = how.flags | libc::CLONE_PIDFD as u64;
    arguments[1] = (&raw mut pidfd) as u64;
    // A sibling inherits how its end is signalled.
    if how.flags & libc::CLONE_PARENT as u64 == 0 {
        arguments[4] = libc::SIGCHLD as u64;
    }
    if let Some(cgroup) = how.cgroup {
        arguments[0] |= CLONE_INTO_CGROUP;
        arguments[10] = u64::from(cgroup.as_raw_fd().cast_unsigned());
    }
    // SAFETY: `arguments` is a `struct clone_args` of the size given, without a stack
    // of its own: the child returns here on a copy of ours. One thread: see above.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            arguments.as_ptr(),
            size_of_val(&arguments),
        )
    };
    match check(pid)? {
        0 => Ok(Forked::Child),
        pid => Ok(Forked::Parent {
            // SAFETY: the kernel made this descriptor for us just now.
            pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
            pid: i32::try_from(pid).expect("pids are small"),
        }),
    }
}

/// `prctl` with numbers only.
pub(crate) fn prctl(option: i32, a: u64, b: u64) -> io::Result<i32> {
    // SAFETY: the options used here take numbers, no pointers.
    let result = unsafe { libc::prctl(option, a, b, 0u64, 0u64) };
    check(result.into()).map(|_| result)
}

/// Leaves the namespaces named by `flags` for new ones.
pub(crate) fn unshare(flags: i32) -> io::Result<()> {
    // SAFETY: no memory is involved; this process has one thread.
    check(unsafe { libc::unshare(flags) }.into()).map(drop)
}

/// Enters namespaces of the process `pidfd` refers to, or the one it is a handle of.
pub(crate) fn setns(pidfd: BorrowedFd<'_>, flags: i32) -> io::Result<()> {
    // SAFETY: no memory is involved; this process has one thread.
    check(unsafe { libc::setns(pidfd.as_raw_fd(), flags) }.into()).map(drop)
}

/// Becomes a user for good.
pub(crate) fn become_user(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    // SAFETY: `groups` is readable for the length given. The raw calls change this
    // process's only thread.
    unsafe {
        check(libc::syscall(
            libc::SYS_setgroups,
            groups.len(),
            groups.as_ptr(),
        ))?;
        check(libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
        check(libc::syscall(libc::SYS_setresuid, uid, uid, uid))?;
    }
    Ok(())
}

/// Sets permitted and effective capabilities to `held`, inheritable to `inheritable`.
pub(crate) fn set_capabilities(held: u64, inheritable: u64) -> io::Result<()> {
    const VERSION_3: u32 = 0x2008_0522;
    let header = [VERSION_3, 0];
    let (low, high) = (|set: u64| set as u32, |set: u64| (set >> 32) as u32);
    let data = [
        [low(held), low(held), low(inheritable)],
        [high(held), high(held), high(inheritable)],
    ];
    // SAFETY: header and data have the layout of version 3, and outlive the call.
    check(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) }).map(drop)
}

/// Puts a syscall filter on this process.
pub(crate) fn load_filter(program: &[crate::seccomp::Insn]) -> io::Result<()> {
    #[repr(C)]
    struct Program {
        length: u16,
        filter: *const crate::seccomp::Insn,
    }
    const SET_MODE_FILTER: u32 = 1;
    let length =
        u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    let program = Program {
        length,
        filter: program.as_ptr(),
    };
    // SAFETY: `program` describes a readable array of instructions of that length.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, 0, &raw const program) };
    check(result).map(drop)
}

/// Limits a resource of this process.
pub(crate) fn set_rlimit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = [soft, hard];
    // SAFETY: `limit` is a `struct rlimit64`; nothing is written back.
    let result = unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            0,
            resource,
            limit.as_ptr(),
            std::ptr::null::<u64>(),
        )
    };
    check(result).map(drop)
}

/// Closes every descriptor from `first` on.
pub(crate) fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: only called right before exec or exit, when nothing uses them any more.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) }).map(drop)
}

/// Default action for every signal, none blocked: what a fresh program expects.
pub(crate) fn reset_signals() {
    for signal in 1..=64 {
        // SAFETY: SIG_DFL runs no code of ours.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: an all-zero sigset_t is initialised by sigemptyset before use.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Makes the terminal `fd` the controlling one of this session.
pub(crate) fn set_controlling_terminal(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes a number.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSCTTY, 0) }.into()).map(drop)
}

/// The other end of the pseudo-terminal `master`.
pub(crate) fn terminal_peer(master: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    const TIOCGPTPEER: libc::c_ulong = 0x5441;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes open flags and returns a new descriptor.
    let fd = check(unsafe { libc::ioctl(master.as_raw_fd(), TIOCGPTPEER as _, flags) }.into())?;
    // SAFETY: nothing else owns the new descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).expect("descriptors are small")) })
}

/// Switches the loopback interface of this network namespace on.
pub(crate) fn loopback_up() -> io::Result<()> {
    let (socket, mut request) = about_interface("lo")?;
    about(&socket, libc::SIOCGIFFLAGS as _, &mut request)?;
    // SAFETY: the call above filled in the flags.
    unsafe { request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short };
    about(&socket, libc::SIOCSIFFLAGS as _, &mut request)
}

/// Removes a bridge of this network namespace.
pub(crate) fn remove_bridge(name: &str) -> io::Result<()> {
    const SIOCBRDELBR: libc::c_ulong = 0x89a1;
    let (socket, mut request) = about_interface(name)?;
    request.ifr_ifru.ifru_flags = 0;
    about(&socket, libc::SIOCSIFFLAGS as _, &mut request)?;
    let name = request.ifr_name;
    // SAFETY: it takes a name that ends in zero.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), SIOCBRDELBR as _, name.as_ptr()) }.into())
        .map(drop)
}

fn about_interface(name: &str) -> io::Result<(OwnedFd, libc::ifreq)> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType};
    let kind = (AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC);
    let socket = rustix::net::socket_with(kind.0, kind.1, kind.2, None)?;
    // SAFETY: `ifreq` is plain data for which zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.is_empty() || name.len() >= request.ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok((socket, request))
}

fn about(socket: &OwnedFd, order: libc::c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
    let request = std::ptr::from_mut(request);
    // SAFETY: these orders read the name in an `ifreq`, and read or write its flags.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), order as _, request) }.into()).map(drop)
}

/// A network namespace of its own, its loopback switched on.
pub(crate) fn new_network_namespace() -> io::Result<OwnedFd> {
    // Only the thread that asks is moved, and this one ends here.
    let making = std::thread::Builder::new().spawn(|| {
        // SAFETY: no memory is involved.
        check(unsafe { libc::unshare(libc::CLONE_NEWNET) }.into())?;
        loopback_up()?;
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
        let path = "/proc/thread-self/ns/net";
        Ok(rustix::fs::open(path, flags, rustix::fs::Mode::empty())?)
    });
    making?
        .join()
        .unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
}

/// Does something in a network namespace, such as making a socket, which stays in there.
pub(crate) fn in_network<T: Send>(
    namespace: &OwnedFd,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    // Only the thread that asks is moved, and this one ends here.
    std::thread::scope(|scope| {
        let working = std::thread::Builder::new().spawn_scoped(scope, || {
            setns(namespace.as_fd(), libc::CLONE_NEWNET)?;
            work()
        });
        working?
            .join()
            .unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
    })
}

/// Lets go of the host's session keyring. Kernels without keys have none to let go of.
pub(crate) fn new_session_keyring() -> io::Result<()> {
    const JOIN_SESSION_KEYRING: libc::c_int = 1;
    let anonymous = std::ptr::null::<libc::c_char>();
    // SAFETY: a null name asks for an anonymous keyring; no memory is involved.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, anonymous) };
    match check(result) {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        done => done.map(drop),
    }
}

/// Runs a program in place of this one. Returns only when that failed.
pub(crate) fn execve(program: &str, args: &[CString], env: &[CString]) -> io::Error {
    let Ok(program) = CString::new(program) else {
        return io::Error::from_raw_os_error(libc::EINVAL);
    };
    let pointers = |list: &[CString]| -> Vec<*const libc::c_char> {
        list.iter()
            .map(|one| one.as_ptr())
            .chain([std::ptr::null()])
            .collect()
    };
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: both arrays end in null and point to C strings that live until exec.
    unsafe { libc::execve(program.as_ptr(), args.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Waits for a process and reaps it: its wait status, as `waitpid` gives it.
pub(crate) fn reap(pid: i32) -> io::Result<i32> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is writable.
        let result = unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) };
        match check(result.into()) {
            Ok(_) => return Ok(status),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Sends a signal to the process `pidfd` refers to.
pub(crate) fn signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: no siginfo is given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    check(result).map(drop)
}

/// A memory file holding `bytes`.
pub(crate) fn memory_file(bytes: &[u8]) -> io::Result<OwnedFd> {
    use std::io::{Seek, Write};
    let fd = rustix::fs::memfd_create("kiln", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = std::fs::File::from(fd);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file.into())
}

/// Sends `bytes` and handles as one message.
pub(crate) fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
    let mut space = vec![std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::from_raw_os_error(libc::E2BIG));
    }
    rustix::net::sendmsg(
        socket,
        &[io::IoSlice::new(bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// Most handles in one message; the kernel's own limit is 253.
pub(crate) const MOST_FDS: usize = 250;

/// Receives one message; no bytes means that the other side is gone.
pub(crate) fn receive(socket: BorrowedFd<'_>) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
    let mut bytes = vec![0; 64 * 1024];
    let mut space = vec![std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::net::recvmsg(
        socket,
        &mut [io::IoSliceMut::new(&mut bytes)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    bytes.truncate(received.bytes);
    Ok((bytes, fds))
}

/// Makes `fd` the standard stream `number`.
pub(crate) fn become_stdio(fd: BorrowedFd<'_>, number: i32) -> io::Result<()> {
    // SAFETY: replaces a standard stream, which nothing in this process owns.
    check(unsafe { libc::dup2(fd.as_raw_fd(), number) }.into()).map(drop)
}

/// Borrows a standard stream.
pub(crate) fn stdio(number: i32) -> BorrowedFd<'static> {
    // SAFETY: standard streams stay open for the life of the process.
    unsafe { BorrowedFd::borrow_raw(number) }
}

/// Moves `fd` to exactly `number`, closed on exec.
pub(crate) fn move_to(fd: &OwnedFd, number: i32) -> io::Result<()> {
    if fd.as_fd().as_raw_fd() == number {
        return Ok(());
    }
    // SAFETY: only used in a child right before exec; whatever was there is given up.
    check(unsafe { libc::dup3(fd.as_raw_fd(), number, libc::O_CLOEXEC) }.into()).map(drop)
}
