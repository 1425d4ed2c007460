//! Results out: to registries, archives, tars and directories, side by side.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use exporter::archive::{self, Format};
use exporter::files::{self, FilesOptions};
use exporter::image::{self, Context, Written};
use exporter::{ImageOptions, PushOptions, Source};
use futures::StreamExt as _;
use oci::ImageName;
use ops::Build;
use progress::{Progress, StepProgress};
use session::{FileSend, SendRequest};
use stdx::Kind;
use stdx::sys::Root;

use crate::sink::SessionStore;
use crate::{Compatibility, Engine, Failure, Spec};

/// One exporter, understood before the build begins so that a wrong one fails at once.
pub(crate) struct Export {
    /// Its number in the request: how the client knows which of its targets is meant.
    id: usize,
    pub(crate) kind: Exporter,
}

/// What exporters there are.
pub(crate) enum Exporter {
    /// An image, pushed if that was asked for.
    Image(Box<ImageOptions>),
    /// An image as a tar, or blob by blob, to the client.
    Archive(Format, Box<ImageOptions>),
    /// The files, to a directory of the client.
    Local(FilesOptions),
    /// The files as a tar to the client.
    Tar(FilesOptions),
}

fn failed(error: exporter::Error) -> Failure {
    Failure::of(error.kind(), &error)
}

/// A client that says it has the result already has what it wants.
fn taken(sent: session::Result<()>) -> Result<(), Failure> {
    match sent {
        Err(error) if error.kind() == Kind::AlreadyExists => Ok(()),
        sent => sent.map_err(no_client),
    }
}

fn no_client(error: session::Error) -> Failure {
    Failure::of(error.kind(), &error)
}

/// What holds for all exporters of a build.
#[derive(Clone, Copy)]
pub(crate) struct Reading<'a> {
    /// No time in what is exported is later, unless an exporter says otherwise.
    pub(crate) epoch: Option<&'a str>,
    pub(crate) compatibility: Compatibility,
}

/// Reads what a request says about exporters.
pub(crate) fn exports(specs: &[Spec], how: Reading<'_>) -> Result<Vec<Export>, Failure> {
    specs
        .iter()
        .enumerate()
        .map(|(id, spec)| read(id, spec, how))
        .collect()
}

/// Reads one exporter.
pub(crate) fn read(id: usize, spec: &Spec, how: Reading<'_>) -> Result<Export, Failure> {
    let mut attrs = spec.attrs.clone();
    if let Some(epoch) = how.epoch {
        attrs
            .entry("source-date-epoch".into())
            .or_insert_with(|| epoch.to_owned());
    }
    if matches!(spec.kind.as_str(), "image" | "moby" | "registry") {
        // What is only meant for images is not left out of them.
        let inline = || "true".to_owned();
        attrs
            .entry("attestation-inline".into())
            .or_insert_with(inline);
    }
    let images = || ImageOptions::parse(&attrs).map(Box::new).map_err(failed);
    let files = || FilesOptions::parse(&attrs).map_err(failed);
    let kind = match spec.kind.as_str() {
        "image" | "moby" => Exporter::Image(images()?),
        "registry" => {
            let mut options = images()?;
            options.push = true;
            Exporter::Image(options)
        }
        "oci" => Exporter::Archive(Format::Oci, images()?),
        "docker" => Exporter::Archive(Format::Docker, images()?),
        "local" => Exporter::Local(files()?),
        "tar" => Exporter::Tar(files()?),
        other => {
            let known = "image, registry, oci, docker, local, tar";
            return Err(Failure::new(
                Kind::InvalidInput,
                format!("exporter {other:?} could not be found: there are {known}"),
            ));
        }
    };
    how.compatibility.check(&kind)?;
    Ok(Export { id, kind })
}

impl Exporter {
    /// The settings of those that make images.
    pub(crate) fn image(&self) -> Option<&ImageOptions> {
        match self {
            Exporter::Image(options) | Exporter::Archive(_, options) => Some(options),
            Exporter::Local(_) | Exporter::Tar(_) => None,
        }
    }

    /// What clients call it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Exporter::Image(_) => "image",
            Exporter::Archive(Format::Oci, _) => "oci",
            Exporter::Archive(Format::Docker, _) => "docker",
            Exporter::Local(_) => "local",
            Exporter::Tar(_) => "tar",
        }
    }

    fn title(&self) -> &'static str {
        match self {
            Exporter::Image(_) => "exporting to image",
            Exporter::Archive(Format::Oci, _) => "exporting to oci image format",
            Exporter::Archive(Format::Docker, _) => "exporting to docker image format",
            Exporter::Local(_) => "exporting to client directory",
            Exporter::Tar(_) => "exporting to client tarball",
        }
    }
}

/// What one export gave.
#[derive(Default)]
pub(crate) struct Exported {
    /// Its keys of the response.
    pub(crate) response: BTreeMap<String, String>,
    /// The image it wrote, if it wrote one.
    pub(crate) image: Option<oci::Descriptor>,
}

/// What exports of a build work with.
pub(crate) struct Exporting<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) build: &'a Build,
    pub(crate) progress: &'a Progress,
    pub(crate) compatibility: Compatibility,
}

impl Exporting<'_> {
    /// Does one export.
    pub(crate) async fn run(&self, export: &Export, source: &Source) -> Result<Exported, Failure> {
        let step = self.progress.internal_step(export.kind.title());
        step.start();
        let done = self.export(export, source, &step).await;
        match &done {
            Ok(_) => step.complete(false),
            Err(failure) => step.fail(&failure.message),
        }
        done
    }

    async fn export(
        &self,
        export: &Export,
        source: &Source,
        step: &StepProgress,
    ) -> Result<Exported, Failure> {
        let cx = Context {
            refs: self.engine.refs().clone(),
            provider: self.build.provider.clone(),
            step: step.clone(),
        };
        let written_as = |options, layout| {
            let options = self.compatibility.options(options, source, layout);
            options.map_err(failed)
        };
        match &export.kind {
            Exporter::Image(options) => {
                let options = written_as(options, false)?;
                self.image(source, &options, &cx).await
            }
            Exporter::Archive(format, options) => {
                let options = written_as(options, *format == Format::Oci)?;
                self.archive(export.id, *format, source, &options, &cx)
                    .await
            }
            Exporter::Local(options) => self.local(export.id, source, options, &cx).await,
            Exporter::Tar(options) => self.tar(export.id, source, options, &cx).await,
        }
    }

    async fn image(
        &self,
        source: &Source,
        options: &ImageOptions,
        cx: &Context,
    ) -> Result<Exported, Failure> {
        if options.unpack {
            // As with BuildKit's worker without containerd (docs/differences.md).
            tracing::info!("there is no image store to unpack the image into");
        }
        let written = image::write(source, options, cx).await.map_err(failed)?;
        if options.push && written.names.is_empty() {
            return Err(Failure::new(
                Kind::InvalidInput,
                "tag is needed when pushing to registry: give the image a name",
            ));
        }
        if options.push {
            for name in &written.names {
                self.push(&written, name, options, cx).await?;
            }
        }
        Ok(Exported {
            response: written.response(),
            image: Some(written.descriptor.clone()),
        })
    }

    async fn push(
        &self,
        written: &Written,
        name: &ImageName,
        options: &ImageOptions,
        cx: &Context,
    ) -> Result<(), Failure> {
        let credentials = self.build.credentials.clone();
        let registry = &self.engine.0.registry;
        let repository = match options.insecure {
            true => registry.insecure_repository(name, credentials),
            false => registry.repository(name, credentials),
        };
        let how = PushOptions {
            by_digest: options.push_by_digest,
        };
        exporter::push(written, name, &repository, how, cx)
            .await
            .map_err(failed)
    }

    async fn archive(
        &self,
        id: usize,
        format: Format,
        source: &Source,
        options: &ImageOptions,
        cx: &Context,
    ) -> Result<Exported, Failure> {
        let written = Arc::new(image::write(source, options, cx).await.map_err(failed)?);
        let response = written.response_of_archive();
        if options.tar == Some(false) {
            self.blob_by_blob(&written, cx).await?;
            let image = Some(written.descriptor.clone());
            return Ok(Exported { response, image });
        }
        let sender = self.sender().await?;
        let bytes =
            archive::stream(written.clone(), format, written.epoch, cx.clone()).map_err(failed)?;
        let request = SendRequest {
            metadata: response.clone(),
            ..request(id)
        };
        taken(sender.send_stream(&request, told(bytes)).await)?;
        let image = Some(written.descriptor.clone());
        Ok(Exported { response, image })
    }

    /// Every blob into the client's store, what others point at first.
    async fn blob_by_blob(&self, written: &Written, cx: &Context) -> Result<(), Failure> {
        let store = SessionStore::new(self.build, "export".to_owned());
        let status = cx.step.transfer("copying to the client's store");
        let layers = written
            .blobs()
            .into_iter()
            .map(|(shown, source)| oci::Descriptor {
                annotations: source.annotations,
                ..shown
            });
        let manifests = written
            .manifests
            .iter()
            .map(|manifest| manifest.descriptor.clone());
        for blob in layers.chain(manifests).chain([written.descriptor.clone()]) {
            let copied = content::copy(&*cx.provider, &store, &blob).await;
            copied.map_err(|error| Failure::of(error.kind(), &error))?;
        }
        status.done();
        Ok(())
    }

    async fn tar(
        &self,
        id: usize,
        source: &Source,
        options: &FilesOptions,
        cx: &Context,
    ) -> Result<Exported, Failure> {
        let parts = files::parts(source, options, cx).await.map_err(failed)?;
        let sender = self.sender().await?;
        let bytes = told(files::tar(parts, cx));
        taken(sender.send_stream(&request(id), bytes).await)?;
        Ok(Exported::default())
    }

    async fn local(
        &self,
        id: usize,
        source: &Source,
        options: &FilesOptions,
        cx: &Context,
    ) -> Result<Exported, Failure> {
        let mut parts = files::parts(source, options, cx).await.map_err(failed)?;
        let sender = self.sender().await?;
        let request = SendRequest {
            modified: parts.iter().find_map(|part| Some(part.epoch?.epoch())),
            multi_platform: Some(source.multi_platform),
            ..request(id)
        };
        let status = Arc::new(cx.step.transfer("copying files"));
        let shown = status.clone();
        let observer: session::Observer = Arc::new(move |bytes| shown.set(bytes, 0));
        let whole = match parts.as_mut_slice() {
            [one] if one.prefix.as_os_str().is_empty() && one.statements.is_empty() => {
                one.tree.take()
            }
            _ => None,
        };
        let sent = match whole {
            Some(tree) => {
                let root = tree
                    .root()
                    .try_clone()
                    .map_err(|error| Failure::of(Kind::Internal, &error))?;
                let sent = sender.send_dir(&request, root, Some(observer)).await;
                drop(tree);
                sent
            }
            None => {
                // Several trees become one beside them first: the wire knows one directory.
                let (dir, root) = Scratch::new(&self.engine.0.scratch)
                    .await
                    .map_err(|error| Failure::of(Kind::Internal, &error))?;
                let target = root
                    .try_clone()
                    .map_err(|error| Failure::of(Kind::Internal, &error))?;
                files::copy_into(parts, target, true, false)
                    .await
                    .map_err(failed)?;
                let sent = sender.send_dir(&request, root, Some(observer)).await;
                dir.remove().await;
                sent
            }
        };
        sent.map_err(no_client)?;
        if let Ok(status) = Arc::try_unwrap(status) {
            status.done();
        }
        Ok(Exported::default())
    }

    async fn sender(&self) -> Result<Arc<dyn FileSend>, Failure> {
        let found = self
            .build
            .group
            .any(&self.build.sessions, |session| async move {
                session.file_send()
            });
        found.await.map_err(no_client)
    }
}

fn request(id: usize) -> SendRequest {
    SendRequest {
        exporter_id: Some(id.to_string()),
        ..SendRequest::default()
    }
}

/// The exporter's bytes as the session takes them.
fn told(bytes: archive::Bytestream) -> session::Bytestream {
    Box::pin(bytes.map(|piece| {
        piece.map_err(|error| session::Error::Refused {
            kind: error.kind(),
            message: crate::error::chain(&error),
        })
    }))
}

/// A folder that goes with all that is in it. That can be a lot: it is removed where others do
/// not wait for it.
struct Scratch(Option<PathBuf>);

impl Scratch {
    /// A new one, open.
    async fn new(beneath: &Path) -> io::Result<(Scratch, Root)> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let dir = beneath.join(format!("export-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        let made = move || {
            std::fs::create_dir(&dir)?;
            let scratch = Scratch(Some(dir.clone()));
            Ok((scratch, Root::open(&dir)?))
        };
        stdx::task::blocking(made).await
    }

    /// Removes it, and comes back when it is gone. That goes on when nobody waits.
    async fn remove(mut self) {
        if let Some(dir) = self.0.take() {
            Scratch::removing(dir).await;
        }
    }

    async fn removing(dir: PathBuf) {
        let remove = move || {
            if let Err(error) = std::fs::remove_dir_all(&dir) {
                tracing::warn!(%error, dir = %dir.display(), "scratch folder stays until the next start");
            }
        };
        stdx::task::blocking(remove).await;
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Of what has not begun when the process ends, the next start knows.
        if let Some(dir) = self.0.take() {
            stdx::task::spawn("removing a scratch folder", Scratch::removing(dir)).detach();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who drops a folder with many files holds up nobody.
    #[tokio::test]
    async fn a_scratch_folder_is_removed_where_nobody_waits() {
        let parent = tempfile::tempdir().unwrap();
        let (scratch, root) = Scratch::new(parent.path()).await.unwrap();
        root.create_dir_all("a/b", 0o755).unwrap();
        let left = || std::fs::read_dir(parent.path()).unwrap().count();
        drop(scratch);
        assert_eq!(left(), 1, "it is still there: nothing else ran meanwhile");
        let gone = async {
            while left() > 0 {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        let patience = std::time::Duration::from_secs(30);
        tokio::time::timeout(patience, gone).await.unwrap();
        let (scratch, _root) = Scratch::new(parent.path()).await.unwrap();
        assert_eq!(left(), 1);
        scratch.remove().await;
        assert_eq!(left(), 0);
    }

    /// Rows: W63
    #[test]
    fn a_client_that_has_the_result_already_is_content() {
        let refused = |kind| {
            let message = "target already exists".to_owned();
            Err(session::Error::Refused { kind, message })
        };
        assert!(taken(Ok(())).is_ok() && taken(refused(Kind::AlreadyExists)).is_ok());
        let failure = taken(refused(Kind::Denied)).unwrap_err();
        assert_eq!(failure.message, "target already exists");
    }
}
