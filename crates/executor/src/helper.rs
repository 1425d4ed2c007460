//! The single-threaded process that starts containers.
//!
//! A process with several threads cannot safely fork and go on running its own code
//! in the child, so containers are children of this small copy of our program. It
//! receives what to start over a socket, forks, and reports ends. When the socket
//! closes (its owner is gone, however that happened) it kills every container, removes
//! their cgroups and ends. When it dies itself, the kernel kills its containers.

mod container;
mod enter;
pub(crate) mod filesystems;
pub(crate) mod identity;
mod launcher;
mod mounts;
mod terminal;

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};

use crate::cgroup::Left;
use crate::seccomp;
use crate::spec::{Order, Reply, Request, Spec};
use crate::sys::{self, Clone3, Forked};

/// First argument by which a copy of our program knows that it is the helper.
pub const HELPER_NAME: &str = "kiln-containers";

/// If this process was started as the helper, be it and never return.
///
/// Call this first thing in `main`, before any thread is started.
pub fn helper_main() {
    let mut args = std::env::args_os();
    let Some(name) = args.next() else { return };
    if name == HELPER_NAME {
        std::process::exit(i32::from(run().is_err()));
    }
    if name == LAUNCHER_NAME {
        launcher::run(args);
    }
}

/// First argument of the copy that mounts what an OCI runtime binary will find.
pub(crate) const LAUNCHER_NAME: &str = "kiln-launcher";

struct Child {
    id: u64,
    pid: i32,
    pidfd: OwnedFd,
}

struct Helper {
    socket: OwnedFd,
    children: Vec<Child>,
    /// By the number they came under; in order.
    kept: Vec<(u64, Left)>,
    filter: Vec<seccomp::Insn>,
}

fn run() -> io::Result<()> {
    let _only_a_name = rustix::thread::set_name(c"kiln-containers");
    sys::reset_signals();
    // SIGINT and SIGHUP go to the whole terminal group: our owner decides what they mean.
    rustix::process::setsid().ok();
    let socket = rustix::io::fcntl_dupfd_cloexec(sys::stdio(0), 10)?;
    let null = rustix::fs::open(
        "/dev/null",
        rustix::fs::OFlags::RDWR,
        rustix::fs::Mode::empty(),
    )?;
    sys::become_stdio(null.as_fd(), 0)?;
    let filter = seccomp::default_filter();
    let mut helper = Helper {
        socket,
        children: Vec::new(),
        kept: Vec::new(),
        filter,
    };
    let result = helper.serve();
    helper.end();
    result
}

impl Helper {
    fn serve(&mut self) -> io::Result<()> {
        loop {
            let mut waited: Vec<PollFd<'_>> = vec![PollFd::new(&self.socket, PollFlags::IN)];
            waited.extend(
                self.children
                    .iter()
                    .map(|child| PollFd::new(&child.pidfd, PollFlags::IN)),
            );
            match poll(&mut waited, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let message = !waited[0].revents().is_empty();
            let ended: Vec<usize> = (1..waited.len())
                .filter(|index| !waited[*index].revents().is_empty())
                .collect();
            for index in ended.into_iter().rev() {
                let child = self.children.swap_remove(index - 1);
                let status = sys::reap(child.pid)?;
                self.reply(
                    &Reply::Ended {
                        id: child.id,
                        status,
                    },
                    None,
                )?;
            }
            if message {
                let (bytes, fds) = sys::receive(self.socket.as_fd())?;
                if bytes.is_empty() {
                    return Ok(());
                }
                self.obey(&bytes, fds)?;
            }
        }
    }

    fn obey(&mut self, bytes: &[u8], fds: Vec<OwnedFd>) -> io::Result<()> {
        let request: Request = serde_json::from_slice(bytes)?;
        let id = request.id;
        let started = match request.order {
            Order::Keep { number, kept } => {
                let mut fds = fds.into_iter();
                for (name, if_empty) in kept {
                    if let (Some(parent), Some(dir)) = (fds.next(), fds.next()) {
                        let left = Left {
                            parent,
                            name,
                            dir,
                            if_empty,
                        };
                        self.kept.push((number, left));
                    }
                }
                return Ok(());
            }
            Order::Forget { number } => {
                self.kept.retain(|(of, _)| *of != number);
                return Ok(());
            }
            Order::Run => self.start(fds),
            Order::Enter => enter::start(fds, &self.filter),
        };
        match started {
            Ok((pid, pidfd)) => {
                self.reply(&Reply::Started { id }, Some(&pidfd))?;
                self.children.push(Child { id, pid, pidfd });
                Ok(())
            }
            Err((step, error)) => {
                let errno = error.raw_os_error().unwrap_or(libc::EIO);
                self.reply(
                    &Reply::Refused {
                        id,
                        step: step.to_string(),
                        errno,
                    },
                    None,
                )
            }
        }
    }

    fn start(&self, fds: Vec<OwnedFd>) -> Result<(i32, OwnedFd), (&'static str, io::Error)> {
        let spec = read_spec(&fds).map_err(|error| ("reading what to run", error))?;
        let mut flags = libc::CLONE_NEWPID | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC;
        if spec.own_network {
            flags |= libc::CLONE_NEWNET;
        }
        let cgroup = spec
            .cgroup
            .and_then(|index| fds.get(index))
            .map(AsFd::as_fd);
        let how = Clone3 {
            flags: flags.cast_unsigned().into(),
            cgroup,
        };
        // SAFETY: the helper never starts a thread.
        match unsafe { sys::clone3(&how) }.map_err(|error| ("starting a process", error))? {
            Forked::Parent { pidfd, pid } => Ok((pid, pidfd)),
            Forked::Child => container::run(&spec, &fds, &self.filter),
        }
    }

    fn reply(&self, reply: &Reply, handle: Option<&OwnedFd>) -> io::Result<()> {
        let bytes = serde_json::to_vec(reply)?;
        let fds: Vec<_> = handle.iter().map(|fd| fd.as_fd()).collect();
        sys::send(self.socket.as_fd(), &bytes, &fds)
    }

    /// Leaves nothing behind.
    fn end(&mut self) {
        for child in &self.children {
            let _gone = sys::signal(child.pidfd.as_fd(), libc::SIGKILL);
        }
        for child in self.children.drain(..) {
            let _status = sys::reap(child.pid);
        }
        for (_, left) in self.kept.drain(..) {
            left.remove();
        }
    }
}

/// Reads the spec from the first handle.
fn read_spec(fds: &[OwnedFd]) -> io::Result<Spec> {
    use std::io::Read;
    let file = fds
        .first()
        .ok_or_else(|| io::Error::from_raw_os_error(libc::EBADMSG))?;
    let mut bytes = Vec::new();
    std::fs::File::from(file.try_clone()?).read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}
