//! Logins to registries, from the Docker configuration of who builds.

use async_trait::async_trait;
use bytes::Bytes;
use registry::docker_config::DockerConfig;
use registry::{Credentials as _, Login};
use session::{Auth, Credentials, Error, Result, Token, TokenRequest};

/// Gives the daemon what it asks for, host by host.
#[derive(Debug)]
pub(crate) struct DockerLogins(pub(crate) DockerConfig);

#[async_trait]
impl Auth for DockerLogins {
    async fn credentials(&self, host: &str) -> Result<Credentials> {
        let login = self.0.login(host).await.map_err(|error| Error::Refused {
            kind: error.kind,
            message: error.reason,
        })?;
        Ok(match login {
            Login::Password { username, secret } => Credentials { username, secret },
            Login::Identity(secret) => Credentials {
                username: String::new(),
                secret,
            },
            Login::Anonymous | Login::Bearer(_) | Login::Authority { .. } => Credentials::default(),
        })
    }

    async fn fetch_token(&self, request: &TokenRequest) -> Result<Token> {
        let login = self.0.login(&request.host).await;
        match login.map_err(|error| Error::Refused {
            kind: error.kind,
            message: error.reason,
        })? {
            // A finished token needs no fetching.
            Login::Bearer(token) => Ok(Token {
                token,
                expires_in: 0,
                issued_at: 0,
            }),
            _ => Err(Error::NotOffered("a token authority")),
        }
    }

    async fn token_authority(&self, _host: &str, _salt: &[u8]) -> Result<Bytes> {
        Err(Error::NotOffered("a token authority"))
    }

    async fn verify_token_authority(
        &self,
        _host: &str,
        _payload: &[u8],
        _salt: &[u8],
    ) -> Result<Bytes> {
        Err(Error::NotOffered("a token authority"))
    }
}
