//! The seam to the engine: what the services ask of whatever builds. The program
//! gives them [`crate::engine_builder`]'s; tests give them one without containers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use frontend::{Bridge, CacheImport, FrontendResult, SourceLocation};
use futures::future::BoxFuture;
use oci::{Digest, Platform};
use progress::Progress;
use session::Sessions;
use stdx::Kind;

use crate::config::gc::GcRule;

/// One request of a client, in plain words.
pub struct Request {
    /// The id the client made up.
    pub id: String,
    /// The session that has its files.
    pub session: String,
    /// What to build.
    pub what: What,
    /// Where the result goes.
    pub exporters: Vec<Spec>,
    /// The client chooses further exporters once it has seen the result.
    pub session_exporter: bool,
    /// Where cached steps come from.
    pub cache_imports: Vec<CacheImport>,
    /// Where cached steps go to.
    pub cache_exports: Vec<Spec>,
    /// What the build may use beyond the sandbox; allowed by the daemon.
    pub entitlements: Vec<String>,
}

/// A kind and its settings: an exporter, a remote cache.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spec {
    /// `image`, `registry`, …
    pub kind: String,
    /// Its settings.
    pub attrs: BTreeMap<String, String>,
}

/// What to build.
pub enum What {
    /// A graph.
    Definition(llb::Definition),
    /// What a frontend here makes of the client's files.
    Frontend {
        /// `dockerfile.v0`, …
        name: String,
        /// Its options.
        options: BTreeMap<String, String>,
        /// Graphs by name.
        inputs: BTreeMap<String, llb::Definition>,
    },
    /// What a frontend in the client makes of it.
    Client {
        /// The client's options.
        options: BTreeMap<String, String>,
        /// Graphs by name.
        inputs: BTreeMap<String, llb::Definition>,
        /// Runs the frontend on a bridge until it has a result.
        run: ClientFrontend,
    },
}

/// A frontend that runs elsewhere.
pub type ClientFrontend =
    Box<dyn FnOnce(Arc<dyn Bridge>) -> BoxFuture<'static, frontend::Result<FrontendResult>> + Send>;

/// Why a build gave no result, with what clients show of it (row A16).
#[derive(Clone, Debug, Default)]
pub struct Failure {
    /// What a caller can do about it.
    pub kind: Option<Kind>,
    /// The whole sentence, causes included.
    pub message: String,
    /// The step it happened in.
    pub vertex: Option<Digest>,
    /// The lines it came from.
    pub places: Vec<SourceLocation>,
    /// How the process ended, if one did.
    pub exit_code: Option<u32>,
}

impl Failure {
    /// A failure of which only the sentence is known.
    pub fn new(kind: Kind, message: impl Into<String>) -> Failure {
        Failure {
            kind: Some(kind),
            message: message.into(),
            ..Failure::default()
        }
    }
}

/// What the worker says of itself.
#[derive(Clone, Debug, Default)]
pub struct Worker {
    /// Kept in the state directory.
    pub id: String,
    /// Labels (row D18).
    pub labels: BTreeMap<String, String>,
    /// What it can run, its own platform first.
    pub platforms: Vec<Platform>,
}

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

    /// The worker.
    fn worker(&self) -> Worker;

    /// Builds; dropping the future cancels. Gives the exporters' answers.
    async fn build(
        &self,
        request: Request,
        progress: Progress,
    ) -> Result<BTreeMap<String, String>, Failure>;

    /// The records that pass one of `filters` (all if there is none) and were not used
    /// for `unused`.
    async fn usage(&self, filters: &[String], unused: Duration) -> Result<Vec<Usage>, Failure>;

    /// Removes records by a rule, and gives those removed.
    async fn prune(&self, rule: &GcRule) -> Result<Vec<Usage>, Failure>;
}
