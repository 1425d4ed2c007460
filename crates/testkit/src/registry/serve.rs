//! The HTTP side: connections, faults, and the registry's own answers.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use oci::Digest;

use super::fault::Effect;
use super::{Asked, Repository, State, auth};

type Body = StreamBody<BoxStream<'static, Result<Frame<Bytes>, std::io::Error>>>;

/// An answer before it is spoiled.
struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
}

impl Answer {
    fn new(status: u16) -> Answer {
        Answer {
            status,
            headers: Vec::new(),
            body: Bytes::new(),
        }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Answer {
        self.headers.push((name, value.into()));
        self
    }

    fn problem(status: u16, code: &str) -> Answer {
        let body = format!(
            r#"{{"errors":[{{"code":"{code}","message":"{}"}}]}}"#,
            code.to_lowercase().replace('_', " ")
        );
        Answer {
            body: body.into(),
            ..Answer::new(status).with("content-type", "application/json")
        }
    }
}

/// Accepts connections for ever.
pub(super) async fn serve(
    listener: tokio::net::TcpListener,
    address: SocketAddr,
    state: Arc<Mutex<State>>,
) {
    let mut connections = Vec::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let state = state.clone();
        connections.retain(|task: &stdx::task::Task<()>| !task.is_finished());
        connections.push(stdx::task::spawn("test registry connection", async move {
            let service =
                hyper::service::service_fn(move |request| answer(request, address, state.clone()));
            let io = hyper_util::rt::TokioIo::new(stream);
            drop(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(io, service)
                    .await,
            );
        }));
    }
}

/// Counts a request as running while its answer is on the way.
struct Running(Arc<Mutex<State>>);

impl Running {
    fn new(state: &Arc<Mutex<State>>) -> Running {
        let mut locked = state.lock().expect("not poisoned");
        locked.running += 1;
        locked.most_running = locked.most_running.max(locked.running);
        Running(state.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.lock().expect("not poisoned").running -= 1;
    }
}

async fn answer(
    request: Request<Incoming>,
    address: SocketAddr,
    state: Arc<Mutex<State>>,
) -> Result<Response<Body>, std::io::Error> {
    let running = Running::new(&state);
    let (parts, body) = request.into_parts();
    let header = |name: &str| {
        parts
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned)
    };
    let mut asked = Asked {
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or("").to_owned(),
        authorization: header("authorization"),
        range: header("range"),
        length: header("content-length").and_then(|value| value.parse().ok()),
        status: 0,
    };
    let effects: Vec<Effect> = {
        let mut state = state.lock().expect("not poisoned");
        let hit = state
            .faults
            .iter_mut()
            .filter_map(|f| f.hits(&asked.method, &asked.path).then(|| f.effect.clone()));
        hit.collect()
    };
    let log = |asked: &Asked| {
        state
            .lock()
            .expect("not poisoned")
            .asked
            .push(asked.clone());
    };
    for effect in &effects {
        match effect {
            Effect::Drop => {
                log(&asked);
                return Err(std::io::Error::other("told to"));
            }
            Effect::Stall => {
                log(&asked);
                std::future::pending::<()>().await;
            }
            _ => {}
        }
    }
    // An early refusal, as a proxy gives it, does not read the body.
    let told = effects.iter().find_map(|effect| match effect {
        Effect::Status(status, headers, body) => Some((*status, headers.clone(), body.clone())),
        _ => None,
    });
    if let Some((status, headers, text)) = told {
        drop(body.collect().await);
        asked.status = status;
        log(&asked);
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            let value = if name == "location" {
                format!("{value}{}", asked.path)
            } else {
                value
            };
            response = response.header(name, value);
        }
        return Ok(response
            .body(once(text.into(), running))
            .expect("a valid answer"));
    }
    let received = body
        .collect()
        .await
        .map_err(std::io::Error::other)?
        .to_bytes();
    let mut answer = {
        let mut state = state.lock().expect("not poisoned");
        route(
            &mut state,
            address,
            &asked,
            &parts.headers,
            received,
            &effects,
        )
    };
    asked.status = answer.status;
    log(&asked);
    if effects
        .iter()
        .any(|effect| matches!(effect, Effect::NoDigest))
    {
        answer
            .headers
            .retain(|(name, _)| *name != "docker-content-digest");
    }
    Ok(spoiled(answer, &effects, asked.method == "HEAD", running))
}

/// The answer with what the faults do to its body.
fn spoiled(answer: Answer, effects: &[Effect], head: bool, running: Running) -> Response<Body> {
    let mut body = answer.body.clone();
    let mut response = Response::builder().status(answer.status);
    let mut length = body.len() as u64;
    let mut pieces = None;
    let mut ending = Ending::Normal;
    for effect in effects {
        match effect {
            Effect::Truncate(n) => {
                (body, ending) = (body.slice(..body.len().min(*n as usize)), Ending::Broken);
            }
            Effect::StallAfter(n) => {
                (body, ending) = (body.slice(..body.len().min(*n as usize)), Ending::Stalled);
            }
            Effect::Short(n) => {
                body = body.slice(..body.len().min(*n as usize));
                length = body.len() as u64;
            }
            Effect::Flip if !body.is_empty() => {
                let mut bytes = body.to_vec();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                body = bytes.into();
            }
            Effect::Slow(size, pause) => pieces = Some((*size, *pause)),
            _ => {}
        }
    }
    for (name, value) in &answer.headers {
        response = response.header(*name, value);
    }
    if !answer
        .headers
        .iter()
        .any(|(name, _)| *name == "content-length")
        && answer.status != 204
    {
        response = response.header("content-length", length);
    }
    if head {
        return response
            .body(once(Bytes::new(), running))
            .expect("a valid answer");
    }
    let (size, pause) = pieces.unwrap_or((body.len().max(1), std::time::Duration::ZERO));
    let parts: Vec<Bytes> = body
        .chunks(size.max(1))
        .map(Bytes::copy_from_slice)
        .collect();
    let parts = stream::iter(parts).then(move |part| async move {
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        Ok(Frame::data(part))
    });
    let end = stream::once(async move {
        let _running = running;
        match ending {
            Ending::Normal => Ok(Frame::data(Bytes::new())),
            Ending::Broken => {
                // Lets what came before get out of the buffers.
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                Err(std::io::Error::other("told to break off"))
            }
            Ending::Stalled => std::future::pending().await,
        }
    });
    response
        .body(StreamBody::new(parts.chain(end).boxed()))
        .expect("a valid answer")
}

enum Ending {
    Normal,
    Broken,
    Stalled,
}

fn once(bytes: Bytes, running: Running) -> Body {
    let stream = stream::once(async move {
        let _running = running;
        Ok(Frame::data(bytes))
    });
    StreamBody::new(stream.boxed())
}

fn parameters(text: &str) -> Vec<(String, String)> {
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(key), decoded(value))
        })
        .collect()
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        match first {
            b'%' if after.len() >= 2 => {
                let hex = std::str::from_utf8(&after[..2])
                    .ok()
                    .and_then(|hex| u8::from_str_radix(hex, 16).ok());
                bytes.push(hex.unwrap_or(b'%'));
                rest = &after[2..];
            }
            b'+' => bytes.push(b' '),
            other => bytes.push(*other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The registry itself (distribution-spec 1.1).
fn route(
    state: &mut State,
    address: SocketAddr,
    asked: &Asked,
    headers: &HeaderMap,
    body: Bytes,
    effects: &[Effect],
) -> Answer {
    let mut query = parameters(&asked.query);
    let (method, path) = (asked.method.as_str(), asked.path.as_str());
    if path == "/token" {
        query.extend(parameters(&String::from_utf8_lossy(&body)));
        let (status, body) = auth::token(state, method, &query, asked.authorization.as_deref());
        return Answer {
            body: body.into(),
            ..Answer::new(status).with("content-type", "application/json")
        };
    }
    let get = |name: &str| {
        query
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.clone())
    };
    let Some(rest) = path.strip_prefix("/v2/") else {
        return Answer::problem(404, "NOT_FOUND");
    };
    let found = ["/manifests/", "/blobs/uploads/", "/blobs/", "/referrers/"]
        .iter()
        .find_map(|kind| {
            rest.split_once(kind)
                .map(|(repository, last)| (*kind, repository, last))
        });
    let Some((kind, repository, last)) = found else {
        return if rest.is_empty() {
            Answer::new(200)
        } else {
            Answer::problem(404, "NAME_UNKNOWN")
        };
    };
    let write = !matches!(method, "GET" | "HEAD");
    let mut needed = vec![format!("repository:{repository}:pull")];
    if write {
        needed.push(format!("repository:{repository}:push"));
    }
    if let Err(challenge) = auth::check(
        state,
        &address.to_string(),
        &needed,
        asked.authorization.as_deref(),
    ) {
        return Answer::problem(401, "UNAUTHORIZED").with("www-authenticate", challenge);
    }
    match (method, kind) {
        ("GET" | "HEAD", "/manifests/") => read_manifest(state, repository, last, effects),
        ("PUT", "/manifests/") => put_manifest(state, repository, last, headers, body),
        ("GET" | "HEAD", "/blobs/") => {
            read_blob(state, repository, last, asked.range.as_deref(), effects)
        }
        ("POST", "/blobs/uploads/") => {
            let mount = get("mount").zip(get("from"));
            begin(
                state,
                repository,
                mount,
                asked.authorization.as_deref(),
                effects,
            )
        }
        ("PATCH" | "PUT", "/blobs/uploads/") => {
            upload(state, asked, repository, last, get("digest"), body)
        }
        ("GET", "/referrers/") if state.referrers_api => {
            referrers(state, repository, last, get("artifactType"))
        }
        ("GET" | "HEAD", _) => Answer::problem(404, "NOT_FOUND"),
        _ => Answer::problem(405, "UNSUPPORTED"),
    }
}

fn repository<'a>(state: &'a State, name: &str) -> Option<&'a Repository> {
    state.repositories.get(name)
}

fn read_manifest(state: &State, name: &str, reference: &str, effects: &[Effect]) -> Answer {
    let Some((media_type, bytes)) =
        repository(state, name).and_then(|r| r.manifests.get(reference))
    else {
        return Answer::problem(404, "MANIFEST_UNKNOWN");
    };
    let wrong = effects
        .iter()
        .any(|effect| matches!(effect, Effect::WrongDigest));
    let digest = if wrong {
        Digest::of("another")
    } else {
        Digest::of(bytes)
    };
    Answer {
        body: bytes.clone(),
        ..Answer::new(200)
    }
    .with("content-type", media_type)
    .with("docker-content-digest", digest.to_string())
}

fn put_manifest(
    state: &mut State,
    name: &str,
    reference: &str,
    headers: &HeaderMap,
    body: Bytes,
) -> Answer {
    let media_type = headers
        .get("content-type")
        .and_then(|v| v.to_str().ok())
        .unwrap_or("")
        .to_owned();
    let digest = Digest::of(&body);
    if reference.contains(':') && reference != digest.to_string() {
        return Answer::problem(400, "DIGEST_INVALID");
    }
    let document: serde_json::Value = match serde_json::from_slice(&body) {
        Ok(document) => document,
        Err(_) => return Answer::problem(400, "MANIFEST_INVALID"),
    };
    // Real registries refuse a manifest whose parts they do not have.
    let known = repository(state, name);
    let blobs = document["layers"]
        .as_array()
        .into_iter()
        .flatten()
        .chain(document.get("config"));
    for part in blobs {
        let there = part["digest"]
            .as_str()
            .and_then(|text| text.parse::<Digest>().ok());
        if !there.is_some_and(|digest| known.is_some_and(|r| r.blobs.contains(&digest))) {
            return Answer::problem(400, "MANIFEST_BLOB_UNKNOWN");
        }
    }
    for part in document["manifests"].as_array().into_iter().flatten() {
        let there = part["digest"]
            .as_str()
            .is_some_and(|d| known.is_some_and(|r| r.manifests.contains_key(d)));
        if !there && !reference.starts_with("sha256-") {
            return Answer::problem(400, "MANIFEST_UNKNOWN");
        }
    }
    let manifests = &mut state.repositories.entry(name.into()).or_default().manifests;
    manifests.insert(digest.to_string(), (media_type.clone(), body.clone()));
    manifests.insert(reference.into(), (media_type, body));
    let mut answer = Answer::new(201)
        .with("docker-content-digest", digest.to_string())
        .with("location", format!("/v2/{name}/manifests/{digest}"));
    if let (Some(subject), true) = (document["subject"]["digest"].as_str(), state.referrers_api) {
        answer = answer.with("oci-subject", subject);
    }
    answer
}

fn read_blob(
    state: &State,
    name: &str,
    digest: &str,
    range: Option<&str>,
    effects: &[Effect],
) -> Answer {
    let known = digest
        .parse::<Digest>()
        .ok()
        .filter(|d| repository(state, name).is_some_and(|r| r.blobs.contains(d)));
    let Some(bytes) = known.and_then(|digest| state.blobs.get(&digest)) else {
        return Answer::problem(404, "BLOB_UNKNOWN");
    };
    let ignored = effects
        .iter()
        .any(|effect| matches!(effect, Effect::NoRange));
    let from = range.filter(|_| !ignored).and_then(|range| {
        let (from, to) = range.strip_prefix("bytes=")?.split_once('-')?;
        Some((from.parse::<usize>().ok()?, to.parse::<usize>().ok()))
    });
    match from {
        None => Answer {
            body: bytes.clone(),
            ..Answer::new(200)
        }
        .with("docker-content-digest", digest),
        Some((from, _)) if from >= bytes.len() => Answer::problem(416, "RANGE_INVALID"),
        Some((from, to)) => {
            let to = to.unwrap_or(usize::MAX).min(bytes.len() - 1);
            Answer {
                body: bytes.slice(from..=to),
                ..Answer::new(206)
            }
            .with(
                "content-range",
                format!("bytes {from}-{to}/{}", bytes.len()),
            )
        }
    }
}

fn begin(
    state: &mut State,
    name: &str,
    mount: Option<(String, String)>,
    authorization: Option<&str>,
    effects: &[Effect],
) -> Answer {
    let refused = effects
        .iter()
        .any(|effect| matches!(effect, Effect::NoMount));
    if let Some((digest, from)) = mount.filter(|_| !refused) {
        let readable = auth::check(
            state,
            "",
            &[format!("repository:{from}:pull")],
            authorization,
        )
        .is_ok();
        let there = digest
            .parse::<Digest>()
            .ok()
            .filter(|d| repository(state, &from).is_some_and(|r| r.blobs.contains(d)));
        if let Some(digest) = there.filter(|_| readable) {
            state
                .repositories
                .entry(name.into())
                .or_default()
                .blobs
                .insert(digest);
            return Answer::new(201).with("docker-content-digest", digest.to_string());
        }
    }
    state.next_upload += 1;
    let id = state.next_upload;
    state.uploads.insert(id, Vec::new());
    Answer::new(202)
        .with("location", format!("/v2/{name}/blobs/uploads/{id}?state=x"))
        .with("range", "0-0")
}

fn upload(
    state: &mut State,
    asked: &Asked,
    name: &str,
    id: &str,
    digest: Option<String>,
    body: Bytes,
) -> Answer {
    let Some((id, upload)) = id
        .parse()
        .ok()
        .and_then(|id: u64| Some((id, state.uploads.get_mut(&id)?)))
    else {
        return Answer::problem(404, "BLOB_UPLOAD_UNKNOWN");
    };
    upload.extend_from_slice(&body);
    let length = upload.len();
    if asked.method == "PATCH" {
        return Answer::new(202)
            .with(
                "location",
                format!("/v2/{name}/blobs/uploads/{id}?state={length}"),
            )
            .with("range", format!("0-{}", length.max(1) - 1));
    }
    let bytes = Bytes::from(state.uploads.remove(&id).expect("looked at above"));
    let Some(named) = digest.and_then(|digest| digest.parse::<Digest>().ok()) else {
        return Answer::problem(400, "DIGEST_INVALID");
    };
    let mut hasher = named.algorithm().hasher();
    hasher.update(&bytes);
    if hasher.finish() != named {
        return Answer::problem(400, "DIGEST_INVALID");
    }
    state.blobs.insert(named, bytes);
    state
        .repositories
        .entry(name.into())
        .or_default()
        .blobs
        .insert(named);
    Answer::new(201)
        .with("docker-content-digest", named.to_string())
        .with("location", format!("/v2/{name}/blobs/{named}"))
}

fn referrers(state: &State, name: &str, subject: &str, wanted: Option<String>) -> Answer {
    let mut found = std::collections::BTreeMap::new();
    for (media_type, bytes) in repository(state, name)
        .into_iter()
        .flat_map(|r| r.manifests.values())
    {
        let document: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
        if document["subject"]["digest"].as_str() != Some(subject) {
            continue;
        }
        let kind = document["artifactType"]
            .as_str()
            .or(document["config"]["mediaType"].as_str())
            .unwrap_or("");
        if wanted.as_deref().is_none_or(|wanted| wanted == kind) {
            let digest = Digest::of(bytes).to_string();
            let entry = serde_json::json!({
                "mediaType": media_type, "digest": digest, "size": bytes.len(), "artifactType": kind,
            });
            found.insert(digest, entry);
        }
    }
    let manifests: Vec<_> = found.into_values().collect();
    let list = serde_json::json!({"schemaVersion": 2, "mediaType": oci::media_type::OCI_INDEX, "manifests": manifests});
    Answer {
        body: list.to_string().into(),
        ..Answer::new(200)
    }
    .with("content-type", oci::media_type::OCI_INDEX)
}
