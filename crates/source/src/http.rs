//! Downloads (S17, S18): fetched at most once while the server says that
//! nothing changed.

mod checksum;
mod gzip;
mod key;
mod request;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use llb::facts::{ChecksumQuestion, DownloadFacts};
use oci::Digest;
use refs::{RecordMeta, Ref};
use reqwest::header::{HeaderMap, IF_NONE_MATCH};
use reqwest::{Method, StatusCode};

use crate::context::{Context, Sources};
use crate::error::{Error, Result};
use crate::file;
use crate::identifier::HttpId;
use crate::source::Key;

pub(crate) use request::Web;
use request::{Reply, header, modified, redacted};

/// Waits between attempts.
const RETRIES: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];
/// So many ETags are offered to a server.
const MAX_ETAGS: usize = 8;

/// A download.
#[derive(Clone)]
pub struct Http {
    sources: Sources,
    id: Arc<HttpId>,
}

/// What an address stands for now.
#[derive(Clone)]
struct Resolved {
    digest: Digest,
    filename: String,
    /// The `Last-Modified` header, if it can be read.
    modified: Option<String>,
    /// The file.
    kept: Ref,
}

/// A download of an earlier build.
struct Earlier {
    etag: String,
    digest: Digest,
    modified: Option<String>,
    kept: Ref,
}

impl Http {
    /// The download `id` names.
    pub fn new(sources: &Sources, id: HttpId) -> Http {
        Http {
            sources: sources.clone(),
            id: Arc::new(id),
        }
    }

    /// Its key: the content, and the file it becomes. Without a checksum the
    /// content is fetched, unless the server says it is what we have. A
    /// signature is checked first; it does not enter the key.
    pub async fn cache_key(&self, cx: &Context) -> Result<Key> {
        self.check_signature(cx).await?;
        let (digest, filename, modified) = match self.id.checksum {
            Some(digest) => (digest, self.filename(&HeaderMap::new()), None),
            None => {
                let found = self.resolved(cx).await?;
                (found.digest, found.filename, found.modified)
            }
        };
        let text = key::of(&self.id, &filename, &digest, modified.as_deref()).to_string();
        Ok(Key {
            text,
            pin: digest.to_string(),
            last: true,
        })
    }

    /// The file.
    pub async fn fetch(&self, cx: &Context) -> Result<Ref> {
        self.check_signature(cx).await?;
        Ok(self.resolved(cx).await?.kept)
    }

    /// What is known of it: its content is downloaded, unless a checksum says what it is. With a
    /// question about the content it is hashed once more. A signature that is missing is an error
    /// here as well.
    pub async fn facts(
        &self,
        question: Option<&ChecksumQuestion>,
        cx: &Context,
    ) -> Result<DownloadFacts> {
        self.check_signature(cx).await?;
        if let (None, Some(digest)) = (question, self.id.checksum) {
            return Ok(DownloadFacts {
                digest,
                filename: self.filename(&HeaderMap::new()),
                modified: None,
                checksum: None,
            });
        }
        let found = self.resolved(cx).await?;
        let checksum = match question {
            None => None,
            Some(question) => {
                let nowhere = content::Memory::default();
                let tree = found.kept.tree(&nowhere, &cx.step).await?;
                let (question, url) = (question.clone(), redacted(&self.id.url));
                let digest = stdx::task::blocking(move || {
                    let digest = only_file(tree.root())
                        .and_then(|file| checksum::of(file, &question))
                        .map_err(Error::io(format!("reading {url}")))?;
                    Ok::<_, Error>((digest, question.suffix))
                });
                Some(digest.await?)
            }
        };
        let modified = found
            .modified
            .as_deref()
            .and_then(|text| modified(text.to_owned()));
        Ok(DownloadFacts {
            digest: found.digest,
            filename: found.filename,
            modified: modified.map(|(_, seconds)| seconds),
            checksum,
        })
    }

    /// That the content has the signature it must have, which is found out once in a build.
    async fn check_signature(&self, cx: &Context) -> Result<()> {
        let Some(wanted) = &self.id.signature else {
            return Ok(());
        };
        let found = self.resolved(cx).await?;
        // All that the answer rests on.
        let parts = [&wanted.keys, &wanted.signature].map(|part| Digest::of(part).to_string());
        let question = format!("http signature {} {}", found.digest, parts.concat());
        let check = self.check_content(&found, cx);
        cx.resolutions.get_or(question, check).await
    }

    /// The same, for what is here, which is read whole.
    async fn check_content(&self, found: &Resolved, cx: &Context) -> Result<()> {
        let nowhere = content::Memory::default();
        let tree = found.kept.tree(&nowhere, &cx.step).await?;
        let id = Arc::clone(&self.id);
        stdx::task::blocking(move || {
            let Some(wanted) = &id.signature else {
                return Ok(());
            };
            let url = redacted(&id.url);
            let file = only_file(tree.root()).map_err(Error::io(format!("reading {url}")))?;
            let policy = verify::Policy {
                reject_expired: false,
                now: crate::source::now(),
            };
            let (signature, keys) = (wanted.signature.as_bytes(), wanted.keys.as_bytes());
            verify::detached(signature, keys, policy, file)
                .map_err(|source| Error::HttpSignature { url, source })
        })
        .await
    }

    async fn resolved(&self, cx: &Context) -> Result<Resolved> {
        let request = key::request(&self.id).to_string();
        let found = cx
            .resolutions
            .get_or(format!("http {request}"), self.resolve(&request, cx))
            .await?;
        match self.id.checksum {
            Some(expected) if expected != found.digest => Err(Error::HttpChecksum {
                url: redacted(&self.id.url),
                expected,
                found: found.digest,
            }),
            _ => Ok(found),
        }
    }

    async fn resolve(&self, request: &str, cx: &Context) -> Result<Resolved> {
        let earlier = self.earlier(request)?;
        let headers = request::headers(&self.id, cx).await?;
        if !earlier.is_empty() {
            // Some servers know no If-None-Match but do tell the ETag, so HEAD comes first.
            if let Some(same) = self.unchanged(&earlier, &headers, cx).await {
                return Ok(same);
            }
        }
        let mut delays = RETRIES.iter();
        loop {
            let error = match self.download(request, &earlier, &headers, cx).await {
                Err(error) if error.kind().is_transient() => error,
                done => return done,
            };
            let Some(delay) = delays.next() else {
                return Err(error);
            };
            tracing::debug!(%error, "downloading again");
            tokio::time::sleep(*delay).await;
        }
    }

    async fn unchanged(
        &self,
        earlier: &[Earlier],
        headers: &HeaderMap,
        cx: &Context,
    ) -> Option<Resolved> {
        let mut headers = headers.clone();
        headers.insert(IF_NONE_MATCH, etags(earlier)?);
        let reply = self.send(Method::HEAD, headers, cx).await.ok()?;
        match reply.status {
            StatusCode::OK | StatusCode::NOT_MODIFIED => self.same(earlier, &reply),
            _ => None,
        }
    }

    /// Which of the earlier downloads the reply is about.
    fn same(&self, earlier: &[Earlier], reply: &Reply) -> Option<Resolved> {
        let told = header(&reply.headers, "etag").map(strong);
        let found = match (told, earlier) {
            (Some(told), _) => earlier.iter().find(|one| one.etag == told)?,
            // A server that answers 304 to a single ETag need not repeat it.
            (None, [only]) if reply.status == StatusCode::NOT_MODIFIED => only,
            _ => return None,
        };
        Some(Resolved {
            digest: found.digest,
            filename: self.filename(&reply.headers),
            modified: found.modified.clone(),
            kept: found.kept.clone(),
        })
    }

    async fn download(
        &self,
        request: &str,
        earlier: &[Earlier],
        headers: &HeaderMap,
        cx: &Context,
    ) -> Result<Resolved> {
        let mut headers = headers.clone();
        if let Some(etags) = etags(earlier) {
            headers.insert(IF_NONE_MATCH, etags);
        }
        let url = redacted(&self.id.url);
        let reply = self.send(Method::GET, headers, cx).await?;
        if reply.status == StatusCode::NOT_MODIFIED {
            return self.same(earlier, &reply).ok_or_else(|| Error::Http {
                url,
                reason: "invalid not-modified ETag".into(),
                status: Some(304),
            });
        }
        if !reply.status.is_success() {
            let status = reply.status.as_u16();
            return Err(Error::Http {
                url,
                reason: format!("invalid response status {status}"),
                status: Some(status),
            });
        }
        let filename = self.filename(&reply.headers);
        let changed = header(&reply.headers, "last-modified").and_then(modified);
        let transfer = cx.step.transfer(format!("downloading {url}"));
        let packed = header(&reply.headers, "content-encoding")
            .is_some_and(|encoding| encoding.eq_ignore_ascii_case("gzip"));
        let (body, total) = match packed {
            // The length is that of the packed bytes.
            true => (gzip::unpacked(reply.body, url.clone()), 0),
            false => {
                let length = header(&reply.headers, "content-length");
                let length = length.and_then(|text| text.parse().ok());
                (reply.body, length.unwrap_or(0))
            }
        };
        let etag = header(&reply.headers, "etag").map(strong);
        let meta = RecordMeta::new(format!("http url {url}"));
        let refs = &self.sources.parts().refs;
        let time = changed.as_ref().map_or(0, |(_, seconds)| *seconds);
        let (kept, digest) = file::keep(
            refs,
            meta,
            &filename,
            &self.id.file,
            time,
            body,
            (&transfer, total),
        )
        .await?;
        transfer.done();
        let modified = changed.map(|(text, _)| text);
        if let Some(etag) = etag {
            let sql = "INSERT OR REPLACE INTO source_downloads VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
            let row = (
                request,
                &etag,
                digest.to_string(),
                &filename,
                modified.clone().unwrap_or_default(),
                kept.id(),
            );
            self.sources.parts().db.write(|tx| tx.execute(sql, row))?;
        }
        Ok(Resolved {
            digest,
            filename,
            modified,
            kept,
        })
    }

    /// Downloads of this request whose files are still here, newest first.
    fn earlier(&self, request: &str) -> Result<Vec<Earlier>> {
        let parts = self.sources.parts();
        let sql = "SELECT etag, digest, modified, ref FROM source_downloads WHERE request = ?1 ORDER BY rowid DESC";
        let rows = parts.db.read(|tx| {
            tx.rows(sql, [request], |row| {
                let text = |at| row.get::<_, String>(at);
                Ok((text(0)?, text(1)?, text(2)?, text(3)?))
            })
        })?;
        let mut found = Vec::new();
        for (etag, digest, modified, id) in rows {
            match (digest.parse(), parts.refs.get(&id)?) {
                (Ok(digest), Some(kept)) if found.len() < MAX_ETAGS => {
                    let modified = Some(modified).filter(|modified| !modified.is_empty());
                    found.push(Earlier {
                        etag,
                        digest,
                        modified,
                        kept,
                    });
                }
                (Ok(_), Some(_)) => {}
                _ => {
                    let sql = "DELETE FROM source_downloads WHERE request = ?1 AND etag = ?2";
                    parts
                        .db
                        .write(|tx| tx.execute(sql, [request, etag.as_str()]))?;
                }
            }
        }
        Ok(found)
    }

    async fn send(&self, method: Method, headers: HeaderMap, cx: &Context) -> Result<Reply> {
        let url = reqwest::Url::parse(&self.id.url).map_err(|error| Error::Http {
            url: redacted(&self.id.url),
            reason: error.to_string(),
            status: Some(400),
        })?;
        if url.host_str() == Some("buildkit-session") {
            return upload(&url, method, cx).await;
        }
        self.sources.0.web.send(method, url, headers).await
    }

    /// The file's name: as asked for, as the server says, or from the address.
    fn filename(&self, headers: &HeaderMap) -> String {
        if !self.id.file.filename.is_empty() {
            return file::safe_name(&self.id.file.filename);
        }
        if let Some(name) =
            header(headers, "content-disposition").and_then(|text| request::disposition(&text))
        {
            return file::safe_name(&name);
        }
        let url = reqwest::Url::parse(&self.id.url).ok();
        let path = url.as_ref().map_or("", |url| url.path());
        file::safe_name(&request::unescaped(path))
    }
}

/// The file of a download. It has the name it was downloaded under, which the server may say
/// otherwise by now.
fn only_file(root: &stdx::sys::Root) -> std::io::Result<std::fs::File> {
    match root.read_dir(".")?.as_slice() {
        [only] => root.open_file(&only.name),
        _ => Err(std::io::Error::other("it is not one file")),
    }
}

/// A file the client offers under a one-time address (S18).
async fn upload(url: &reqwest::Url, method: Method, cx: &Context) -> Result<Reply> {
    if method != Method::GET {
        let reason = "uploads can only be read".to_owned();
        return Err(Error::Http {
            url: url.to_string(),
            reason,
            status: Some(405),
        });
    }
    let path = url.path();
    let bytes = cx
        .group
        .any(&cx.sessions, |session| async move {
            session.upload()?.pull("buildkit-session", path).await
        })
        .await?;
    let body: BoxStream<'static, Result<Bytes>> = bytes.map_err(Error::from).boxed();
    Ok(Reply {
        status: StatusCode::OK,
        headers: HeaderMap::new(),
        body,
    })
}

/// An ETag without the mark that it is weak.
fn strong(etag: String) -> String {
    etag.strip_prefix("W/").map_or(etag.clone(), str::to_owned)
}

fn etags(earlier: &[Earlier]) -> Option<reqwest::header::HeaderValue> {
    let all: Vec<&str> = earlier.iter().map(|one| one.etag.as_str()).collect();
    if all.is_empty() {
        None
    } else {
        all.join(", ").parse().ok()
    }
}
