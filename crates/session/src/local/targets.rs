//! Where results go on the client's machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt as _;
use stdx::Kind;
use stdx::sys::Root;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use crate::fsutil::{Filter, Link, Owner, Receive, dated, receive, send};
use crate::{Bytestream, Error, FileSend, Observer, Result, SendRequest};

/// Opens what a stream goes to, knowing what is told about the result.
pub type OpenWriter = Arc<
    dyn Fn(&BTreeMap<String, String>) -> std::io::Result<Box<dyn AsyncWrite + Send + Unpin>>
        + Send
        + Sync,
>;

/// A place a result goes to.
#[derive(Clone)]
pub enum Target {
    /// A directory, made if need be.
    Dir {
        /// Where.
        path: PathBuf,
        /// What is there and not in the result is removed.
        delete: bool,
    },
    /// A file, replaced only when all has come.
    File(PathBuf),
    /// Anything else: standard output.
    Writer(OpenWriter),
}

/// Places by the number of the exporter.
#[derive(Clone, Default)]
pub struct Targets {
    by_id: BTreeMap<String, Target>,
}

impl Targets {
    /// None yet.
    pub fn new() -> Targets {
        Targets::default()
    }

    /// With one more; the id is the exporter's place in the request, from `0`.
    pub fn with(mut self, id: impl Into<String>, target: Target) -> Targets {
        self.by_id.insert(id.into(), target);
        self
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    pub(crate) fn find(&self, request: &SendRequest) -> Result<&Target> {
        let found = match &request.exporter_id {
            Some(id) => self.by_id.get(id),
            None => self.by_id.values().next(),
        };
        found.ok_or_else(|| Error::NotFound {
            what: "exporter",
            name: request.exporter_id.clone().unwrap_or_default(),
        })
    }

    /// Takes a directory.
    pub(crate) async fn receive_dir(path: &Path, delete: bool, link: Link) -> Result<()> {
        let io = |e| Error::io(format!("making {}", path.display()), e);
        tokio::fs::create_dir_all(path).await.map_err(io)?;
        let root = Root::open(path).map_err(io)?;
        let options = Receive {
            owner: Owner::Ours,
            delete,
            all: true,
            ..Receive::default()
        };
        receive(link, root, options).await.map(drop)
    }

    /// Takes a stream.
    pub(crate) async fn receive_stream(
        target: &Target,
        metadata: &BTreeMap<String, String>,
        bytes: Bytestream,
    ) -> Result<()> {
        match target {
            Target::Dir { path, .. } => Err(Error::Refused {
                kind: Kind::InvalidInput,
                message: format!("a tarball cannot go to directory {}", path.display()),
            }),
            Target::File(path) => receive_file(path, bytes).await,
            Target::Writer(open) => {
                let io = |e| Error::io("writing the result", e);
                let mut writer = open(metadata).map_err(io)?;
                copy(bytes, &mut writer, io).await
            }
        }
    }
}

/// A file being written beside its place; dropped before it is whole, it goes.
struct Aside(Option<PathBuf>);

impl Drop for Aside {
    fn drop(&mut self) {
        if let Some(path) = self.0.take() {
            // That it could not be removed changes nothing for anyone.
            let _ = std::fs::remove_file(path);
        }
    }
}

async fn receive_file(path: &Path, bytes: Bytestream) -> Result<()> {
    let io = |e| Error::io(format!("writing {}", path.display()), e);
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let name = PathBuf::from(name);
    let mut aside = Aside(Some(name.clone()));
    let mut file = tokio::fs::File::create(&name).await.map_err(io)?;
    copy(bytes, &mut file, io).await?;
    file.sync_all().await.map_err(io)?;
    tokio::fs::rename(&name, path).await.map_err(io)?;
    aside.0 = None;
    Ok(())
}

async fn copy(
    mut bytes: Bytestream,
    to: &mut (impl AsyncWrite + Unpin),
    io: impl Fn(std::io::Error) -> Error,
) -> Result<()> {
    while let Some(piece) = bytes.next().await {
        to.write_all(&piece?).await.map_err(&io)?;
    }
    to.flush().await.map_err(&io)
}

#[async_trait]
impl FileSend for Targets {
    async fn send_stream(&self, request: &SendRequest, bytes: Bytestream) -> Result<()> {
        Targets::receive_stream(self.find(request)?, &request.metadata, bytes).await
    }

    async fn send_dir(
        &self,
        request: &SendRequest,
        dir: Root,
        observer: Option<Observer>,
    ) -> Result<()> {
        let Target::Dir { path, delete } = self.find(request)? else {
            return Err(Error::Refused {
                kind: Kind::InvalidInput,
                message: "a directory cannot go to a file".into(),
            });
        };
        let (here, there) = Link::pair();
        let sending = send(
            here,
            dir,
            Filter::default(),
            dated(request.modified),
            observer,
        );
        let (sent, received) = tokio::join!(sending, Targets::receive_dir(path, *delete, there));
        match (sent, received) {
            (Err(error @ Error::Io { .. }), _) => Err(error),
            (_, Err(error)) => Err(error),
            (sent, Ok(())) => sent,
        }
    }
}
