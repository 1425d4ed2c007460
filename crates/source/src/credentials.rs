//! The build's sessions as credentials for registries (S11): passwords come
//! from the client for each build, or stay there when it can fetch tokens.

use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use registry::{Credentials, CredentialsError, Login, Token, TokenRequest};
use session::{Group, Sessions};
use stdx::Kind;

/// Asks the sessions of a build. One per build: what it learns is not shared.
pub struct SessionCredentials {
    sessions: Sessions,
    group: Group,
    /// Makes the client's public keys different from build to build.
    salt: Vec<u8>,
}

impl SessionCredentials {
    /// For the sessions of `group`.
    pub fn new(sessions: Sessions, group: Group, salt: Vec<u8>) -> SessionCredentials {
        SessionCredentials {
            sessions,
            group,
            salt,
        }
    }
}

fn failed(error: &session::Error) -> CredentialsError {
    CredentialsError::new(error.kind(), error.to_string())
}

/// The client offers nothing of the kind, which is no failure.
fn offers_none(kind: Kind) -> bool {
    matches!(kind, Kind::Unsupported | Kind::NotFound)
}

#[async_trait]
impl Credentials for SessionCredentials {
    async fn login(&self, host: &str) -> Result<Login, CredentialsError> {
        if self.group.is_empty() {
            return Ok(Login::Anonymous);
        }
        let key = self.group.any(&self.sessions, |session| async move {
            session.auth()?.token_authority(host, &self.salt).await
        });
        match key.await {
            Ok(key) if !key.is_empty() => {
                let id = oci::Digest::of([self.salt.as_slice(), &key].concat()).hex();
                return Ok(Login::Authority { id });
            }
            Err(error) if error.kind() == Kind::Unavailable => return Err(failed(&error)),
            _ => {}
        }
        let login = self
            .group
            .any(&self.sessions, |session| async move {
                session.auth()?.credentials(host).await
            })
            .await;
        match login {
            Ok(found) if found.secret.is_empty() => Ok(Login::Anonymous),
            Ok(found) if found.username.is_empty() => Ok(Login::Identity(found.secret)),
            Ok(found) => Ok(Login::Password {
                username: found.username,
                secret: found.secret,
            }),
            Err(error) if offers_none(error.kind()) => Ok(Login::Anonymous),
            Err(error) => Err(failed(&error)),
        }
    }

    async fn fetch_token(&self, request: &TokenRequest) -> Result<Token, CredentialsError> {
        let wanted = session::TokenRequest {
            client_id: request.client_id.into(),
            host: request.host.clone(),
            realm: request.realm.clone(),
            service: request.service.clone(),
            scopes: request.scopes.clone(),
        };
        let wanted = &wanted;
        let token = self
            .group
            .any(&self.sessions, |session| async move {
                session.auth()?.fetch_token(wanted).await
            })
            .await
            .map_err(|error| failed(&error))?;
        let since = u64::try_from(token.issued_at).ok().filter(|at| *at > 0);
        Ok(Token {
            token: token.token,
            expires_in: u64::try_from(token.expires_in)
                .ok()
                .filter(|s| *s > 0)
                .map(Duration::from_secs),
            issued_at: since.map(|at| UNIX_EPOCH + Duration::from_secs(at)),
        })
    }
}
