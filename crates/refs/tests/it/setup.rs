//! A state directory, layers from nothing, and a provider that counts.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use content::{ByteStream, Memory, Provider, Store};
use layer::Compression;
use oci::{Descriptor, media_type};
use progress::StepProgress;
use refs::{LayerBlob, Parts, RecordMeta, Ref, Refs};
use snapshot::testing::listing;
use stdx::sys::Root;

/// One process's view of a state directory.
pub(crate) struct State {
    pub(crate) refs: Refs,
    pub(crate) dir: Option<tempfile::TempDir>,
}

/// Refs in a fresh directory; `None`, with the reason said, when we are not root.
pub(crate) fn state() -> Option<State> {
    if !rustix::process::geteuid().is_root() {
        tracing::warn!("skipped: layers of others' files need root");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    Some(State {
        refs: open(dir.path()),
        dir: Some(dir),
    })
}

/// The same where layers are laid into each other by copying.
pub(crate) fn state_of_copies() -> Option<State> {
    let mut state = state()?;
    let dir = tempfile::tempdir().unwrap();
    state.refs = open_with(dir.path(), snapshot::Choice::Native);
    state.dir = Some(dir);
    Some(state)
}

pub(crate) fn open(dir: &Path) -> Refs {
    open_with(dir, snapshot::Choice::Overlay)
}

fn open_with(dir: &Path, choice: snapshot::Choice) -> Refs {
    let db = Arc::new(db::Db::open(dir.join("state.db")).unwrap());
    let store = Store::open(dir.join("content"), Arc::clone(&db)).unwrap();
    let snapshots = snapshot::open(dir.join("snapshots"), choice).unwrap();
    let leases = lease::Leases::open(dir.join("leases"), Arc::clone(&db)).unwrap();
    Refs::open(Parts {
        db,
        store,
        snapshots,
        leases,
    })
    .unwrap()
}

/// A provider that counts what is asked of it.
#[derive(Clone, Default)]
pub(crate) struct Outside {
    pub(crate) blobs: Memory,
    pub(crate) reads: Arc<AtomicUsize>,
}

impl Outside {
    pub(crate) fn reads(&self) -> usize {
        self.reads.load(Ordering::SeqCst)
    }

    /// A layer made of files (`None` is a whiteout), as a blob to pull.
    pub(crate) fn layer(
        &self,
        files: &[(&str, Option<&str>)],
        compression: impl Into<Compression>,
    ) -> LayerBlob {
        let tar = tar(files);
        let compression = compression.into();
        let (packed, bytes) = layer::pack(compression, Vec::new(), |out| {
            std::io::Write::write_all(out, &tar).map_err(layer::Error::Write)
        })
        .unwrap();
        let descriptor = self.blobs.add(media_type::OCI_LAYER_GZIP, bytes);
        LayerBlob {
            descriptor,
            diff_id: packed.diff_id,
            description: "pulled".into(),
            created: None,
        }
    }
}

#[async_trait]
impl Provider for Outside {
    async fn size(&self, blob: &Descriptor) -> content::Result<u64> {
        self.blobs.size(blob).await
    }

    async fn read(&self, blob: &Descriptor, offset: u64) -> content::Result<ByteStream> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        self.blobs.read(blob, offset).await
    }
}

/// A layer tar with these files.
pub(crate) fn tar(files: &[(&str, Option<&str>)]) -> Bytes {
    let (upper, below) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (upper, below) = (
        Root::open(upper.path()).unwrap(),
        Root::open(below.path()).unwrap(),
    );
    for (path, text) in files {
        match text {
            Some(text) => snapshot::testing::write(&upper, path, text),
            None => {
                snapshot::testing::write(&below, path, "");
                if let Some((dir, _)) = path.rsplit_once('/') {
                    upper.create_dir_all(dir, 0o755).unwrap();
                }
                upper.whiteout(path).unwrap();
            }
        }
    }
    layer::diff(&upper, Some(&below), Vec::new())
        .unwrap()
        .into()
}

/// What a ref shows.
pub(crate) async fn files(of: &Ref, provider: &dyn Provider) -> BTreeMap<String, String> {
    listing(&of.tree(provider, &StepProgress::none()).await.unwrap())
}

pub(crate) fn names(of: &BTreeMap<String, String>) -> Vec<String> {
    of.keys().cloned().collect()
}

/// A step on a parent that writes these files (`None` removes).
pub(crate) async fn step(
    refs: &Refs,
    parent: Option<&Ref>,
    provider: &dyn Provider,
    files: &[(&str, Option<&str>)],
) -> Ref {
    if let Some(parent) = parent {
        parent
            .unpack(provider, &StepProgress::none())
            .await
            .unwrap();
    }
    let mutable = refs.begin(parent, RecordMeta::new("step")).unwrap();
    for (path, text) in files {
        let tree = mutable.tree();
        match text {
            Some(text) => snapshot::testing::write(tree.root(), path, text),
            None => tree.root().remove_tree(path).unwrap(),
        }
    }
    mutable.commit().unwrap()
}
