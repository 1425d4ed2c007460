//! Leases and sweeps from outside: what stays, what goes, and what a dead process held.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use content::Store;
use db::{Db, Tx};
use lease::{Lease, Leases, Roots, Swept, Thing, sweep};
use oci::Digest;
use snapshot::{Copies, LayerId, Snapshotter};

/// One process's view of a state directory.
struct State {
    db: Arc<Db>,
    store: Store,
    snapshots: Copies,
    leases: Leases,
}

fn open(dir: &Path) -> State {
    let db = Arc::new(Db::open(dir.join("state.db")).unwrap());
    State {
        store: Store::open(dir.join("content"), Arc::clone(&db)).unwrap(),
        snapshots: Copies::open(dir.join("snapshots")).unwrap(),
        leases: Leases::open(dir.join("leases"), Arc::clone(&db)).unwrap(),
        db,
    }
}

impl State {
    fn blob(&self, text: &str) -> Digest {
        self.store
            .write_all("text/plain", text.as_bytes())
            .unwrap()
            .digest
    }

    fn layer(&self) -> LayerId {
        self.snapshots
            .commit(self.snapshots.begin(&[]).unwrap())
            .unwrap()
    }

    fn sweep(&self, roots: &[&dyn Roots]) -> Swept {
        sweep(&self.db, &self.leases, &self.store, &self.snapshots, roots).unwrap()
    }

    fn is_held(&self, thing: &Thing) -> bool {
        self.db.write(|tx| self.leases.is_held(tx, thing)).unwrap()
    }
}

/// Rows that point at these things.
struct Points(Vec<Thing>);

impl Roots for Points {
    fn reached(&self, _: &Tx<'_>) -> db::Result<Vec<Thing>> {
        Ok(self.0.clone())
    }
}

/// Rows: Z4
#[test]
fn what_is_leased_pinned_or_reached_stays_and_the_rest_goes() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(dir.path());
    let [leased, pinned, reached, gone] =
        ["leased", "pinned", "reached", "gone"].map(|t| state.blob(t));
    let (kept_layer, gone_layer) = (state.layer(), state.layer());
    let lease = state.leases.hold(Thing::Blob(leased)).unwrap();
    state.leases.pin("history", &[Thing::Blob(gone)]).unwrap();
    state.leases.pin("history", &[Thing::Blob(pinned)]).unwrap();
    let roots = Points(vec![Thing::Blob(reached), Thing::Layer(kept_layer.clone())]);
    let swept = state.sweep(&[&roots]);
    assert_eq!((swept.blobs, swept.layers), (1, 1));
    assert!(swept.blob_bytes > 0);
    let left: BTreeSet<_> = state
        .store
        .list()
        .unwrap()
        .into_iter()
        .map(|b| b.digest)
        .collect();
    assert_eq!(left, BTreeSet::from([leased, pinned, reached]));
    assert!(state.snapshots.contains(&kept_layer) && !state.snapshots.contains(&gone_layer));
    assert_eq!(state.sweep(&[&roots]), Swept::default());
    drop(lease);
    state.leases.unpin("history").unwrap();
    let swept = state.sweep(&[]);
    assert_eq!((swept.blobs, swept.layers), (3, 1));
}

#[test]
fn a_lease_lives_until_its_last_clone_and_may_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let (state, other) = (open(dir.path()), open(dir.path()));
    let thing = Thing::Record("r".into());
    let first = state.leases.hold(thing.clone()).unwrap();
    let clones: Vec<Lease> = vec![first.clone(), state.leases.hold(thing.clone()).unwrap()];
    drop(first);
    assert!(state.is_held(&thing) && other.is_held(&thing));
    assert_eq!(clones[0].thing(), &thing);
    drop(clones);
    let again = state.leases.hold(thing.clone()).unwrap();
    assert!(
        other.is_held(&thing),
        "let go and taken again without a word to the tables"
    );
    drop(again);
    state.leases.flush().unwrap();
    assert!(!state.is_held(&thing) && !other.is_held(&thing));
}

#[test]
fn many_leases_let_go_are_forgotten_together() {
    let dir = tempfile::tempdir().unwrap();
    let (state, other) = (open(dir.path()), open(dir.path()));
    for n in 0..1000 {
        drop(state.leases.hold(Thing::Record(n.to_string())).unwrap());
    }
    let rows: i64 = other
        .db
        .read(|tx| tx.row("SELECT count(*) FROM leases", [], |row| row.get(0)))
        .unwrap()
        .unwrap();
    assert!(rows < 300, "{rows}");
    drop(state);
    assert!(!other.is_held(&Thing::Record("999".into())));
}

/// The child of the next test: holds a blob and waits to be killed.
#[test]
fn child_that_holds_until_killed() {
    let Ok(dir) = std::env::var("KILN_LEASE_CRASH_CHILD") else {
        return;
    };
    let state = open(Path::new(&dir));
    let _lease = state.leases.hold(Thing::Blob(Digest::of("held"))).unwrap();
    std::fs::write(Path::new(&dir).join("holding"), "").unwrap();
    loop {
        std::thread::park();
    }
}

/// Rows: Z3, Z4
#[test]
fn a_living_process_keeps_its_things_and_a_killed_one_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(dir.path());
    let held = state.blob("held");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_holds_until_killed"])
        .env("KILN_LEASE_CRASH_CHILD", dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while !dir.path().join("holding").exists() {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    assert_eq!(state.sweep(&[]).blobs, 0);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(state.sweep(&[]).blobs, 1);
    assert!(!state.store.contains(&held).unwrap());
    let owners = std::fs::read_dir(dir.path().join("leases/owners"))
        .unwrap()
        .count();
    assert_eq!(owners, 1, "only ours");
}
