//! A socket in the container that leads to the client's SSH agent (row X06).

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::sync::Arc;
use std::time::Duration;

use executor::MountSource;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use llb::Owned;
use rustix::fs::{Mode, OFlags};
use session::SshAgent;
use stdx::task::{Task, blocking, spawn};
use tokio::net::{UnixListener, UnixStream};

use super::secrets::is_missing;
use crate::{Build, Error, Result};

/// Connections of one container at one time; more wait.
const CONNECTIONS: usize = 64;

/// A socket being served. Dropped, it answers no more.
pub(super) struct Forwarding {
    _serving: Task<()>,
}

/// A socket for one mount; `None` when no client has the agent and it is not needed.
pub(super) async fn forward(
    build: &Build,
    wanted: &Owned,
) -> Result<Option<(MountSource, Forwarding)>> {
    let id = if wanted.id.is_empty() {
        "default"
    } else {
        &wanted.id
    };
    let asking = build.group.any(&build.sessions, |session| async move {
        let agent = session.ssh()?;
        agent.check(id).await?;
        Ok(agent)
    });
    let agent = match asking.await {
        Ok(agent) => agent,
        Err(error) if wanted.optional && (is_missing(&error) || build.group.is_empty()) => {
            return Ok(None);
        }
        Err(source) => {
            let what = format!("SSH agent {id} is needed: give it with --ssh {id}");
            return Err(Error::Session { what, source });
        }
    };
    let wanted = wanted.clone();
    let made = blocking(move || socket(&wanted)).await;
    let (listener, source) = made.map_err(Error::io("making a socket for an SSH agent"))?;
    let listener = UnixListener::from_std(listener).map_err(Error::io("listening for SSH"))?;
    let serving = spawn("ssh agent", serve(listener, agent, id.to_owned()));
    Ok(Some((source, Forwarding { _serving: serving })))
}

/// A listening socket that has no name on this machine any more: only who gets the
/// mount can reach it, and nothing has to be tidied away.
fn socket(wanted: &Owned) -> io::Result<(std::os::unix::net::UnixListener, MountSource)> {
    let dir = tempfile::Builder::new().prefix("kiln-ssh-").tempdir()?;
    let path = dir.path().join("agent");
    let listener = std::os::unix::net::UnixListener::bind(&path)?;
    listener.set_nonblocking(true)?;
    std::fs::set_permissions(&path, Permissions::from_mode(wanted.mode & 0o777))?;
    chown(&path, Some(wanted.uid), Some(wanted.gid))?;
    let handle = rustix::fs::open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    Ok((listener, MountSource::Fd(Arc::new(handle))))
}

async fn serve(listener: UnixListener, agent: Arc<dyn SshAgent>, id: String) {
    let mut open = FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if open.len() < CONNECTIONS => match accepted {
                Ok((connection, _)) => open.push(carry(connection, &*agent, &id)),
                Err(error) => {
                    tracing::debug!(%error, "accepting a connection to an SSH agent");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(()) = open.next(), if !open.is_empty() => {}
        }
    }
}

async fn carry(mut connection: UnixStream, agent: &dyn SshAgent, id: &str) {
    let carried = async {
        let mut stream = agent.connect(id).await.map_err(io::Error::other)?;
        tokio::io::copy_bidirectional(&mut connection, &mut stream).await
    };
    if let Err(error) = carried.await {
        tracing::debug!(%error, id, "a connection to an SSH agent broke");
    }
}
