//! The client against a registry over real TCP, well-behaved and not.

mod knowing;
mod login;
mod pull;
mod push;
mod real;
mod suite;

use std::sync::Arc;
use std::time::Duration;

use registry::{
    Anonymous, Credentials, CredentialsError, HostConfig, Hosts, Login, Registry, Repository,
};
use testkit::registry::Server;

/// Configuration with waits a test can afford.
pub fn quick() -> Hosts {
    Hosts {
        retry_delays: [1, 2, 4].map(Duration::from_millis).to_vec(),
        stall: Duration::from_millis(300),
        ..Hosts::default()
    }
}

/// Repository `path` of `server`, asked by nobody in particular.
pub fn at(server: &Server, path: &str) -> Repository {
    Registry::new(quick()).at(&server.host(), path, Anonymous::shared(), false)
}

/// One login for every host.
pub struct Always(pub Login);

#[async_trait::async_trait]
impl Credentials for Always {
    async fn login(&self, _host: &str) -> Result<Login, CredentialsError> {
        Ok(self.0.clone())
    }
}

/// User `u` with password `p`.
pub fn user() -> Arc<dyn Credentials> {
    Arc::new(Always(Login::Password {
        username: "u".into(),
        secret: "p".into(),
    }))
}

/// `main` is mirrored by these.
pub fn mirrored(main: &str, mirrors: &[String]) -> Hosts {
    let mut hosts = quick();
    hosts.by_name.insert(
        main.into(),
        HostConfig {
            mirrors: mirrors.to_vec(),
            ..HostConfig::default()
        },
    );
    hosts
}
