//! The HTTP(S) proxy that is the only way out of a step (row X08).
//!
//! A [`Proxy`] is made for one container. Programs in it send their requests here, by the
//! variables they are told: plain ones as they are, others after a `CONNECT`, when the proxy
//! stands in for the server with a certificate of an authority that lives as long as the
//! container. Each request is first put to the [`Gate`], then to the real server, and what came
//! back is [`Seen`]: every request, the digest of each answer that was received whole, and which
//! were not. Nothing else gets out; what is no HTTP gets nowhere.
//!
//! Bodies are passed on as they come, in both directions; what is remembered is bounded, and so
//! are connections, headers and waiting.
#![forbid(unsafe_code)]

mod authority;
mod body;
mod line;
mod passing;
mod seen;
mod server;
mod upstreams;

use std::sync::Arc;

use async_trait::async_trait;
use executor::{NetworkProxy, Outside};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::net::TcpListener;

pub use hyper_util::client::proxy::matcher::Matcher;
pub use seen::{Incomplete, Material, Request, Seen};
pub use upstreams::Upstreams;

#[cfg(test)]
mod tests;

use authority::Authority;
use seen::Record;

/// Why there can be no proxy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its authority's certificate could not be made.
    #[error("making the proxy's certificate")]
    Certificate(#[from] rcgen::Error),
}

/// Says which requests may be made.
#[async_trait]
pub trait Gate: Send + Sync {
    /// Whether this may be asked for: `Err` says why not, `Some` what to ask for in its place.
    /// Addresses come in one form only: as browsers write them, without a login.
    async fn decide(&self, method: &str, url: &str) -> Result<Option<String>, String>;
}

/// The proxy of one container.
pub struct Proxy(Arc<Inner>);

struct Inner {
    authority: Authority,
    gate: Option<Arc<dyn Gate>>,
    upstreams: Arc<Upstreams>,
    record: Arc<Record>,
}

impl Proxy {
    /// A proxy that lets through what `gate` does, or everything.
    pub fn new(upstreams: Arc<Upstreams>, gate: Option<Arc<dyn Gate>>) -> Result<Proxy, Error> {
        Ok(Proxy(Arc::new(Inner {
            authority: Authority::new()?,
            gate,
            upstreams,
            record: Arc::default(),
        })))
    }

    /// What went through so far. Answers that are not there as a whole yet never will be.
    pub fn seen(&self) -> Seen {
        self.0.record.seen()
    }
}

impl NetworkProxy for Proxy {
    fn authority(&self) -> &str {
        self.0.authority.pem()
    }

    fn serve(&self, listener: TcpListener, outside: Outside) -> BoxFuture<'static, ()> {
        server::serve(self.0.clone(), listener, outside).boxed()
    }
}
