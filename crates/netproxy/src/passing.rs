//! One client's requests, passed on one after the other.

use std::convert::Infallible;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use bytes::Bytes;
use executor::Outside;
use http::request::Parts;
use http_body_util::{Either, Empty, Full};
use hyper::body::{Body as _, Incoming};
use hyper::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_TYPE, EXPECT, HOST, HeaderMap, HeaderName,
    HeaderValue, LOCATION, RANGE,
};
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode, Version};
use percent_encoding::percent_decode_str;
use url::{Host, Position, Url};

use crate::Inner;
use crate::body::{Fate, Told};
use crate::line::{Line, Sent};
use crate::seen::{self, METHOD, PARTIAL, STATUS, UPSTREAM};

pub(crate) type Answer = Response<Either<Told, Full<Bytes>>>;

/// Between one client and one server at a time; not passed on.
const OF_THE_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// One client's requests.
pub(crate) struct Passing {
    proxy: Arc<Inner>,
    outside: Outside,
    /// The server that the proxy stands in for: host and port, and the record's number of the
    /// handshake.
    server: Option<(String, u64)>,
    line: tokio::sync::Mutex<Option<Line>>,
    /// The server it wants to speak to by itself, once it was told that it may.
    wanted: Mutex<Option<(String, OnUpgrade)>>,
}

/// A request that is not passed on, or has no answer.
struct Refused {
    status: StatusCode,
    why: String,
    /// If something may have come of it.
    incomplete: bool,
}

impl Passing {
    pub(crate) fn new(
        proxy: Arc<Inner>,
        outside: Outside,
        server: Option<(String, u64)>,
    ) -> Passing {
        Passing {
            proxy,
            outside,
            server,
            line: tokio::sync::Mutex::default(),
            wanted: Mutex::default(),
        }
    }

    /// The server that was asked for by a `CONNECT`.
    pub(crate) fn take_wanted(&self) -> Option<(String, OnUpgrade)> {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        wanted.take()
    }

    pub(crate) async fn answer(&self, request: Request<Incoming>) -> Result<Answer, Infallible> {
        if request.method() == Method::CONNECT && self.server.is_none() {
            return Ok(self.connect(request));
        }
        if let Some((_, handshake)) = &self.server {
            self.proxy.record.settled(*handshake, None);
        }
        let method = request.method().clone();
        let mut url = match self.url(&request) {
            Ok(url) => url,
            Err(why) => return Ok(refusal(StatusCode::BAD_REQUEST, &why)),
        };
        Ok(match Box::pin(self.pass(request, &mut url)).await {
            Ok(answer) => answer,
            Err(refused) => {
                let reason = refused.incomplete.then_some(UPSTREAM);
                let Refused { status, why, .. } = refused;
                let answer = refusal(status, &why);
                self.proxy.record.failed(
                    seen::Request {
                        method: method.to_string(),
                        url: shown(&url),
                        status: status.as_u16(),
                        redirect: None,
                        why: Some(why),
                    },
                    reason,
                );
                answer
            }
        })
    }

    /// The client wants to speak to a server by itself: it will, as far as it can tell.
    fn connect(&self, mut request: Request<Incoming>) -> Answer {
        let Some(server) = request.uri().authority().map(ToString::to_string) else {
            return refusal(StatusCode::BAD_REQUEST, "CONNECT needs a host and a port");
        };
        if server.contains('@') {
            let why = "CONNECT takes a host and a port, and no login";
            return refusal(StatusCode::BAD_REQUEST, why);
        }
        let upgrade = hyper::upgrade::on(&mut request);
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        *wanted = Some((server, upgrade));
        Response::new(Either::Right(Full::default()))
    }

    /// What is asked for, in the one form there is for it.
    fn url(&self, request: &Request<Incoming>) -> Result<Url, String> {
        let uri = request.uri();
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let text = match (&self.server, uri.scheme()) {
            (Some((server, _)), _) => format!("https://{server}{path}"),
            (None, Some(_)) => uri.to_string(),
            (None, None) => {
                let host = request
                    .headers()
                    .get(HOST)
                    .and_then(|host| host.to_str().ok());
                format!("http://{}{path}", host.ok_or("it has no host")?)
            }
        };
        parsed(&text)
    }

    /// Asks for it. `url` is at last what was really asked for.
    async fn pass(&self, request: Request<Incoming>, url: &mut Url) -> Result<Answer, Refused> {
        // A tunnel within one, and a server's or a proxy's answer with our own login in it.
        if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
            return Err(Refused {
                status: StatusCode::METHOD_NOT_ALLOWED,
                why: "this method does not go through the proxy".into(),
                incomplete: false,
            });
        }
        self.decide(request.method(), url).await?;
        let (mut parts, body) = request.into_parts();
        prepare(&mut parts, url);
        let asking = Asking::begin(&self.proxy, &parts.method, url);
        let answer = self.ask(&parts, body, url).await;
        // What came of it is told below.
        asking.settle();
        let answer = answer.map_err(|why| Refused {
            status: StatusCode::BAD_GATEWAY,
            why,
            incomplete: true,
        })?;
        if answer.status().is_informational() {
            return Err(Refused {
                status: StatusCode::BAD_GATEWAY,
                why: "the server wants to speak another protocol".into(),
                incomplete: true,
            });
        }
        Ok(self.told(&parts, url, answer))
    }

    /// Whether it may be asked for, and at which address.
    async fn decide(&self, method: &Method, url: &mut Url) -> Result<(), Refused> {
        let Some(gate) = &self.proxy.gate else {
            return Ok(());
        };
        let denied = |why: String| Refused {
            status: StatusCode::FORBIDDEN,
            why,
            incomplete: false,
        };
        let decided = gate.decide(method.as_str(), &shown(url)).await;
        let Some(other) = decided.map_err(denied)? else {
            return Ok(());
        };
        if *method != Method::GET {
            let why = "the source policy converts it, which is only possible for GET";
            return Err(denied(why.to_owned()));
        }
        *url = parsed(&other)
            .map_err(|why| denied(format!("the source policy converts it to {other:?}: {why}")))?;
        Ok(())
    }

    /// The server's answer.
    async fn ask(
        &self,
        parts: &Parts,
        body: Incoming,
        url: &Url,
    ) -> Result<Response<Incoming>, String> {
        // Such a request can be sent again when an old connection turns out to be dead.
        let repeatable = body.is_end_stream() && parts.method.is_safe();
        let request = |body: Sent| Request::from_parts(parts.clone(), body);
        let mut next = Some(match repeatable {
            true => request(Either::Right(Empty::new())),
            false => request(Either::Left(body)),
        });
        let upstreams = &self.proxy.upstreams;
        let login_free = without_login(url);
        let mut line = self.line.lock().await;
        if let Some(mut old) = line.take()
            && old.serves(&login_free).await
            && let Some(sent) = next.take()
        {
            match old.ask(&login_free, sent).await {
                Ok(answer) => {
                    *line = Some(old);
                    return Ok(answer);
                }
                Err((_, Some(unsent))) => next = Some(unsent),
                Err(_) if repeatable => next = Some(request(Either::Right(Empty::new()))),
                Err((why, None)) => return Err(why),
            }
        }
        let mut new = Line::open(upstreams, &self.outside, &login_free).await?;
        let sent = next.ok_or("it was sent already")?;
        let answer = new.ask(&login_free, sent).await;
        let answer = answer.map_err(|(why, _)| why)?;
        *line = Some(new);
        Ok(answer)
    }

    /// The answer as the client gets it, taken down.
    fn told(&self, asked: &Parts, url: &Url, answer: Response<Incoming>) -> Answer {
        let (mut parts, body) = answer.into_parts();
        let sends_on = parts.status.is_redirection() && asked.method == Method::GET;
        let redirect = parts.headers.get(LOCATION).filter(|_| sends_on);
        let redirect = redirect.and_then(|to| to.to_str().ok());
        let redirect = redirect.and_then(|to| url.join(to).ok());
        let number = self.proxy.record.answered(seen::Request {
            method: asked.method.to_string(),
            url: shown(url),
            status: parts.status.as_u16(),
            redirect: redirect.map(|mut to| {
                to.set_fragment(None);
                shown(&to)
            }),
            why: None,
        });
        let fate = fate(asked, parts.status);
        drop_hop(&mut parts.headers);
        parts.version = Version::HTTP_11;
        let body = Told::new(body, self.proxy.record.clone(), number, fate);
        Response::from_parts(parts, Either::Left(body))
    }
}

/// A request that may have reached a server and has no answer yet. Whoever asked may go away: then
/// this is dropped, and tells of it.
struct Asking {
    proxy: Arc<Inner>,
    number: u64,
}

/// Why there was no answer.
const LEFT: &str = "who asked went away before there was an answer";

impl Asking {
    fn begin(proxy: &Arc<Inner>, method: &Method, url: &Url) -> Asking {
        let request = seen::Request {
            method: method.to_string(),
            url: shown(url),
            status: StatusCode::BAD_GATEWAY.as_u16(),
            redirect: None,
            why: Some(LEFT.to_owned()),
        };
        Asking {
            number: proxy.record.begun(request, Some(UPSTREAM)),
            proxy: proxy.clone(),
        }
    }

    fn settle(self) {
        self.proxy.record.settled(self.number, None);
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.proxy
            .record
            .settled(self.number, Some(LEFT.to_owned()));
    }
}

/// What the answer will be as a material.
fn fate(asked: &Parts, status: StatusCode) -> Fate {
    if asked.method != Method::GET {
        Fate::Never(METHOD)
    } else if asked.headers.contains_key(RANGE) || status == StatusCode::PARTIAL_CONTENT {
        Fate::Never(PARTIAL)
    } else if status.is_success() {
        Fate::Material
    } else if status.is_client_error() || status.is_server_error() {
        Fate::Not(STATUS)
    } else {
        Fate::Nothing
    }
}

fn parsed(text: &str) -> Result<Url, String> {
    let mut url = Url::parse(text).map_err(|error| format!("it is no address: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("only http and https go through the proxy".into());
    }
    // One host, one name.
    let one = match url.host() {
        Some(Host::Domain(name)) => Some(name.trim_end_matches('.').to_owned()),
        Some(Host::Ipv4(ip)) if ip.is_unspecified() => Some(Ipv4Addr::LOCALHOST.to_string()),
        Some(Host::Ipv6(ip)) if ip.is_unspecified() => Some(format!("[{}]", Ipv6Addr::LOCALHOST)),
        Some(Host::Ipv6(ip)) => ip.to_ipv4_mapped().map(|ip| ip.to_string()),
        _ => None,
    };
    if let Some(one) = one {
        url.set_host(Some(&one))
            .map_err(|error| error.to_string())?;
    }
    url.set_fragment(None);
    Ok(url)
}

/// An address to be shown: without the login.
fn shown(url: &Url) -> String {
    attest::redacted(url.as_str())
}

fn without_login(url: &Url) -> Url {
    let mut url = url.clone();
    // Addresses of these kinds can always be without.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url
}

/// Makes the headers those of our own request.
fn prepare(parts: &mut Parts, url: &Url) {
    let headers = &mut parts.headers;
    drop_hop(headers);
    // The answer is to be hashed as it is, not as this server can pack it.
    headers.remove(ACCEPT_ENCODING);
    // The server answers us at once; the client has its permission from us.
    headers.remove(EXPECT);
    // What was decided on is asked for, whatever else is said.
    let login_free = without_login(url);
    let host = &login_free[Position::BeforeHost..Position::AfterPort];
    if let Ok(host) = HeaderValue::from_str(host) {
        headers.insert(HOST, host);
    }
    if let Some(login) = login(url).filter(|_| !headers.contains_key(AUTHORIZATION)) {
        headers.insert(AUTHORIZATION, login);
    }
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
}

/// The login in an address, as the header it stands for.
fn login(url: &Url) -> Option<HeaderValue> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let mut login: Vec<u8> = percent_decode_str(url.username()).collect();
    login.push(b':');
    login.extend(percent_decode_str(url.password().unwrap_or_default()));
    let encoded = base64::engine::general_purpose::STANDARD.encode(login);
    let mut value = HeaderValue::from_str(&format!("Basic {encoded}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Removes what is between two neighbours only.
fn drop_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in OF_THE_HOP {
        headers.remove(name);
    }
}

fn refusal(status: StatusCode, why: &str) -> Answer {
    let text = format!(
        "{}: {why}\n",
        status.canonical_reason().unwrap_or("refused")
    );
    let mut answer = Response::new(Either::Right(Full::from(text)));
    *answer.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, plain);
    answer
}
