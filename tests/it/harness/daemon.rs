//! A daemon in a place.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::place::Place;
use super::running::{Ran, Running};

/// A running `kiln daemon`. Dropped, it is killed.
pub(crate) struct Daemon<'a> {
    place: &'a Place,
    running: Running,
    socket: PathBuf,
}

impl<'a> Daemon<'a> {
    /// Starts one on the state of `place`, with a settings file of this text.
    #[track_caller]
    pub(crate) fn start(place: &'a Place, settings: &str) -> Daemon<'a> {
        Daemon::start_with(place, settings, &[])
    }

    /// The same, with more flags.
    #[track_caller]
    pub(crate) fn start_at(place: &'a Place, settings: &str, flags: &[&str]) -> Daemon<'a> {
        Daemon::start_as(place, settings, &[], flags)
    }

    /// The same, with these variables in its environment.
    #[track_caller]
    pub(crate) fn start_with(
        place: &'a Place,
        settings: &str,
        variables: &[(&str, &str)],
    ) -> Daemon<'a> {
        Daemon::start_as(place, settings, variables, &[])
    }

    #[track_caller]
    fn start_as(
        place: &'a Place,
        settings: &str,
        variables: &[(&str, &str)],
        flags: &[&str],
    ) -> Daemon<'a> {
        let (socket, config) = (place.path("d.sock"), place.write("kiln.toml", settings));
        let address = format!("unix://{}", socket.display());
        let mut command = place.kiln(&["daemon", "--addr", &address]);
        command.arg("--config").arg(config);
        command.arg("--root").arg(place.path("state"));
        command.envs(variables.iter().copied());
        command.args(flags);
        let mut running = place.start(command);
        let deadline = Instant::now() + Duration::from_secs(20);
        while UnixStream::connect(&socket).is_err() {
            assert!(!running.ended(), "the daemon ended:\n{}", running.said());
            assert!(Instant::now() < deadline, "no answer:\n{}", running.said());
            std::thread::sleep(Duration::from_millis(5));
        }
        Daemon {
            place,
            running,
            socket,
        }
    }

    /// `unix://…`
    pub(crate) fn address(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// The most memory it had in use at one time, in bytes.
    #[track_caller]
    pub(crate) fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.running.pid()));
        let status = status.expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kib.expect("a peak") * 1024
    }

    /// Its log so far.
    pub(crate) fn log(&self) -> String {
        self.running.said()
    }

    /// `kiln ARGS` as a client of it.
    pub(crate) fn kiln(&self, args: &[&str]) -> Command {
        let mut command = self.place.kiln(args);
        command.env("KILN_HOST", self.address());
        command
    }

    /// Starts `kiln build --progress=plain ARGS ctx` as a client of it.
    pub(crate) fn start_build(&self, args: &[&str]) -> Running {
        let mut command = self.kiln(&["build", "--progress=plain"]);
        command.args(args).arg(self.place.path("ctx"));
        self.place.start(command)
    }

    /// The same, to its end.
    pub(crate) fn build(&self, args: &[&str]) -> Ran {
        self.start_build(args).wait()
    }

    /// Runs `kiln ARGS` as a client of it.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        self.place.start(self.kiln(args)).wait()
    }

    /// Asks it to stop, and waits.
    #[track_caller]
    pub(crate) fn stop(self) -> Ran {
        self.running.signal(Signal::TERM);
        self.running.wait().ok()
    }

    /// Kills it as a power cut would.
    pub(crate) fn kill(self) {
        self.running.signal(Signal::KILL);
        self.running.wait();
    }
}
