//! What every [`Executor`] promises, as tests, and what such tests need.
//!
//! An executor proves itself with `executor_suite!(make)`, where `make` is an async
//! function that gives `Option<Arc<dyn Executor>>` (none: not on this machine, after
//! saying why). The test binary also says `executor::helper_hook!();` once, so that the
//! built-in executor can start it as its helper.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use snapshot::Tree;

use crate::{Control, Error, Executor, Exit, Io, Process};

mod confinement;
mod filesystem;
mod life;
mod proxied;

pub use confinement::*;
pub use filesystem::*;
pub use life::*;
pub use proxied::*;

/// Makes the test binary serve as the helper of the built-in executor.
#[macro_export]
macro_rules! helper_hook {
    () => {
        #[used]
        // SAFETY: runs once, before `main` and before any thread; it returns at once
        // unless this process was started as the helper.
        #[unsafe(link_section = ".init_array")]
        static HELPER_HOOK: extern "C" fn() = {
            extern "C" fn before_main() {
                $crate::helper_main();
            }
            before_main
        };
    };
}

/// One test for each promise, named `privileged_<promise>`, in a module of its own.
#[macro_export]
macro_rules! executor_suite {
    ($make:path: $($test:ident),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                if let Some(executor) = $make().await {
                    $crate::testing::$test(executor.clone()).await;
                    executor.close().await;
                }
            }
        )*
    };
}

/// Whether tests that need root can run; says so when not.
pub fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skip("only root can start these containers");
    }
    root
}

/// Says why a test does not run here.
pub fn skip(reason: &str) {
    use std::io::Write;
    let _nobody_listens = writeln!(std::io::stderr(), "skipped: {reason}");
}

/// A root filesystem of busybox, in a directory of its own.
pub struct Rootfs {
    dir: tempfile::TempDir,
}

impl Rootfs {
    /// Unpacks it.
    ///
    /// # Panics
    /// When the machine has no static busybox.
    pub fn busybox() -> Rootfs {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let root = dir.path();
        for name in ["bin", "etc", "tmp", "root", "home/web"] {
            std::fs::create_dir_all(root.join(name)).expect("a directory");
        }
        std::fs::copy("/bin/busybox", root.join("bin/busybox"))
            .expect("/bin/busybox is needed: apt-get install busybox-static");
        const TOOLS: &[&str] = &[
            "sh", "cat", "echo", "id", "ls", "mkdir", "rm", "ln", "touch", "mount", "umount",
            "mknod", "hostname", "sleep", "kill", "true", "false", "env", "pwd", "stat", "head",
            "dd", "tty", "stty", "ps", "grep", "chroot", "su", "chmod", "test", "ip", "mv",
            "readlink", "wc", "seq", "trap", "awk", "find", "sync", "setsid", "nohup", "chown",
            "unshare", "tr", "cut", "sort", "tail", "yes", "nc", "ifconfig", "df",
        ];
        for tool in TOOLS {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(tool)).expect("a link");
        }
        let passwd = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/home/web:/bin/sh\n";
        std::fs::write(root.join("etc/passwd"), passwd).expect("a file");
        let group = "root:x:0:\nweb:x:34:\naudio:x:29:web\n";
        std::fs::write(root.join("etc/group"), group).expect("a file");
        Rootfs { dir }
    }

    /// Where it is on this machine.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The tree for a [`Process`].
    pub fn tree(&self) -> Arc<Tree> {
        Arc::new(Tree::open(self.path()).expect("it was just made"))
    }

    /// A shell running `script` in it.
    pub fn sh(&self, script: &str) -> Process {
        Process::new(self.tree(), ["/bin/sh", "-c", script])
    }
}

/// What a finished run wrote.
#[derive(Debug)]
pub struct Ran {
    /// How it ended.
    pub exit: Exit,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// Runs `process` and gathers what it writes.
pub async fn run(executor: &dyn Executor, process: Process) -> Result<Ran, Error> {
    run_with(executor, process, Control::none()).await
}

/// The same, with a control.
pub async fn run_with(
    executor: &dyn Executor,
    process: Process,
    control: Control,
) -> Result<Ran, Error> {
    let (io, out, err) = Io::channels(16);
    let (exit, out, err) =
        tokio::join!(executor.run(process, io, control), gather(out), gather(err));
    Ok(Ran {
        exit: exit?,
        out,
        err,
    })
}

/// Runs `process` and expects it to succeed.
///
/// # Panics
/// When it does not.
pub async fn succeeds(executor: &dyn Executor, process: Process) -> Ran {
    let ran = run(executor, process).await.expect("it runs");
    assert!(ran.exit.success(), "{ran:?}");
    ran
}

/// Everything a channel gives, as text.
pub async fn gather(mut from: tokio::sync::mpsc::Receiver<Bytes>) -> String {
    let mut all = Vec::new();
    while let Some(chunk) = from.recv().await {
        all.extend_from_slice(&chunk);
    }
    String::from_utf8_lossy(&all).into_owned()
}

/// Runs `script` in a fresh busybox and expects it to succeed; its output.
pub async fn output(executor: &dyn Executor, script: &str) -> String {
    let rootfs = Rootfs::busybox();
    succeeds(executor, rootfs.sh(script)).await.out
}
