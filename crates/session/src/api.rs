//! What a client may offer, as traits over plain types.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use contenthash::Contents;
use futures::Stream;
use llb::facts::{Facts, Questions};
use stdx::sys::Root;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::Result;

/// Bytes as they come.
pub type Bytestream = Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>;

/// Which files of a client's directory are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct DirRequest {
    /// The client's name of the directory: `context`, `dockerfile` …
    pub name: String,
    /// Only what matches one of these; all when empty.
    pub include: Vec<String>,
    /// Not what matches these, in the order and with the `!` of a .dockerignore.
    pub exclude: Vec<String>,
    /// Only these paths and what the symlinks in them lead to.
    pub follow: Vec<String>,
    /// Ask for every file, even one that looks unchanged.
    pub all: bool,
    /// Names, sizes and times only, no content.
    pub metadata_only: bool,
    /// Content all the same of what matches these.
    pub metadata_except: Vec<String>,
}

/// What a sync did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Entries the client has.
    pub entries: u64,
    /// Files that were sent.
    pub files: u64,
    /// Bytes of these files.
    pub bytes: u64,
    /// Bytes of all that was sent, names and what goes with them too.
    pub wire_bytes: u64,
    /// Entries that were here and are no more.
    pub removed: u64,
}

/// Is told how many bytes have come so far: of all packets, as BuildKit counts a transfer. So it
/// shows also that a directory was looked through of which nothing had to come.
pub type Observer = Arc<dyn Fn(u64) + Send + Sync>;

/// A directory of ours that becomes equal to one of a client's.
pub struct Target {
    /// It.
    pub root: Root,
    /// What is known of it by content.
    pub known: Option<Contents>,
    /// Kept until nothing is written to it any more, also when whoever waits for that goes away: what
    /// keeps others from it.
    pub hold: Option<Arc<dyn Send + Sync>>,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target").finish_non_exhaustive()
    }
}

/// The client's directories.
#[async_trait]
pub trait FileSync: Send + Sync {
    /// Makes `target` equal to the directory as far as it is asked for: what is
    /// missing or different comes, what is too much goes. Unchanged files are told by
    /// size, time and mode, and are not sent.
    async fn sync_into(
        &self,
        request: &DirRequest,
        target: Root,
        observer: Option<Observer>,
    ) -> Result<Summary> {
        let target = Target {
            root: target,
            known: None,
            hold: None,
        };
        let (summary, _) = self.sync_hashed(request, target, observer).await?;
        Ok(summary)
    }

    /// The same, with what is known of `target` by content, which is in step with it
    /// again when this is done. What comes is hashed on its way. After an error it is
    /// gone, as nobody knows what is in `target` then.
    async fn sync_hashed(
        &self,
        request: &DirRequest,
        target: Target,
        observer: Option<Observer>,
    ) -> Result<(Summary, Option<Contents>)>;
}

/// To whom a result goes, and what is told about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SendRequest {
    /// The number of the exporter in the client's list; `None` when there is one only.
    pub exporter_id: Option<String>,
    /// Response values the client may want before the bytes.
    pub metadata: BTreeMap<String, String>,
    /// Whether the result has several platforms, each in a directory of its own.
    pub multi_platform: Option<bool>,
    /// When everything in a directory is said to have been changed, in seconds; `None` is
    /// when it was.
    pub modified: Option<i64>,
}

/// Results to the client.
#[async_trait]
pub trait FileSend: Send + Sync {
    /// Sends one stream: a tarball.
    async fn send_stream(&self, request: &SendRequest, bytes: Bytestream) -> Result<()>;

    /// Sends a directory.
    async fn send_dir(
        &self,
        request: &SendRequest,
        dir: Root,
        observer: Option<Observer>,
    ) -> Result<()>;
}

/// A login.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// Name; empty with an identity token.
    pub username: String,
    /// Password or identity token; empty when there is none.
    pub secret: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// A token that is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenRequest {
    /// Who asks, such as `buildkit-client`.
    pub client_id: String,
    /// The registry.
    pub host: String,
    /// Where tokens are to be had.
    pub realm: String,
    /// For which service.
    pub service: String,
    /// What may be done with it.
    pub scopes: Vec<String>,
}

/// A token.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The token.
    pub token: String,
    /// Seconds it is good for.
    pub expires_in: i64,
    /// Since when, in seconds since 1970; 0 is now.
    pub issued_at: i64,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token")
            .field("expires_in", &self.expires_in)
            .finish_non_exhaustive()
    }
}

/// Logins to registries.
#[async_trait]
pub trait Auth: Send + Sync {
    /// The login of a registry; empty when the client has none.
    async fn credentials(&self, host: &str) -> Result<Credentials>;

    /// A token the client fetched itself, so that the password stays with it.
    async fn fetch_token(&self, request: &TokenRequest) -> Result<Token>;

    /// The public half of the key the client signs with for this registry and salt, so
    /// that two clients with the same password are known to be the same.
    async fn token_authority(&self, host: &str, salt: &[u8]) -> Result<Bytes>;

    /// Signs, to prove having that key.
    async fn verify_token_authority(
        &self,
        host: &str,
        payload: &[u8],
        salt: &[u8],
    ) -> Result<Bytes>;
}

/// The client's secrets.
#[async_trait]
pub trait Secrets: Send + Sync {
    /// A secret; [`crate::Error::NotFound`] when there is none of this name.
    async fn get(&self, id: &str) -> Result<Bytes>;
}

/// Bytes both ways, to an agent.
pub trait SshStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> SshStream for T {}

/// The client's SSH agents.
#[async_trait]
pub trait SshAgent: Send + Sync {
    /// Whether there is one of this name.
    async fn check(&self, id: &str) -> Result<()>;

    /// A connection to it.
    async fn connect(&self, id: &str) -> Result<Box<dyn SshStream>>;
}

/// A place with blobs, to read and to write.
pub trait ContentStore: content::Provider + content::Sink {}

impl<T: content::Provider + content::Sink> ContentStore for T {}

/// The client's places with blobs: image layouts, cache directories.
pub trait ContentStores: Send + Sync {
    /// The place of this name. Whether there is one shows when it is used.
    fn store(&self, id: &str) -> Arc<dyn ContentStore>;
}

/// Files the client offers under a one-time address.
#[async_trait]
pub trait Upload: Send + Sync {
    /// The file at this path of the address.
    async fn pull(&self, host: &str, path: &str) -> Result<Bytestream>;
}

/// An exporter the client chose after seeing the result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExporterRequest {
    /// Like `image`, `oci`, `local`.
    pub kind: String,
    /// Its settings.
    pub attrs: BTreeMap<String, String>,
}

/// The client decides where results go.
#[async_trait]
pub trait Exporters: Send + Sync {
    /// Which exporters to run for a result, beside those of the request.
    async fn find(
        &self,
        metadata: BTreeMap<String, Bytes>,
        refs: Vec<String>,
    ) -> Result<Vec<ExporterRequest>>;

    /// Everything is exported, and this is what it gave. The result can still be looked at;
    /// an error fails the build.
    async fn finalize(&self, response: BTreeMap<String, String>) -> Result<()> {
        let _ = response;
        Ok(())
    }
}

/// A source a build wants to use, with what is known about it so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyQuestion {
    /// For which machine.
    pub platform: Option<oci::Platform>,
    /// `docker-image://…`, `git://…`, `https://…`
    pub identifier: String,
    /// Its attributes.
    pub attrs: BTreeMap<String, String>,
    /// What is known of it: nothing at first, then what was asked for.
    pub facts: Facts,
}

/// What the client makes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyAnswer {
    /// It may be used.
    Allow,
    /// It may not, and why.
    Deny(Vec<String>),
    /// Another is used instead.
    Convert {
        /// The other.
        identifier: String,
        /// Its attributes.
        attrs: BTreeMap<String, String>,
    },
    /// More has to be known first: ask again with it.
    More(Questions),
}

/// The client decides which sources are used.
#[async_trait]
pub trait Policies: Send + Sync {
    /// Whether a source may be used.
    async fn check(&self, question: &PolicyQuestion) -> Result<PolicyAnswer>;
}

/// All a client offers.
#[derive(Clone, Default)]
pub struct Attachables {
    /// Directories.
    pub file_sync: Option<Arc<dyn FileSync>>,
    /// The client's own way to give files out, for the wire.
    pub dirs: Option<Arc<crate::local::Dirs>>,
    /// Results.
    pub file_send: Option<Arc<dyn FileSend>>,
    /// Where results go, for the wire.
    pub targets: Option<Arc<crate::local::Targets>>,
    /// Logins.
    pub auth: Option<Arc<dyn Auth>>,
    /// Secrets.
    pub secrets: Option<Arc<dyn Secrets>>,
    /// Agents.
    pub ssh: Option<Arc<dyn SshAgent>>,
    /// Blobs.
    pub content: Option<Arc<dyn ContentStores>>,
    /// Uploads.
    pub upload: Option<Arc<dyn Upload>>,
    /// Exporters.
    pub exporters: Option<Arc<dyn Exporters>>,
    /// Decisions about sources.
    pub policies: Option<Arc<dyn Policies>>,
}

impl Attachables {
    /// Nothing.
    pub fn new() -> Attachables {
        Attachables::default()
    }

    /// Gives these directories.
    pub fn with_dirs(mut self, dirs: crate::local::Dirs) -> Attachables {
        let dirs = Arc::new(dirs);
        self.file_sync = Some(dirs.clone());
        self.dirs = Some(dirs);
        self
    }

    /// Takes results into these places.
    pub fn with_targets(mut self, targets: crate::local::Targets) -> Attachables {
        let targets = Arc::new(targets);
        self.file_send = Some(targets.clone());
        self.targets = Some(targets);
        self
    }
}
