//! One blob of a repository or layout as a file (S13).

use std::sync::Arc;

use bytes::Bytes;
use content::Provider;
use futures::StreamExt;
use futures::stream::BoxStream;
use oci::{Descriptor, Digest};
use refs::{RecordMeta, Ref};
use serde::Serialize;

use crate::context::{Context, Sources};
use crate::error::Result;
use crate::file;
use crate::identifier::{BlobId, BlobPlace};
use crate::source::Key;
use oci::go_json;

/// One blob as a file.
#[derive(Clone)]
pub struct Blob {
    sources: Sources,
    id: Arc<BlobId>,
}

impl Blob {
    /// The blob `id` names.
    pub fn new(sources: &Sources, id: BlobId) -> Blob {
        Blob {
            sources: sources.clone(),
            id: Arc::new(id),
        }
    }

    /// Its key: the blob and the file it becomes. Asks nobody.
    pub fn cache_key(&self) -> Key {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Preimage<'a> {
            digest: &'a Digest,
            filename: &'a str,
            perm: u32,
            #[serde(rename = "UID")]
            uid: u32,
            #[serde(rename = "GID")]
            gid: u32,
        }
        let file = &self.id.file;
        let preimage = Preimage {
            digest: &self.id.digest,
            filename: &file.filename,
            perm: file.mode,
            uid: file.uid,
            gid: file.gid,
        };
        Key {
            text: go_json::digest(&preimage).to_string(),
            pin: self.id.digest.to_string(),
            last: true,
        }
    }

    /// The blob as a file, verified.
    pub async fn fetch(&self, cx: &Context) -> Result<Ref> {
        let id = &self.id;
        let parts = self.sources.parts();
        let transfer = cx.step.transfer(format!("blob {}", id.digest));
        let (bytes, size) = open(&self.sources, &id.place, id.digest, cx).await?;
        let name = match id.file.filename.as_str() {
            "" => id.digest.hex(),
            given => file::safe_name(given),
        };
        let meta = RecordMeta {
            description: format!("blob {}", id.digest),
            record_type: id.record_type,
        };
        let (kept, _) = file::keep(
            &parts.refs,
            meta,
            &name,
            &id.file,
            0,
            bytes,
            (&transfer, size),
        )
        .await?;
        transfer.done();
        Ok(kept)
    }
}

/// The bytes of a blob, verified as they come, and how many they are.
pub(crate) async fn open(
    sources: &Sources,
    place: &BlobPlace,
    digest: Digest,
    cx: &Context,
) -> Result<(BoxStream<'static, Result<Bytes>>, u64)> {
    let provider: Box<dyn Provider> = match place {
        BlobPlace::Registry(name) => Box::new(
            sources
                .parts()
                .registry
                .repository(name, cx.credentials.clone()),
        ),
        BlobPlace::Layout { session, store } => Box::new(
            cx.session(session)
                .await?
                .content()?
                .store(&format!("oci:{store}")),
        ),
    };
    let mut blob = Descriptor::new("application/octet-stream", digest, 0);
    blob.size = provider.size(&blob).await?;
    let bytes = content::Verified::new(provider.read(&blob, 0).await?, &blob);
    Ok((bytes.map(|piece| Ok(piece?)).boxed(), blob.size))
}
