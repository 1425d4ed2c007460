//! Reading blobs: a [`content::Provider`] that takes a broken connection up
//! again where it broke, and asks again when the registry stumbles.

use std::collections::VecDeque;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use content::{ByteStream, Provider};
use futures::StreamExt;
use futures::stream::BoxStream;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, RANGE};
use http::{Method, StatusCode};
use oci::{Descriptor, media_type};
use stdx::Kind;

use crate::challenge::Scopes;
use crate::endpoint::Permit;
use crate::error::{Error, Result};
use crate::http_client::{self, Answer};
use crate::line::{Line, Request, To};
use crate::repository::{Repository, inline};

/// The errors of a registry among those of other places.
impl From<Error> for content::Error {
    fn from(error: Error) -> content::Error {
        match error {
            Error::Corrupt {
                expected, received, ..
            } => content::Error::Corrupt {
                expected,
                found: received,
            },
            other => content::Error::place(other.to_string(), other.kind(), other),
        }
    }
}

/// `NotFound` in the words of [`content`], so that another place is asked.
fn for_blob(blob: &Descriptor, error: Error) -> content::Error {
    match error.kind() {
        Kind::NotFound => content::Error::NotFound(blob.digest),
        _ => content::Error::from(error).after_retries(),
    }
}

#[async_trait]
impl Provider for Repository {
    async fn size(&self, blob: &Descriptor) -> content::Result<u64> {
        if let Some(bytes) = inline(blob) {
            return Ok(bytes.len() as u64);
        }
        let head = self.at_some(|line| async move {
            line.send(&self.blob_request(&line, blob, Method::HEAD))
                .await
        });
        let head = head.await.map_err(|error| for_blob(blob, error))?;
        let length = head
            .headers()
            .get(CONTENT_LENGTH)
            .and_then(|v| v.to_str().ok()?.parse().ok());
        Ok(length.unwrap_or(blob.size))
    }

    async fn read(&self, blob: &Descriptor, offset: u64) -> content::Result<ByteStream> {
        if let Some(bytes) = inline(blob) {
            let rest = bytes.slice((offset as usize).min(bytes.len())..);
            return Ok(Box::pin(futures::stream::iter([Ok(rest)])));
        }
        let mut reading = Reading {
            repository: self.clone(),
            blob: blob.clone(),
            offset,
            delays: self.writer.retry_delays.iter().copied().collect(),
            since_fault: 0,
            open: None,
        };
        reading
            .open()
            .await
            .map_err(|error| for_blob(blob, error))?;
        let stream = futures::stream::try_unfold(reading, |mut reading| async move {
            let piece = reading
                .next()
                .await
                .map_err(|error| for_blob(&reading.blob, error))?;
            Ok(piece.map(|piece| (piece, reading)))
        });
        Ok(Box::pin(stream))
    }
}

impl Repository {
    fn blob_request(&self, line: &Line, blob: &Descriptor, method: Method) -> Request {
        let document =
            media_type::is_manifest(&blob.media_type) || media_type::is_index(&blob.media_type);
        let (folder, accept) = match document {
            true => ("manifests", format!("{}, */*;q=0.1", blob.media_type)),
            false => ("blobs", "*/*".to_owned()),
        };
        let path = format!("/{}/{folder}/{}", self.path(), blob.digest);
        let what = format!("{}@{}", self.name(), blob.digest);
        let request = Request::new(method, path, Scopes::pull(self.path()), what);
        self.namespaced(line, request)
            .header(ACCEPT, &accept)
            .header(ACCEPT_ENCODING, "identity")
    }
}

/// So many bytes without a fault give all tries back: a connection that breaks once a minute should
/// not fail a download of an hour, and a place that cuts every answer after a few bytes should not
/// be asked for ever.
const PROGRESS_THAT_FORGIVES: u64 = 1 << 20;

/// A blob on its way.
struct Reading {
    repository: Repository,
    blob: Descriptor,
    /// The next byte to hand out.
    offset: u64,
    /// Waits that are left; refilled after [`PROGRESS_THAT_FORGIVES`].
    delays: VecDeque<Duration>,
    /// Bytes that came since the connection broke last.
    since_fault: u64,
    open: Option<Open>,
}

struct Open {
    body: BoxStream<'static, Result<Bytes>>,
    /// Bytes to throw away, when the place does not know `Range`.
    skip: u64,
    stall: Duration,
    host: String,
    _turn: Permit,
}

impl Reading {
    /// The next piece, however often the connection breaks before it.
    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if self.open.is_none() {
                self.open().await?;
            }
            match self.piece().await {
                Ok(piece) => return Ok(piece),
                Err(error) if error.retryable() => {
                    self.open = None;
                    if std::mem::take(&mut self.since_fault) >= PROGRESS_THAT_FORGIVES {
                        let delays = self.repository.writer.retry_delays.iter();
                        self.delays = delays.copied().collect();
                    }
                    let Some(delay) = self.delays.pop_front() else {
                        return Err(error);
                    };
                    tracing::debug!(blob = %self.blob.digest, offset = self.offset, %error, "taking it up again");
                    http_client::pause(delay, None).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The next piece of the open connection.
    async fn piece(&mut self) -> Result<Option<Bytes>> {
        let open = self.open.as_mut().expect("opened by the caller");
        loop {
            let next = tokio::time::timeout(open.stall, open.body.next())
                .await
                .map_err(|_| Error::Broken {
                    host: open.host.clone(),
                    reason: format!("no bytes for {:?}", open.stall),
                })?;
            let Some(piece) = next else {
                let (host, size) = (open.host.clone(), self.blob.size);
                // The digest would notice too, but could not be resumed.
                if self.offset < size {
                    let reason = format!(
                        "{} ended after {} of {size} bytes",
                        self.blob.digest, self.offset
                    );
                    return Err(Error::Broken { host, reason });
                }
                return Ok(None);
            };
            let mut piece = piece?;
            let skipped = open.skip.min(piece.len() as u64);
            open.skip -= skipped;
            let piece = piece.split_off(skipped as usize);
            if piece.is_empty() {
                continue;
            }
            self.offset += piece.len() as u64;
            self.since_fault += piece.len() as u64;
            return Ok(Some(piece));
        }
    }

    async fn open(&mut self) -> Result<()> {
        let (blob, offset) = (self.blob.clone(), self.offset);
        let repository = self.repository.clone();
        let opened = repository
            .at_some(|line| open_at(&repository, line, &blob, offset))
            .await;
        self.open = Some(match opened {
            Err(error) if error.kind() == Kind::NotFound && !blob.urls.is_empty() => {
                elsewhere(&repository, &blob, offset)
                    .await
                    .map_err(|_| error)?
            }
            opened => opened?,
        });
        Ok(())
    }
}

async fn open_at(
    repository: &Repository,
    line: Line,
    blob: &Descriptor,
    offset: u64,
) -> Result<Open> {
    let turn = line.endpoint.limits.read(&blob.media_type).await;
    let request = ranged(repository.blob_request(&line, blob, Method::GET), offset);
    let answer = match line.send(&request).await {
        // All bytes are here already: nothing is behind the last one.
        Err(Error::Status { status: 416, .. }) if offset > 0 && offset == blob.size => None,
        answer => Some(answer?),
    };
    opened(&line, turn, answer, blob, offset)
}

/// Layers that may not be copied name their maker's address.
async fn elsewhere(repository: &Repository, blob: &Descriptor, offset: u64) -> Result<Open> {
    let line = &repository.writer;
    let mut last = Error::absent(blob, &repository.name());
    for address in &blob.urls {
        let Some(url) = reqwest::Url::parse(address)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https"))
        else {
            continue;
        };
        let mut request = Request::new(
            Method::GET,
            String::new(),
            Scopes::default(),
            address.clone(),
        );
        request.to = To::Url(url);
        let turn = line.endpoint.limits.read(&blob.media_type).await;
        match line.send(&ranged(request, offset)).await {
            Ok(answer) => return opened(line, turn, Some(answer), blob, offset),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn ranged(request: Request, offset: u64) -> Request {
    if offset == 0 {
        request
    } else {
        request.header(RANGE, &format!("bytes={offset}-"))
    }
}

fn opened(
    line: &Line,
    turn: Permit,
    answer: Option<Answer>,
    blob: &Descriptor,
    offset: u64,
) -> Result<Open> {
    let host = line.endpoint.host().to_owned();
    let Some(answer) = answer else {
        return Ok(Open {
            body: futures::stream::empty().boxed(),
            skip: 0,
            stall: line.stall,
            host,
            _turn: turn,
        });
    };
    let skip = match answer.status() {
        StatusCode::PARTIAL_CONTENT => {
            let range = answer
                .headers()
                .get(CONTENT_RANGE)
                .and_then(|value| value.to_str().ok())
                .unwrap_or("");
            if !range.starts_with(&format!("bytes {offset}-")) {
                let reason = format!(
                    "asked for bytes from {offset} of {}, got `{range}`",
                    blob.digest
                );
                return Err(Error::Protocol { host, reason });
            }
            0
        }
        _ => offset,
    };
    let name = host.clone();
    let body = answer
        .bytes_stream()
        .map(move |piece| piece.map_err(|error| http_client::failure(&error, &name)));
    Ok(Open {
        body: body.boxed(),
        skip,
        stall: line.stall,
        host,
        _turn: turn,
    })
}
