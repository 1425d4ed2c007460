//! One run or exec of the binary, from start to end.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::{Bundle, Named, Shared, config};
use crate::cgroup::Cgroups;
use crate::error::Error;
use crate::network::Attached;
use crate::prepare::{self, Handles, setup};
use crate::process::{ExecProcess, Process};
use crate::proxy::bundles::Bundles;
use crate::spec::Spec;
use crate::streams::{self, AFTERMATH, Ends, Pumps, read_failure};
use crate::sys;
use crate::usage::{self, Recorder};
use crate::{Control, Exit, Io, Output, Result};

/// How often to look whether the container's first process is there. runc itself
/// needs tens of milliseconds for it.
const LOOK: Duration = Duration::from_millis(2);

/// The streams of the binary: with a terminal, one terminal for all three, which the
/// binary hands on.
pub(super) fn ends(spec: &mut Spec, handles: &mut Handles, io: Io, tty: bool) -> Result<Ends> {
    if !tty {
        return streams::ends(spec, handles, io, false);
    }
    let stdout = match io.stdout {
        Output::Channel(to) => Some(to),
        Output::Discard | Output::Fd(_) => None,
    };
    let failed = || setup("opening a terminal");
    let flags = rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY;
    let master = rustix::pty::openpt(flags | rustix::pty::OpenptFlags::CLOEXEC)
        .map_err(|error| failed()(error.into()))?;
    rustix::pty::unlockpt(&master).map_err(|error| failed()(error.into()))?;
    let terminal = sys::terminal_peer(master.as_fd()).map_err(failed())?;
    rustix::io::ioctl_fionbio(&master, true).map_err(|error| failed()(error.into()))?;
    let (failures, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|error| setup("opening a pipe")(error.into()))?;
    let place = handles.push(terminal);
    spec.stdio = [place; 3];
    spec.console = Some(place);
    spec.failures = handles.push(write);
    let copy = || master.try_clone().map_err(failed());
    let stdin = match io.stdin {
        crate::Input::Channel(from) => Some((copy()?, from)),
        crate::Input::Empty | crate::Input::Fd(_) => None,
    };
    let stdout = match stdout {
        Some(to) => Some((copy()?, to)),
        None => None,
    };
    let ours = prepare::OurEnds {
        stdin,
        stdout,
        stderr: None,
    };
    Ok(Ends {
        ours,
        failures,
        console: Some(master),
    })
}

pub(super) async fn run(
    shared: Arc<Shared>,
    process: Process,
    io: Io,
    control: Control,
    abandoned: oneshot::Receiver<()>,
) -> Result<Exit> {
    use std::sync::atomic::Ordering;
    let id = format!("kiln-{}", shared.next_id.fetch_add(1, Ordering::Relaxed));
    let networks = shared.networks.clone();
    let sandbox = shared.options.network.clone();
    crate::proxy::around(networks.as_ref(), &sandbox, process, |process, network| {
        run_attached(shared, id, process, network, io, control, abandoned)
    })
    .await
}

async fn run_attached(
    shared: Arc<Shared>,
    id: String,
    process: Arc<Process>,
    network: Attached,
    io: Io,
    control: Control,
    abandoned: oneshot::Receiver<()>,
) -> Result<Exit> {
    let cgroup = cgroup_of(&shared, &process, &id);
    let (process, (mut bundle, spec, fds, ends), usage) = {
        let (shared, id, cgroup) = (shared.clone(), id.clone(), cgroup.clone());
        // When it fails, the trees of the process go in there: that may take long.
        stdx::task::blocking(move || {
            let made = shared.bundle(&id, &process, &network, io)?;
            let usage = process.usage.as_ref();
            let begin =
                |recorder: &Recorder| recorder.begin(usage::Cgroups::Path(cgroup), network.own());
            let usage = usage.map(begin);
            Ok::<_, Error>((process, made, usage))
        })
        .await?
    };
    let stage = bundle.dir.join("stage").to_string_lossy().into_owned();
    let args = arguments(&shared.root(), &bundle.dir, "run", &id);
    let child = shared.launch(&stage, &args, &fds);
    drop(fds);
    let named = process.name.clone().map(|name| {
        (
            name,
            Named {
                id: id.clone(),
                process: process.clone(),
            },
        )
    });
    let insert = || {
        if let Some((name, named)) = named.clone() {
            shared
                .named
                .lock()
                .expect("never panics while held")
                .insert(name, named);
        }
    };
    let ended = match child {
        Ok(child) => {
            let work = follow(&spec, &bundle, child, ends, control, abandoned, insert);
            Recorder::around(process.usage.as_ref(), usage.clone(), work).await
        }
        Err(error) => Err(error),
    };
    if let Some(name) = &process.name {
        let mut named = shared.named.lock().expect("never panics while held");
        // A newer one of the same name stays.
        if named.get(name).is_some_and(|found| found.id == id) {
            named.remove(name);
        }
    }
    let result =
        ended.and_then(|ended| ended.result(&spec, &bundle.dir.join("log.json"), &shared.binary));
    stdx::task::blocking(move || {
        let oom = result.is_ok() && saw_oom(&counts_in(&cgroup));
        Recorder::end(process.usage.as_ref(), usage.as_deref());
        if let Err(error) = shared.order(&["delete", "--force", &id]) {
            tracing::warn!(%error, id, "the runtime could not delete a container");
        }
        // Some binaries give up when the last process is still on its way out.
        Cgroups::remove(&cgroup);
        let left = bundle.bundles.restore();
        drop(bundle);
        drop(process);
        let exit = result?;
        left.map(|()| Exit { oom, ..exit })
    })
    .await
}

pub(super) async fn exec(
    shared: Arc<Shared>,
    name: String,
    exec: ExecProcess,
    io: Io,
    control: Control,
    abandoned: oneshot::Receiver<()>,
) -> Result<Exit> {
    use std::sync::atomic::Ordering;
    let named = shared
        .named
        .lock()
        .expect("never panics while held")
        .get(&name)
        .cloned();
    let named = named.ok_or(Error::NoContainer { name })?;
    wait_until_running(&shared, &named.id).await?;
    let number = shared.next_id.fetch_add(1, Ordering::Relaxed);
    let dir = shared.home.join(format!("exec-{number}"));
    let id = named.id.clone();
    // The container's trees are let go of in there, and not held until this process ends.
    let prepared = stdx::task::blocking(move || exec_bundle(dir, &named, &exec, io)).await;
    let (bundle, spec, fds, ends) = prepared?;
    let args = arguments(&shared.root(), &bundle.dir, "exec", &id);
    let child = shared.launch("", &args, &fds)?;
    drop(fds);
    let ended = follow(&spec, &bundle, child, ends, control, abandoned, || {}).await?;
    ended.result(&spec, &bundle.dir.join("log.json"), &shared.binary)
}

/// Writes what the binary is to start in a running container.
fn exec_bundle(
    dir: PathBuf,
    named: &Named,
    exec: &ExecProcess,
    io: Io,
) -> Result<(Bundle, Spec, Vec<OwnedFd>, Ends)> {
    std::fs::create_dir(&dir).map_err(setup("making a bundle"))?;
    let bundle = Bundle {
        dir,
        bundles: Bundles::default(),
        _stubs: None,
    };
    // The binary applies the container's own profile.
    let mut spec = Spec::of_exec(&named.process, exec)?;
    let mut handles = Handles::default();
    handles.push(sys::memory_file(b"").map_err(setup("writing what to run"))?);
    let ends = ends(&mut spec, &mut handles, io, exec.tty)?;
    handles.0[0] = streams::frame(&spec)?;
    let bytes = serde_json::to_vec(&config::process(&spec)).expect("plain data always serialises");
    let file = bundle.dir.join("process.json");
    std::fs::write(&file, bytes).map_err(setup("writing process.json"))?;
    Ok((bundle, spec, handles.0, ends))
}

/// The binary refuses to enter a container that it is still starting.
async fn wait_until_running(shared: &Arc<Shared>, id: &str) -> Result<()> {
    for _ in 0..500 {
        let (shared, order) = (shared.clone(), id.to_string());
        let output = stdx::task::blocking(move || shared.order(&["state", &order])).await;
        let output = output.map_err(setup("asking the runtime for a container"))?;
        let state: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        match state["status"].as_str() {
            Some("running") => return Ok(()),
            Some("stopped") => break,
            _ => tokio::time::sleep(LOOK).await,
        }
    }
    Err(Error::NoContainer {
        name: id.to_string(),
    })
}

fn arguments(root: &Path, dir: &Path, order: &str, id: &str) -> Vec<String> {
    let at = |path: PathBuf| path.to_string_lossy().into_owned();
    let mut args = vec![
        "--root".into(),
        at(root.to_path_buf()),
        "--log".into(),
        at(dir.join("log.json")),
        "--log-format".into(),
        "json".into(),
        order.into(),
        "--pid-file".into(),
        at(dir.join("pid")),
    ];
    if order == "run" {
        args.extend(["--keep".into(), "--bundle".into(), at(dir.to_path_buf())]);
    } else {
        args.extend(["--process".into(), at(dir.join("process.json"))]);
    }
    args.push(id.into());
    args
}

/// How the binary ended.
struct Ended {
    code: i32,
    /// Whether the process ever started.
    started: bool,
}

/// Follows the binary to its end, passing on signals, sizes and wishes to stop.
async fn follow(
    spec: &Spec,
    bundle: &Bundle,
    mut child: tokio::process::Child,
    ends: Ends,
    mut control: Control,
    mut abandoned: oneshot::Receiver<()>,
    on_start: impl Fn(),
) -> Result<Ended> {
    let Ends {
        ours,
        failures,
        console: master,
    } = ends;
    if let Err(error) = read_failure(spec, failures).await {
        let _status = child.wait().await;
        return Err(error);
    }
    let mut pumps = Pumps::start(ours, master.as_ref())?;
    let pid_file = bundle.dir.join("pid");
    let mut pidfd: Option<OwnedFd> = None;
    let mut canceled = false;
    let (mut signals_open, mut sizes_open) = (true, true);
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            () = tokio::time::sleep(LOOK), if pidfd.is_none() => {
                pidfd = read_pid(&pid_file);
                if pidfd.is_some() {
                    on_start();
                    if let Some(started) = control.started.take() {
                        let _nobody_listens = started.send(());
                    }
                }
                if canceled {
                    signal(pidfd.as_ref(), libc::SIGKILL);
                }
            }
            () = Control::canceled(&mut control.cancel), if !canceled => {
                canceled = true;
                signal(pidfd.as_ref(), libc::SIGKILL);
            }
            _ = &mut abandoned, if !canceled => {
                canceled = true;
                signal(pidfd.as_ref(), libc::SIGKILL);
            }
            wanted = control.signals.recv(), if signals_open && pidfd.is_some() => match wanted {
                Some(wanted) => signal(pidfd.as_ref(), wanted),
                None => signals_open = false,
            },
            changed = control.resize.changed(), if sizes_open && master.is_some() => match changed {
                Ok(()) => resize(master.as_ref(), &child, *control.resize.borrow_and_update()),
                Err(_) => sizes_open = false,
            },
        }
    };
    drop(master);
    // It may have come and gone between two looks.
    if pid_file.exists()
        && let Some(started) = control.started.take()
    {
        let _nobody_listens = started.send(());
    }
    let status = status.map_err(setup("waiting for the runtime"))?;
    pumps.finish(Some(AFTERMATH)).await;
    if canceled {
        return Err(Error::Canceled);
    }
    use std::os::unix::process::ExitStatusExt;
    let code = status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    Ok(Ended {
        code,
        started: pidfd.is_some() || pid_file.exists(),
    })
}

fn signal(pidfd: Option<&OwnedFd>, number: i32) {
    if let Some(pidfd) = pidfd {
        let _gone = sys::signal(pidfd.as_fd(), number);
    }
}

/// The binary hands the new size on when it hears that its own terminal changed.
fn resize(master: Option<&OwnedFd>, child: &tokio::process::Child, size: Option<crate::WinSize>) {
    let (Some(master), Some(size)) = (master, size) else {
        return;
    };
    let winsize = rustix::termios::Winsize {
        ws_row: size.rows,
        ws_col: size.cols,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let _terminal_gone = rustix::termios::tcsetwinsize(master, winsize);
    let pid = child
        .id()
        .and_then(|id| rustix::process::Pid::from_raw(id.cast_signed()));
    if let Some(pid) = pid {
        let _gone = rustix::process::kill_process(pid, rustix::process::Signal::WINCH);
    }
}

fn read_pid(file: &Path) -> Option<OwnedFd> {
    let number = std::fs::read_to_string(file).ok()?.trim().parse().ok()?;
    let pid = rustix::process::Pid::from_raw(number)?;
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()
}

impl Ended {
    /// The exit of the process, or the binary's own failure as its log tells it.
    fn result(self, spec: &Spec, log: &Path, binary: &Path) -> Result<Exit> {
        let exit = Exit {
            code: self.code,
            signal: None,
            oom: false,
        };
        let log = std::fs::read_to_string(log).unwrap_or_default();
        let message = log
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .filter(|entry| entry["level"] == "error" || entry["level"].is_null())
            .filter_map(|entry| entry["msg"].as_str().map(str::to_string))
            .next_back();
        let Some(message) = message.filter(|_| self.code != 0) else {
            if self.started || self.code == 0 {
                return Ok(exit);
            }
            let message = format!(
                "it ended with code {} before the process started",
                self.code
            );
            return Err(Error::Runtime {
                binary: binary.display().to_string(),
                message,
            });
        };
        let errno = |number| std::io::Error::from_raw_os_error(number);
        let program = spec.args[0].clone();
        let failed_exec = message.contains("exec: \"") || message.contains("executable");
        let not_found = message.contains("not found") || message.contains("no such file");
        if failed_exec && not_found {
            return Err(Error::Program {
                program,
                source: errno(libc::ENOENT),
            });
        }
        if failed_exec && (message.contains("ermission denied") || message.contains("format error"))
        {
            return Err(Error::Program {
                program,
                source: errno(libc::EACCES),
            });
        }
        Err(Error::Runtime {
            binary: binary.display().to_string(),
            message,
        })
    }
}

/// The path of a container's cgroup in each hierarchy.
fn cgroup_of(shared: &Shared, process: &Process, id: &str) -> String {
    let parent = process
        .cgroup_parent
        .as_deref()
        .unwrap_or(&shared.options.cgroup_parent);
    format!("{}/{}", parent.trim_matches('/'), shared.cgroup_name(id))
}

/// Where the kernel's count of kills in a cgroup may be.
fn counts_in(cgroup: &str) -> Vec<PathBuf> {
    let at = |mount: &str, file: &str| Path::new(mount).join(cgroup).join(file);
    vec![
        at("/sys/fs/cgroup", "memory.events"),
        at("/sys/fs/cgroup/memory", "memory.oom_control"),
    ]
}

fn saw_oom(files: &[PathBuf]) -> bool {
    files
        .iter()
        .filter_map(|file| std::fs::read_to_string(file).ok())
        .any(|text| {
            let mut lines = text.lines();
            lines.any(|line| {
                line.strip_prefix("oom_kill ")
                    .is_some_and(|count| count.trim() != "0")
            })
        })
}
