//! A place to run in: a folder with a short path under `/tmp`, where sockets fit and
//! the tools of others can look. It goes when the test ends.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

use super::binary;
use super::leaks;
use super::running::{Ran, Running};

/// A folder, the state of one kiln in it, and what a test writes there.
pub(crate) struct Place {
    dir: TempDir,
    runs: AtomicU32,
    /// The processes started here.
    pub(super) pids: Mutex<Vec<u32>>,
}

impl Place {
    /// A new folder. The program is built before anyone measures time in it.
    #[track_caller]
    pub(crate) fn new() -> Place {
        binary::kiln();
        assert!(
            rustix::process::geteuid().is_root(),
            "end-to-end tests run containers and mount: run them as root"
        );
        let dir = tempfile::Builder::new()
            .prefix("k-")
            .tempdir_in("/tmp")
            .expect("a folder in /tmp");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
        leaks::remove_empty_parents();
        Place {
            dir,
            runs: AtomicU32::new(0),
            pids: Mutex::default(),
        }
    }

    /// Something in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The folder.
    pub(crate) fn root(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a file, folders above it too.
    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("it is in our folder")).expect("a folder");
        fs::write(&path, bytes).expect("a file");
        path
    }

    /// Writes a context called `ctx` with this Dockerfile.
    pub(crate) fn context(&self, dockerfile: &str) -> PathBuf {
        self.write("ctx/Dockerfile", dockerfile);
        self.path("ctx")
    }

    /// `kiln` with the state of this place, no settings of this machine's user, and
    /// temporary files where we see them.
    pub(crate) fn kiln(&self, args: &[&str]) -> Command {
        let tmp = self.path("tmp");
        fs::create_dir_all(&tmp).expect("a folder");
        let mut command = Command::new(binary::kiln());
        command
            .args(args)
            .current_dir(self.root())
            .env("KILN_STATE", self.path("state"))
            .env("DOCKER_CONFIG", self.path("docker"))
            .env("HOME", self.root())
            .env("TMPDIR", tmp)
            .env("NO_COLOR", "1")
            .env_remove("RUST_BACKTRACE")
            .env_remove("KILN_HOST")
            .env_remove("SOURCE_DATE_EPOCH")
            .env_remove("BUILDKIT_PROGRESS");
        command
    }

    /// Runs `kiln build --progress=plain ARGS ctx` to its end.
    pub(crate) fn build(&self, args: &[&str]) -> Ran {
        self.start_build(args).wait()
    }

    /// Starts `kiln build --progress=plain ARGS ctx`.
    pub(crate) fn start_build(&self, args: &[&str]) -> Running {
        let mut command = self.kiln(&["build", "--progress=plain"]);
        command.args(args).arg(self.path("ctx"));
        self.start(command)
    }

    /// Runs a command of kiln to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        self.start(self.kiln(args)).wait()
    }

    /// Starts a command; what it says is kept in files here.
    pub(crate) fn start(&self, command: Command) -> Running {
        self.start_as(command, false)
    }

    /// The same, with the input it has.
    pub(crate) fn start_with_input(&self, command: Command) -> Running {
        self.start_as(command, true)
    }

    fn start_as(&self, command: Command, keep_input: bool) -> Running {
        let number = self.runs.fetch_add(1, Ordering::Relaxed);
        let said = self.path(&format!("said/{number}"));
        let running = Running::start(command, &said, keep_input);
        self.pids.lock().expect("not poisoned").push(running.pid());
        running
    }
}
