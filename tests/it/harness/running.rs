//! Processes that are watched: what they say goes to files, and none is waited for
//! without end.

use std::fs::{self, File};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::plain::Step;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(90);
/// How often a process is looked at.
const LOOK: Duration = Duration::from_millis(3);

/// A process. Dropped, it is killed.
pub(crate) struct Running {
    what: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Running {
    /// Starts it in a process group of its own; `said` is where its words go. It has no
    /// input, unless it shall keep its own.
    #[track_caller]
    pub(super) fn start(mut command: Command, said: &Path, keep_input: bool) -> Running {
        fs::create_dir_all(said).expect("a folder");
        let (stdout, stderr) = (said.join("stdout"), said.join("stderr"));
        let open = |path: &Path| Stdio::from(File::create(path).expect("a file"));
        let what = format!("{command:?}");
        if !keep_input {
            command.stdin(Stdio::null());
        }
        let child = command
            .stdout(open(&stdout))
            .stderr(open(&stderr))
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        Running {
            what,
            child,
            stdout,
            stderr,
        }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        // It may have ended by itself.
        let _ = rustix::process::kill_process(pid, signal);
    }

    /// Its standard error so far.
    pub(crate) fn said(&self) -> String {
        let bytes = fs::read(&self.stderr).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Its standard output so far.
    pub(crate) fn printed(&self) -> String {
        let bytes = fs::read(&self.stdout).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Whether it has ended.
    pub(crate) fn ended(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_some()
    }

    /// Waits until a step of this build has said so: its program runs. The step's name does
    /// not count, which has the text, too, and is shown before there is a container.
    #[track_caller]
    pub(crate) fn wait_for_output(&mut self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        let said = |build: &Running| {
            let mut logs = Step::all(&build.said())
                .into_iter()
                .flat_map(|step| step.log);
            logs.any(|line| line.contains(text))
        };
        while !said(self) {
            assert!(
                !self.ended() || said(self),
                "{} ended and no step said {text:?}:\n{}",
                self.what,
                self.said()
            );
            assert!(
                Instant::now() < deadline,
                "no step of {} says {text:?}:\n{}",
                self.what,
                self.said()
            );
            std::thread::sleep(LOOK);
        }
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn wait(mut self) -> Ran {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                break status;
            }
            assert!(
                Instant::now() < deadline,
                "{} does not end:\n{}",
                self.what,
                self.said()
            );
            std::thread::sleep(LOOK);
        };
        Ran {
            what: self.what.clone(),
            status,
            stdout: fs::read(&self.stdout).unwrap_or_default(),
            stderr: self.said(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process that has ended.
pub(crate) struct Ran {
    what: String,
    status: ExitStatus,
    /// Its standard output.
    pub(crate) stdout: Vec<u8>,
    /// Its standard error.
    pub(crate) stderr: String,
}

impl Ran {
    /// It ended well.
    #[track_caller]
    pub(crate) fn ok(self) -> Ran {
        assert!(self.status.success(), "{self}");
        self
    }

    /// It ended with an error, of its own will.
    #[track_caller]
    pub(crate) fn fails(self) -> Ran {
        assert!(
            self.status.code().is_some_and(|code| code != 0),
            "it should fail: {self}"
        );
        assert!(!self.stderr.contains("panicked"), "{self}");
        self
    }

    /// The exit code; none if a signal ended it.
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Standard error has these words.
    #[track_caller]
    pub(crate) fn says(self, words: &[&str]) -> Ran {
        for word in words {
            assert!(self.stderr.contains(word), "no {word:?} in: {self}");
        }
        self
    }

    /// Standard output as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The step whose name has these words.
    #[track_caller]
    pub(crate) fn step(&self, words: &str) -> Step {
        let steps = Step::all(&self.stderr);
        let found = steps.into_iter().find(|step| step.name.contains(words));
        found.unwrap_or_else(|| panic!("no step {words:?} in: {self}"))
    }

    /// The steps of stages, those named `[… 1/2] …`, that were not cached.
    pub(crate) fn made(&self) -> Vec<String> {
        let steps = Step::all(&self.stderr).into_iter();
        let made = steps.filter(|step| step.of_a_stage() && !step.cached && step.done);
        made.map(|step| step.name)
            .filter(|name| !name.contains("] FROM "))
            .collect()
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{} gave {}", self.what, self.status)?;
        if let Some(signal) = self.status.signal() {
            writeln!(f, "signal {signal}")?;
        }
        let text = self.text();
        writeln!(f, "--- stdout\n{}", &text[..text.floor_char_boundary(4000)])?;
        writeln!(f, "--- stderr\n{}", self.stderr)
    }
}
