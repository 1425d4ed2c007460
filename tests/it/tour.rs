//! The tour: `docker buildx` with kiln's daemon, and the same again with the BuildKit in
//! Docker; what comes out is compared. What differs on purpose is in docs/differences.md.
//!
//! The two daemons are shared by the tests that run at the same time. `OUT` in arguments
//! is a folder of the builder that is asked, so that both can write to the same place.

mod calls;
mod contexts;
mod failures;
mod flags;
mod history;
mod images;
mod progress;
mod verbs;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{
    BaseImage, Buildx, Memory, Peers, Place, Ran, Running, WITH_BUILDKIT, docker, dockerd, mirror,
};

/// Times in results are this, so that they can be compared: 2023-11-14.
const EPOCH: &str = "1700000000";

/// The two daemons, a registry, and a folder for each test.
struct Rig {
    peers: Peers,
    registry: Memory,
    kiln: Option<Running>,
    dockerd: Option<Running>,
    place: Place,
}

/// Who builds.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Who {
    /// The BuildKit in Docker.
    Docker,
    /// Our daemon.
    Kiln,
}

impl Who {
    const BOTH: [Who; 2] = [Who::Docker, Who::Kiln];

    fn folder(self) -> &'static str {
        match self {
            Who::Docker => "docker",
            Who::Kiln => "kiln",
        }
    }
}

impl Rig {
    /// The one that others use now, or a new one.
    fn get() -> Option<Arc<Rig>> {
        static SHARED: Mutex<Weak<Rig>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(rig) = shared.upgrade() {
            return Some(rig);
        }
        let rig = Arc::new(Rig::start()?);
        *shared = Arc::downgrade(&rig);
        Some(rig)
    }

    fn start() -> Option<Rig> {
        let peers = Peers::get()?;
        let (place, registry) = (Place::new(), Memory::start());
        BaseImage::put(&registry, "library/base", "1");
        let settings = format!(
            "insecure-entitlements = [\"network.host\", \"security.insecure\"]\n{}",
            mirror(&registry.host())
        );
        let config = place.write("kiln.toml", settings);
        let address = format!("unix://{}", place.path("kiln.sock").display());
        let mut command = place.kiln(&["daemon", "--addr", &address]);
        command.arg("--config").arg(config);
        command.arg("--root").arg(place.path("state"));
        let kiln = place.start(command);
        let from = format!("--registry-mirror=http://{}", registry.host());
        let dockerd = dockerd(&place, peers, &[WITH_BUILDKIT, &from]);
        Buildx::with(&place, &address)?;
        let rig = Rig {
            peers,
            registry,
            kiln: Some(kiln),
            dockerd: Some(dockerd),
            place,
        };
        rig.wait();
        Some(rig)
    }

    /// Until kiln answers.
    fn wait(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        let looked = || self.command(Who::Kiln, self.place.root(), &["inspect", "k"]);
        while self.place.start(looked()).wait().code() != Some(0) {
            assert!(Instant::now() < deadline, "kiln does not answer");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// `docker buildx ARGS` in `folder`.
    fn command(&self, who: Who, folder: &Path, args: &[&str]) -> Command {
        let mut command = docker(&self.place, self.peers, &[&["buildx"], args].concat());
        let builder = match who {
            Who::Docker => "default",
            Who::Kiln => "k",
        };
        command
            .current_dir(folder)
            .env("BUILDX_BUILDER", builder)
            .env("SOURCE_DATE_EPOCH", EPOCH)
            .env_remove("BUILDKIT_PROGRESS");
        command
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        for daemon in [self.kiln.take(), self.dockerd.take()]
            .into_iter()
            .flatten()
        {
            daemon.signal(Signal::TERM);
            daemon.wait();
        }
        if !std::thread::panicking() {
            self.place.assert_nothing_left();
        }
    }
}

/// One test's stop on the tour: a folder with a context.
struct Stop {
    rig: Arc<Rig>,
    folder: PathBuf,
}

impl Stop {
    /// A new folder on the shared rig; none if the tools of others are not wanted.
    fn at(name: &str) -> Option<Stop> {
        let rig = Rig::get()?;
        let folder = rig.place.path(name);
        for who in Who::BOTH {
            fs::create_dir_all(folder.join(who.folder())).expect("a folder");
        }
        Some(Stop { rig, folder })
    }

    /// The base image as builders call it.
    fn base(&self) -> String {
        format!("{}/library/base:1", self.rig.registry.host())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("it is in our folder")).expect("a folder");
        fs::write(path, bytes).expect("a file");
    }

    /// A context `ctx` with this Dockerfile, in which `BASE` is the base image.
    fn dockerfile(&self, text: &str) {
        self.write("ctx/Dockerfile", text.replace("BASE", &self.base()));
    }

    fn command(&self, who: Who, args: &[&str]) -> Command {
        let args: Vec<String> = args
            .iter()
            .map(|arg| arg.replace("OUT", who.folder()))
            .collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        self.rig.command(who, &self.folder, &args)
    }

    fn start(&self, command: Command) -> Running {
        self.rig.place.start(command)
    }

    fn run(&self, who: Who, args: &[&str]) -> Ran {
        self.start(self.command(who, args)).wait()
    }

    /// The same with a file as its standard input.
    fn feed(&self, who: Who, args: &[&str], input: &str) -> Ran {
        let mut command = self.command(who, args);
        command.stdin(fs::File::open(self.path(input)).expect("a file"));
        self.rig.place.start_with_input(command).wait()
    }

    /// `buildx build --progress=plain --network=none ARGS`; the peer has no network to give.
    fn build(&self, who: Who, args: &[&str]) -> Ran {
        let fixed = ["build", "--progress=plain", "--network=none"];
        self.run(who, &[&fixed, args].concat())
    }

    /// The same command to both: what the peer made of it, and what kiln did.
    fn both(&self, args: &[&str]) -> [Ran; 2] {
        Who::BOTH.map(|who| self.run(who, args))
    }

    /// The same build by both.
    fn builds(&self, args: &[&str]) -> [Ran; 2] {
        Who::BOTH.map(|who| self.build(who, args))
    }

    /// A file both wrote: the peer's and ours.
    #[track_caller]
    fn outs(&self, name: &str) -> [Vec<u8>; 2] {
        Who::BOTH.map(|who| {
            let path = self.path(who.folder()).join(name);
            fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        })
    }

    /// The text of a file both wrote, which is the same.
    #[track_caller]
    fn same(&self, name: &str) -> String {
        let [theirs, ours] = self.outs(name);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert_eq!(text(&ours), text(&theirs), "{name}");
        text(&ours)
    }
}

/// Both ended well.
#[track_caller]
fn both_ok(ran: [Ran; 2]) -> [Ran; 2] {
    ran.map(Ran::ok)
}

/// What was said, without progress and what only one builder's client says.
fn said(text: &str) -> Vec<String> {
    text.lines()
        .filter(|line| !line.starts_with('#') && !line.trim().is_empty())
        .filter(|line| !line.starts_with("WARNING: No output specified"))
        .map(str::to_owned)
        .collect()
}

/// Rows: A06, A07, A18
#[test]
fn builders_are_listed_and_looked_at() {
    let Some(stop) = Stop::at("builders") else {
        return;
    };
    let [theirs, ours] = Who::BOTH.map(|who| {
        let name = if who == Who::Kiln { "k" } else { "default" };
        stop.run(who, &["inspect", "--bootstrap", name]).ok().text()
    });
    let keys = |text: &str| -> Vec<String> {
        let keys = text.lines().filter_map(|line| line.split_once(": "));
        let keys = keys.map(|(key, _)| key.trim().to_owned());
        keys.filter(|key| !key.starts_with("org.mobyproject") && key != "Last Activity")
            .collect()
    };
    assert_eq!(keys(&ours), keys(&theirs), "{ours}\n{theirs}");
    assert!(ours.contains("running") && ours.contains("linux/amd64"));
    let list = stop
        .run(Who::Kiln, &["ls", "--format={{.Name}} {{.Status}}"])
        .ok()
        .text();
    assert!(list.contains("running"), "{list}");
    // An HTTP/2 preface goes through, and the daemon's settings come back.
    let mut hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    hello.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    stop.write("hello", hello);
    let dial = stop.feed(Who::Kiln, &["dial-stdio", "--progress=quiet"], "hello");
    let answer = dial.stdout;
    assert_eq!(answer.get(3), Some(&4), "settings: {answer:?}");
}
