//! The database as its users meet it: transactions, several processes, damage.

use std::fs;
use std::process::{Command, Stdio};
use std::sync::Arc;

use db::{Db, Error};
use stdx::Kind;

const TABLES: &[&str] = &["CREATE TABLE pairs (n INTEGER PRIMARY KEY, twin INTEGER NOT NULL)"];

fn count(db: &Db) -> i64 {
    db.read(|tx| tx.row("SELECT count(*) FROM pairs", [], |row| row.get(0)))
        .unwrap()
        .unwrap_or_default()
}

fn add(tx: &db::Tx<'_>, n: i64) -> Result<(), Error> {
    tx.execute("INSERT INTO pairs VALUES (?1, ?2)", db::params![n, -n])?;
    Ok(())
}

#[test]
fn a_failed_transaction_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for db in [
        Db::memory().unwrap(),
        Db::open(dir.path().join("state.db")).unwrap(),
    ] {
        db.migrate("pairs", TABLES).unwrap();
        let failed = db.write(|tx| {
            add(tx, 1)?;
            add(tx, 1)
        });
        assert_eq!(failed.unwrap_err().kind(), Kind::AlreadyExists);
        assert_eq!(count(&db), 0);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _: Result<(), Error> = db.write(|tx| {
                add(tx, 2)?;
                panic!("in the middle");
            });
        }));
        assert!(panicked.is_err());
        db.write(|tx| add(tx, 3)).unwrap();
        assert_eq!(count(&db), 1);
    }
}

#[test]
fn migrations_run_once_and_the_future_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    Db::open(&path).unwrap().migrate("pairs", TABLES).unwrap();
    let db = Db::open(&path).unwrap();
    db.migrate("pairs", TABLES).unwrap();
    let more = &[TABLES[0], "ALTER TABLE pairs ADD COLUMN note TEXT"];
    db.migrate("pairs", more).unwrap();
    db.migrate("pairs", more).unwrap();
    assert_eq!(
        db.migrate("pairs", TABLES).unwrap_err().kind(),
        Kind::Unsupported
    );
}

/// Rows: D23, Z3
#[test]
fn a_damaged_file_is_set_aside_and_an_empty_one_takes_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    for damage in [
        b"this is no database, whatever its name says".to_vec(),
        vec![7; 8192],
    ] {
        let _ = fs::remove_file(dir.path().join("state.db-wal"));
        fs::write(&path, &damage).unwrap();
        let db = Db::open(&path).unwrap();
        db.migrate("pairs", TABLES).unwrap();
        db.write(|tx| add(tx, 1)).unwrap();
        assert_eq!(count(&db), 1);
    }
    assert!(dir.path().join("state.db.damaged-1").exists());
    assert!(dir.path().join("state.db.damaged-2").exists());
}

/// Rows: D23, Z3
#[test]
fn damage_found_in_use_is_remembered_for_the_next_open() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    {
        let db = Db::open(&path).unwrap();
        db.migrate("pairs", TABLES).unwrap();
        db.write(|tx| (0..2000).try_for_each(|n| add(tx, n)))
            .unwrap();
    }
    let mut bytes = fs::read(&path).unwrap();
    let end = bytes.len();
    bytes[4096..end].fill(0xA5);
    fs::write(&path, bytes).unwrap();
    let opened = Db::open(&path).and_then(|db| {
        // A read in `Db::open` may already have met the damage; otherwise this one does.
        db.write(|tx| tx.rows("SELECT twin FROM pairs", [], |row| row.get::<_, i64>(0)))
    });
    assert!(opened.is_err());
    let db = Db::open(&path).unwrap();
    db.migrate("pairs", TABLES).unwrap();
    assert_eq!(count(&db), 0);
}

/// Rows: Z3
#[test]
fn a_damaged_file_in_use_elsewhere_stays() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let first = Db::open(&path).unwrap();
    first.migrate("pairs", TABLES).unwrap();
    fs::write(dir.path().join("state.db.is-damaged"), "").unwrap();
    assert!(matches!(Db::open(&path), Err(Error::DamagedInUse { .. })));
    drop(first);
    Db::open(&path).unwrap();
}

#[test]
fn threads_and_handles_write_in_turn() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let handles: Vec<_> = (0..2).map(|_| Arc::new(Db::open(&path).unwrap())).collect();
    handles[0].migrate("pairs", TABLES).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4_i64 {
            let db = handles[(thread % 2) as usize].clone();
            scope.spawn(move || {
                for n in 0..50 {
                    db.write(|tx| add(tx, thread * 1000 + n)).unwrap();
                    count(&db);
                }
            });
        }
    });
    assert_eq!(count(&handles[0]), 200);
}

/// The child of the next test: writes pairs until it is killed.
#[test]
fn child_that_writes_until_killed() {
    let Ok(path) = std::env::var("KILN_DB_CRASH_CHILD") else {
        return;
    };
    let db = Db::open(path).unwrap();
    let first = count(&db) * 2;
    for n in 0.. {
        db.write(|tx| {
            add(tx, first + 2 * n)?;
            add(tx, first + 2 * n + 1)
        })
        .unwrap();
    }
}

/// Two rows are added in each transaction, so a torn one would leave an odd number.
/// Rows: Z3
#[test]
fn kill_9_never_tears_a_transaction() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    Db::open(&path).unwrap().migrate("pairs", TABLES).unwrap();
    for round in 0..10 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_writes_until_killed"])
            .env("KILN_DB_CRASH_CHILD", &path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(15 + 7 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        let db = Db::open(&path).unwrap();
        assert_eq!(count(&db) % 2, 0, "round {round}");
        assert!(!path.with_extension("db.damaged-1").exists());
    }
    assert!(count(&Db::open(&path).unwrap()) > 0);
}

/// What was deleted makes room for what comes: the file is as large as what was ever in it at one
/// time, not as all that was written.
///
/// Rows: Q12
#[test]
fn the_file_does_not_grow_with_what_was_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let db = Db::open(&path).unwrap();
    db.migrate(
        "notes",
        &["CREATE TABLE notes (n INTEGER PRIMARY KEY, text BLOB)"],
    )
    .unwrap();
    let size = || {
        let of = |path: &std::path::Path| fs::metadata(path).map_or(0, |meta| meta.len());
        of(&path) + of(&dir.path().join("state.db-wal"))
    };
    let mut after_first = 0;
    for round in 0..40 {
        let written: Result<(), Error> = db.write(|tx| {
            let text = vec![round; 500_000];
            tx.execute("INSERT INTO notes VALUES (NULL, ?1)", [text])?;
            Ok(())
        });
        written.unwrap();
        let deleted: Result<(), Error> = db.write(|tx| {
            tx.execute("DELETE FROM notes", [])?;
            Ok(())
        });
        deleted.unwrap();
        db.checkpoint().unwrap();
        if round == 3 {
            after_first = size();
        }
    }
    assert!(
        size() <= after_first + 500_000,
        "{} after {after_first}",
        size()
    );
    assert!(size() < 10_000_000, "{}", size());
}

/// A write costs no flush of the disk: a thousand of them do not wait for it once each.
///
/// Rows: Q12
#[test]
fn writes_are_not_flushed_one_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let db = Db::open(&path).unwrap();
    let synchronous = db.read(|tx| tx.row("PRAGMA synchronous", [], |row| row.get::<_, i64>(0)));
    assert_eq!(
        synchronous.unwrap(),
        Some(1),
        "NORMAL: with checkpoints only"
    );
    let journal = db.read(|tx| tx.row("PRAGMA journal_mode", [], |row| row.get::<_, String>(0)));
    assert_eq!(journal.unwrap().as_deref(), Some("wal"));
}
