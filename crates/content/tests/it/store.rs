//! What the store keeps, refuses and finds again.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

use content::testing::bytes;
use content::{Error, Memory, Store};
use oci::Descriptor;
use stdx::Kind;

fn open(dir: &Path) -> Store {
    let db = Arc::new(db::Db::open(dir.join("state.db")).unwrap());
    Store::open(dir.join("content"), db).unwrap()
}

fn path(dir: &Path, blob: &Descriptor) -> std::path::PathBuf {
    dir.join("content/blobs/sha256").join(blob.digest.hex())
}

fn ingests(dir: &Path) -> usize {
    fs::read_dir(dir.join("content/ingest")).unwrap().count()
}

#[test]
fn labels_belong_to_their_blob() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let blob = store.write_all("text/plain", b"text").unwrap();
    let absent = oci::Digest::of("absent");
    assert!(store.set_label(&blob.digest, "key", "1").unwrap());
    assert!(store.set_label(&blob.digest, "key", "2").unwrap());
    assert!(!store.set_label(&absent, "key", "1").unwrap());
    let source = "containerd.io/distribution.source.docker.io";
    for repository in ["library/b", "library/a", "library/b"] {
        assert!(
            store
                .add_to_label(&blob.digest, source, repository)
                .unwrap()
        );
    }
    let labels = store.labels(&blob.digest).unwrap();
    assert_eq!(labels["key"], "2");
    assert_eq!(labels[source], "library/a,library/b");
    let info = open(dir.path()).info(&blob.digest).unwrap().unwrap();
    assert_eq!((info.media_type.as_str(), info.size), ("text/plain", 4));
    assert!(store.remove(&blob.digest).unwrap());
    assert!(!store.remove(&blob.digest).unwrap());
    assert!(store.labels(&blob.digest).unwrap().is_empty());
    assert!(!store.contains(&blob.digest).unwrap());
    assert_eq!(
        store.open_file(&blob.digest).unwrap_err().kind(),
        Kind::NotFound
    );
    assert_eq!(store.disk_usage(&blob.digest), 0);
}

/// Rows: Z3
#[test]
fn a_lost_database_loses_no_blob_and_false_files_are_found_out() {
    let dir = tempfile::tempdir().unwrap();
    let (right, torn) = {
        let store = open(dir.path());
        let right = store.write_all("text/plain", b"right").unwrap();
        (right, store.write_all("text/plain", b"torn").unwrap())
    };
    for name in ["state.db", "state.db-wal", "state.db-shm"] {
        let _ = fs::remove_file(dir.path().join(name));
    }
    // A power cut may leave the right length and no bytes.
    fs::write(path(dir.path(), &torn), [0; 4]).unwrap();
    let store = open(dir.path());
    assert_eq!(store.read_all(&right.digest, 100).unwrap(), "right");
    assert!(store.contains(&right.digest).unwrap());
    assert!(matches!(
        store.open_file(&torn.digest),
        Err(Error::Corrupt { .. })
    ));
    assert!(!path(dir.path(), &torn).exists());
    assert_eq!(
        store.open_file(&torn.digest).unwrap_err().kind(),
        Kind::NotFound
    );
    // A file cut short is noticed although it has a row.
    drop(store);
    fs::write(path(dir.path(), &right), "rig").unwrap();
    assert!(!open(dir.path()).contains(&right.digest).unwrap());
}

#[test]
fn documents_read_whole_have_a_limit() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let blob = store.write_all("text/plain", b"12345").unwrap();
    assert!(matches!(
        store.read_all(&blob.digest, 4),
        Err(Error::TooLarge {
            size: 5,
            limit: 4,
            ..
        })
    ));
    assert_eq!(store.read_all(&blob.digest, 5).unwrap(), "12345");
}

#[test]
fn an_ingest_of_a_known_blob_goes_on_where_it_broke_off() {
    let dir = tempfile::tempdir().unwrap();
    let text = bytes(600_000);
    let blob = Descriptor::of("text/plain", &text);
    let mut first = open(dir.path()).ingest(Some(&blob)).unwrap();
    first.write_all(&text[..400_000]).unwrap();
    // Beside it, another writes the same without disturbing it.
    let mut beside = open(dir.path()).ingest(Some(&blob)).unwrap();
    assert_eq!(beside.written(), 0);
    beside.write_all(b"else").unwrap();
    drop(beside);
    drop(first);
    assert_eq!(ingests(dir.path()), 1);
    let store = open(dir.path());
    let mut second = store.ingest(Some(&blob)).unwrap();
    assert_eq!(second.written(), 400_000);
    let mut before = Vec::new();
    second.reader().unwrap().read_to_end(&mut before).unwrap();
    assert!(before == text[..400_000]);
    second.write_all(&text[400_000..]).unwrap();
    assert_eq!(second.commit("text/plain").unwrap(), blob);
    assert_eq!(store.read_all(&blob.digest, 1 << 20).unwrap(), text);
    assert_eq!(ingests(dir.path()), 0);
}

#[test]
fn what_cannot_become_the_blob_is_not_kept_for_later() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let blob = Descriptor::of("text/plain", b"right");
    let mut wrong = store.ingest(Some(&blob)).unwrap();
    wrong.write_all(b"wrong").unwrap();
    assert!(matches!(
        wrong.commit("text/plain"),
        Err(Error::Corrupt { .. })
    ));
    assert_eq!(ingests(dir.path()), 0);
    let mut long = store.ingest(Some(&blob)).unwrap();
    assert!(long.write_all(b"longer").is_err());
    drop(long);
    assert_eq!(ingests(dir.path()), 0);
    let mut short = store.ingest(Some(&blob)).unwrap();
    short.write_all(b"rig").unwrap();
    assert!(matches!(
        short.commit("text/plain"),
        Err(Error::WrongSize { found: 3, .. })
    ));
    assert_eq!(ingests(dir.path()), 1, "a beginning may be gone on with");
    assert!(store.sweep_all_ingests().unwrap() > 0);
    drop(store.ingest(None).unwrap());
    assert_eq!(ingests(dir.path()), 0);
}

/// The blob becomes visible together with what is done beside it, or not at all.
#[test]
fn a_commit_joins_the_transaction_of_others() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut ingest = store.ingest(None).unwrap();
    ingest.write_all(b"text").unwrap();
    let refused = ingest.commit_with("text/plain", |_, blob| Err(Error::NotFound(blob.digest)));
    assert_eq!(refused.unwrap_err().kind(), Kind::NotFound);
    assert!(store.list().unwrap().is_empty());
    store.write_all("text/plain", b"text").unwrap();
    assert_eq!(store.list().unwrap().len(), 1);
    assert_eq!(store.digests_on_disk().unwrap().len(), 1);
}

/// A list of any length is read in parts, and blobs that come and go meanwhile harm none of it.
#[test]
fn a_list_is_read_in_parts() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for number in 0..7 {
        store
            .write_all("x", format!("{number}").as_bytes())
            .unwrap();
    }
    let all = store.list().unwrap();
    let mut parts = Vec::new();
    let mut after = None;
    loop {
        let part = store.list_from(after.as_ref(), 3).unwrap();
        let Some(last) = part.last() else { break };
        assert!(part.len() <= 3);
        after = Some(last.digest);
        if parts.is_empty() {
            store.remove(&last.digest).unwrap();
        }
        parts.extend(part);
    }
    let digests = |list: Vec<content::BlobInfo>| -> Vec<_> {
        list.into_iter().map(|blob| blob.digest).collect()
    };
    assert_eq!(digests(parts), digests(all));
}

/// A place in memory goes through the same door.
#[tokio::test]
async fn fetches_what_is_missing_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let memory = Memory::default();
    let blob = memory.add("text/plain", bytes(1_000_000));
    store.fetch(&memory, &blob).await.unwrap();
    store.fetch(&Memory::default(), &blob).await.unwrap();
    let absent = Descriptor::of("text/plain", b"absent");
    assert_eq!(
        store.fetch(&memory, &absent).await.unwrap_err().kind(),
        Kind::NotFound
    );
}
