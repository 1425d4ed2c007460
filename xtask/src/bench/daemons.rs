//! Programs that stay: dockerd, `kiln daemon`, the registry images are pulled from.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::peers::Peers;
use super::{Error, measure};

/// How long a daemon may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often we look.
const LOOK: Duration = Duration::from_millis(50);

/// A running daemon; dropped, it is asked to end, and waited for.
pub(crate) struct Daemon {
    child: Child,
}

impl Daemon {
    /// Starts it and waits until `ready` says so.
    pub(crate) fn start(
        who: &'static str,
        command: &mut Command,
        log: &Path,
        ready: impl Fn() -> bool,
    ) -> Result<Daemon, Error> {
        let file = File::create(log).map_err(Error::io("making", log))?;
        let both = file.try_clone().map_err(Error::io("opening", log))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(both)
            .stderr(file)
            .spawn()
            .map_err(|source| Error::Start {
                program: who.to_owned(),
                source,
            })?;
        let mut daemon = Daemon { child };
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if ready() {
                return Ok(daemon);
            }
            if !matches!(daemon.child.try_wait(), Ok(None)) {
                break;
            }
            std::thread::sleep(LOOK);
        }
        Err(Error::NotReady {
            who,
            after: begun.elapsed(),
            log: log.to_owned(),
        })
    }

    /// The process we started.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let below = measure::tree(self.pid());
        signal(self.child.id(), libc::SIGTERM);
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(LOOK);
        }
        // If it ended by itself this finds nobody; whoever it left behind is ours to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
        for pid in below.into_iter().skip(1) {
            signal(pid, libc::SIGTERM);
        }
    }
}

fn signal(pid: u32, number: i32) {
    // SAFETY: kill takes two numbers; one that names nobody is refused.
    unsafe { libc::kill(pid.cast_signed(), number) };
}

/// A registry on this machine.
pub(crate) struct Registry {
    /// `localhost:PORT`, which every tool takes for one without TLS.
    pub(crate) host: String,
    _daemon: Daemon,
}

impl Registry {
    pub(crate) fn start(peers: &Peers, dir: &Path) -> Result<Registry, Error> {
        let port = free_port().map_err(Error::io("binding", Path::new("127.0.0.1:0")))?;
        let settings = dir.join("registry.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n",
            dir.join("registry").display()
        );
        std::fs::write(&settings, text).map_err(Error::io("writing", &settings))?;
        let daemon = Daemon::start(
            "docker-registry",
            peers.command("docker-registry").arg("serve").arg(&settings),
            &dir.join("registry.log"),
            || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok(),
        )?;
        Ok(Registry {
            host: format!("localhost:{port}"),
            _daemon: daemon,
        })
    }
}

fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// dockerd with an empty store: the containerd image store, so that BuildKit has all its exporters.
pub(crate) fn dockerd(peers: &Peers, dir: &Path) -> Result<Daemon, Error> {
    let socket = docker_socket(dir);
    let mut command = peers.command("dockerd");
    command
        .args(["--iptables=false", "--ip6tables=false", "--bridge=none"])
        .args(["--feature", "containerd-snapshotter=true"])
        .arg(format!("--data-root={}", dir.join("data").display()))
        .arg(format!("--exec-root={}", dir.join("exec").display()))
        .arg(format!("--pidfile={}", dir.join("pid").display()))
        .arg(format!("--host=unix://{}", socket.display()));
    Daemon::start("dockerd", &mut command, &dir.join("log"), || {
        peers
            .command("docker")
            .args(["--host", &format!("unix://{}", socket.display()), "version"])
            .output()
            .is_ok_and(|output| output.status.success())
    })
}

/// Where dockerd started in `dir` listens.
pub(crate) fn docker_socket(dir: &Path) -> PathBuf {
    dir.join("docker.sock")
}

/// `kiln daemon` with an empty store.
pub(crate) fn kiln(kiln: &Path, dir: &Path) -> Result<Daemon, Error> {
    let socket = kiln_socket(dir);
    let mut command = Command::new(kiln);
    command
        .arg("daemon")
        .args(["--allow-insecure-entitlement", "network.host"])
        .arg(format!("--root={}", dir.join("state").display()))
        .arg(format!("--addr=unix://{}", socket.display()));
    Daemon::start("kiln daemon", &mut command, &dir.join("log"), || {
        std::os::unix::net::UnixStream::connect(&socket).is_ok()
    })
}

/// Where kiln's daemon started in `dir` listens.
pub(crate) fn kiln_socket(dir: &Path) -> PathBuf {
    dir.join("kiln.sock")
}
