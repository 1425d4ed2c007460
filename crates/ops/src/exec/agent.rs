//! A socket in the container that leads to the client's SSH agent (row X06).

use std::fs::Permissions;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use executor::MountSource;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use llb::Owned;
use session::SshAgent;
use stdx::task::{Task, blocking, spawn};
use tempfile::TempDir;
use tokio::net::{UnixListener, UnixStream};

use super::secrets::is_missing;
use crate::{Build, Error, Result};

/// Connections of one container at one time; more wait.
const CONNECTIONS: usize = 64;

/// A socket being served. Dropped, it answers no more and is gone.
pub(super) struct Forwarding {
    _serving: Task<()>,
    /// Only its owner can look into it.
    _dir: TempDir,
}

/// A socket for one mount; `None` when no client has the agent and it is not needed.
pub(super) async fn forward(
    build: &Build,
    scratch: &Path,
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
        // Clients differ in how they say that they have none; only a lost line is no answer.
        Err(error)
            if wanted.optional
                && (error.kind() != stdx::Kind::Unavailable || build.group.is_empty()) =>
        {
            return Ok(None);
        }
        Err(source) => {
            let what = match is_missing(&source) {
                true => {
                    format!("no SSH key {id:?} forwarded from the client: give it with --ssh {id}")
                }
                false => format!("asking for SSH agent {id}"),
            };
            return Err(Error::Session { what, source });
        }
    };
    let (wanted, scratch) = (wanted.clone(), scratch.to_owned());
    let made = blocking(move || socket(&wanted, &scratch)).await;
    let (listener, path, dir) = made.map_err(Error::io("making a socket for an SSH agent"))?;
    let listener = UnixListener::from_std(listener).map_err(Error::io("listening for SSH"))?;
    let serving = spawn("ssh agent", serve(listener, agent, id.to_owned()));
    let forwarding = Forwarding {
        _serving: serving,
        _dir: dir,
    };
    let source = MountSource::Host {
        path,
        restrict: executor::Restrict::default(),
    };
    Ok(Some((source, forwarding)))
}

/// A listening socket in a directory of its own, which the next start removes if we are
/// killed.
fn socket(
    wanted: &Owned,
    scratch: &Path,
) -> io::Result<(std::os::unix::net::UnixListener, PathBuf, TempDir)> {
    let dir = tempfile::Builder::new()
        .prefix("ssh-")
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(scratch)?;
    let path = dir.path().join("agent");
    // The names of sockets are short, those of state directories may be long.
    let open = std::fs::File::open(dir.path())?;
    let short = format!("/proc/self/fd/{}/agent", open.as_raw_fd());
    let listener = std::os::unix::net::UnixListener::bind(short)?;
    listener.set_nonblocking(true)?;
    std::fs::set_permissions(&path, Permissions::from_mode(wanted.mode & 0o777))?;
    chown(&path, Some(wanted.uid), Some(wanted.gid))?;
    Ok((listener, path, dir))
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use async_trait::async_trait;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    struct Upper;

    #[async_trait]
    impl SshAgent for Upper {
        async fn check(&self, _: &str) -> session::Result<()> {
            Ok(())
        }

        async fn connect(&self, id: &str) -> session::Result<Box<dyn session::SshStream>> {
            let (here, mut there) = tokio::io::duplex(64);
            let id = id.to_owned();
            spawn("agent", async move {
                let mut asked = String::new();
                let _broken = there.read_to_string(&mut asked).await;
                let answer = format!("{id}:{}", asked.to_uppercase());
                let _broken = there.write_all(answer.as_bytes()).await;
            })
            .detach();
            Ok(Box::new(here))
        }
    }

    /// Others of this machine cannot reach it.
    ///
    /// Rows: X06
    #[tokio::test]
    async fn a_private_socket_carries_both_ways() {
        let owner = rustix::process::getuid().as_raw();
        let group = rustix::process::getgid().as_raw();
        let wanted = Owned {
            id: String::new(),
            uid: owner,
            gid: group,
            mode: 0o600,
            optional: false,
        };
        let long = tempfile::tempdir().unwrap();
        let scratch = long.path().join("x".repeat(120));
        std::fs::create_dir(&scratch).unwrap();
        let (listener, path, dir) = socket(&wanted, &scratch).unwrap();
        assert!(path.starts_with(&scratch), "{}", path.display());
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(std::fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
        let listener = UnixListener::from_std(listener).unwrap();
        let serving = spawn(
            "serving",
            serve(listener, Arc::new(Upper), "default".into()),
        );
        let open = std::fs::File::open(dir.path()).unwrap();
        let short = format!("/proc/self/fd/{}/agent", open.as_raw_fd());
        let ask = async |text: &str| {
            let mut connection = UnixStream::connect(&short).await.unwrap();
            connection.write_all(text.as_bytes()).await.unwrap();
            connection.shutdown().await.unwrap();
            let mut answer = String::new();
            connection.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let answers = tokio::join!(ask("one"), ask("two"));
        assert_eq!(answers, ("default:ONE".into(), "default:TWO".into()));
        drop(serving);
        let refused = async {
            while UnixStream::connect(&short).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let gone = tokio::time::timeout(Duration::from_secs(10), refused).await;
        gone.expect("it answers no more");
    }
}
