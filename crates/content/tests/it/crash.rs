//! A process that is killed while it writes blobs.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use content::Store;
use content::testing::bytes;
use oci::{Descriptor, Digest};

const SIZE: usize = 150_000;

fn open(dir: &Path) -> Store {
    let db = Arc::new(db::Db::open(dir.join("state.db")).unwrap());
    Store::open(dir.join("content"), db).unwrap()
}

/// The n-th blob of the child.
fn nth(n: u64) -> Vec<u8> {
    [&n.to_le_bytes()[..], &bytes(SIZE)].concat()
}

/// The child of the next test: writes blobs in pieces until it is killed.
#[test]
fn child_that_ingests_until_killed() {
    let Ok(dir) = std::env::var("KILN_CONTENT_CRASH_CHILD") else {
        return;
    };
    let store = open(Path::new(&dir));
    let first = store.list().unwrap().len() as u64;
    for n in first.. {
        let text = nth(n);
        let known = Descriptor::of("text/plain", &text);
        let mut ingest = store.ingest(Some(&known).filter(|_| n % 2 == 0)).unwrap();
        for piece in text[ingest.written() as usize..].chunks(10_000) {
            ingest.write_all(piece).unwrap();
        }
        ingest.commit("text/plain").unwrap();
    }
}

/// Rows: Z3
#[test]
fn kill_9_leaves_only_whole_blobs() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path());
    for round in 0..20 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::child_that_ingests_until_killed"])
            .env("KILN_CONTENT_CRASH_CHILD", dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(20 + 3 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        let store = open(dir.path());
        let mut on_disk = store.digests_on_disk().unwrap();
        on_disk.sort();
        for digest in &on_disk {
            let text = store.read_all(digest, 1 << 20).unwrap();
            assert_eq!(Digest::of(&text), *digest, "round {round}");
        }
        let listed: Vec<_> = store
            .list()
            .unwrap()
            .into_iter()
            .map(|info| info.digest)
            .collect();
        assert_eq!(listed, on_disk, "round {round}");
        let left = std::fs::read_dir(dir.path().join("content/ingest"))
            .unwrap()
            .count();
        assert!(left <= 1, "only what can be gone on with is left");
    }
    assert!(!open(dir.path()).list().unwrap().is_empty());
}
