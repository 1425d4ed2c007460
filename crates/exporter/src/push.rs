//! An image to a registry: blobs side by side, then documents from the bottom up,
//! the tag last, so that a tag never names something half there (core.md W59, E03).

use bytes::Bytes;
use content::{ByteStream, Provider as _, Sink as _};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use oci::{Descriptor, ImageName, media_type as media};
use progress::StepProgress;
use registry::Repository;

use crate::image::{Context, Written};
use crate::{Error, Result};

/// Blobs pushed at once.
const AT_ONCE: usize = 4;

/// How to push.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PushOptions {
    /// Leave the tag alone.
    pub by_digest: bool,
}

/// Pushes an image under one name to its repository.
pub async fn push(
    written: &Written,
    name: &ImageName,
    repository: &Repository,
    options: PushOptions,
    cx: &Context,
) -> Result<()> {
    let pushed = push_all(written, name, repository, options, cx).await;
    pushed.map_err(|source| Error::Push {
        name: name.to_string(),
        source: Box::new(source),
    })
}

async fn push_all(
    written: &Written,
    name: &ImageName,
    repository: &Repository,
    options: PushOptions,
    cx: &Context,
) -> Result<()> {
    if options.by_digest && name.tag().is_some() {
        return Err(Error::TagByDigest(name.to_string()));
    }
    let status = cx.step.transfer("pushing layers");
    let blobs = written
        .blobs()
        .into_iter()
        .filter(|(shown, _)| is_distributable(shown));
    stream::iter(blobs)
        .map(|(shown, source)| blob(cx, repository, shown, source))
        .buffer_unordered(AT_ONCE)
        .try_collect::<Vec<()>>()
        .await?;
    status.done();
    let status = cx.step.transfer(format!("pushing manifest for {name}"));
    if written.is_index() {
        for manifest in &written.manifests {
            let bytes = written.document(&manifest.descriptor).await?;
            document(repository, &manifest.descriptor, None, bytes).await?;
        }
    }
    let tag = name.tag().filter(|_| !options.by_digest);
    let bytes = written.document(&written.descriptor).await?;
    document(repository, &written.descriptor, tag, bytes).await?;
    status.done();
    Ok(())
}

async fn document(
    repository: &Repository,
    descriptor: &Descriptor,
    tag: Option<&str>,
    bytes: Bytes,
) -> Result<()> {
    let digest = descriptor.digest.to_string();
    let reference = tag.unwrap_or(&digest);
    repository
        .push_manifest(reference, &descriptor.media_type, bytes)
        .await?;
    Ok(())
}

async fn blob(
    cx: &Context,
    repository: &Repository,
    shown: Descriptor,
    source: Descriptor,
) -> Result<()> {
    // The sources say from where it can be mounted; the type shown is what it is.
    let mut blob = source.clone();
    blob.media_type.clone_from(&shown.media_type);
    let (from, to) = (cx.clone(), blob.clone());
    let bytes = content::lazy(async move {
        let bytes = read(&from, &source).await?;
        Ok(counted(bytes, &from.step, &to))
    });
    repository.push(&blob, bytes).await?;
    Ok(())
}

/// The bytes of a blob, from our store or from where it is.
pub(crate) async fn read(cx: &Context, blob: &Descriptor) -> content::Result<ByteStream> {
    let store = cx.refs.store();
    match store.has(blob).await? {
        true => store.read(blob, 0).await,
        false => cx.provider.read(blob, 0).await,
    }
}

fn counted(bytes: ByteStream, step: &StepProgress, blob: &Descriptor) -> ByteStream {
    let (total, mut sent) = (blob.size, 0);
    let status = step.transfer(format!("pushing {}", blob.digest));
    Box::pin(bytes.map(move |chunk| {
        if let Ok(chunk) = &chunk {
            sent += chunk.len() as u64;
            status.set(sent, total);
        }
        chunk
    }))
}

/// Layers that may only be had from their own place are not pushed.
fn is_distributable(blob: &Descriptor) -> bool {
    !blob.media_type.starts_with(media::OCI_LAYER_NONDIST)
        && !blob.media_type.starts_with(media::DOCKER_FOREIGN)
}
