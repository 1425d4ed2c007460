//! One host as we know it so far: which scheme it speaks, how it wants us to
//! log in, how many transfers it has running.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use oci::Digest;
use reqwest::Url;
use stdx::locks::Locks;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};

use crate::challenge::Challenge;
use crate::error::{Error, Result};
use crate::hosts::{HostConfig, Place, TlsFiles, is_loopback};
use crate::http_client;

/// A mirror that failed is passed over for so long.
const SHUNNED: Duration = Duration::from_secs(60);
/// The scheme is not known yet.
const UNKNOWN: usize = usize::MAX;

/// One host, shared by all who talk to it.
pub(crate) struct Endpoint {
    pub place: Place,
    config: HostConfig,
    scheme: AtomicUsize,
    tls: OnceCell<reqwest::Client>,
    plain: OnceCell<reqwest::Client>,
    challenge: Mutex<Option<Challenge>>,
    shunned_until: Mutex<Option<Instant>>,
    wants_chunks: AtomicBool,
    pub limits: Arc<Limits>,
    /// By repository: one push of a blob at a time. An image and the cache of the same build, or two
    /// builds on one base, come with the same layers: who comes second finds them there. Sent twice
    /// at once they would cost twice, and some registries lose sight of a blob for a moment when it
    /// arrives once more, and refuse the manifest that names it.
    pub uploads: Locks<(String, Digest)>,
}

impl Endpoint {
    pub(crate) fn new(place: Place, config: HostConfig, limits: Arc<Limits>) -> Endpoint {
        let scheme = if place.schemes.len() == 1 { 0 } else { UNKNOWN };
        Endpoint {
            place,
            config,
            scheme: AtomicUsize::new(scheme),
            tls: OnceCell::new(),
            plain: OnceCell::new(),
            challenge: Mutex::new(None),
            shunned_until: Mutex::new(None),
            wants_chunks: AtomicBool::new(false),
            limits,
            uploads: Locks::default(),
        }
    }

    /// The host's name in URLs and messages.
    pub(crate) fn host(&self) -> &str {
        &self.place.host
    }

    /// The schemes worth trying now.
    pub(crate) fn schemes(&self) -> Vec<&'static str> {
        match self.place.schemes.get(self.scheme.load(Ordering::Relaxed)) {
            Some(&known) => vec![known],
            None => self.place.schemes.clone(),
        }
    }

    /// Remembers that the host answered to `scheme`.
    pub(crate) fn answered(&self, scheme: &str) {
        if let Some(at) = self.place.schemes.iter().position(|&known| known == scheme) {
            self.scheme.store(at, Ordering::Relaxed);
        }
    }

    /// Whether the host is spoken to without TLS.
    pub(crate) fn is_plain(&self) -> bool {
        self.schemes() == ["http"]
    }

    /// `scheme://host/v2/…`.
    pub(crate) fn url(&self, scheme: &str, path: &str, query: &[(&str, &str)]) -> Result<Url> {
        let text = format!("{scheme}://{}{}{path}", self.place.host, self.place.prefix);
        let mut url = Url::parse(&text).map_err(|error| Error::Config {
            host: self.place.host.clone(),
            reason: format!("`{text}` is no address: {error}"),
        })?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(url)
    }

    /// Whether `url` is this very host, which may see our login.
    pub(crate) fn owns(&self, url: &Url) -> bool {
        self.schemes().iter().any(|scheme| {
            self.url(scheme, "/", &[])
                .is_ok_and(|own| own.origin() == url.origin())
        })
    }

    /// The HTTP client for a URL: with this host's TLS files only if it is
    /// this host or its token server and storage behind redirects.
    pub(crate) async fn client(&self, scheme: &str) -> Result<reqwest::Client> {
        let tls = scheme == "https";
        let cell = if tls { &self.tls } else { &self.plain };
        let client = cell.get_or_try_init(|| async {
            let (host, config) = (self.place.host.clone(), self.config.clone());
            let (verify, local) = (self.place.verify, is_loopback(&self.place.host));
            stdx::task::blocking(move || {
                let files = if tls {
                    TlsFiles::read(&host, &config)?
                } else {
                    TlsFiles::default()
                };
                http_client::build(&host, tls, verify, local, &files)
            })
            .await
        });
        Ok(client.await?.clone())
    }

    /// How the host wants us to log in, if it said so already.
    pub(crate) fn challenge(&self) -> Option<Challenge> {
        self.challenge.lock().expect("not poisoned").clone()
    }

    pub(crate) fn set_challenge(&self, challenge: Challenge) {
        *self.challenge.lock().expect("not poisoned") = Some(challenge);
    }

    /// Whether this is a mirror that failed a moment ago.
    pub(crate) fn is_shunned(&self) -> bool {
        let until = *self.shunned_until.lock().expect("not poisoned");
        self.place.mirror && until.is_some_and(|until| Instant::now() < until)
    }

    /// Whether the host refused a large body before.
    pub(crate) fn wants_chunks(&self) -> bool {
        self.wants_chunks.load(Ordering::Relaxed)
    }

    pub(crate) fn set_wants_chunks(&self) {
        self.wants_chunks.store(true, Ordering::Relaxed);
    }

    pub(crate) fn shun(&self) {
        *self.shunned_until.lock().expect("not poisoned") = Some(Instant::now() + SHUNNED);
    }
}

/// How many transfers a host has at the same time: so many, and one more for
/// documents (P33), so that manifests need not wait behind large layers.
/// Reading and writing count apart: a copy within one host holds one of each,
/// and would wait for itself otherwise.
pub(crate) struct Limits {
    read: Direction,
    write: Direction,
}

struct Direction {
    layers: Arc<Semaphore>,
    all: Arc<Semaphore>,
}

/// Held while a transfer runs.
pub(crate) struct Permit {
    _layer: Option<OwnedSemaphorePermit>,
    _any: OwnedSemaphorePermit,
}

impl Limits {
    pub(crate) fn new(concurrency: usize) -> Limits {
        let direction = || Direction {
            layers: Arc::new(Semaphore::new(concurrency.max(1))),
            all: Arc::new(Semaphore::new(concurrency.max(1) + 1)),
        };
        Limits {
            read: direction(),
            write: direction(),
        }
    }

    /// Waits for a turn to read.
    pub(crate) async fn read(&self, media_type: &str) -> Permit {
        self.read.turn(media_type).await
    }

    /// Waits for a turn to write.
    pub(crate) async fn write(&self, media_type: &str) -> Permit {
        self.write.turn(media_type).await
    }
}

impl Direction {
    async fn turn(&self, media_type: &str) -> Permit {
        let take = |semaphore: &Arc<Semaphore>| semaphore.clone().acquire_owned();
        let layer = match media_type.ends_with("+json") {
            true => None,
            false => Some(take(&self.layers).await.expect("never closed")),
        };
        Permit {
            _layer: layer,
            _any: take(&self.all).await.expect("never closed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    /// Rows: S09, P33, D13
    #[tokio::test]
    async fn four_layers_and_one_document_at_a_time() {
        let limits = Limits::new(4);
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(limits.read("layer").await);
        }
        assert!(limits.read("layer").now_or_never().is_none());
        let document = limits
            .read("x+json")
            .now_or_never()
            .expect("one more for a document");
        assert!(limits.read("x+json").now_or_never().is_none());
        assert!(
            limits.write("layer").now_or_never().is_some(),
            "writing counts apart"
        );
        drop((held.pop(), document));
        assert!(limits.read("layer").now_or_never().is_some());
    }
}
