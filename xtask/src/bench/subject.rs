//! The tools, and how each is told the same things.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::Error;
use super::aside::set_aside;
use super::daemons::{self, Daemon};
use super::inputs::Inputs;
use super::measure::{self, Sample};
use super::peers::Peers;

/// Where Debian puts the plugin; called directly it is one process instead of two.
const BUILDX: &str = "/usr/libexec/docker/cli-plugins/docker-buildx";

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// `kiln build` without a daemon: the engine starts and ends with each build.
    Kiln,
    /// `kiln build` with `kiln daemon`.
    KilnDaemon,
    /// `docker buildx build` with `kiln daemon` (the remote driver).
    KilnBuildx,
    /// `docker buildx build` with the BuildKit inside dockerd.
    Buildkit,
    /// `buildah build`.
    Buildah,
}

impl Who {
    const ALL: [Who; 5] = [
        Who::Kiln,
        Who::KilnDaemon,
        Who::KilnBuildx,
        Who::Buildkit,
        Who::Buildah,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Who::Kiln => "kiln",
            Who::KilnDaemon => "kiln-daemon",
            Who::KilnBuildx => "kiln-buildx",
            Who::Buildkit => "buildkit",
            Who::Buildah => "buildah",
        }
    }

    pub(crate) fn names() -> Vec<&'static str> {
        Who::ALL.into_iter().map(Who::name).collect()
    }

    /// All of them if none is named.
    pub(crate) fn chosen(names: &[String]) -> Result<Vec<Who>, Error> {
        if names.is_empty() {
            return Ok(Who::ALL.to_vec());
        }
        let find = |name: &String| {
            let found = Who::ALL.into_iter().find(|who| who.name() == name);
            found.ok_or_else(|| Error::NoTool(name.clone()))
        };
        names.iter().map(find).collect()
    }
}

/// What is asked for, in nobody's flags.
#[derive(Clone, Debug)]
pub(crate) struct Build {
    pub(crate) context: PathBuf,
    /// A number the Dockerfile may use to make a run unlike the others.
    pub(crate) number: Option<u32>,
    pub(crate) no_cache: bool,
    pub(crate) output: Output,
}

/// Where the result goes.
#[derive(Clone, Debug)]
pub(crate) enum Output {
    /// It stays in the cache.
    Nowhere,
    /// An image of this name in the tool's own store.
    Image(&'static str),
    /// An OCI archive with gzip layers.
    Oci(PathBuf),
    /// A directory.
    Local(PathBuf),
}

/// One tool with its state.
pub(crate) struct Subject<'a> {
    pub(crate) who: Who,
    kiln: &'a Path,
    peers: &'a Peers,
    /// Where everything is.
    all: PathBuf,
    dir: PathBuf,
    daemon: Option<Daemon>,
}

impl<'a> Subject<'a> {
    pub(crate) fn new(
        who: Who,
        kiln: &'a Path,
        peers: &'a Peers,
        inputs: &Inputs,
    ) -> Result<Subject<'a>, Error> {
        Ok(Subject {
            who,
            kiln,
            peers,
            all: inputs.dir().to_owned(),
            dir: inputs.dir().join("state").join(who.name()),
            daemon: None,
        })
    }

    /// Forgets everything; afterwards the tool is as newly installed, its daemon running and
    /// warmed by one small build.
    pub(crate) fn start_afresh(&mut self) -> Result<(), Error> {
        self.forget()?;
        std::fs::create_dir_all(&self.dir).map_err(Error::io("making", &self.dir))?;
        match self.who {
            Who::Kiln | Who::Buildah => {}
            Who::KilnDaemon => self.daemon = Some(daemons::kiln(self.kiln, &self.dir)?),
            Who::KilnBuildx => {
                self.daemon = Some(daemons::kiln(self.kiln, &self.dir)?);
                let socket = daemons::kiln_socket(&self.dir);
                let mut create = self.buildx();
                create
                    .args(["create", "--name", "kiln", "--driver", "remote"])
                    .arg(format!("unix://{}", socket.display()));
                measure::untimed(create, &self.log())?;
            }
            Who::Buildkit => self.daemon = Some(daemons::dockerd(self.peers, &self.dir)?),
        }
        if self.daemon.is_some() {
            let context = self.dir.join("warm");
            std::fs::create_dir_all(&context).map_err(Error::io("making", &context))?;
            let file = context.join("Dockerfile");
            std::fs::write(&file, "FROM scratch\nCOPY Dockerfile /\n")
                .map_err(Error::io("writing", &file))?;
            self.build_untimed(&Build {
                context,
                number: None,
                no_cache: false,
                output: Output::Nowhere,
            })?;
        }
        Ok(())
    }

    fn forget(&mut self) -> Result<(), Error> {
        self.daemon = None;
        if !self.dir.exists() {
            return Ok(());
        }
        // buildah leaves mounts in the namespace.
        let script = "grep -o \" $1/[^ ]*\" /proc/mounts | sort -r | xargs -r umount -l";
        let mut unmount = self.peers.command("sh");
        unmount.args(["-c", script, "forget"]).arg(&self.dir);
        measure::untimed(unmount, &self.dir.with_extension("log"))?;
        set_aside(&self.all, &self.dir)
    }

    pub(crate) fn build_untimed(&self, build: &Build) -> Result<(), Error> {
        for command in self.commands(build) {
            measure::untimed(command, &self.log())?;
        }
        Ok(())
    }

    /// Does the builds, all at once, and measures.
    pub(crate) fn measure(&self, builds: &[Build]) -> Result<Sample, Error> {
        let commands = builds.iter().filter_map(|build| self.commands(build).pop());
        let daemon = self.daemon.as_ref().map(Daemon::pid);
        measure::timed(commands.collect(), &self.log(), daemon)
    }

    fn log(&self) -> PathBuf {
        self.dir.with_extension("log")
    }

    /// The commands for one build. The last is the one that is measured: buildah writes an
    /// archive of an image that is there already, so that command comes after its build.
    fn commands(&self, build: &Build) -> Vec<Command> {
        match self.who {
            Who::Kiln => {
                let mut command = Command::new(self.kiln);
                command
                    .arg(format!("--state={}", self.dir.join("state").display()))
                    .args(["build", "--progress=plain"]);
                vec![docker_flags(command, build, None)]
            }
            Who::KilnDaemon => {
                let socket = daemons::kiln_socket(&self.dir);
                let mut command = Command::new(self.kiln);
                command
                    .arg(format!("--addr=unix://{}", socket.display()))
                    .args(["build", "--progress=plain"]);
                vec![docker_flags(command, build, None)]
            }
            Who::KilnBuildx => {
                let mut command = self.buildx();
                command
                    .args(["build", "--builder=kiln", "--progress=plain"])
                    .arg("--provenance=false");
                vec![docker_flags(command, build, None)]
            }
            Who::Buildkit => {
                let mut command = self.buildx();
                command
                    .args(["build", "--builder=default", "--progress=plain"])
                    .arg("--provenance=false");
                vec![docker_flags(command, build, Some("type=cacheonly"))]
            }
            Who::Buildah => self.buildah(build),
        }
    }

    fn buildx(&self) -> Command {
        let mut command = self.peers.command(BUILDX);
        let socket = daemons::docker_socket(&self.dir);
        command
            .env("DOCKER_HOST", format!("unix://{}", socket.display()))
            .env("BUILDX_CONFIG", self.dir.join("buildx"));
        command
    }

    fn buildah(&self, build: &Build) -> Vec<Command> {
        let buildah = || {
            let mut command = self.peers.command("buildah");
            command
                .arg(format!("--root={}", self.dir.join("root").display()))
                .arg(format!("--runroot={}", self.dir.join("runroot").display()))
                .arg("--storage-driver=overlay");
            command
        };
        let mut command = buildah();
        command
            .args(["build", "--layers", "--network=host", "--tls-verify=false"])
            // crun refuses machines that have both cgroup versions; BuildKit uses runc as well.
            .arg("--runtime=runc")
            // Its defaults are above what a confined root may set.
            .args(["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"]);
        if build.no_cache {
            command.arg("--no-cache");
        }
        if let Some(number) = build.number {
            command.arg(format!("--build-arg=NUMBER={number}"));
        }
        match &build.output {
            Output::Nowhere | Output::Oci(_) => command.args(["--tag", "bench"]),
            Output::Image(name) => command.args(["--tag", name]),
            Output::Local(dir) => {
                command.arg(format!("--output=type=local,dest={}", dir.display()))
            }
        };
        command.arg(&build.context);
        let mut commands = vec![command];
        if let Output::Oci(file) = &build.output {
            let mut push = buildah();
            push.args(["push", "--compression-format=gzip", "bench"])
                .arg(format!("oci-archive:{}", file.display()));
            commands.push(push);
        }
        commands
    }
}

/// The flags `docker buildx build` and `kiln build` share.
fn docker_flags(mut command: Command, build: &Build, nowhere: Option<&str>) -> Command {
    command.args(["--network=host", "--allow=network.host"]);
    if build.no_cache {
        command.arg("--no-cache");
    }
    if let Some(number) = build.number {
        command.arg(format!("--build-arg=NUMBER={number}"));
    }
    match (&build.output, nowhere) {
        (Output::Nowhere, None) => {}
        (Output::Nowhere, Some(output)) => {
            command.arg(format!("--output={output}"));
        }
        (Output::Image(name), _) => {
            command.arg(format!("--output=type=image,name={name}"));
        }
        (Output::Oci(file), _) => {
            command.arg(format!("--output=type=oci,dest={}", file.display()));
        }
        (Output::Local(dir), _) => {
            command.arg(format!("--output=type=local,dest={}", dir.display()));
        }
    }
    command.arg(&build.context);
    command
}
