//! One run from start to end: prepare, start, pump, wait, clean up.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

use super::link::{Started, frame};
use super::prepare::{self, Handles, OurEnds, Prepared, setup};
use super::{Named, Native};
use crate::error::Error;
use crate::io::{drain, feed};
use crate::process::{ExecProcess, Process, Security};
use crate::spec::{Failure, Order, Part, Spec};
use crate::sys;
use crate::{Control, Exit, Io, Result};

/// How long output may still come after a process is gone that was cancelled, or that
/// left its streams to others in a container that lives on.
const AFTERMATH: Duration = Duration::from_secs(1);

/// Our side of a process that is about to start.
struct Ends {
    ours: OurEnds,
    failures: OwnedFd,
    console: Option<OwnedFd>,
}

impl Native {
    pub(super) async fn run_container(
        self,
        process: Process,
        io: Io,
        control: Control,
        abandoned: oneshot::Receiver<()>,
    ) -> Result<Exit> {
        let id = self.next_id();
        let process = Arc::new(process);
        let (mut prepared, ends) = self.prepare(id, process.clone(), io).await?;
        let result = self
            .supervise(id, &process, &mut prepared, ends, control, abandoned)
            .await;
        if let Some(name) = &process.name {
            self.shared
                .named
                .lock()
                .expect("never panics while held")
                .remove(name);
        }
        stdx::task::blocking(move || {
            let oom = prepared.cgroup.saw_oom();
            drop(prepared);
            // Only now may the trees be committed or go.
            drop(process);
            result.map(|exit| Exit { oom, ..exit })
        })
        .await
    }

    async fn prepare(&self, id: u64, process: Arc<Process>, io: Io) -> Result<(Prepared, Ends)> {
        let (cgroups, dns) = (self.shared.cgroups.clone(), self.shared.options.dns.clone());
        stdx::task::blocking(move || {
            prepare::check_root(process.root.root().as_fd())?;
            let mut prepared = prepare::prepare(&process, &id.to_string(), &cgroups, dns.as_ref())?;
            let mut handles = Handles(std::mem::take(&mut prepared.fds));
            let ends = ends(&mut prepared.spec, &mut handles, io, process.tty)?;
            handles.0[0] = frame(&prepared.spec)?;
            prepared.fds = handles.0;
            Ok((prepared, ends))
        })
        .await
    }

    async fn supervise(
        &self,
        id: u64,
        process: &Arc<Process>,
        prepared: &mut Prepared,
        ends: Ends,
        control: Control,
        abandoned: oneshot::Receiver<()>,
    ) -> Result<Exit> {
        let link = self.link().await?;
        let fds = std::mem::take(&mut prepared.fds);
        let started = link.order(id, Order::Run, &fds).await;
        drop(fds);
        let Started { pidfd, ended } = started?;
        let pidfd = Arc::new(pidfd);
        if let Some(name) = &process.name {
            let named = Named {
                process: process.clone(),
                pidfd: pidfd.clone(),
                cgroup: prepared.cgroup.birth().map(Arc::new),
                nodev: prepared.spec.nodev,
            };
            // Not before it runs: until then it cannot be entered.
            let shared = self.shared.clone();
            let name = name.clone();
            let insert = move || {
                shared
                    .named
                    .lock()
                    .expect("never panics while held")
                    .insert(name, named);
            };
            let kill = || prepared.cgroup.kill();
            return watch(
                &prepared.spec,
                ends,
                &pidfd,
                ended,
                control,
                abandoned,
                kill,
                insert,
                true,
            )
            .await;
        }
        let kill = || prepared.cgroup.kill();
        watch(
            &prepared.spec,
            ends,
            &pidfd,
            ended,
            control,
            abandoned,
            kill,
            || {},
            true,
        )
        .await
    }

    pub(super) async fn enter(
        self,
        name: &str,
        exec: ExecProcess,
        io: Io,
        control: Control,
        abandoned: oneshot::Receiver<()>,
    ) -> Result<Exit> {
        let named = self.named(name)?;
        let id = self.next_id();
        let container = named.pidfd.clone();
        let (spec, fds, ends) = stdx::task::blocking(move || enter_spec(&named, &exec, io)).await?;
        let link = self.link().await?;
        let started = link.order(id, Order::Enter, &fds).await;
        drop((fds, container));
        let Started { pidfd, ended } = match started {
            Ok(started) => started,
            Err(error) => {
                return Err(read_failure(&spec, ends.failures)
                    .await
                    .err()
                    .unwrap_or(error));
            }
        };
        watch(
            &spec,
            ends,
            &pidfd,
            ended,
            control,
            abandoned,
            || {},
            || {},
            false,
        )
        .await
    }
}

/// Adds the streams, the failure pipe and the terminal's socket to a spec.
fn ends(spec: &mut Spec, handles: &mut Handles, io: Io, tty: bool) -> Result<Ends> {
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

fn enter_spec(named: &Named, exec: &ExecProcess, io: Io) -> Result<(Spec, Vec<OwnedFd>, Ends)> {
    let first = &named.process;
    let or = |own: &str, other: &str| {
        if own.is_empty() {
            other.to_string()
        } else {
            own.to_string()
        }
    };
    let env = if exec.env.is_empty() {
        &first.env
    } else {
        &exec.env
    };
    let cwd = or(&or(&exec.cwd, &first.cwd), "/");
    prepare::check_command(&exec.args, env, &cwd)?;
    let ids = crate::user::find(first.root.root().as_fd(), &or(&exec.user, &first.user))?;
    let mut handles = Handles::default();
    let pidfd = named
        .pidfd
        .try_clone()
        .map_err(setup("opening the container"))?;
    let again = pidfd.try_clone().map_err(setup("opening the container"))?;
    handles.push(again);
    handles.push(pidfd);
    let cgroup = match &named.cgroup {
        Some(fd) => Some(handles.push(fd.try_clone().map_err(setup("opening the cgroup"))?)),
        None => None,
    };
    let mut spec = Spec {
        args: exec.args.clone(),
        env: prepare::environment(env, &ids),
        cwd,
        ids,
        hostname: String::new(),
        root: crate::spec::TreeRef {
            fd: 0,
            detached: false,
            recursive: false,
        },
        readonly_root: false,
        mounts: Vec::new(),
        cgroup,
        joins: Vec::new(),
        own_network: false,
        insecure: exec.security == Security::Insecure,
        nodev: named.nodev,
        rlimits: prepare::rlimits(&exec.ulimits)?,
        shm_size: 0,
        stdio: [0; 3],
        console: None,
        failures: 0,
    };
    let ends = ends(&mut spec, &mut handles, io, exec.tty)?;
    handles.0[0] = frame(&spec)?;
    Ok((spec, handles.0, ends))
}

/// Follows a started process to its end.
#[expect(clippy::too_many_arguments, reason = "one process has that many sides")]
async fn watch(
    spec: &Spec,
    ends: Ends,
    pidfd: &OwnedFd,
    mut ended: oneshot::Receiver<i32>,
    mut control: Control,
    mut abandoned: oneshot::Receiver<()>,
    kill_all: impl Fn(),
    on_start: impl FnOnce(),
    alone: bool,
) -> Result<Exit> {
    let Ends {
        ours,
        failures,
        console,
    } = ends;
    // From here on, leaving early must not leave the process running.
    let guard = KillOnDrop(pidfd);
    if let Err(error) = read_failure(spec, failures).await {
        let _status = ended.await;
        return Err(error);
    }
    on_start();
    if let Some(started) = control.started.take() {
        let _nobody_listens = started.send(());
    }
    let master = console
        .map(|console| receive_terminal(&console))
        .transpose()?;
    let mut pumps = Pumps::start(ours, master.as_ref())?;
    let mut canceled = false;
    let (mut signals_open, mut sizes_open) = (true, true);
    let apply_size = |size: Option<crate::WinSize>| {
        if let (Some(master), Some(size)) = (&master, size) {
            let size = rustix::termios::Winsize {
                ws_row: size.rows,
                ws_col: size.cols,
                ws_xpixel: 0,
                ws_ypixel: 0,
            };
            let _terminal_gone = rustix::termios::tcsetwinsize(master, size);
        }
    };
    apply_size(*control.resize.borrow_and_update());
    let status = loop {
        tokio::select! {
            status = &mut ended => break status,
            () = Control::canceled(&mut control.cancel), if !canceled => {
                canceled = true;
                kill_all();
                let _gone = sys::signal(pidfd.as_fd(), libc::SIGKILL);
            }
            _ = &mut abandoned, if !canceled => {
                canceled = true;
                kill_all();
                let _gone = sys::signal(pidfd.as_fd(), libc::SIGKILL);
            }
            signal = control.signals.recv(), if signals_open => match signal {
                Some(signal) => { let _gone = sys::signal(pidfd.as_fd(), signal); }
                None => signals_open = false,
            },
            changed = control.resize.changed(), if sizes_open => match changed {
                Ok(()) => apply_size(*control.resize.borrow_and_update()),
                Err(_) => sizes_open = false,
            },
        }
    };
    std::mem::forget(guard);
    let patience = if canceled || !alone {
        Some(AFTERMATH)
    } else {
        None
    };
    pumps.finish(patience).await;
    if canceled {
        return Err(Error::Canceled);
    }
    let status = status.map_err(|_| {
        kill_all();
        let _gone = sys::signal(pidfd.as_fd(), libc::SIGKILL);
        Error::Helper {
            reason: "it died while the process ran; the process was killed".to_string(),
        }
    })?;
    Ok(Exit::of_wait_status(status, false))
}

/// Kills the process when its watcher is dropped before the end.
struct KillOnDrop<'a>(&'a OwnedFd);

impl Drop for KillOnDrop<'_> {
    fn drop(&mut self) {
        let _gone = sys::signal(self.0.as_fd(), libc::SIGKILL);
    }
}

/// Waits until the program runs; an error if it never will.
async fn read_failure(spec: &Spec, failures: OwnedFd) -> Result<()> {
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

fn receive_terminal(console: &OwnedFd) -> Result<OwnedFd> {
    let (_, fds) = sys::receive(console.as_fd()).map_err(setup("receiving the terminal"))?;
    let missing = || std::io::Error::from_raw_os_error(libc::EBADF);
    let master = fds.into_iter().next().ok_or_else(missing);
    let master = master.map_err(setup("receiving the terminal"))?;
    rustix::io::ioctl_fionbio(&master, true)
        .map_err(|e| setup("receiving the terminal")(e.into()))?;
    Ok(master)
}

/// The tasks moving bytes between the process and its caller.
struct Pumps {
    outputs: Vec<stdx::task::Task<()>>,
    _input: Option<stdx::task::Task<()>>,
}

impl Pumps {
    fn start(ours: OurEnds, master: Option<&OwnedFd>) -> Result<Pumps> {
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
    async fn finish(&mut self, patience: Option<Duration>) {
        let all = futures::future::join_all(self.outputs.drain(..));
        match patience {
            Some(patience) => drop(tokio::time::timeout(patience, all).await),
            None => drop(all.await),
        }
    }
}
