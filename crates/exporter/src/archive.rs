//! An image as one tar: an OCI layout, or what `docker load` takes. Written in one
//! pass, nothing is staged on disk (core.md W63).

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use layer::tar::{Entry, Kind, Writer as TarWriter};
use oci::{Descriptor, ImageName, go_json};
use tokio::sync::mpsc;

use crate::image::{Context, Written};
use crate::push::read;
use crate::{Error, Result, Stamp, document};

/// Who the archive is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// An OCI image layout.
    Oci,
    /// The same, with the file `docker load` looks for. One platform only.
    Docker,
}

/// Bytes of an archive as they are made.
pub type Bytestream = BoxStream<'static, Result<Bytes>>;

/// A file of the archive.
enum File {
    Document(Bytes),
    Blob(Box<Descriptor>),
}

/// Pieces that may wait for a slow reader.
const WAITING: usize = 8;
const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// Writes the archive of an image. The stream ends in an error if anything is
/// missing; dropping it stops the work. It keeps `written` until its end.
pub fn stream(
    written: std::sync::Arc<Written>,
    format: Format,
    created: Option<Stamp>,
    cx: Context,
) -> Result<Bytestream> {
    if format == Format::Docker && written.is_index() {
        return Err(Error::DockerList);
    }
    let (sender, receiver) = mpsc::channel(WAITING);
    let status = cx.step.transfer("sending tarball");
    let task = stdx::task::spawn("archive", async move {
        let sent = async {
            let files = files(&written, format, created).await?;
            write(files, &cx, &sender).await
        };
        if let Err(error) = sent.await {
            let _ = sender.send(Err(error)).await;
        }
        status.done();
        drop(written);
    });
    let state = (receiver, task);
    Ok(
        futures::stream::unfold(state, |(mut receiver, task)| async move {
            let next = receiver.recv().await?;
            Some((next, (receiver, task)))
        })
        .boxed(),
    )
}

/// All files by name, in the order they are written.
async fn files(
    written: &Written,
    format: Format,
    created: Option<Stamp>,
) -> Result<BTreeMap<String, File>> {
    let mut files = BTreeMap::new();
    for (_, source) in written.blobs() {
        files.insert(blob_path(&source), File::Blob(Box::new(source)));
    }
    let manifests = written
        .manifests
        .iter()
        .map(|manifest| &manifest.descriptor);
    for descriptor in manifests.chain([&written.descriptor]) {
        files.insert(
            blob_path(descriptor),
            File::Document(written.document(descriptor).await?),
        );
    }
    let index = Bytes::from(index(written, created));
    files.insert("index.json".to_owned(), File::Document(index));
    files.insert(
        "oci-layout".to_owned(),
        File::Document(Bytes::from_static(LAYOUT.as_bytes())),
    );
    if format == Format::Docker {
        files.insert(
            "manifest.json".to_owned(),
            File::Document(docker_manifest(written)),
        );
    }
    Ok(files)
}

fn blob_path(blob: &Descriptor) -> String {
    format!(
        "blobs/{}/{}",
        blob.digest.algorithm().name(),
        blob.digest.hex()
    )
}

/// One entry per name, or one without.
fn index(written: &Written, created: Option<Stamp>) -> Vec<u8> {
    let plain = written.dated(created.or(written.epoch));
    let named = written.names.iter().map(|name| {
        let mut entry = plain.clone();
        let annotations = &mut entry.annotations;
        annotations.insert("io.containerd.image.name".to_owned(), name.to_string());
        let reference = name.tag().map(str::to_owned);
        let reference = reference.or(name.digest().map(|digest| digest.to_string()));
        if let Some(reference) = reference {
            annotations.insert("org.opencontainers.image.ref.name".to_owned(), reference);
        }
        entry
    });
    let mut entries: Vec<Descriptor> = named.collect();
    if entries.is_empty() {
        entries.push(plain);
    }
    document::index(true, &entries, &BTreeMap::new()).1
}

fn docker_manifest(written: &Written) -> Bytes {
    let Some(manifest) = written.manifests.first() else {
        return Bytes::from_static(b"[]");
    };
    let tags: Vec<String> = written
        .names
        .iter()
        .filter(|name| name.tag().is_some())
        .map(ImageName::familiar)
        .collect();
    // No tags are no list, not an empty one.
    let tags = (!tags.is_empty()).then_some(tags);
    let layers: Vec<String> = manifest.layers.iter().map(blob_path).collect();
    let manifests = serde_json::json!([{
        "Config": blob_path(&manifest.config),
        "RepoTags": tags,
        "Layers": layers,
    }]);
    Bytes::from(go_json::compact(&manifests))
}

type Pieces = mpsc::Sender<Result<Bytes>>;

/// Sends all files. Stops without a word when the reader went away: nobody wants to
/// know why.
async fn write(files: BTreeMap<String, File>, cx: &Context, out: &Pieces) -> Result<()> {
    let mut head = Vec::new();
    for dir in ["blobs/", "blobs/sha256/"] {
        head.extend(header(dir, Kind::Dir, 0o755, 0)?);
    }
    let mut last_size = 0;
    for (path, file) in files {
        head.resize(head.len() + padding(last_size), 0);
        last_size = match &file {
            File::Document(bytes) => bytes.len() as u64,
            File::Blob(blob) => blob.size,
        };
        head.extend(header(&path, Kind::File, 0o444, last_size)?);
        if out
            .send(Ok(Bytes::from(std::mem::take(&mut head))))
            .await
            .is_err()
        {
            return Ok(());
        }
        let mut pieces = match file {
            File::Document(bytes) => content::once(bytes),
            File::Blob(blob) => {
                let bytes = read(cx, &blob).await?;
                content::Verified::new(bytes, &blob).boxed()
            }
        };
        while let Some(piece) = pieces.next().await {
            if out.send(Ok(piece?)).await.is_err() {
                return Ok(());
            }
        }
    }
    head.resize(head.len() + padding(last_size) + 1024, 0);
    let _ = out.send(Ok(Bytes::from(head))).await;
    Ok(())
}

fn padding(length: u64) -> usize {
    (length.next_multiple_of(512) - length) as usize
}

/// The header of one file; its contents follow by themselves.
fn header(path: &str, kind: Kind, mode: u32, size: u64) -> Result<Vec<u8>> {
    let mut entry = Entry::new(path, kind);
    entry.mode = mode;
    entry.size = size;
    Ok(TarWriter::<Vec<u8>>::headers(&entry)?)
}

/// Copies an image blob by blob into another place, such as a client's store
/// (`tar=false`). What is there is not sent again; the index or manifest comes last.
pub async fn copy_into(written: &Written, sink: &dyn content::Sink, cx: &Context) -> Result<()> {
    for (_, source) in written.blobs() {
        if !sink.has(&source).await? {
            sink.put(&source, read(cx, &source).await?).await?;
        }
    }
    let below = written
        .manifests
        .iter()
        .map(|manifest| &manifest.descriptor);
    for descriptor in below.chain([&written.descriptor]) {
        if !sink.has(descriptor).await? {
            let bytes = written.document(descriptor).await?;
            sink.put(descriptor, content::once(bytes)).await?;
        }
    }
    Ok(())
}
