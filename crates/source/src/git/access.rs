//! Logging in to a remote: secrets as HTTP headers, the client's SSH agent
//! behind a socket, known hosts in a file. All of it is gone with the value.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use session::{Session, SshAgent};
use stdx::task::{Task, spawn};
use tokio::net::UnixListener;

use super::cli::Cli;
use crate::context::{Context, Sources};
use crate::error::{Error, Result};
use crate::identifier::GitId;

/// A way in, for as long as it lives.
pub(super) struct Access {
    cli: Cli,
    _scratch: tempfile::TempDir,
    _agent: Option<Task<()>>,
}

impl Access {
    pub(super) async fn open(sources: &Sources, id: &GitId, cx: &Context) -> Result<Access> {
        let failed = || Error::io("a folder for git's login");
        let parts = sources.parts();
        let scratch = tempfile::Builder::new()
            .prefix("git-")
            .tempdir_in(&parts.scratch)
            .map_err(failed())?;
        // Nobody else is to reach the agent through us.
        std::fs::set_permissions(scratch.path(), std::fs::Permissions::from_mode(0o700))
            .map_err(failed())?;
        let mut ssh_command = "ssh -F /dev/null".to_owned();
        if id.known_hosts.is_empty() {
            ssh_command.push_str(" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null");
        } else {
            let file = scratch.path().join("known_hosts");
            std::fs::write(&file, &id.known_hosts).map_err(failed())?;
            ssh_command.push_str(&format!(" -o UserKnownHostsFile='{}'", file.display()));
        }
        let (mut socket, mut agent) = (None, None);
        if !id.ssh.is_empty() {
            let path = scratch.path().join("agent.sock");
            agent = Some(forward(&id.ssh, &path, cx).await?);
            socket = Some(path);
        }
        let cli = Cli {
            program: parts.git.clone(),
            remote: id.remote.clone(),
            step: cx.step.clone(),
            git_dir: None,
            work_tree: None,
            config: login(id, cx).await?,
            ssh_command,
            ssh_socket: socket,
            protocols: "http:https:git:ssh",
        };
        Ok(Access {
            cli,
            _scratch: scratch,
            _agent: agent,
        })
    }

    /// Git with this login, in a repository or in none.
    pub(super) fn git(&self, git_dir: Option<&std::path::Path>) -> Cli {
        Cli {
            git_dir: git_dir.map(Into::into),
            ..self.cli.clone()
        }
    }
}

/// The first of the secrets that the client has, those for the host first.
async fn login(id: &GitId, cx: &Context) -> Result<Vec<(String, String)>> {
    let Some(host) = reqwest::Url::parse(&id.remote)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https"))
        .and_then(|url| {
            Some(format!(
                "{}{}",
                url.host_str()?,
                url.port().map(|p| format!(":{p}")).unwrap_or_default()
            ))
        })
    else {
        return Ok(Vec::new());
    };
    let (header, token) = (&id.auth_header_secret, &id.auth_token_secret);
    let names = [
        (format!("{header}.{host}"), header, false),
        (format!("{token}.{host}"), token, true),
        (header.clone(), header, false),
        (token.clone(), token, true),
    ];
    for (name, _, is_token) in names
        .into_iter()
        .filter(|(_, secret, _)| !secret.is_empty())
    {
        let Some(secret) = cx.secret(&name).await? else {
            continue;
        };
        let text = String::from_utf8_lossy(&secret).trim().to_owned();
        let value = if is_token {
            let encoded =
                base64::engine::general_purpose::STANDARD.encode(format!("x-access-token:{text}"));
            format!("basic {encoded}")
        } else {
            text
        };
        let key = format!("http.{}.extraheader", scope(&id.remote));
        return Ok(vec![(key, format!("Authorization: {value}"))]);
    }
    Ok(Vec::new())
}

/// Where the login goes: this remote, or all of GitHub for its submodules.
fn scope(remote: &str) -> &str {
    ["https://github.com/", "https://www.github.com/"]
        .into_iter()
        .find(|all| remote.starts_with(all))
        .unwrap_or(remote)
}

/// Listens for git's ssh and passes its requests to the client's agent.
async fn forward(id: &str, path: &PathBuf, cx: &Context) -> Result<Task<()>> {
    let session: Arc<Session> = cx
        .group
        .any(&cx.sessions, |session| async move {
            session.ssh()?.check(id).await?;
            Ok(session)
        })
        .await?;
    let agent: Arc<dyn SshAgent> = session.ssh()?;
    let listener = UnixListener::bind(path).map_err(Error::io("the agent's socket"))?;
    let id = id.to_owned();
    Ok(spawn("git ssh agent", async move {
        let mut open: Vec<Task<()>> = Vec::new();
        while let Ok((mut near, _)) = listener.accept().await {
            let (agent, id) = (Arc::clone(&agent), id.clone());
            open.retain(|task| !task.is_finished());
            open.push(spawn("git ssh connection", async move {
                match agent.connect(&id).await {
                    Ok(mut far) => drop(tokio::io::copy_bidirectional(&mut near, &mut far).await),
                    Err(error) => tracing::debug!(%error, "no agent"),
                }
            }));
        }
    }))
}
