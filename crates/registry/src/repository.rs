//! One repository as one build sees it: what a tag means, and its documents.

use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE};
use oci::{Descriptor, Digest, ImageName, media_type};

use crate::challenge::Scopes;
use crate::error::{Error, Result};
use crate::http_client::{self, Answer};
use crate::line::{Line, Request};

/// Manifests and indexes larger than this are refused: registries themselves
/// take 4 MiB.
const MAX_MANIFEST: usize = 8 << 20;

/// What we can read where a manifest is asked for.
const ACCEPTED: &[&str] = &[
    media_type::DOCKER_MANIFEST,
    media_type::DOCKER_LIST,
    media_type::OCI_MANIFEST,
    media_type::OCI_INDEX,
    // Schema 1 is asked for so that it can be refused by its name.
    "application/vnd.docker.distribution.manifest.v1+prettyjws;q=0.1",
    "*/*;q=0.1",
];

/// One repository with the credentials of one build. Cheap to clone.
#[derive(Clone)]
pub struct Repository {
    registry: Arc<str>,
    path: Arc<str>,
    /// Where to read: mirrors first.
    pub(crate) readers: Arc<[Line]>,
    /// Where to write: the one host itself.
    pub(crate) writer: Line,
}

impl Repository {
    pub(crate) fn new(
        registry: &str,
        path: &str,
        readers: Arc<[Line]>,
        writers: Arc<[Line]>,
    ) -> Repository {
        let writer = writers
            .last()
            .expect("the host itself is always there")
            .clone();
        Repository {
            registry: registry.into(),
            path: path.into(),
            readers,
            writer,
        }
    }

    /// The registry's name, like `docker.io`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path in the registry, like `library/alpine`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Both, as in messages.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.path)
    }

    /// What `name`'s digest, else its tag, else `latest` stands for now.
    pub async fn resolve(&self, name: &ImageName) -> Result<Descriptor> {
        match name.digest() {
            Some(digest) => self.resolve_reference(&digest.to_string()).await,
            None => self.resolve_reference(name.tag().unwrap_or("latest")).await,
        }
    }

    /// What a tag or digest stands for: media type, digest, size. Asks with
    /// HEAD, which registries do not count, and with GET when the answer to
    /// that lacks something.
    pub async fn resolve_reference(&self, reference: &str) -> Result<Descriptor> {
        let pinned: Option<Digest> = reference.parse().ok();
        self.at_some(|line| async move {
            let head = self.ask(&line, Method::HEAD, reference).await?;
            let described = describe(&head);
            let found = match described {
                Some(found) => found,
                None => {
                    let answer = self.ask(&line, Method::GET, reference).await?;
                    let media_type = content_type(&answer).unwrap_or_default();
                    let bytes =
                        http_client::whole(answer, MAX_MANIFEST, line.endpoint.host()).await?;
                    Descriptor::of(own_media_type(&media_type, &bytes), &bytes)
                }
            };
            match pinned {
                Some(expected) if expected != found.digest => Err(Error::Corrupt {
                    what: format!("resolve {}@{expected}", self.name()),
                    expected,
                    received: found.digest,
                }),
                _ => Ok(found),
            }
        })
        .await
    }

    /// The bytes of a manifest or index, verified.
    pub async fn manifest(&self, manifest: &Descriptor) -> Result<Bytes> {
        if let Some(bytes) = inline(manifest) {
            return Ok(bytes);
        }
        self.at_some(|line| async move {
            let _permit = line.endpoint.limits.read(media_type::OCI_MANIFEST).await;
            let answer = self
                .ask(&line, Method::GET, &manifest.digest.to_string())
                .await?;
            let bytes = http_client::whole(answer, MAX_MANIFEST, line.endpoint.host()).await?;
            verify(&bytes, manifest, || format!("manifest of {}", self.name()))?;
            Ok(bytes)
        })
        .await
    }

    async fn ask(&self, line: &Line, method: Method, reference: &str) -> Result<Answer> {
        let separator = if reference.contains(':') { '@' } else { ':' };
        let what = format!("{}{separator}{reference}", self.name());
        let path = format!("/{}/manifests/{reference}", self.path);
        let request = self.namespaced(
            line,
            Request::new(method, path, Scopes::pull(&self.path), what),
        );
        line.send(&request.header(ACCEPT, &ACCEPTED.join(", ")))
            .await
    }

    /// Tells a mirror which registry it stands for.
    pub(crate) fn namespaced(&self, line: &Line, mut request: Request) -> Request {
        if line.endpoint.place.mirror {
            request.query.push(("ns", self.registry.to_string()));
        }
        request
    }

    /// Asks each place in turn. A mirror's failure is no failure; the host
    /// itself has the last word.
    pub(crate) async fn at_some<T, F: Future<Output = Result<T>>>(
        &self,
        ask: impl Fn(Line) -> F,
    ) -> Result<T> {
        let (own, mirrors) = self
            .readers
            .split_last()
            .expect("the host itself is always there");
        for mirror in mirrors
            .iter()
            .filter(|mirror| !mirror.endpoint.is_shunned())
        {
            match ask(mirror.clone()).await {
                Ok(found) => return Ok(found),
                Err(error) => {
                    tracing::debug!(mirror = mirror.endpoint.host(), %error, "mirror passed over");
                    if matches!(error, Error::Unreachable { .. } | Error::Broken { .. }) {
                        mirror.endpoint.shun();
                    }
                }
            }
        }
        ask(own.clone()).await
    }
}

/// What the headers of an answer say about a manifest, if they say it all.
fn describe(answer: &Answer) -> Option<Descriptor> {
    let header = |name: &str| answer.headers().get(name)?.to_str().ok();
    let digest: Digest = header("docker-content-digest")?.parse().ok()?;
    let size: u64 = header(CONTENT_LENGTH.as_str())?.parse().ok()?;
    let media_type = content_type(answer)?;
    (size > 0 && media_type != "application/json" && !media_type.starts_with("text/"))
        .then(|| Descriptor::new(media_type, digest, size))
}

fn content_type(answer: &Answer) -> Option<String> {
    let value = answer.headers().get(CONTENT_TYPE)?.to_str().ok()?;
    Some(
        value
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_owned(),
    )
}

/// A document's own `mediaType` is surer than a header some proxy wrote.
fn own_media_type(header: &str, bytes: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Document {
        #[serde(default)]
        media_type: String,
        #[serde(default)]
        schema_version: u32,
        manifests: Option<serde::de::IgnoredAny>,
    }
    match serde_json::from_slice::<Document>(bytes) {
        Ok(document) if !document.media_type.is_empty() => document.media_type,
        Ok(document) if document.schema_version == 1 => media_type::DOCKER_SCHEMA1_SIGNED.into(),
        _ if media_type::is_manifest(header) || media_type::is_index(header) => header.into(),
        Ok(document) if document.manifests.is_some() => media_type::OCI_INDEX.into(),
        Ok(document) if document.schema_version == 2 => media_type::OCI_MANIFEST.into(),
        _ => header.into(),
    }
}

/// The bytes a descriptor carries itself, if they are the right ones.
pub(crate) fn inline(blob: &Descriptor) -> Option<Bytes> {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(blob.data.as_ref()?)
        .ok()?;
    let same = bytes.len() as u64 == blob.size && digest_of(&bytes, blob) == blob.digest;
    same.then(|| bytes.into())
}

fn digest_of(bytes: &[u8], blob: &Descriptor) -> Digest {
    let mut hasher = blob.digest.algorithm().hasher();
    hasher.update(bytes);
    hasher.finish()
}

/// That `bytes` are what `blob` names. A size of zero means it is not known.
pub(crate) fn verify(bytes: &[u8], blob: &Descriptor, what: impl FnOnce() -> String) -> Result<()> {
    let received = digest_of(bytes, blob);
    if received == blob.digest && (blob.size == 0 || blob.size == bytes.len() as u64) {
        return Ok(());
    }
    Err(Error::Corrupt {
        what: what(),
        expected: blob.digest,
        received,
    })
}
