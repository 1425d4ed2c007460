//! Containers through an OCI runtime binary such as runc or crun.

mod config;
mod watch;

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use crate::error::Error;
use crate::helper::LAUNCHER_NAME;
use crate::native::HelperProgram;
use crate::network::{Attached, Networks, SandboxNetwork};
use crate::prepare::{self, setup};
use crate::process::{Dns, ExecProcess, Process};
use crate::proxy::bundles::Bundles;
use crate::spec::Spec;
use crate::streams::{self, Ends};
use crate::stubs::Stubs;
use crate::sys;
use crate::{Control, Executor, Exit, Io, Result};

/// Parent of all cgroups unless told otherwise. Not the built-in executor's, which
/// removes its own while a binary may be making a cgroup in it.
pub(crate) const CGROUP_PARENT: &str = "/kiln-runtime";

/// Which binary, and where it keeps its state.
#[derive(Clone, Debug)]
pub struct RuntimeOptions {
    /// Path or name (looked up in `PATH`) of the binary.
    pub binary: PathBuf,
    /// Directory of our own for bundles and the binary's state.
    pub state: PathBuf,
    /// The program that mounts trees for it.
    pub helper: HelperProgram,
    /// Parent of all cgroups. It goes when the executor is closed, if nothing is in it.
    pub cgroup_parent: String,
    /// DNS settings of containers that bring none.
    pub dns: Option<Dns>,
    /// Network of containers in the sandbox.
    pub network: SandboxNetwork,
    /// AppArmor profile of containers in the sandbox.
    pub apparmor: Option<String>,
}

impl RuntimeOptions {
    /// `binary` with its state in `state`.
    pub fn new(binary: impl Into<PathBuf>, state: impl Into<PathBuf>) -> RuntimeOptions {
        RuntimeOptions {
            binary: binary.into(),
            state: state.into(),
            helper: HelperProgram::ThisProgram,
            cgroup_parent: CGROUP_PARENT.to_string(),
            dns: None,
            network: SandboxNetwork::Host,
            apparmor: None,
        }
    }
}

/// Runs containers with an OCI runtime binary.
#[derive(Clone)]
pub struct Runtime {
    shared: Arc<Shared>,
}

struct Shared {
    options: RuntimeOptions,
    binary: PathBuf,
    state: PathBuf,
    /// This executor's own directory in the state directory; locked while it lives.
    home: PathBuf,
    _lock: OwnedFd,
    networks: Option<Arc<Networks>>,
    named: Mutex<HashMap<String, Named>>,
    next_id: AtomicU64,
}

#[derive(Clone)]
struct Named {
    id: String,
    process: Arc<Process>,
}

/// A container's files; gone when dropped.
struct Bundle {
    dir: PathBuf,
    bundles: Bundles,
    _stubs: Option<Stubs>,
}

impl Drop for Bundle {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.dir) {
            tracing::warn!(dir = %self.dir.display(), %error, "a bundle stays");
        }
    }
}

impl Runtime {
    /// Checks that the binary is there and works on this host, and removes what an
    /// earlier, killed executor left behind.
    pub async fn start(options: RuntimeOptions) -> Result<Runtime> {
        let networks = Networks::of(&options.network).await?;
        let shared = stdx::task::blocking(move || Shared::start(options, networks)).await?;
        Ok(Runtime {
            shared: Arc::new(shared),
        })
    }
}

impl Shared {
    fn start(options: RuntimeOptions, networks: Option<Arc<Networks>>) -> Result<Shared> {
        let binary = look_up(&options.binary)?;
        refuse_crun_on_hybrid(&binary)?;
        let making = || setup("making the runtime's state directory");
        std::fs::create_dir_all(&options.state).map_err(making())?;
        let state = std::fs::canonicalize(&options.state).map_err(making())?;
        sweep(&state, &binary);
        let (home, lock) = claim(&state).map_err(making())?;
        Ok(Shared {
            options,
            binary,
            state,
            home,
            _lock: lock,
            networks,
            named: Mutex::new(HashMap::new()),
            next_id: AtomicU64::new(1),
        })
    }

    fn root(&self) -> PathBuf {
        self.home.join("state")
    }

    /// Runs the binary for a short order such as `kill` or `delete`.
    fn order(&self, args: &[&str]) -> io::Result<std::process::Output> {
        order(&self.binary, &self.root(), args)
    }

    /// Writes the bundle of a new container.
    fn bundle(
        &self,
        id: &str,
        process: &Process,
        network: &Attached,
        io: Io,
    ) -> Result<(Bundle, Spec, Vec<OwnedFd>, Ends)> {
        let parent = process
            .cgroup_parent
            .as_deref()
            .unwrap_or(&self.options.cgroup_parent);
        if parent.contains(':') || parent.split('/').any(|part| part == "..") {
            let what = format!("cgroup parent {parent:?}: give a plain path");
            return Err(Error::Unsupported { what });
        }
        let setting = prepare::Setting {
            dns: self.options.dns.as_ref(),
            sandbox: &self.options.network,
            network,
            apparmor: self.options.apparmor.as_deref(),
        };
        let prepared = prepare::prepare(process, &setting)?;
        let prepare::Prepared {
            mut spec,
            mut handles,
            stubs,
            bundles,
        } = prepared;
        refuse_proc(&spec)?;
        let dir = self.home.join(id);
        std::fs::create_dir(&dir).map_err(setup("making a bundle"))?;
        let bundle = Bundle {
            dir,
            bundles,
            _stubs: Some(stubs),
        };
        // The root is mounted over this where only the binary sees it; `exec` wants to
        // find a directory of that name all the same.
        std::fs::create_dir_all(bundle.dir.join("stage/root")).map_err(setup("making a bundle"))?;
        let ends = watch::ends(&mut spec, &mut handles, io, process.tty)?;
        make_cwd(process, &spec)?;
        let cgroup = format!("/{}/{}", parent.trim_matches('/'), self.cgroup_name(id));
        let stage = bundle.dir.join("stage").to_string_lossy().into_owned();
        let config = config::container(&spec, process, network, &stage, &cgroup);
        let bytes = serde_json::to_vec(&config).expect("plain data always serialises");
        std::fs::write(bundle.dir.join("config.json"), bytes)
            .map_err(setup("writing config.json"))?;
        handles.0[0] = streams::frame(&spec)?;
        Ok((bundle, spec, handles.0, ends))
    }

    fn cgroup_name(&self, id: &str) -> String {
        let instance = self.home.file_name().unwrap_or_default().to_string_lossy();
        format!("{instance}-{id}")
    }

    /// Starts the binary by way of the launcher; `stage` is empty for an `exec`.
    fn launch(
        &self,
        stage: &str,
        args: &[String],
        fds: &[OwnedFd],
    ) -> Result<tokio::process::Child> {
        let failed = || setup("starting the runtime");
        let exe = crate::native::link::guarded(&self.options.helper).map_err(failed())?;
        let (ours, theirs) = rustix::net::socketpair(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::SEQPACKET,
            rustix::net::SocketFlags::CLOEXEC,
            None,
        )
        .map_err(|error| failed()(error.into()))?;
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&exe));
        let child = tokio::process::Command::new(path)
            .arg0(LAUNCHER_NAME)
            .arg(stage)
            .arg(&self.binary)
            .args(args)
            .env_clear()
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed())?;
        let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        sys::send(ours.as_fd(), b"plan", &borrowed).map_err(failed())?;
        Ok(child)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let _left_for_the_next_sweep = std::fs::remove_dir_all(&self.home);
        // Only when nobody else is using it.
        let _in_use = std::fs::remove_dir(&self.state);
    }
}

/// Nothing is mounted inside `/proc`, also with binaries that would.
fn refuse_proc(spec: &Spec) -> Result<()> {
    let inside = |target: &str| target == "/proc" || target.starts_with("/proc/");
    match spec.mounts.iter().find(|mount| inside(&mount.target)) {
        None => Ok(()),
        Some(mount) => Err(Error::Target {
            target: mount.target.clone(),
            reason: "it is inside /proc, where nothing may be mounted".to_string(),
        }),
    }
}

/// The binary would make it owned by root.
fn make_cwd(process: &Process, spec: &Spec) -> Result<()> {
    use crate::walk::{Leaf, find, make};
    use rustix::fs::{Gid, Uid};
    let failed = |source: io::Error| Error::Cwd {
        cwd: spec.cwd.clone(),
        source,
    };
    let place = find(process.root.root().as_fd(), &spec.cwd).map_err(failed)?;
    let covered = spec
        .mounts
        .iter()
        .any(|mount| spec.cwd.starts_with(&mount.target));
    if place.missing.is_empty() || covered {
        return Ok(());
    }
    if process.root.is_readonly() {
        return Err(failed(io::Error::from_raw_os_error(libc::EROFS)));
    }
    let owner = (
        Some(Uid::from_raw(spec.ids.uid)),
        Some(Gid::from_raw(spec.ids.gid)),
    );
    for made in make(place, Leaf::Dir, 0o755).map_err(failed)?.1 {
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::chownat(&made.parent, &made.name, owner.0, owner.1, flags)
            .map_err(|error| failed(error.into()))?;
    }
    Ok(())
}

fn look_up(binary: &Path) -> Result<PathBuf> {
    let missing = || {
        let what = format!(
            "{}: there is no such program; install it or use the built-in executor",
            binary.display()
        );
        Error::Unsupported { what }
    };
    if binary.components().count() > 1 {
        return std::fs::canonicalize(binary).map_err(|_| missing());
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| crate::DEFAULT_PATH.into());
    let found = std::env::split_paths(&path)
        .map(|dir| dir.join(binary))
        .find(|file| file.is_file());
    found.ok_or_else(missing)
}

/// crun gives up on hosts with controllers in both cgroup versions, with words that do
/// not help; say it at the start.
fn refuse_crun_on_hybrid(binary: &Path) -> Result<()> {
    let version = std::process::Command::new(binary)
        .arg("--version")
        .output()
        .map_err(|source| Error::Setup {
            step: format!("asking {} for its version", binary.display()),
            source,
        })?;
    let hybrid = Path::new("/sys/fs/cgroup/unified/cgroup.controllers").exists();
    if hybrid && version.stdout.starts_with(b"crun") {
        let what = "crun on a host with cgroup v1 and v2 mixed: use runc or the built-in executor"
            .to_string();
        return Err(Error::Unsupported { what });
    }
    Ok(())
}

fn order(binary: &Path, root: &Path, args: &[&str]) -> io::Result<std::process::Output> {
    std::process::Command::new(binary)
        .arg("--root")
        .arg(root)
        .args(args)
        .stdin(Stdio::null())
        .output()
}

fn lock(dir: &Path) -> io::Result<OwnedFd> {
    use rustix::fs::{FlockOperation, Mode, OFlags};
    let fd = rustix::fs::open(
        dir,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive)?;
    Ok(fd)
}

/// A locked directory of our own in `state`.
fn claim(state: &Path) -> io::Result<(PathBuf, OwnedFd)> {
    let mut tries = 0;
    loop {
        let home = state.join(crate::cgroup::instance_name());
        let claimed = std::fs::create_dir_all(&home).and_then(|()| lock(&home));
        // Someone else's sweep may have come between the two.
        match claimed {
            Ok(lock) if home.exists() => return Ok((home, lock)),
            Err(error) if tries >= 5 => return Err(error),
            _ => tries += 1,
        }
    }
}

/// Deletes the containers and files of executors that are gone.
fn sweep(state: &Path, binary: &Path) {
    let Ok(entries) = std::fs::read_dir(state) else {
        return;
    };
    for home in entries.flatten().map(|entry| entry.path()) {
        let Ok(_gone) = lock(&home) else { continue };
        let root = home.join("state");
        for id in std::fs::read_dir(&root).into_iter().flatten().flatten() {
            let id = id.file_name().to_string_lossy().into_owned();
            let _best_effort = order(binary, &root, &["delete", "--force", &id]);
        }
        let _best_effort = std::fs::remove_dir_all(&home);
    }
}

#[async_trait]
impl Executor for Runtime {
    async fn run(&self, process: Process, io: Io, control: Control) -> Result<Exit> {
        let shared = self.shared.clone();
        crate::native::owned(move |abandoned| watch::run(shared, process, io, control, abandoned))
            .await
    }

    async fn exec(&self, name: &str, exec: ExecProcess, io: Io, control: Control) -> Result<Exit> {
        let (shared, name) = (self.shared.clone(), name.to_string());
        crate::native::owned(move |abandoned| {
            watch::exec(shared, name, exec, io, control, abandoned)
        })
        .await
    }

    async fn close(&self) {
        if let Some(networks) = &self.shared.networks {
            networks.close().await;
        }
        let parent = self.shared.options.cgroup_parent.clone();
        stdx::task::blocking(move || crate::cgroup::Cgroups::sweep(&parent, false)).await;
    }
}
