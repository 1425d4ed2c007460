//! A Docker daemon with BuildKit in it, and a buildx that knows it as `default`.

use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::peers::Peers;
use super::place::Place;
use super::running::{Ran, Running};

/// A running `dockerd`. Dropped, it is killed.
pub(crate) struct Docker<'a> {
    place: &'a Place,
    peers: Peers,
    running: Running,
}

impl<'a> Docker<'a> {
    /// Starts one with BuildKit, and its data in `place`; nothing if the tools of others are
    /// not wanted.
    #[track_caller]
    pub(crate) fn start(place: &'a Place) -> Option<Docker<'a>> {
        Docker::start_with(place, WITH_BUILDKIT)
    }

    /// The same, with this flag for where it stores images.
    #[track_caller]
    pub(crate) fn start_with(place: &'a Place, flag: &str) -> Option<Docker<'a>> {
        let peers = Peers::get()?;
        let running = dockerd(place, peers, &[flag]);
        Some(Docker {
            place,
            peers,
            running,
        })
    }

    /// `docker ARGS`
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        docker(self.place, self.peers, args)
    }

    /// The same, to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        self.place.start(self.command(args)).wait()
    }

    /// `docker buildx build --builder=BUILDER --progress=plain ARGS ctx`; BuildKit is
    /// `default`. Steps have no network: this Docker has no bridge.
    pub(crate) fn build(&self, builder: &str, args: &[&str]) -> Ran {
        let build = [
            "buildx",
            "build",
            "--builder",
            builder,
            "--progress=plain",
            "--provenance=false",
            "--network=none",
        ];
        self.run(&[&build, args, &["ctx"]].concat())
    }

    /// BuildKit forgets all it built.
    #[track_caller]
    pub(crate) fn forget(&self) {
        let prune = ["buildx", "prune", "--builder=default", "--all", "--force"];
        self.run(&prune).ok();
    }

    /// Asks it to stop, and waits.
    #[track_caller]
    pub(crate) fn stop(self) {
        self.running.signal(Signal::TERM);
        self.running.wait();
    }
}

/// The flag that makes Docker build with a BuildKit that has all it can do.
pub(crate) const WITH_BUILDKIT: &str = "--feature=containerd-snapshotter=true";

/// Starts a `dockerd` with its data in `place` and these flags more, and waits for its answer.
#[track_caller]
pub(crate) fn dockerd(place: &Place, peers: Peers, flags: &[&str]) -> Running {
    let path = |name: &str| place.path(name).display().to_string();
    let own = [
        format!("--host={}", host(place)),
        format!("--data-root={}", path("docker-data")),
        format!("--exec-root={}", path("docker-exec")),
        format!("--pidfile={}", path("docker.pid")),
    ];
    let mut args = vec![
        "dockerd",
        "--bridge=none",
        "--iptables=false",
        "--ip6tables=false",
    ];
    args.extend(own.iter().map(String::as_str));
    args.extend(flags);
    let mut running = place.start(peers.command(&args));
    let deadline = Instant::now() + Duration::from_secs(40);
    let answers = || place.start(docker(place, peers, &["version"])).wait();
    while answers().code() != Some(0) {
        let said = running.said();
        assert!(!running.ended(), "dockerd ended:\n{said}");
        assert!(Instant::now() < deadline, "no answer:\n{said}");
        std::thread::sleep(Duration::from_millis(200));
    }
    running
}

/// `docker ARGS`, a client of the daemon in `place`.
pub(crate) fn docker(place: &Place, peers: Peers, args: &[&str]) -> Command {
    let mut command = peers.command(&[&["docker"], args].concat());
    command
        .current_dir(place.root())
        .env("DOCKER_HOST", host(place))
        .env("DOCKER_CONFIG", place.path("docker"))
        .env("NO_COLOR", "1")
        .env_remove("SOURCE_DATE_EPOCH");
    command
}

fn host(place: &Place) -> String {
    format!("unix://{}", place.path("docker.sock").display())
}
