//! Talking to registries: names, credentials, mirrors, fetch, push, referrers
//! (OCI distribution-spec 1.1, and Docker Registry HTTP API V2 where it differs).
//!
//! [`Registry`] is one per process: it knows the configured [`Hosts`], keeps
//! connections, tokens and the number of running transfers per host. A
//! [`Repository`] is one repository as one build sees it, with that build's
//! [`Credentials`]; it is a [`content::Provider`] and a [`content::Sink`].
//! [`Origins`] finds the repository by itself, from what a lazy blob's
//! descriptor says about where it came from.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use registry::{Anonymous, Hosts, Registry};
//! let registry = Registry::new(Hosts::default());
//! let name: oci::ImageName = "alpine:3".parse()?;
//! let alpine = registry.repository(&name, Anonymous::shared());
//! let found = alpine.resolve(&name).await?;
//! let manifest = alpine.manifest(&found).await?;
//! # Ok(()) }
//! ```

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod challenge;
mod credentials;
pub mod docker_config;
mod endpoint;
mod error;
mod fetch;
mod hosts;
mod http_client;
mod line;
mod origins;
mod push;
mod referrers;
mod repository;
pub mod testing;
mod token;
mod tokens;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use endpoint::{Endpoint, Limits};
use hosts::Place;
use line::Line;
use tokens::Tokens;

pub use credentials::{Anonymous, Credentials, CredentialsError, Login, Token, TokenRequest};
pub use error::{Error, Result};
pub use hosts::{HostConfig, Hosts, KeyPair};
pub use http_client::use_ring;
pub use origins::{Origins, SOURCE_ANNOTATION, add_source, sources};
pub use push::Pushed;
pub use repository::Repository;

/// All registries, as this process knows them. Cheap to clone.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    hosts: Hosts,
    tokens: Arc<Tokens>,
    endpoints: Mutex<HashMap<(String, String, bool), Arc<Endpoint>>>,
    limits: Mutex<HashMap<String, Arc<Limits>>>,
}

impl Registry {
    /// With this configuration.
    pub fn new(hosts: Hosts) -> Registry {
        Registry(Arc::new(Inner {
            hosts,
            tokens: Arc::default(),
            endpoints: Mutex::default(),
            limits: Mutex::default(),
        }))
    }

    /// The repository `name` is in, seen with these credentials.
    pub fn repository(
        &self,
        name: &oci::ImageName,
        credentials: Arc<dyn Credentials>,
    ) -> Repository {
        self.at(name.registry(), name.repository(), credentials, false)
    }

    /// The same, but any certificate is accepted and plain HTTP too
    /// (`registry.insecure=true`).
    pub fn insecure_repository(
        &self,
        name: &oci::ImageName,
        credentials: Arc<dyn Credentials>,
    ) -> Repository {
        self.at(name.registry(), name.repository(), credentials, true)
    }

    /// Repository `path` of registry `host` (`docker.io`, `library/alpine`).
    pub fn at(
        &self,
        host: &str,
        path: &str,
        credentials: Arc<dyn Credentials>,
        insecure: bool,
    ) -> Repository {
        let lines = |mirrors: bool| -> Arc<[Line]> {
            hosts::places(&self.0.hosts, host, insecure, mirrors)
                .into_iter()
                .map(|place| self.line(place, host, insecure, &credentials))
                .collect()
        };
        Repository::new(host, path, lines(true), lines(false))
    }

    fn line(
        &self,
        place: Place,
        registry: &str,
        insecure: bool,
        credentials: &Arc<dyn Credentials>,
    ) -> Line {
        let hosts = &self.0.hosts;
        let limits = {
            let mut limits = self.0.limits.lock().expect("not poisoned");
            let new = || Arc::new(Limits::new(hosts.max_concurrency));
            limits.entry(place.host.clone()).or_insert_with(new).clone()
        };
        let key = (
            place.host.clone(),
            place.prefix.clone(),
            insecure && !place.mirror,
        );
        let endpoint = {
            let mut endpoints = self.0.endpoints.lock().expect("not poisoned");
            let configured = if place.mirror { &place.host } else { registry };
            let config = hosts.config(configured, insecure && !place.mirror);
            endpoints
                .entry(key)
                .or_insert_with(|| Arc::new(Endpoint::new(place, config, limits)))
                .clone()
        };
        let delays: Arc<[std::time::Duration]> = hosts.retry_delays.clone().into();
        Line::new(
            endpoint,
            credentials.clone(),
            self.0.tokens.clone(),
            delays,
            hosts.stall,
        )
    }
}
