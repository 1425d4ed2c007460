//! The seam between a frontend and the engine: everything a frontend may ask.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use llb::facts::{Facts, Questions};
use oci::{Digest, Platform};

use crate::policy::SourcePolicy;
use crate::{Container, Error, FailedStep, FrontendResult, NewContainer, Options, Result, Warning};

/// Names one solved result for as long as the build runs.
///
/// A frontend only passes it around; what it stands for is the bridge's to know.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RefId(Arc<str>);

impl RefId {
    /// A name the bridge has chosen.
    pub fn new(id: impl Into<Arc<str>>) -> RefId {
        RefId(id.into())
    }

    /// The name as text, as it goes over the wire.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RefId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A place cache records may be imported from, as the client wrote it
/// (`type=registry,ref=…`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheImport {
    /// `registry`, `local`, `gha`, …
    pub kind: String,
    /// Its settings.
    pub attrs: BTreeMap<String, String>,
}

/// "Solve this graph."
#[derive(Clone, Debug, Default)]
pub struct SolveRequest {
    /// The graph. One without ops stands for scratch.
    pub definition: llb::Definition,
    /// Run it now. Otherwise it runs when somebody reads the result.
    pub evaluate: bool,
    /// Where cached steps may come from, beside the worker's own records.
    pub cache_imports: Vec<CacheImport>,
    /// Which of the graph's sources may be used.
    pub policies: Vec<SourcePolicy>,
}

/// "Let another frontend build this."
#[derive(Clone, Debug, Default)]
pub struct NestedRequest {
    /// `dockerfile.v0`, or `gateway.v0` with the option `source` naming an image.
    pub frontend: String,
    /// Its options, whole: nothing is inherited.
    pub options: BTreeMap<String, String>,
    /// Graphs it may refer to by name.
    pub inputs: BTreeMap<String, llb::Definition>,
    /// Run the results before answering.
    pub evaluate: bool,
    /// Where cached steps may come from.
    pub cache_imports: Vec<CacheImport>,
    /// Which sources it may use, in all it asks and solves.
    pub policies: Vec<SourcePolicy>,
}

/// When a registry is asked for an image that is known already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ResolveMode {
    /// Ask the registry when it can be reached.
    #[default]
    Default,
    /// Ask the registry always.
    Pull,
    /// Use the local image if there is one.
    PreferLocal,
}

impl ResolveMode {
    /// The value of the attribute `image.resolvemode` and of the option
    /// `image-resolve-mode`.
    pub fn name(self) -> &'static str {
        match self {
            ResolveMode::Default => "default",
            ResolveMode::Pull => "pull",
            ResolveMode::PreferLocal => "local",
        }
    }
}

/// How an image is to be looked up.
#[derive(Clone, Debug, Default)]
pub struct ImageLookup {
    /// Which of an index's images; the worker's own when absent.
    pub platform: Option<Platform>,
    /// When to ask the registry.
    pub mode: ResolveMode,
    /// The step's name in the progress display:
    /// `[internal] load metadata for docker.io/library/alpine:latest`.
    pub step_name: String,
    /// Set for an image that lies in a client's OCI layout instead of a registry.
    pub layout: Option<LayoutStore>,
    /// Whether it may be used.
    pub policies: Vec<SourcePolicy>,
}

/// Where an OCI layout is reached: a client's content store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayoutStore {
    /// The session that has it; the build's own when empty.
    pub session: String,
    /// The store's name in that session.
    pub store: String,
}

/// An image found.
#[derive(Clone, Debug)]
pub struct ResolvedImage {
    /// The name to use from now on; a source policy may have replaced it.
    pub name: String,
    /// Digest of the manifest or index the name led to.
    pub digest: Digest,
    /// The image config, byte for byte.
    pub config: Bytes,
}

/// What is known about a source without fetching it.
#[derive(Clone, Debug)]
pub struct SourceMetadata {
    /// The source's identifier, after policies.
    pub identifier: String,
    /// Its attributes, after policies.
    pub attrs: BTreeMap<String, String>,
    /// What is known.
    pub facts: Facts,
}

/// Part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileRange {
    /// First byte wanted.
    pub offset: u64,
    /// How many bytes at most.
    pub length: u64,
}

/// What a directory entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A device, pipe or socket.
    Special,
}

/// One entry of a result's tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileStat {
    /// Relative to what was asked for; the bare name from `read_dir`.
    pub path: String,
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits with setuid, setgid and sticky, as in `st_mode & 0o7777`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size in bytes; 0 for directories.
    pub size: u64,
    /// Nanoseconds since 1970.
    pub modified_ns: i64,
    /// Target of a symbolic link, empty otherwise.
    pub link: String,
}

/// What a frontend may ask of the build it is part of.
///
/// Every call may be made at any time and from several tasks at once. Dropping a call's
/// future means that its answer is no longer wanted.
#[async_trait]
pub trait Bridge: Send + Sync {
    /// What the client asked for: `target`, `build-arg:…`, `platform`, ….
    fn options(&self) -> &Options;

    /// The session of the client that started the build: where its local directories
    /// are read from. Empty when there is none.
    fn session(&self) -> &str;

    /// What this worker can run, its own platform first. Never empty.
    fn platforms(&self) -> Vec<Platform>;

    /// Graphs the caller handed in by name.
    async fn inputs(&self) -> Result<BTreeMap<String, llb::Definition>>;

    /// The result of a graph. `None` stands for scratch.
    async fn solve(&self, request: SolveRequest) -> Result<Option<RefId>>;

    /// Runs what `reference` stands for, if that has not happened.
    async fn evaluate(&self, reference: &RefId) -> Result<()>;

    /// The graph `reference` was solved from.
    async fn definition(&self, reference: &RefId) -> Result<llb::Definition>;

    /// Another frontend's result.
    async fn nested(&self, request: NestedRequest) -> Result<FrontendResult>;

    /// An image's digest and config. Only these are fetched, no layer.
    async fn resolve_image(&self, name: &str, lookup: ImageLookup) -> Result<ResolvedImage>;

    /// What a source (`git://…`, `https://…`, `docker-image://…`) is at this moment.
    async fn resolve_source(
        &self,
        identifier: &str,
        attrs: &BTreeMap<String, String>,
        platform: Option<&Platform>,
        policies: Vec<SourcePolicy>,
        questions: &Questions,
    ) -> Result<SourceMetadata>;

    /// A file of a result. An absent file is an error of kind not found.
    async fn read_file(
        &self,
        reference: &RefId,
        path: &str,
        range: Option<FileRange>,
    ) -> Result<Bytes>;

    /// The entries of a directory of a result, sorted by name; with `include` only those
    /// whose name matches the pattern.
    async fn read_dir(
        &self,
        reference: &RefId,
        path: &str,
        include: Option<&str>,
    ) -> Result<Vec<FileStat>>;

    /// One entry of a result; a symbolic link at the end is followed.
    async fn stat_file(&self, reference: &RefId, path: &str) -> Result<FileStat>;

    /// Shows a warning beside the step whose op has the digest `step`.
    async fn warn(&self, step: Option<&Digest>, warning: Warning) -> Result<()>;

    /// Makes a container for the frontend's own use.
    async fn new_container(&self, wanted: NewContainer) -> Result<Arc<dyn Container>>;

    /// What is left of the step that failed, if `error` is of one. Its refs are known to
    /// this bridge from then on.
    fn failed_step(&self, error: &Error) -> Option<FailedStep>;
}
