//! Running `git` so that nothing of this machine but the program itself gets
//! in: no configuration, no hooks, no prompts, no other protocols.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use progress::{StepProgress, Stream};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::error::{Error, Result};
use crate::identifier::redacted;

/// More output than this is not kept.
const MAX_OUTPUT: usize = 4 << 20;
/// Proxies are the one thing the surroundings may say.
const PROXIES: [&str; 8] = [
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
];

/// Only the newest state, without its history.
pub(super) const SHALLOW: &str = "--depth=1";

/// What git says when a server knows nothing of [`SHALLOW`]: by the second protocol, by the first,
/// and when it is one of plain files, now and in older versions.
const NO_DEPTH: [&str; 4] = [
    "fatal: Server does not support shallow requests",
    "fatal: Server does not support shallow clients",
    "fatal: dumb http transport does not support shallow capabilities",
    "fatal: dumb http transport does not support --depth",
];

/// Whether git failed because the server knows nothing of [`SHALLOW`]. Only git itself says so:
/// what a server says, or a repository is called, is no reason to get all of its history.
fn minds_depth(reason: &str) -> bool {
    reason
        .lines()
        .any(|line| NO_DEPTH.contains(&line.trim_end()))
}

/// Git in one repository, or in none.
#[derive(Clone)]
pub(super) struct Cli {
    pub program: PathBuf,
    pub remote: String,
    pub step: StepProgress,
    pub git_dir: Option<PathBuf>,
    pub work_tree: Option<PathBuf>,
    /// `key=value` settings; through the environment, so that secrets in them
    /// do not show in the list of processes.
    pub config: Vec<(String, String)>,
    pub ssh_command: String,
    pub ssh_socket: Option<PathBuf>,
    pub protocols: &'static str,
}

impl Cli {
    /// The same in this repository.
    pub(super) fn at(&self, git_dir: &Path, work_tree: Option<&Path>) -> Cli {
        Cli {
            git_dir: Some(git_dir.into()),
            work_tree: work_tree.map(Into::into),
            ..self.clone()
        }
    }

    /// The same, able to read repositories on this disk, and logged in nowhere.
    pub(super) fn local(&self) -> Cli {
        Cli {
            protocols: "file",
            config: Vec::new(),
            ssh_socket: None,
            ..self.clone()
        }
    }

    /// An attempt that failed.
    pub(super) fn failed(&self, what: &str, reason: String) -> Error {
        Error::Git {
            what: what.into(),
            remote: redacted(&self.remote),
            reason,
        }
    }

    /// What git prints; `what` names the attempt in errors. Servers that give a whole history or
    /// none, as one of plain files, are asked for all of it.
    pub(super) async fn run(&self, what: &str, args: &[&str]) -> Result<String> {
        let printed = match self.printed(what, args).await {
            Err(Error::Git { reason, .. }) if args.contains(&SHALLOW) && minds_depth(&reason) => {
                let whole: Vec<&str> = args.iter().copied().filter(|a| *a != SHALLOW).collect();
                self.printed(what, &whole).await?
            }
            printed => printed?,
        };
        Ok(String::from_utf8_lossy(&printed).into_owned())
    }

    /// All bytes git prints.
    pub(super) async fn bytes(&self, what: &str, args: &[&str]) -> Result<Vec<u8>> {
        let printed = self.printed(what, args).await?;
        if printed.len() >= MAX_OUTPUT {
            let reason = format!("git {} prints more than 4 MiB", args.join(" "));
            return Err(self.failed(what, reason));
        }
        Ok(printed)
    }

    /// What git prints, as much as is kept of it.
    async fn printed(&self, what: &str, args: &[&str]) -> Result<Vec<u8>> {
        let failed = |reason: String| self.failed(what, reason);
        let mut command = tokio::process::Command::new("/bin/sh");
        // Files get the usual modes whatever our own umask is.
        command
            .args(["-c", "umask 022; exec \"$@\"", "sh"])
            .arg(&self.program)
            .args(self.options())
            .args(args);
        command.env_clear().envs(self.environment());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        if let Some(dir) = self
            .work_tree
            .as_ref()
            .or(self.git_dir.as_ref())
            .filter(|dir| dir.is_dir())
        {
            command.current_dir(dir);
        }
        let mut child = command
            .spawn()
            .map_err(|error| failed(format!("cannot start git: {error}")))?;
        let mut group = Group(child.id());
        let (out, err) = (
            child.stdout.take().expect("piped"),
            child.stderr.take().expect("piped"),
        );
        let (status, out, err) = tokio::join!(
            child.wait(),
            self.gather(out, false),
            self.gather(err, true)
        );
        group.0 = None;
        let status = status.map_err(|error| failed(error.to_string()))?;
        if status.success() {
            return Ok(out);
        }
        let said = String::from_utf8_lossy(&err).trim().to_owned();
        Err(failed(if said.is_empty() {
            status.to_string()
        } else {
            said
        }))
    }

    /// Whether git ends well.
    pub(super) async fn succeeds(&self, args: &[&str]) -> bool {
        let quiet = Cli {
            step: StepProgress::none(),
            ..self.clone()
        };
        quiet.run("git", args).await.is_ok()
    }

    /// Reads a stream to its end, showing it to who watches the step.
    async fn gather(&self, mut stream: impl AsyncRead + Unpin, shown: bool) -> Vec<u8> {
        let (mut all, mut buffer) = (Vec::new(), vec![0; 16 << 10]);
        while let Ok(n @ 1..) = stream.read(&mut buffer).await {
            if shown {
                self.step.log(Stream::Err, &buffer[..n]);
            }
            all.extend_from_slice(&buffer[..n.min(MAX_OUTPUT - all.len().min(MAX_OUTPUT))]);
        }
        all
    }

    fn options(&self) -> Vec<OsString> {
        let mut options = Vec::new();
        let mut path = |name: &str, value: &Option<PathBuf>| {
            if let Some(value) = value {
                let mut option = OsString::from(name);
                option.push(value);
                options.push(option);
            }
        };
        path("--work-tree=", &self.work_tree);
        path("--git-dir=", &self.git_dir);
        options
    }

    fn environment(&self) -> Vec<(OsString, OsString)> {
        let mut all: Vec<(OsString, OsString)> = Vec::new();
        let mut set = |name: &str, value: &OsStr| all.push((name.into(), value.into()));
        for name in PROXIES.iter().chain(&["PATH"]) {
            if let Some(value) = std::env::var_os(name) {
                set(name, &value);
            }
        }
        let fixed = [
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_ATTR_NOSYSTEM", "1"),
            ("GIT_NO_REPLACE_OBJECTS", "1"),
            ("HOME", "/dev/null"),
            ("LC_ALL", "C"),
            ("GIT_ALLOW_PROTOCOL", self.protocols),
            ("GIT_SSH_COMMAND", &self.ssh_command),
            ("GIT_LFS_SKIP_SMUDGE", "1"),
        ];
        for (name, value) in fixed {
            set(name, value.as_ref());
        }
        if let Some(socket) = &self.ssh_socket {
            set("SSH_AUTH_SOCK", socket.as_os_str());
        }
        let ours = [
            ("core.hooksPath", "/dev/null"),
            ("core.fsmonitor", "false"),
            ("core.useReplaceRefs", "false"),
            ("gc.auto", "0"),
            ("maintenance.auto", "false"),
            ("init.defaultBranch", "master"),
            ("advice.detachedHead", "false"),
            ("safe.directory", "*"),
        ];
        let config = ours.iter().map(|(key, value)| (*key, *value));
        let config = config.chain(
            self.config
                .iter()
                .map(|(key, value)| (key.as_str(), value.as_str())),
        );
        let mut count = 0;
        for (key, value) in config {
            set(&format!("GIT_CONFIG_KEY_{count}"), key.as_ref());
            set(&format!("GIT_CONFIG_VALUE_{count}"), value.as_ref());
            count += 1;
        }
        set("GIT_CONFIG_COUNT", count.to_string().as_ref());
        all
    }
}

/// Ends git and its helpers when nobody waits for them any more.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        let id = self
            .0
            .and_then(|id| i32::try_from(id).ok())
            .and_then(rustix::process::Pid::from_raw);
        if let Some(id) = id {
            let _ = rustix::process::kill_process_group(id, rustix::process::Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows: S14
    #[test]
    fn only_git_itself_says_that_a_server_gives_no_part_of_a_history() {
        for said in NO_DEPTH {
            assert!(
                minds_depth(&format!("{said}\nerror: so it ended")),
                "{said}"
            );
        }
        for said in [
            "fatal: repository 'https://h/shallow.git/' not found",
            "remote: fatal: Server does not support shallow clients",
            "fatal: couldn't find remote ref shallow",
            "error: --depth",
        ] {
            assert!(!minds_depth(said), "{said}");
        }
    }
}
