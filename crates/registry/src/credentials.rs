//! The seam to whoever knows passwords: the client's session, or the Docker
//! config of the person who started us. Nothing is kept on disk here (S11).

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use stdx::Kind;

/// How to prove who one is to a host.
#[derive(Clone, PartialEq, Eq, Default)]
pub enum Login {
    /// Nobody in particular.
    #[default]
    Anonymous,
    /// A name and a password.
    Password {
        /// The name.
        username: String,
        /// The password.
        secret: String,
    },
    /// An OAuth refresh token (`identitytoken`).
    Identity(String),
    /// A finished bearer token (`registrytoken`).
    Bearer(String),
    /// The other side fetches tokens itself and its password never comes to
    /// us; `id` tells one such authority from another.
    Authority {
        /// Who it is, for instance a public key.
        id: String,
    },
}

/// Shows the kind of login and never the secret.
impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Login::Anonymous => f.write_str("Anonymous"),
            Login::Password { username, .. } => write!(f, "Password({username})"),
            Login::Identity(_) => f.write_str("Identity"),
            Login::Bearer(_) => f.write_str("Bearer"),
            Login::Authority { .. } => f.write_str("Authority"),
        }
    }
}

/// What is asked of a token server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRequest {
    /// How we call ourselves.
    pub client_id: &'static str,
    /// The registry the token is for.
    pub host: String,
    /// The token server's address, from the registry's challenge.
    pub realm: String,
    /// The service, from the challenge.
    pub service: String,
    /// `repository:name:pull,push`, sorted.
    pub scopes: Vec<String>,
}

/// A bearer token.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// What goes after `Bearer`.
    pub token: String,
    /// How long it holds; `None` when the server did not say.
    pub expires_in: Option<Duration>,
    /// When it was made; `None` means just now.
    pub issued_at: Option<SystemTime>,
}

/// The credentials could not be had.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct CredentialsError {
    /// What happened.
    pub reason: String,
    /// What can be done about it.
    pub kind: Kind,
}

impl CredentialsError {
    /// An error of this kind.
    pub fn new(kind: Kind, reason: impl Into<String>) -> CredentialsError {
        CredentialsError {
            reason: reason.into(),
            kind,
        }
    }
}

/// Knows how to log in to hosts.
#[async_trait]
pub trait Credentials: Send + Sync {
    /// The login for `host`: for Docker Hub that is `registry-1.docker.io`.
    async fn login(&self, host: &str) -> Result<Login, CredentialsError>;

    /// Fetches a token; called only when [`login`](Self::login) said
    /// [`Login::Authority`].
    async fn fetch_token(&self, request: &TokenRequest) -> Result<Token, CredentialsError> {
        let reason = format!("no token authority for {}", request.host);
        Err(CredentialsError::new(Kind::Unsupported, reason))
    }
}

/// Nobody: every host is asked anonymously.
#[derive(Clone, Copy, Debug, Default)]
pub struct Anonymous;

#[async_trait]
impl Credentials for Anonymous {
    async fn login(&self, _host: &str) -> Result<Login, CredentialsError> {
        Ok(Login::Anonymous)
    }
}

impl Anonymous {
    /// Shared, as everyone wants it.
    pub fn shared() -> Arc<dyn Credentials> {
        Arc::new(Anonymous)
    }
}
