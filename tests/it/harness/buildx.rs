//! `docker buildx` with a daemon of ours behind its remote driver.

use std::process::Command;

use super::peers::Peers;
use super::place::Place;
use super::running::Ran;

/// A buildx that knows a daemon as `k` and builds with it. What it knows lies in the place.
pub(crate) struct Buildx<'a> {
    place: &'a Place,
    peers: Peers,
}

impl<'a> Buildx<'a> {
    /// One that knows the daemon at this address; nothing if the tools of others are not wanted.
    #[track_caller]
    pub(crate) fn with(place: &'a Place, address: &str) -> Option<Buildx<'a>> {
        let peers = Peers::get()?;
        let buildx = Buildx { place, peers };
        let create = ["create", "--name=k", "--driver=remote", address];
        buildx.run(&create).ok();
        Some(buildx)
    }

    /// `docker buildx ARGS`
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        self.program(&[&["docker", "buildx"], args].concat())
    }

    /// Another program that calls it.
    pub(crate) fn program(&self, args: &[&str]) -> Command {
        let mut command = self.peers.command(args);
        command
            .current_dir(self.place.root())
            .env("DOCKER_CONFIG", self.place.path("docker"))
            .env("BUILDX_BUILDER", "k")
            .env("NO_COLOR", "1")
            .env_remove("SOURCE_DATE_EPOCH");
        command
    }

    /// `docker buildx ARGS`, to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        self.place.start(self.command(args)).wait()
    }
}
