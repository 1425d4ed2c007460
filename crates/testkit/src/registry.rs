//! A registry in memory, over real TCP, that answers like a real one until it
//! is told to misbehave. It keeps what it was asked.

mod auth;
mod fault;
mod serve;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use oci::{Descriptor, Digest};

pub use auth::Login;
pub use fault::{Effect, Fault};

use crate::image::{Blob, Image};

/// What the registry was asked, and what it answered.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The method.
    pub method: String,
    /// The path.
    pub path: String,
    /// The query, as it came.
    pub query: String,
    /// The `Authorization` header.
    pub authorization: Option<String>,
    /// The `Range` header.
    pub range: Option<String>,
    /// The `Content-Length` header.
    pub length: Option<u64>,
    /// The status it was answered with; 0 if the connection was dropped.
    pub status: u16,
}

impl std::fmt::Display for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method, self.path)?;
        if !self.query.is_empty() {
            write!(f, "?{}", self.query)?;
        }
        if let Some(range) = &self.range {
            write!(f, " [{range}]")?;
        }
        write!(f, " {}", self.status)
    }
}

#[derive(Default)]
struct Repository {
    blobs: std::collections::BTreeSet<Digest>,
    manifests: BTreeMap<String, (String, Bytes)>,
}

#[derive(Default)]
struct State {
    blobs: HashMap<Digest, Bytes>,
    repositories: BTreeMap<String, Repository>,
    uploads: HashMap<u64, Vec<u8>>,
    next_upload: u64,
    asked: Vec<Asked>,
    faults: Vec<Fault>,
    login: Login,
    tokens: HashMap<String, Vec<String>>,
    referrers_api: bool,
    running: usize,
    most_running: usize,
}

/// A running registry; it stops when dropped.
pub struct Server {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    _task: stdx::task::Task<()>,
}

impl Server {
    /// Starts on a free port of this machine.
    pub async fn start() -> Server {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let state: Arc<Mutex<State>> = Arc::default();
        state.lock().expect("not poisoned").referrers_api = true;
        let task = stdx::task::spawn(
            "test registry",
            serve::serve(listener, address, state.clone()),
        );
        Server {
            address,
            state,
            _task: task,
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("not poisoned")
    }

    /// `127.0.0.1:port`, as it goes into image names.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Puts a blob into a repository.
    pub fn add_blob(&self, repository: &str, blob: &Blob) {
        let mut state = self.state();
        state
            .blobs
            .insert(blob.descriptor.digest, blob.bytes.clone());
        state
            .repositories
            .entry(repository.into())
            .or_default()
            .blobs
            .insert(blob.descriptor.digest);
    }

    /// Puts a manifest or index under its digest and `tag`.
    pub fn add_manifest(&self, repository: &str, tag: &str, manifest: &Blob) {
        let mut state = self.state();
        let manifests = &mut state
            .repositories
            .entry(repository.into())
            .or_default()
            .manifests;
        let entry = (
            manifest.descriptor.media_type.clone(),
            manifest.bytes.clone(),
        );
        manifests.insert(manifest.descriptor.digest.to_string(), entry.clone());
        if !tag.is_empty() {
            manifests.insert(tag.into(), entry);
        }
    }

    /// Puts a whole image under `tag`; gives its manifest's descriptor.
    pub fn add_image(&self, repository: &str, tag: &str, image: &Image) -> Descriptor {
        for blob in image.layers.iter().chain([&image.config]) {
            self.add_blob(repository, blob);
        }
        self.add_manifest(repository, tag, &image.manifest);
        image.manifest.descriptor.clone()
    }

    /// A blob of a repository.
    pub fn blob(&self, repository: &str, digest: Digest) -> Option<Bytes> {
        let state = self.state();
        let there = state.repositories.get(repository)?.blobs.contains(&digest);
        there.then(|| state.blobs.get(&digest).cloned()).flatten()
    }

    /// A manifest's media type and bytes.
    pub fn manifest(&self, repository: &str, reference: &str) -> Option<(String, Bytes)> {
        self.state()
            .repositories
            .get(repository)?
            .manifests
            .get(reference)
            .cloned()
    }

    /// Forgets a blob.
    pub fn remove_blob(&self, repository: &str, digest: Digest) {
        if let Some(repository) = self.state().repositories.get_mut(repository) {
            repository.blobs.remove(&digest);
        }
    }

    /// Asks for a login from now on.
    pub fn require(&self, login: Login) {
        self.state().login = login;
    }

    /// Misbehaves from now on. Faults apply in the order they were given.
    pub fn fault(&self, fault: Fault) {
        self.state().faults.push(fault);
    }

    /// Behaves from now on.
    pub fn behave(&self) {
        self.state().faults.clear();
    }

    /// Knows nothing of the referrers API from now on, like older registries.
    pub fn without_referrers_api(&self) {
        self.state().referrers_api = false;
    }

    /// Everything asked since the start or the last [`Server::forget`].
    pub fn asked(&self) -> Vec<Asked> {
        self.state().asked.clone()
    }

    /// How often something was asked, by method and a part of its path.
    pub fn count(&self, method: &str, part: &str) -> usize {
        self.state()
            .asked
            .iter()
            .filter(|asked| asked.method == method && asked.path.contains(part))
            .count()
    }

    /// Forgets what was asked.
    pub fn forget(&self) {
        self.state().asked.clear();
    }

    /// The most requests that were being answered at the same time.
    pub fn most_at_once(&self) -> usize {
        self.state().most_running
    }
}
