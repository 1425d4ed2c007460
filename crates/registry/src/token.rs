//! Bearer tokens: fetched from a token server, kept until nine tenths of their
//! life are over (P29), asked for once however many requests wait for them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use serde::Deserialize;
use stdx::Kind;

use crate::challenge::Scopes;
use crate::credentials::{Credentials, Login, Token, TokenRequest};
use crate::error::{Error, Result};
use crate::http_client::{self, Answer};

/// What we call ourselves at token servers, as BuildKit does: some registries
/// have rules by client id.
const CLIENT_ID: &str = "buildkit-client";
/// The life of a token whose server did not say (token specification).
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
/// A token answer is small.
const MAX_ANSWER: usize = 1 << 20;

/// The tokens of one login at one registry host.
#[derive(Default)]
pub(crate) struct Pool {
    by_scopes: Mutex<HashMap<Scopes, Arc<tokio::sync::Mutex<Option<Kept>>>>>,
}

struct Kept {
    token: String,
    until: Instant,
}

/// Where and how to get a token.
pub(crate) struct Ask<'a> {
    /// HTTP to the token server.
    pub client: &'a reqwest::Client,
    /// Who knows the password.
    pub credentials: &'a dyn Credentials,
    /// What they said.
    pub login: &'a Login,
    /// The registry.
    pub host: &'a str,
    /// The token server.
    pub realm: &'a str,
    /// Its name for the registry.
    pub service: &'a str,
    /// Whether the registry itself was reached without TLS.
    pub registry_is_plain: bool,
    /// Waits between attempts.
    pub retry_delays: &'a [Duration],
}

impl Pool {
    /// A token good for `wanted`. `extra` are scopes the registry named itself.
    pub(crate) async fn token(
        &self,
        wanted: &Scopes,
        extra: &Scopes,
        ask: &Ask<'_>,
    ) -> Result<String> {
        let slot = self
            .by_scopes
            .lock()
            .expect("not poisoned")
            .entry(wanted.clone())
            .or_default()
            .clone();
        let mut kept = slot.lock().await;
        if let Some(kept) = kept.as_ref().filter(|kept| Instant::now() < kept.until) {
            return Ok(kept.token.clone());
        }
        let scopes = wanted.clone().merge(extra).texts();
        let token = fetch_with_retries(ask, scopes).await?;
        let result = token.token.clone();
        *kept = Some(Kept {
            until: Instant::now() + usable_for(&token),
            token: token.token,
        });
        Ok(result)
    }

    /// Forgets a token the registry refused.
    pub(crate) async fn forget(&self, wanted: &Scopes, refused: &str) {
        let slot = self
            .by_scopes
            .lock()
            .expect("not poisoned")
            .get(wanted)
            .cloned();
        if let Some(slot) = slot {
            let mut kept = slot.lock().await;
            if kept.as_ref().is_some_and(|kept| kept.token == refused) {
                *kept = None;
            }
        }
    }
}

/// Nine tenths of its life, counted from when it was issued.
fn usable_for(token: &Token) -> Duration {
    let life = token
        .expires_in
        .filter(|life| !life.is_zero())
        .unwrap_or(DEFAULT_LIFE);
    let age = token
        .issued_at
        .and_then(|at| SystemTime::now().duration_since(at).ok())
        .unwrap_or_default();
    // A clock that differs from ours by more than the life tells us nothing.
    let age = if age > life { Duration::ZERO } else { age };
    (life * 9 / 10).saturating_sub(age)
}

async fn fetch_with_retries(ask: &Ask<'_>, scopes: Vec<String>) -> Result<Token> {
    let mut delays = ask.retry_delays.iter();
    loop {
        match fetch(ask, &scopes).await {
            Err(error) if error.retryable() => match delays.next() {
                Some(&delay) => http_client::pause(delay, error.retry_after()).await,
                None => return Err(error),
            },
            done => return done,
        }
    }
}

async fn fetch(ask: &Ask<'_>, scopes: &[String]) -> Result<Token> {
    let denied = |reason: String| Error::Login {
        host: ask.host.into(),
        reason,
        kind: Kind::Denied,
    };
    let realm = reqwest::Url::parse(ask.realm)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .ok_or_else(|| Error::Protocol {
            host: ask.host.into(),
            reason: format!("its token server `{}` is no http address", ask.realm),
        })?;
    let gives_secret = matches!(ask.login, Login::Password { .. } | Login::Identity(_));
    if gives_secret && realm.scheme() == "http" && !ask.registry_is_plain {
        return Err(denied(format!(
            "its token server {realm} would get the password unencrypted"
        )));
    }
    match ask.login {
        Login::Bearer(token) => Ok(Token {
            token: token.clone(),
            expires_in: Some(Duration::from_secs(3600)),
            issued_at: None,
        }),
        Login::Authority { .. } => {
            let request = TokenRequest {
                client_id: CLIENT_ID,
                host: ask.host.into(),
                realm: ask.realm.into(),
                service: ask.service.into(),
                scopes: scopes.to_vec(),
            };
            ask.credentials
                .fetch_token(&request)
                .await
                .map_err(|error| Error::Login {
                    host: ask.host.into(),
                    reason: error.reason,
                    kind: error.kind,
                })
        }
        Login::Anonymous => {
            let answer = get(ask, realm, scopes, None).await?;
            accept(ask, answer, "failed to fetch anonymous token").await
        }
        Login::Identity(token) => {
            let answer = post(
                ask,
                realm,
                scopes,
                &[("grant_type", "refresh_token"), ("refresh_token", token)],
            )
            .await?;
            accept(ask, answer, "failed to fetch oauth token").await
        }
        Login::Password { username, secret } => {
            let answer = get(ask, realm.clone(), scopes, Some((username, secret))).await?;
            // Some token servers know only the OAuth form.
            let status = answer.status().as_u16();
            if !(status == 404 || status == 401 || status == 405 && !username.is_empty()) {
                return accept(ask, answer, "failed to fetch oauth token").await;
            }
            let form = [
                ("grant_type", "password"),
                ("username", username),
                ("password", secret),
            ];
            let answer = post(ask, realm, scopes, &form).await?;
            accept(ask, answer, "failed to fetch oauth token").await
        }
    }
}

async fn get(
    ask: &Ask<'_>,
    mut realm: reqwest::Url,
    scopes: &[String],
    login: Option<(&str, &str)>,
) -> Result<Answer> {
    {
        let mut query = realm.query_pairs_mut();
        if !ask.service.is_empty() {
            query.append_pair("service", ask.service);
        }
        for scope in scopes {
            query.append_pair("scope", scope);
        }
        query.append_pair("client_id", CLIENT_ID);
    }
    let mut request = ask.client.get(realm);
    if let Some((username, secret)) = login {
        request = request.header(AUTHORIZATION, basic(username, secret));
    }
    http_client::send(request, ask.host).await
}

async fn post(
    ask: &Ask<'_>,
    realm: reqwest::Url,
    scopes: &[String],
    grant: &[(&str, &str)],
) -> Result<Answer> {
    let mut form = String::new();
    let scope = scopes.join(" ");
    let fixed = [
        ("service", ask.service),
        ("client_id", CLIENT_ID),
        ("scope", &scope),
    ];
    for (name, value) in grant
        .iter()
        .chain(&fixed)
        .filter(|(_, value)| !value.is_empty())
    {
        if !form.is_empty() {
            form.push('&');
        }
        form.push_str(name);
        form.push('=');
        form.extend(percent_encoding::utf8_percent_encode(
            value,
            percent_encoding::NON_ALPHANUMERIC,
        ));
    }
    let request = ask
        .client
        .post(realm)
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(form);
    http_client::send(request, ask.host).await
}

/// The header value of basic authentication.
pub(crate) fn basic(username: &str, secret: &str) -> String {
    let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{username}:{secret}"));
    format!("Basic {encoded}")
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
    #[serde(default)]
    expires_in: Option<f64>,
}

async fn accept(ask: &Ask<'_>, answer: Answer, what: &str) -> Result<Token> {
    let status = answer.status();
    if !status.is_success() {
        let error = http_client::refusal(answer, ask.host, what).await;
        let kind = error.kind();
        if kind.is_transient() {
            return Err(error);
        }
        let kind = if kind == Kind::NotFound {
            Kind::Denied
        } else {
            kind
        };
        return Err(Error::Login {
            host: ask.host.into(),
            reason: error.to_string(),
            kind,
        });
    }
    let bytes = http_client::whole(answer, MAX_ANSWER, ask.host).await?;
    let broken = |reason: String| Error::Protocol {
        host: ask.host.into(),
        reason,
    };
    let parsed: TokenAnswer =
        serde_json::from_slice(&bytes).map_err(|error| broken(format!("{what}: {error}")))?;
    let token = if parsed.token.is_empty() {
        parsed.access_token
    } else {
        parsed.token
    };
    if token.is_empty() {
        return Err(broken(format!("{what}: the answer holds no token")));
    }
    // A server that names an absurd life must not make us panic.
    let life = parsed
        .expires_in
        .filter(|s| s.is_finite() && *s > 0.0)
        .map(|s| s.min(86_400.0 * 365.0));
    // `issued_at` is left alone: our own clock since the answer is the surer one.
    Ok(Token {
        token,
        expires_in: life.map(Duration::from_secs_f64),
        issued_at: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows: P29, S11
    #[test]
    fn a_token_is_used_for_nine_tenths_of_its_life() {
        let token = |life: Option<u64>| Token {
            token: String::new(),
            expires_in: life.map(Duration::from_secs),
            issued_at: None,
        };
        assert_eq!(usable_for(&token(Some(300))), Duration::from_secs(270));
        assert_eq!(usable_for(&token(None)), Duration::from_secs(54));
        let old = Token {
            issued_at: Some(SystemTime::now() - Duration::from_secs(100)),
            ..token(Some(200))
        };
        assert!(usable_for(&old) < Duration::from_secs(81));
    }
}
