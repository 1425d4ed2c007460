//! SSH agents by their sockets.

use std::collections::BTreeMap;
use std::path::PathBuf;

use async_trait::async_trait;
use tokio::net::UnixStream;

use crate::{Error, Result, SshAgent, SshStream};

/// Sockets of SSH agents by name. The name a build asks for when it says none is
/// `default`.
#[derive(Clone, Debug, Default)]
pub struct SshSockets {
    by_id: BTreeMap<String, PathBuf>,
}

impl SshSockets {
    /// None yet.
    pub fn new() -> SshSockets {
        SshSockets::default()
    }

    /// With one more.
    pub fn with(mut self, id: impl Into<String>, socket: impl Into<PathBuf>) -> SshSockets {
        self.by_id.insert(id.into(), socket.into());
        self
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    fn find(&self, id: &str) -> Result<&PathBuf> {
        let id = if id.is_empty() { "default" } else { id };
        self.by_id.get(id).ok_or_else(|| Error::NotFound {
            what: "ssh key",
            name: id.to_owned(),
        })
    }
}

#[async_trait]
impl SshAgent for SshSockets {
    async fn check(&self, id: &str) -> Result<()> {
        self.find(id).map(drop)
    }

    async fn connect(&self, id: &str) -> Result<Box<dyn SshStream>> {
        let path = self.find(id)?;
        let stream = UnixStream::connect(path).await;
        let stream = stream
            .map_err(|e| Error::io(format!("connecting to the agent at {}", path.display()), e))?;
        Ok(Box::new(stream))
    }
}
