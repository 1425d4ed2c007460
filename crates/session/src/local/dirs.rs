//! Directories given out by name.

use std::collections::BTreeMap;
use std::path::PathBuf;

use async_trait::async_trait;
use contenthash::Contents;
use stdx::Kind;
use stdx::sys::Root;

use crate::fsutil::{Entry, Filter, Link, Receive, receive, send};
use crate::patterns::Patterns;
use crate::{DirRequest, Error, FileSync, Observer, Result, Summary, Target};

/// Directories by the names builds know them by. Nothing outside them is given out.
#[derive(Clone, Debug, Default)]
pub struct Dirs {
    by_name: BTreeMap<String, PathBuf>,
}

impl Dirs {
    /// None yet.
    pub fn new() -> Dirs {
        Dirs::default()
    }

    /// Gives a directory out.
    pub fn with(mut self, name: impl Into<String>, path: impl Into<PathBuf>) -> Dirs {
        self.by_name.insert(name.into(), path.into());
        self
    }

    /// Whether none is given out.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Sends what is asked for, until the other side has it.
    pub async fn send(&self, request: &DirRequest, link: Link) -> Result<()> {
        let path = self
            .by_name
            .get(&request.name)
            .ok_or_else(|| Error::Refused {
                kind: Kind::NotFound,
                message: format!("no access allowed to dir {:?}", request.name),
            })?;
        let opened = Root::open(path);
        let root = opened.map_err(|e| Error::io(format!("opening {}", path.display()), e))?;
        let filter = Filter::new(&request.include, &request.exclude, &request.follow)?;
        send(link, root, filter, nobodys, None).await
    }
}

/// Whose the files are here means nothing there.
fn nobodys(entry: &mut Entry) -> bool {
    entry.stat.uid = 0;
    entry.stat.gid = 0;
    true
}

#[async_trait]
impl FileSync for Dirs {
    async fn sync_hashed(
        &self,
        request: &DirRequest,
        target: Target,
        observer: Option<Observer>,
    ) -> Result<(Summary, Option<Contents>)> {
        let (here, there) = Link::pair();
        let metadata_only = match request.metadata_only {
            true => Some(Patterns::new(&request.metadata_except)?),
            false => None,
        };
        let owner = match rustix::process::geteuid().is_root() {
            true => crate::fsutil::Owner::Fixed(0, 0),
            false => crate::fsutil::Owner::Ours,
        };
        let options = Receive {
            owner,
            delete: true,
            all: request.all,
            metadata_only,
            known: target.known,
            hold: target.hold,
            observer,
        };
        let (sent, received) = tokio::join!(
            self.send(request, here),
            receive(there, target.root, options)
        );
        // The receiver only hears of a fault of the sender's; the sender knows it.
        match (sent, received) {
            (
                Err(error @ (Error::Refused { .. } | Error::Io { .. } | Error::Pattern { .. })),
                Err(_),
            ) => Err(error),
            (_, received) => received,
        }
    }
}
