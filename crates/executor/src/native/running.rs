//! One run from start to end: prepare, start, pump, wait, clean up.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use tokio::sync::oneshot;

use super::link::Started;
use super::{Named, Native};
use crate::cgroup::{ContainerCgroup, DeviceRules};
use crate::error::Error;
use crate::network::Attached;
use crate::prepare::{self, Handles, Prepared, Setting, setup};
use crate::process::{ExecProcess, Process, Security};
use crate::proxy::bundles::Bundles;
use crate::spec::{Order, Spec};
use crate::streams::{self, AFTERMATH, Ends, Pumps, read_failure};
use crate::stubs::Stubs;
use crate::sys;
use crate::usage::{Recorder, Source};
use crate::{Control, Exit, Io, Result};

/// A container about to start. Dropped, it leaves nothing behind.
struct Container {
    spec: Spec,
    fds: Vec<OwnedFd>,
    /// Before the stubs: what still runs dies first.
    cgroup: ContainerCgroup,
    /// If what it uses is taken down.
    usage: Option<Arc<Source>>,
    bundles: Bundles,
    _stubs: Stubs,
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
        if let Some(hook) = process.hooks.first() {
            let what = format!(
                "the hook {} (of a device): only an OCI runtime binary runs hooks; choose one \
                 with worker.oci.binary",
                hook.path
            );
            return Err(Error::Unsupported { what });
        }
        let networks = self.shared.networks.clone();
        let shared = self.shared.clone();
        let sandbox = &shared.options.network;
        crate::proxy::around(networks.as_ref(), sandbox, process, |process, network| {
            self.run_attached(id, process, network, io, control, abandoned)
        })
        .await
    }

    async fn run_attached(
        self,
        id: u64,
        process: Arc<Process>,
        network: Attached,
        io: Io,
        control: Control,
        abandoned: oneshot::Receiver<()>,
    ) -> Result<Exit> {
        let (process, mut container, ends) = self.prepare(id, process, network, io).await?;
        let usage = container.usage.clone();
        let work = self.supervise(id, &process, &mut container, ends, control, abandoned);
        let result = Recorder::around(process.usage.as_ref(), usage, work).await;
        if let Some(name) = &process.name {
            let mut named = self.shared.named.lock().expect("never panics while held");
            // A newer one of the same name stays.
            if (named.get(name)).is_some_and(|found| Arc::ptr_eq(&found.process, &process)) {
                named.remove(name);
            }
        }
        stdx::task::blocking(move || {
            let oom = container.cgroup.saw_oom();
            Recorder::end(process.usage.as_ref(), container.usage.as_deref());
            let left = container.bundles.restore();
            drop(container);
            // Only now may the trees be committed or go.
            drop(process);
            let exit = result?;
            left.map(|()| Exit { oom, ..exit })
        })
        .await
    }

    /// Gives the process back; when it fails, its trees have gone there where that may take long.
    async fn prepare(
        &self,
        id: u64,
        process: Arc<Process>,
        network: Attached,
        io: Io,
    ) -> Result<(Arc<Process>, Container, Ends)> {
        let shared = self.shared.clone();
        stdx::task::blocking(move || {
            let setting = Setting {
                dns: shared.options.dns.as_ref(),
                sandbox: &shared.options.network,
                network: &network,
                apparmor: shared.options.apparmor.as_deref(),
            };
            let mut prepared = prepare::prepare(&process, &setting)?;
            let (spec, handles) = (&mut prepared.spec, &mut prepared.handles);
            let cgroup = shared.cgroups.container(&id.to_string(), &process)?;
            if cgroup.devices == DeviceRules::NoDev && !process.devices.is_empty() {
                let what = "devices on a host where no cgroup v2 directory can be made".into();
                return Err(Error::Unsupported { what });
            }
            spec.cgroup = cgroup.birth().map(|fd| handles.push(fd));
            spec.joins = cgroup
                .joins()?
                .into_iter()
                .map(|fd| handles.push(fd))
                .collect();
            spec.nodev = cgroup.devices == DeviceRules::NoDev;
            let ends = streams::ends(spec, handles, io, process.tty)?;
            handles.0[0] = streams::frame(spec)?;
            let Prepared {
                spec,
                handles,
                stubs,
                bundles,
            } = prepared;
            let usage = process.usage.as_ref();
            let usage = usage.map(|recorder| recorder.begin(cgroup.told(), network.own()));
            let container = Container {
                spec,
                fds: handles.0,
                cgroup,
                usage,
                bundles,
                _stubs: stubs,
            };
            Ok((process, container, ends))
        })
        .await
    }

    async fn supervise(
        &self,
        id: u64,
        process: &Arc<Process>,
        container: &mut Container,
        ends: Ends,
        control: Control,
        abandoned: oneshot::Receiver<()>,
    ) -> Result<Exit> {
        let link = self.link().await?;
        link.keep(&self.shared.cgroups).await?;
        let fds = std::mem::take(&mut container.fds);
        let started = link.order(id, Order::Run, &fds).await;
        drop(fds);
        let Started { pidfd, ended } = started?;
        let pidfd = Arc::new(pidfd);
        let named = process.name.clone().map(|name| {
            let named = Named {
                process: process.clone(),
                pidfd: pidfd.clone(),
                cgroup: container.cgroup.birth().map(Arc::new),
                nodev: container.spec.nodev,
                apparmor: container.spec.apparmor.clone(),
            };
            (name, named)
        });
        // Not before it runs: until then it cannot be entered.
        let insert = || {
            if let Some((name, named)) = named {
                let mut all = self.shared.named.lock().expect("never panics while held");
                all.insert(name, named);
            }
        };
        let kill = || container.cgroup.kill();
        watch(
            &container.spec,
            ends,
            &pidfd,
            ended,
            control,
            abandoned,
            kill,
            insert,
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

fn enter_spec(named: &Named, exec: &ExecProcess, io: Io) -> Result<(Spec, Vec<OwnedFd>, Ends)> {
    let mut spec = Spec::of_exec(&named.process, exec)?;
    let mut handles = Handles::default();
    let pidfd = named
        .pidfd
        .try_clone()
        .map_err(setup("opening the container"))?;
    let again = pidfd.try_clone().map_err(setup("opening the container"))?;
    handles.push(again);
    handles.push(pidfd);
    if let Some(fd) = &named.cgroup {
        let fd = fd.try_clone().map_err(setup("opening the cgroup"))?;
        spec.cgroup = Some(handles.push(fd));
    }
    spec.nodev = named.nodev;
    if exec.security == Security::Sandbox {
        spec.apparmor.clone_from(&named.apparmor);
    }
    let ends = streams::ends(&mut spec, &mut handles, io, exec.tty)?;
    handles.0[0] = streams::frame(&spec)?;
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
    let failed = tokio::select! {
        started = read_failure(spec, failures) => started.err(),
        () = Control::canceled(&mut control.cancel) => Some(Error::Canceled),
        _ = &mut abandoned => Some(Error::Canceled),
    };
    if let Some(error) = failed {
        kill_all();
        drop(guard);
        let _status = ended.await;
        return Err(error);
    }
    on_start();
    if let Some(started) = control.started.take() {
        let _nobody_listens = started.send(());
    }
    let master = console
        .map(|console| streams::receive_terminal(&console))
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
