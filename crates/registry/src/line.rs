//! The line to one host on behalf of one build: sends requests with its
//! login, follows redirects without giving the login away, tries again.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderMap, HeaderValue, LOCATION};
use http::{Method, StatusCode};
use reqwest::Url;
use stdx::Kind;
use tokio::sync::OnceCell;

use crate::challenge::{Challenge, Scopes};
use crate::credentials::{Credentials, Login};
use crate::endpoint::Endpoint;
use crate::error::{Error, Result};
use crate::http_client::{self, Answer};
use crate::token::{self, Pool};
use crate::tokens::Tokens;

/// Storage behind a registry sends one on, but not in circles.
const MAX_REDIRECTS: usize = 10;

/// The line to one host.
#[derive(Clone)]
pub(crate) struct Line {
    pub endpoint: Arc<Endpoint>,
    pub credentials: Arc<dyn Credentials>,
    /// What the credentials said about this host; asked once per line.
    login: Arc<OnceCell<Login>>,
    tokens: Arc<Tokens>,
    pool: Arc<Mutex<Option<Arc<Pool>>>>,
    pub retry_delays: Arc<[Duration]>,
    pub stall: Duration,
}

/// Where a request goes.
#[derive(Clone, Debug)]
pub(crate) enum To {
    /// Below the host's prefix, like `/library/alpine/manifests/3`.
    Path(String),
    /// Where the host sent us, an upload session for instance.
    Url(Url),
}

/// A request that can be sent more than once.
pub(crate) struct Request {
    pub method: Method,
    pub to: To,
    pub query: Vec<(&'static str, String)>,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub scopes: Scopes,
    /// What it is for, in errors.
    pub what: String,
}

impl Request {
    pub(crate) fn new(
        method: Method,
        path: String,
        scopes: Scopes,
        what: impl Into<String>,
    ) -> Request {
        Request {
            method,
            to: To::Path(path),
            query: Vec::new(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            scopes,
            what: what.into(),
        }
    }

    pub(crate) fn header(mut self, name: http::header::HeaderName, value: &str) -> Request {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.append(name, value);
        }
        self
    }
}

impl Line {
    pub(crate) fn new(
        endpoint: Arc<Endpoint>,
        credentials: Arc<dyn Credentials>,
        tokens: Arc<Tokens>,
        retry_delays: Arc<[Duration]>,
        stall: Duration,
    ) -> Line {
        Line {
            endpoint,
            credentials,
            login: Arc::default(),
            tokens,
            pool: Arc::default(),
            retry_delays,
            stall,
        }
    }

    /// Sends until it succeeds, fails for good, or was tried often enough.
    /// Dropping the future stops the waiting (P31).
    pub(crate) async fn send(&self, request: &Request) -> Result<Answer> {
        // A mirror has another host behind it, which is quicker than waiting.
        let mut delays = if self.endpoint.place.mirror {
            [].iter()
        } else {
            self.retry_delays.iter()
        };
        loop {
            match self.send_once(request).await {
                Err(error) if error.retryable() => match delays.next() {
                    Some(&delay) => {
                        tracing::debug!(%error, what = request.what, "trying again");
                        http_client::pause(delay, error.retry_after()).await;
                    }
                    None => return Err(error),
                },
                done => return done,
            }
        }
    }

    /// One attempt, with logging in when the host asks for it.
    pub(crate) async fn send_once(&self, request: &Request) -> Result<Answer> {
        let mut authorization = self.authorization(&request.scopes).await?;
        for may_log_in in [true, true, false] {
            let answer = self.exchange(request, authorization.as_deref()).await?;
            let refused =
                answer.status() == StatusCode::UNAUTHORIZED && self.endpoint.owns(answer.url());
            if refused
                && may_log_in
                && let Some(next) = self
                    .challenged(&answer, &request.scopes, authorization.as_deref())
                    .await?
            {
                authorization = Some(next);
                continue;
            }
            if answer.status().is_success() {
                return Ok(answer);
            }
            return Err(http_client::refusal(answer, self.endpoint.host(), &request.what).await);
        }
        unreachable!("the last round returns")
    }

    /// Sends a body that can be read only once. The caller logged in before,
    /// by asking for the upload session.
    pub(crate) async fn send_stream(
        &self,
        method: Method,
        url: Url,
        headers: HeaderMap,
        body: reqwest::Body,
        scopes: &Scopes,
        what: &str,
    ) -> Result<Answer> {
        let client = self.endpoint.client(url.scheme()).await?;
        let mut builder = client
            .request(method, url.clone())
            .headers(headers)
            .body(body);
        if self.endpoint.owns(&url)
            && let Some(authorization) = self.authorization(scopes).await?
        {
            builder = builder.header(AUTHORIZATION, secret(&authorization)?);
        }
        let answer = http_client::send(builder, self.endpoint.host()).await?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        Err(http_client::refusal(answer, self.endpoint.host(), what).await)
    }

    /// The address an answer's `Location` names.
    pub(crate) fn location(&self, answer: &Answer) -> Result<Url> {
        let wrong = |reason: String| Error::Protocol {
            host: self.endpoint.host().into(),
            reason,
        };
        let text = answer
            .headers()
            .get(LOCATION)
            .and_then(|value| value.to_str().ok())
            .ok_or_else(|| {
                wrong(format!(
                    "status {} without a Location",
                    answer.status().as_u16()
                ))
            })?;
        let url = answer
            .url()
            .join(text)
            .map_err(|error| wrong(format!("Location `{text}`: {error}")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong(format!("Location `{text}` is no http address")));
        }
        Ok(url)
    }

    /// One request and the redirects it leads to, over the first scheme that
    /// connects.
    async fn exchange(&self, request: &Request, authorization: Option<&str>) -> Result<Answer> {
        let url = match &request.to {
            To::Url(url) => return self.follow(request, url.clone(), authorization).await,
            To::Path(path) => path,
        };
        let query: Vec<(&str, &str)> = request
            .query
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let mut first_error = None;
        for scheme in self.endpoint.schemes() {
            let url = self.endpoint.url(scheme, url, &query)?;
            match self.follow(request, url, authorization).await {
                Err(error @ Error::Unreachable { .. }) => first_error = first_error.or(Some(error)),
                answer => {
                    self.endpoint.answered(scheme);
                    return answer;
                }
            }
        }
        Err(first_error.expect("there is at least one scheme"))
    }

    async fn follow(
        &self,
        request: &Request,
        mut url: Url,
        authorization: Option<&str>,
    ) -> Result<Answer> {
        let host = self.endpoint.host();
        for _ in 0..=MAX_REDIRECTS {
            let client = self.endpoint.client(url.scheme()).await?;
            let mut builder = client
                .request(request.method.clone(), url.clone())
                .headers(request.headers.clone());
            if !matches!(request.method, Method::GET | Method::HEAD) {
                builder = builder
                    .header(CONTENT_LENGTH, request.body.len())
                    .body(request.body.clone());
            }
            // Storage elsewhere gets no login: it has its own in the address.
            if let Some(authorization) = authorization.filter(|_| self.endpoint.owns(&url)) {
                builder = builder.header(AUTHORIZATION, secret(authorization)?);
            }
            let sent = tokio::time::timeout(self.stall, http_client::send(builder, host)).await;
            let answer = sent.unwrap_or_else(|_| {
                Err(Error::Broken {
                    host: host.into(),
                    reason: format!("no answer for {:?}", self.stall),
                })
            })?;
            let status = answer.status().as_u16();
            let onward = match request.method {
                Method::GET | Method::HEAD => matches!(status, 301 | 302 | 303 | 307 | 308),
                _ => matches!(status, 307 | 308),
            };
            if !onward {
                return Ok(answer);
            }
            url = self.location(&answer)?;
        }
        Err(Error::Protocol {
            host: host.into(),
            reason: format!("more than {MAX_REDIRECTS} redirects"),
        })
    }

    /// The login to send without having been asked again.
    async fn authorization(&self, scopes: &Scopes) -> Result<Option<String>> {
        match self.endpoint.challenge() {
            None => Ok(None),
            Some(challenge) => self.answer_to(&challenge, scopes, &Scopes::default()).await,
        }
    }

    /// What to answer to a 401, or `None` if we have nothing new to say.
    async fn challenged(
        &self,
        answer: &Answer,
        scopes: &Scopes,
        sent: Option<&str>,
    ) -> Result<Option<String>> {
        let Some(challenge) = Challenge::of(answer.headers()) else {
            return Ok(None);
        };
        self.endpoint.set_challenge(challenge.clone());
        if let Some(refused) = sent.and_then(|sent| sent.strip_prefix("Bearer ")) {
            self.pool().await?.forget(scopes, refused).await;
        }
        // What the host names itself is asked for too: it knows its own rules.
        let extra = match &challenge {
            Challenge::Bearer { scopes, .. } => scopes.clone(),
            Challenge::Basic => Scopes::default(),
        };
        let next = self.answer_to(&challenge, scopes, &extra).await?;
        Ok(next.filter(|next| sent != Some(next.as_str())))
    }

    async fn answer_to(
        &self,
        challenge: &Challenge,
        scopes: &Scopes,
        extra: &Scopes,
    ) -> Result<Option<String>> {
        let login = self.login().await?;
        match challenge {
            Challenge::Basic => Ok(match login {
                Login::Password { username, secret } => Some(token::basic(username, secret)),
                Login::Bearer(token) => Some(format!("Bearer {token}")),
                _ => None,
            }),
            Challenge::Bearer { realm, service, .. } => {
                let scheme = reqwest::Url::parse(realm).map_or("https", |url| {
                    if url.scheme() == "http" {
                        "http"
                    } else {
                        "https"
                    }
                });
                let client = self.endpoint.client(scheme).await?;
                let ask = token::Ask {
                    client: &client,
                    credentials: &*self.credentials,
                    login,
                    host: self.endpoint.host(),
                    realm,
                    service,
                    registry_is_plain: self.endpoint.is_plain(),
                    retry_delays: &self.retry_delays,
                };
                let token = self.pool().await?.token(scopes, extra, &ask).await?;
                Ok(Some(format!("Bearer {token}")))
            }
        }
    }

    async fn login(&self) -> Result<&Login> {
        let host = self.endpoint.host();
        let asked = self.login.get_or_try_init(|| async {
            self.credentials
                .login(host)
                .await
                .map_err(|error| Error::Login {
                    host: host.into(),
                    reason: error.reason,
                    kind: error.kind,
                })
        });
        asked.await
    }

    /// The tokens of our login, shared with everyone who logs in the same way.
    async fn pool(&self) -> Result<Arc<Pool>> {
        let login = self.login().await?;
        let mut pool = self.pool.lock().expect("not poisoned");
        Ok(pool
            .get_or_insert_with(|| self.tokens.pool(self.endpoint.host(), login))
            .clone())
    }
}

/// A header value that does not show up in logs.
fn secret(text: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(text).map_err(|_| Error::Login {
        host: String::new(),
        reason: "the login has characters that cannot be sent".into(),
        kind: Kind::InvalidInput,
    })?;
    value.set_sensitive(true);
    Ok(value)
}
