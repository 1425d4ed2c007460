//! Our ends of a process's standard streams, terminal and failure pipe.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use crate::error::Error;
use crate::io::{drain, feed};
use crate::prepare::{self, Handles, OurEnds, setup};
use crate::spec::{Failure, Part, Spec};
use crate::sys;
use crate::{Io, Result};

/// How long output may still come after a process is gone that was cancelled, or that
/// left its streams to others in a container that lives on.
pub(crate) const AFTERMATH: Duration = Duration::from_secs(1);

/// Our side of a process that is about to start.
pub(crate) struct Ends {
    pub(crate) ours: OurEnds,
    pub(crate) failures: OwnedFd,
    pub(crate) console: Option<OwnedFd>,
}

/// Adds the streams, the failure pipe and the terminal's socket to a spec.
pub(crate) fn ends(spec: &mut Spec, handles: &mut Handles, io: Io, tty: bool) -> Result<Ends> {
    let (ours, stdio) = prepare::streams(io, handles).map_err(setup("opening standard streams"))?;
    spec.stdio = stdio;
    let (failures, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|error| setup("opening a pipe")(error.into()))?;
    spec.failures = handles.push(write);
    let mut console = None;
    if tty {
        let (our, their) = std::os::unix::net::UnixDatagram::pair()
            .map_err(setup("opening a socket for the terminal"))?;
        spec.console = Some(handles.push(their.into()));
        console = Some(our.into());
    }
    Ok(Ends {
        ours,
        failures,
        console,
    })
}

/// The spec as a handle.
pub(crate) fn frame(spec: &Spec) -> Result<OwnedFd> {
    let bytes = serde_json::to_vec(spec).expect("plain data always serialises");
    sys::memory_file(&bytes).map_err(setup("writing what to run"))
}

/// Waits until the program runs; an error if it never will.
pub(crate) async fn read_failure(spec: &Spec, failures: OwnedFd) -> Result<()> {
    let mut pipe = pipe::Receiver::from_owned_fd(failures).map_err(setup("watching the start"))?;
    let mut bytes = Vec::new();
    pipe.read_to_end(&mut bytes)
        .await
        .map_err(setup("watching the start"))?;
    if bytes.is_empty() {
        return Ok(());
    }
    let failure: Failure = serde_json::from_slice(&bytes).map_err(|error| Error::Helper {
        reason: format!("it said something strange: {error}"),
    })?;
    let source = std::io::Error::from_raw_os_error(failure.errno);
    Err(match failure.part {
        Part::Step(step) => Error::Setup { step, source },
        Part::Target { target, reason } => Error::Target { target, reason },
        Part::Cwd => Error::Cwd {
            cwd: spec.cwd.clone(),
            source,
        },
        Part::Program => Error::Program {
            program: spec.args[0].clone(),
            source,
        },
    })
}

pub(crate) fn receive_terminal(console: &OwnedFd) -> Result<OwnedFd> {
    let (_, fds) = sys::receive(console.as_fd()).map_err(setup("receiving the terminal"))?;
    let missing = || std::io::Error::from_raw_os_error(libc::EBADF);
    let master = fds.into_iter().next().ok_or_else(missing);
    let master = master.map_err(setup("receiving the terminal"))?;
    rustix::io::ioctl_fionbio(&master, true)
        .map_err(|e| setup("receiving the terminal")(e.into()))?;
    Ok(master)
}

/// The tasks moving bytes between the process and its caller.
pub(crate) struct Pumps {
    outputs: Vec<stdx::task::Task<()>>,
    _input: Option<stdx::task::Task<()>>,
}

impl Pumps {
    pub(crate) fn start(ours: OurEnds, master: Option<&OwnedFd>) -> Result<Pumps> {
        let failed = || setup("watching standard streams");
        let mut outputs = Vec::new();
        if let Some(master) = master {
            let clone = || {
                master
                    .try_clone()
                    .map(std::fs::File::from)
                    .map_err(failed())
            };
            let read = pipe::Receiver::from_file_unchecked(clone()?).map_err(failed())?;
            let to = ours.stdout.map(|(_, to)| to);
            outputs.push(stdx::task::spawn("container-output", drain(read, to)));
            let input = match ours.stdin {
                Some((_, from)) => {
                    let write = pipe::Sender::from_file_unchecked(clone()?).map_err(failed())?;
                    Some(stdx::task::spawn("container-input", feed(from, write)))
                }
                None => None,
            };
            return Ok(Pumps {
                outputs,
                _input: input,
            });
        }
        for (fd, to) in [ours.stdout, ours.stderr].into_iter().flatten() {
            let read = pipe::Receiver::from_owned_fd(fd).map_err(failed())?;
            outputs.push(stdx::task::spawn("container-output", drain(read, Some(to))));
        }
        let input = match ours.stdin {
            Some((fd, from)) => {
                let write = pipe::Sender::from_owned_fd(fd).map_err(failed())?;
                Some(stdx::task::spawn("container-input", feed(from, write)))
            }
            None => None,
        };
        Ok(Pumps {
            outputs,
            _input: input,
        })
    }

    /// Waits until everything written has been delivered; not longer than `patience`.
    pub(crate) async fn finish(&mut self, patience: Option<Duration>) {
        let all = futures::future::join_all(self.outputs.drain(..));
        match patience {
            Some(patience) => drop(tokio::time::timeout(patience, all).await),
            None => drop(all.await),
        }
    }
}
