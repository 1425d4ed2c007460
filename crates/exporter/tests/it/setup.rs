//! A state directory, and results in it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use content::{Memory, Store};
use exporter::Source;
use exporter::image::Context;
use layer::{ApplyOptions, Whiteouts};
use progress::StepProgress;
use refs::{Parts, RecordMeta, Ref, Refs};

pub(crate) struct State {
    pub(crate) cx: Context,
    pub(crate) outside: Memory,
    _dir: tempfile::TempDir,
}

/// A fresh state; `None`, with the reason said, when we are not root.
pub(crate) fn state() -> Option<State> {
    if !rustix_is_root() {
        tracing::warn!("skipped: layers of others' files need root");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let db = Arc::new(db::Db::open(dir.path().join("state.db")).unwrap());
    let store = Store::open(dir.path().join("content"), Arc::clone(&db)).unwrap();
    let snapshots =
        snapshot::open(dir.path().join("snapshots"), snapshot::Choice::Overlay).unwrap();
    let leases = lease::Leases::open(dir.path().join("leases"), Arc::clone(&db)).unwrap();
    let refs = Refs::open(Parts {
        db,
        store,
        snapshots,
        leases,
    })
    .unwrap();
    let outside = Memory::default();
    let provider = Arc::new(outside.clone());
    let cx = Context {
        refs,
        provider,
        step: StepProgress::none(),
    };
    Some(State {
        cx,
        outside,
        _dir: dir,
    })
}

fn rustix_is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

impl State {
    /// A result on `parent`: what a tar changes there.
    pub(crate) fn on(&self, parent: Option<&Ref>, tar: &[u8]) -> Ref {
        let meta = RecordMeta::new("a step");
        let writing = self.cx.refs.begin(parent, meta).unwrap();
        let options = ApplyOptions {
            whiteouts: Whiteouts::Remove,
            ..ApplyOptions::default()
        };
        layer::apply(tar, writing.tree().root(), &options).unwrap();
        writing.commit().unwrap()
    }
}

/// A tar of small files.
pub(crate) fn tar(files: &[(&str, &str)]) -> Vec<u8> {
    let mut archive = layer::Archive::new(Vec::new());
    for (path, text) in files {
        archive.file(path.as_ref(), text.as_bytes()).unwrap();
    }
    archive.finish().unwrap()
}

pub(crate) fn source(result: Option<Ref>, facts: &[(&str, &[u8])]) -> Source {
    let metadata = facts
        .iter()
        .map(|(k, v)| ((*k).to_owned(), Bytes::copy_from_slice(v)));
    Source::new(result, BTreeMap::new(), &metadata.collect()).unwrap()
}

pub(crate) fn attrs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}
