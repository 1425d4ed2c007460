//! Writing: blobs (skipped when there, mounted from a neighbour repository
//! when that has them, else uploaded in one streamed request) and manifests.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use content::{ByteStream, Sink, Verified};
use futures::{Stream, StreamExt};
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use oci::{Descriptor, Digest, media_type};
use reqwest::Url;
use stdx::Kind;
use tokio::sync::OwnedMutexGuard;

use crate::challenge::Scopes;
use crate::endpoint::Permit;
use crate::error::{Error, Result};
use crate::http_client::Answer;
use crate::line::{Request, To};
use crate::origins::sources;
use crate::repository::{Repository, verify};

/// Pieces smaller than this are put together before they are sent.
const PIECE: usize = 128 << 10;
/// The body of one PATCH, when a host wants uploads in chunks.
const CHUNK: usize = 8 << 20;
/// Manifests are small; a sink gets them as a stream like anything else.
const MAX_MANIFEST: u64 = 8 << 20;

/// What became of a blob that was to be pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It was there.
    Existed,
    /// The registry took it from another repository of its own.
    Mounted,
    /// Its bytes were sent.
    Uploaded,
}

/// How far a push came without sending bytes of a blob.
enum Prepared {
    /// To its end.
    Done(Pushed),
    /// The bytes are to be sent. They can be read once, so this is not repeated here.
    Send(Upload),
}

/// What is needed to send a blob.
struct Upload {
    session: Url,
    /// They have begun to come.
    bytes: ByteStream,
    _turn: Permit,
}

/// Where an upload goes on.
enum Begun {
    /// The registry has the blob now without any bytes from us.
    Mounted,
    /// Send the bytes here.
    Session(Url),
}

impl Repository {
    /// Whether the repository has this blob or manifest.
    pub async fn exists(&self, blob: &Descriptor) -> Result<bool> {
        let folder = if is_document(blob) {
            "manifests"
        } else {
            "blobs"
        };
        let path = format!("/{}/{folder}/{}", self.path(), blob.digest);
        let request = Request::new(
            Method::HEAD,
            path,
            Scopes::push(self.path()),
            self.naming(blob),
        );
        let accept = if is_document(blob) {
            blob.media_type.as_str()
        } else {
            "*/*"
        };
        match self.writer.send(&request.header(ACCEPT, accept)).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == Kind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Puts a blob, by the cheapest way there is: it may be there, or in another repository of the
    /// same registry. `bytes` is polled only when they are to be sent and it is their turn, so that
    /// a stream that opens by then (see [`content::lazy`]) holds nothing while this waits.
    pub async fn push(&self, blob: &Descriptor, bytes: ByteStream) -> Result<Pushed> {
        let _alone = self.alone(blob).await;
        match self.prepare(blob, bytes).await? {
            Prepared::Done(pushed) => Ok(pushed),
            Prepared::Send(upload) => {
                self.upload(blob, upload).await?;
                Ok(Pushed::Uploaded)
            }
        }
    }

    /// Nobody else pushes this blob here meanwhile. Waiting, one may hold no other turn: who has
    /// this one may need it.
    async fn alone(&self, blob: &Descriptor) -> OwnedMutexGuard<()> {
        let uploads = &self.writer.endpoint.uploads;
        uploads.lock((self.path().to_owned(), blob.digest)).await
    }

    /// All that can be repeated, and was when the registry stumbled: up to the point where a
    /// blob's bytes have to be sent.
    async fn prepare(&self, blob: &Descriptor, bytes: ByteStream) -> Result<Prepared> {
        if is_document(blob) {
            let _turn = self.turn(blob).await;
            let bytes = content::collect(bytes, blob, MAX_MANIFEST)
                .await
                .map_err(|error| reading(blob, &error))?;
            self.push_manifest(&blob.digest.to_string(), &blob.media_type, bytes)
                .await?;
            return Ok(Prepared::Done(Pushed::Uploaded));
        }
        if self.exists(blob).await? {
            return Ok(Prepared::Done(Pushed::Existed));
        }
        let mut session = None;
        for from in self.neighbours(blob) {
            match self.begin(blob, Some(&from)).await? {
                Begun::Mounted => return Ok(Prepared::Done(Pushed::Mounted)),
                Begun::Session(url) => session = Some(url),
            }
        }
        let turn = self.turn(blob).await;
        // No session is left to wait, or for nothing, while they are looked for.
        let mut bytes = Box::pin(bytes.peekable());
        if let Some(Err(error)) = bytes.as_mut().peek().await {
            return Err(reading(blob, error));
        }
        let session = match session {
            Some(session) => session,
            None => match self.begin(blob, None).await? {
                Begun::Mounted => return Ok(Prepared::Done(Pushed::Mounted)),
                Begun::Session(url) => url,
            },
        };
        Ok(Prepared::Send(Upload {
            session,
            bytes,
            _turn: turn,
        }))
    }

    async fn turn(&self, blob: &Descriptor) -> Permit {
        self.writer.endpoint.limits.write(&blob.media_type).await
    }

    /// Repositories of this registry the blob was seen in. Three are tried:
    /// each costs a request.
    fn neighbours(&self, blob: &Descriptor) -> Vec<String> {
        let here = sources(blob)
            .into_iter()
            .filter(|(host, path)| host == self.registry() && path != self.path());
        here.map(|(_, path)| path).take(3).collect()
    }

    /// Opens an upload, or has the blob mounted from `from`.
    async fn begin(&self, blob: &Descriptor, from: Option<&str>) -> Result<Begun> {
        let path = format!("/{}/blobs/uploads/", self.path());
        let mut request = Request::new(
            Method::POST,
            path,
            Scopes::push(self.path()),
            self.naming(blob),
        );
        if let Some(from) = from {
            request.scopes = request.scopes.and(from, &["pull"]);
            request.query = vec![
                ("mount", blob.digest.to_string()),
                ("from", from.to_owned()),
            ];
        }
        let answer = match self.writer.send(&request).await {
            // No right to read there, or mounting is not known: the long way then.
            Err(error) if from.is_some() && !error.kind().is_transient() => {
                tracing::debug!(%error, from, "not mounted");
                request.scopes = Scopes::push(self.path());
                request.query.clear();
                self.writer.send(&request).await?
            }
            answer => answer?,
        };
        match answer.status() {
            StatusCode::CREATED if from.is_some() => Ok(Begun::Mounted),
            _ => Ok(Begun::Session(self.writer.location(&answer)?)),
        }
    }

    async fn upload(&self, blob: &Descriptor, upload: Upload) -> Result<()> {
        let stopped: Arc<Mutex<Option<content::Error>>> = Arc::default();
        let (session, verified) = (upload.session, Verified::new(upload.bytes, blob));
        let answer = match self.writer.endpoint.wants_chunks() {
            true => self.upload_in_chunks(blob, session, verified).await,
            false => self.upload_whole(blob, session, verified, &stopped).await,
        };
        // When our own bytes were at fault, the broken connection is only the sign of it.
        if let Some(error) = stopped.lock().expect("not poisoned").take() {
            return Err(match error {
                content::Error::Corrupt { expected, found } => Error::Corrupt {
                    what: format!("push to {}", self.name()),
                    expected,
                    received: found,
                },
                error => reading(blob, &error),
            });
        }
        if let Err(Error::Status { status: 413, .. }) = &answer {
            self.writer.endpoint.set_wants_chunks();
            let reason = "the body is too large for it; the next attempt sends chunks".to_owned();
            return Err(Error::Broken {
                host: self.writer.endpoint.host().into(),
                reason,
            });
        }
        answer.and_then(|answer| self.check_digest(&answer, blob.digest))
    }

    /// One PUT with the whole blob as its body.
    async fn upload_whole(
        &self,
        blob: &Descriptor,
        session: Url,
        bytes: Verified,
        stopped: &Arc<Mutex<Option<content::Error>>>,
    ) -> Result<Answer> {
        let mut headers = octets();
        headers.insert(CONTENT_LENGTH, HeaderValue::from(blob.size));
        let stopped = stopped.clone();
        let body = coalesced(bytes, PIECE).map(move |piece| {
            piece.inspect_err(|error| *stopped.lock().expect("not poisoned") = Some(error.clone()))
        });
        let body = reqwest::Body::wrap_stream(body);
        let url = closing(session, blob.digest);
        self.writer
            .send_stream(
                Method::PUT,
                url,
                headers,
                body,
                &Scopes::push(self.path()),
                &self.naming(blob),
            )
            .await
    }

    /// PATCHes of a few MiB, each sent again if it fails, and a PUT to close.
    async fn upload_in_chunks(
        &self,
        blob: &Descriptor,
        mut session: Url,
        bytes: Verified,
    ) -> Result<Answer> {
        let scopes = Scopes::push(self.path());
        let mut chunks = Box::pin(coalesced(bytes, CHUNK));
        let mut offset = 0;
        while let Some(chunk) = chunks.next().await {
            let mut rest = chunk.map_err(|error| reading(blob, &error))?;
            while !rest.is_empty() {
                let chunk = rest.split_to(rest.len().min(CHUNK));
                let end = offset + chunk.len() as u64;
                let mut request = Request::new(
                    Method::PATCH,
                    String::new(),
                    scopes.clone(),
                    self.naming(blob),
                );
                request.to = To::Url(session);
                request.headers = octets();
                request = request.header(CONTENT_RANGE, &format!("{offset}-{}", end - 1));
                request.body = chunk;
                let answer = self.writer.send(&request).await?;
                session = self.writer.location(&answer)?;
                offset = end;
            }
        }
        let mut request = Request::new(Method::PUT, String::new(), scopes, self.naming(blob));
        request.to = To::Url(closing(session, blob.digest));
        self.writer.send(&request).await
    }

    /// Puts a manifest or index under a tag or its digest.
    pub async fn push_manifest(
        &self,
        reference: &str,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<Descriptor> {
        let (descriptor, _) = self.put_manifest(reference, media_type, bytes).await?;
        Ok(descriptor)
    }

    /// The same; also says whether the registry keeps lists of referrers.
    pub(crate) async fn put_manifest(
        &self,
        reference: &str,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<(Descriptor, bool)> {
        let descriptor = Descriptor::of(media_type, &bytes);
        if let Ok(named) = reference.parse::<Digest>() {
            let named = Descriptor::new(media_type, named, bytes.len() as u64);
            verify(&bytes, &named, || format!("push to {}", self.name()))?;
        }
        let separator = if reference.contains(':') { '@' } else { ':' };
        let what = format!("push {}{separator}{reference}", self.name());
        let path = format!("/{}/manifests/{reference}", self.path());
        let mut request = Request::new(Method::PUT, path, Scopes::push(self.path()), what)
            .header(CONTENT_TYPE, media_type);
        request.body = bytes;
        let answer = self.writer.send(&request).await?;
        if reference.parse::<Digest>().is_err() {
            self.check_digest(&answer, descriptor.digest)?;
        }
        Ok((descriptor, answer.headers().contains_key("oci-subject")))
    }

    /// That the registry keeps what we sent under the name we gave it.
    fn check_digest(&self, answer: &Answer, expected: Digest) -> Result<()> {
        let header = answer.headers().get("docker-content-digest");
        let received: Option<Digest> = header.and_then(|value| value.to_str().ok()?.parse().ok());
        match received {
            Some(received)
                if received != expected && received.algorithm() == expected.algorithm() =>
            {
                Err(Error::Corrupt {
                    what: format!("push to {}", self.name()),
                    expected,
                    received,
                })
            }
            _ => Ok(()),
        }
    }

    fn naming(&self, blob: &Descriptor) -> String {
        format!("push {}@{}", self.name(), blob.digest)
    }
}

fn is_document(blob: &Descriptor) -> bool {
    media_type::is_manifest(&blob.media_type) || media_type::is_index(&blob.media_type)
}

fn octets() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    headers
}

/// The session's address with the digest that closes it.
fn closing(mut session: Url, digest: Digest) -> Url {
    session
        .query_pairs_mut()
        .append_pair("digest", &digest.to_string());
    session
}

fn reading(blob: &Descriptor, error: &content::Error) -> Error {
    Error::Reading {
        blob: blob.digest,
        reason: error.to_string(),
        kind: error.kind(),
    }
}

/// The same bytes in pieces of at least `least` bytes but for the last one:
/// small pieces cost a system call, or a whole request, each.
fn coalesced(
    bytes: impl Stream<Item = content::Result<Bytes>> + Send + Unpin + 'static,
    least: usize,
) -> impl Stream<Item = content::Result<Bytes>> + Send + 'static {
    futures::stream::unfold(Some(bytes), move |bytes| async move {
        let mut bytes = bytes?;
        let mut gathered = BytesMut::new();
        loop {
            match bytes.next().await {
                Some(Ok(piece)) if gathered.is_empty() && piece.len() >= least => {
                    return Some((Ok(piece), Some(bytes)));
                }
                Some(Ok(piece)) => gathered.extend_from_slice(&piece),
                Some(Err(error)) => return Some((Err(error), None)),
                None if gathered.is_empty() => return None,
                None => return Some((Ok(gathered.freeze()), None)),
            }
            if gathered.len() >= least {
                return Some((Ok(gathered.freeze()), Some(bytes)));
            }
        }
    })
}

#[async_trait]
impl Sink for Repository {
    async fn has(&self, blob: &Descriptor) -> content::Result<bool> {
        self.exists(blob)
            .await
            .map_err(|error| content::Error::from(error).after_retries())
    }

    async fn put(&self, blob: &Descriptor, bytes: ByteStream) -> content::Result<()> {
        let _alone = self.alone(blob).await;
        let prepared = self.prepare(blob, bytes).await;
        match prepared.map_err(|error| content::Error::from(error).after_retries())? {
            Prepared::Done(_) => Ok(()),
            Prepared::Send(upload) => Ok(self.upload(blob, upload).await?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn small_pieces_are_put_together() {
        let pieces = [1, 2, 3, 10, 1].map(|n| Ok(Bytes::from(vec![b'x'; n])));
        let sizes: Vec<usize> = coalesced(futures::stream::iter(pieces), 4)
            .map(|piece| piece.unwrap().len())
            .collect()
            .await;
        assert_eq!(sizes, [6, 10, 1]);
    }
}
