//! Containers a frontend starts for itself (row G09): to look around in a result, or in
//! what a failed step left behind.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use oci::Platform;
use tokio::sync::mpsc;

use crate::{FileRange, FileStat, RefId, Result};

/// A container that is to be. Nothing runs in it yet.
#[derive(Clone, Debug, Default)]
pub struct NewContainer {
    /// Trees its processes see. A tree's result is named by [`llb::Mount::result_id`];
    /// numbers of inputs and outputs mean nothing here.
    pub mounts: Vec<llb::Mount>,
    /// The network they see.
    pub network: llb::Network,
    /// Lines for /etc/hosts.
    pub extra_hosts: Vec<llb::ExtraHost>,
    /// Name of the machine as they see it.
    pub hostname: String,
    /// What its programs are for; the worker's own when absent.
    pub platform: Option<Platform>,
}

/// A process that is to be.
#[derive(Clone, Debug, Default)]
pub struct NewProcess {
    /// Program and arguments.
    pub args: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Environment variables that hold secrets.
    pub secret_env: Vec<llb::SecretEnv>,
    /// Working directory; empty is `/`.
    pub cwd: String,
    /// `name`, `uid`, `name:group` …; empty is root.
    pub user: String,
    /// Whether it has a terminal.
    pub tty: bool,
    /// How far it is confined.
    pub security: llb::Security,
    /// Take away the whole path of directories made as mount points.
    pub remove_mount_stubs_recursive: bool,
    /// Whether it gets input.
    pub stdin: bool,
    /// Whether somebody wants its output.
    pub stdout: bool,
    /// Whether somebody wants what it complains about.
    pub stderr: bool,
}

/// Lines and columns of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Columns.
    pub cols: u16,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessExit {
    /// Its exit code; 128 and the signal's number when a signal ended it.
    pub code: i32,
    /// It was killed for lack of memory.
    pub oom: bool,
    /// Why the program could not be executed, if that is the reason for the code.
    pub why: Option<String>,
}

/// A process that was started.
pub struct StartedProcess {
    /// Its input; dropped, the input ends.
    pub stdin: Option<mpsc::Sender<Bytes>>,
    /// Its output, until it ends.
    pub stdout: Option<mpsc::Receiver<Bytes>>,
    /// What it complains about, until it ends.
    pub stderr: Option<mpsc::Receiver<Bytes>>,
    /// Signals and the size of its terminal. Dropped, the process is killed.
    pub control: Box<dyn ProcessControl>,
    /// Its end. An error if it could not be run at all, or was killed with its container.
    pub ended: BoxFuture<'static, Result<ProcessExit>>,
}

/// What can be done with a process while it runs.
#[async_trait]
pub trait ProcessControl: Send + Sync {
    /// Sends a signal by its number; lost if the process has ended.
    async fn signal(&self, signal: i32);

    /// Tells its terminal a new size.
    fn resize(&self, size: TerminalSize);
}

/// A container of a frontend's own. The first process is the one the container lives as
/// long as; later ones join it. Dropped, everything in it is killed.
#[async_trait]
pub trait Container: Send + Sync {
    /// Starts a process. It is running when this returns, or has already ended.
    async fn start(&self, process: NewProcess) -> Result<StartedProcess>;

    /// A file of one of the mounts, which are counted as they were asked for.
    async fn read_file(&self, mount: usize, path: &str, range: Option<FileRange>) -> Result<Bytes>;

    /// The entries of a directory of one of the mounts, as [`crate::Bridge::read_dir`].
    async fn read_dir(
        &self,
        mount: usize,
        path: &str,
        include: Option<&str>,
    ) -> Result<Vec<FileStat>>;

    /// One entry of one of the mounts; a symbolic link at the end is followed.
    async fn stat_file(&self, mount: usize, path: &str) -> Result<FileStat>;

    /// Kills what runs in it and lets go of its mounts; waits until that is done. Whether
    /// anything was killed.
    async fn release(&self) -> bool;
}

/// A step that failed, and what is left of it to look at.
#[derive(Clone, Debug)]
pub struct FailedStep {
    /// What it should have done.
    pub op: llb::Op,
    /// Its description: `llb.customname` and others.
    pub description: BTreeMap<String, String>,
    /// What of it failed.
    pub part: FailedPart,
    /// For each mount of a process, what it began with; for actions on files, all inputs;
    /// for an input that could not be looked into, this one alone.
    pub inputs: Vec<Option<RefId>>,
    /// For each mount of a process, what it was like in the end; for each action on files,
    /// what it had made, if that is still there.
    pub mounts: Vec<Option<RefId>>,
}

/// What of a step failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailedPart {
    /// Its process.
    Process,
    /// One of its actions on files, by its place.
    Action(usize),
    /// Looking into one of its inputs, by its number, before anything was done.
    Input(usize),
    /// All of it, and nothing is left to look at.
    Whole,
}
