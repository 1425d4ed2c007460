//! The seam to the engine: what the services ask of whatever builds. The program
//! gives them [`crate::engine_builder`]'s; tests give them one without containers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use executor::cdi::DeviceInfo;
use oci::Digest;
use progress::Progress;
use session::Sessions;

use crate::config::gc::GcRule;
pub use crate::history::archive::{Archive, Error as ArchiveError};

pub use engine::{
    Built, ClientFrontend, Compatibility, Failure, Lack, Predicate, Request, Spec, What,
    WorkerInfo as Worker,
};

/// One record of the cache (row A10).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Its id.
    pub id: String,
    /// It can be written.
    pub mutable: bool,
    /// A build uses it now.
    pub in_use: bool,
    /// Bytes on disk.
    pub size: u64,
    /// The records below it.
    pub parents: Vec<String>,
    /// When it was made.
    pub created: Option<SystemTime>,
    /// When it was used last.
    pub last_used: Option<SystemTime>,
    /// How often it was used.
    pub uses: u64,
    /// What it is.
    pub description: String,
    /// `regular`, `source.local`, …
    pub record_type: String,
    /// Its bytes are also used elsewhere.
    pub shared: bool,
}

/// Whatever builds.
#[async_trait]
pub trait Builder: Send + Sync + 'static {
    /// Where clients' sessions are registered.
    fn sessions(&self) -> &Sessions;

    /// The blobs it keeps, to be read by clients.
    fn blobs(&self) -> Arc<dyn content::Provider>;

    /// So many of them by digest, those that come after one. Blocks on the disk.
    fn list_blobs(
        &self,
        _after: Option<&Digest>,
        _count: usize,
    ) -> Result<Vec<content::BlobInfo>, content::Error> {
        Ok(Vec::new())
    }

    /// Where records of its builds are kept.
    fn archive(&self) -> Result<Archive, ArchiveError>;

    /// Numbers for whoever watches the daemon, by name.
    fn counters(&self) -> BTreeMap<&'static str, u64> {
        BTreeMap::new()
    }

    /// The worker.
    fn worker(&self) -> Worker;

    /// The devices that builds can ask for now.
    async fn devices(&self) -> Vec<DeviceInfo> {
        Vec::new()
    }

    /// Lets go of what is kept ready for further builds. The last call.
    async fn close(&self) {}

    /// Builds; dropping the future cancels.
    async fn build(&self, request: Request, progress: Progress) -> Result<Built, Failure>;

    /// The records that pass one of `filters` (all if there is none) and were not used
    /// for `unused`.
    async fn usage(&self, filters: &[String], unused: Duration) -> Result<Vec<Usage>, Failure>;

    /// Removes records by a rule, and gives those removed.
    async fn prune(&self, rule: &GcRule) -> Result<Vec<Usage>, Failure>;

    /// Flushes what builds left unflushed; with `quick` only if that takes but a moment.
    async fn sync(&self, quick: bool) -> Result<(), Failure> {
        let _ = quick;
        Ok(())
    }
}
