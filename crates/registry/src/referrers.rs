//! What refers to an image: signatures, SBOMs, provenance (distribution-spec
//! 1.1, "Listing Referrers" and "Referrers Tag Schema").

use std::collections::BTreeMap;

use bytes::Bytes;
use http::Method;
use http::header::ACCEPT;
use oci::{Descriptor, Digest, media_type};
use serde::{Deserialize, Serialize};
use stdx::Kind;

use crate::challenge::Scopes;
use crate::error::{Error, Result};
use crate::http_client;
use crate::line::Request;
use crate::repository::Repository;

/// A list of referrers is an index of at most this many bytes.
const MAX_LIST: usize = 8 << 20;
/// How many pages of a list are read.
const MAX_PAGES: usize = 100;

/// An index as far as lists of referrers need one.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct List {
    schema_version: u32,
    media_type: String,
    manifests: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

impl Repository {
    /// The manifests whose `subject` is `subject`, of one artifact type if one
    /// is given. Registries without the API are asked for the fallback tag.
    pub async fn referrers(
        &self,
        subject: Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Descriptor>> {
        let mut found = match self.referrers_by_api(subject, artifact_type).await {
            Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Unsupported) => self
                .fallback_list(subject)
                .await?
                .map(|list| list.manifests)
                .unwrap_or_default(),
            found => found?,
        };
        // A registry may ignore the filter, and then does not say it applied it.
        if let Some(wanted) = artifact_type {
            found.retain(|one| one.artifact_type.as_deref() == Some(wanted));
        }
        Ok(found)
    }

    async fn referrers_by_api(
        &self,
        subject: Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Descriptor>> {
        let line = &self.writer;
        let mut found = Vec::new();
        let path = format!("/{}/referrers/{subject}", self.path());
        let what = format!("referrers of {}@{subject}", self.name());
        let mut request = Request::new(Method::GET, path, Scopes::pull(self.path()), what)
            .header(ACCEPT, media_type::OCI_INDEX);
        if let Some(wanted) = artifact_type {
            request.query.push(("artifactType", wanted.to_owned()));
        }
        for _ in 0..MAX_PAGES {
            let answer = line.send(&request).await?;
            let next = next_page(&answer);
            let bytes = http_client::whole(answer, MAX_LIST, line.endpoint.host()).await?;
            found.extend(self.parse_list(&bytes)?.manifests);
            match next {
                Some(url) => request.to = crate::line::To::Url(url),
                None => break,
            }
        }
        Ok(found)
    }

    fn parse_list(&self, bytes: &[u8]) -> Result<List> {
        serde_json::from_slice(bytes).map_err(|error| Error::Protocol {
            host: self.writer.endpoint.host().into(),
            reason: format!("list of referrers: {error}"),
        })
    }

    async fn fallback_list(&self, subject: Digest) -> Result<Option<List>> {
        let found = match self.resolve_reference(&fallback_tag(subject)).await {
            Err(error) if error.kind() == Kind::NotFound => return Ok(None),
            found => found?,
        };
        let bytes = self.manifest(&found).await?;
        self.parse_list(&bytes).map(Some)
    }

    /// Puts a manifest that has a `subject` under its digest, and makes it
    /// findable: by the registry itself, or by the fallback tag.
    pub async fn push_referrer(
        &self,
        subject: Digest,
        media_type: &str,
        artifact_type: Option<&str>,
        annotations: &BTreeMap<String, String>,
        bytes: Bytes,
    ) -> Result<Descriptor> {
        let digest = Digest::of(&bytes).to_string();
        let (mut pushed, listed) = self.put_manifest(&digest, media_type, bytes).await?;
        pushed.artifact_type = artifact_type.map(str::to_owned);
        pushed.annotations = annotations.clone();
        if !listed {
            self.list_by_tag(subject, pushed.clone()).await?;
        }
        Ok(pushed)
    }

    async fn list_by_tag(&self, subject: Digest, referrer: Descriptor) -> Result<()> {
        let mut list = self.fallback_list(subject).await?.unwrap_or(List {
            schema_version: 2,
            media_type: media_type::OCI_INDEX.into(),
            manifests: Vec::new(),
            annotations: BTreeMap::new(),
        });
        if list
            .manifests
            .iter()
            .any(|one| one.digest == referrer.digest)
        {
            return Ok(());
        }
        list.manifests.push(referrer);
        let bytes = serde_json::to_vec(&list).expect("strings and numbers");
        self.put_manifest(&fallback_tag(subject), media_type::OCI_INDEX, bytes.into())
            .await?;
        Ok(())
    }
}

/// `sha256-…`, cut to what a tag may hold.
fn fallback_tag(subject: Digest) -> String {
    let mut tag = format!("{}-{}", subject.algorithm().name(), subject.hex());
    tag.truncate(128);
    tag
}

/// The `Link: <…>; rel="next"` of an answer, on the same host only.
fn next_page(answer: &http_client::Answer) -> Option<reqwest::Url> {
    let link = answer.headers().get(http::header::LINK)?.to_str().ok()?;
    let (address, rest) = link.trim().strip_prefix('<')?.split_once('>')?;
    let next = answer.url().join(address).ok()?;
    (rest.contains("next") && next.origin() == answer.url().origin()).then_some(next)
}
