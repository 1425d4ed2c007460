//! The database handle: opening, one writer at a time, a small pool of readers.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use crate::damage::{self, Presence};
use crate::{Error, Result, Tx};

/// How long a statement waits for another process before it gives up. Writers hold the file
/// for well under a millisecond each; a minute means someone is stopped in a debugger.
const BUSY_TIMEOUT: Duration = Duration::from_secs(60);

/// Readers kept open between uses. More may exist for a moment; they are closed again.
const IDLE_READERS: usize = 4;

/// Statements each connection keeps compiled.
const CACHED_STATEMENTS: usize = 128;

/// When an acknowledged write survives a power cut. A killed process loses nothing either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// At the next checkpoint (SQLite `synchronous=NORMAL`): never torn, the last writes may be
    /// missing. For what can be rebuilt, which is all of a build cache. 0.07 ms a write here.
    #[default]
    Rebuildable,
    /// At once (`synchronous=FULL`): one disk flush for each write. 0.24 ms a write here.
    Full,
}

/// How to open a database.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// When an acknowledged write survives a power cut.
    pub durability: Durability,
}

/// One database. Share it in an `Arc`; all methods block, so from async code use
/// `stdx::task::blocking` for anything longer than a few rows.
pub struct Db {
    writer: Mutex<Connection>,
    place: Place,
}

/// Where the data are.
enum Place {
    /// In this process only; readers use the writer's connection.
    Memory,
    /// In a file that other processes may have open too.
    File {
        path: PathBuf,
        options: Options,
        readers: Mutex<Vec<Connection>>,
        _presence: Presence,
    },
}

impl Db {
    /// Opens or creates the database at `path`. A damaged file is set aside as
    /// `<path>.damaged-<n>` with a warning and an empty one takes its place: everything we keep
    /// is a cache, and a cache may be lost but must not stop a build.
    pub fn open(path: impl AsRef<Path>) -> Result<Db> {
        Db::open_with(path, Options::default())
    }

    /// [`Db::open`] with a choice of durability.
    pub fn open_with(path: impl AsRef<Path>, options: Options) -> Result<Db> {
        let path = path.as_ref().to_path_buf();
        let presence = Presence::announce(&path)?;
        let (writer, presence) = match open_file(&path, options) {
            Ok(writer) if !damage::is_marked(&path) => (writer, presence),
            Err(error) if !error.is_damage() => return Err(error),
            damaged => {
                tracing::warn!(path = %path.display(), error = ?damaged.err(), "the state database is damaged: setting it aside and starting an empty one");
                let presence = presence.set_aside(&path)?;
                (open_file(&path, options)?, presence)
            }
        };
        let readers = Mutex::default();
        let place = Place::File {
            path,
            options,
            readers,
            _presence: presence,
        };
        Ok(Db {
            writer: Mutex::new(writer),
            place,
        })
    }

    /// An empty database in memory, gone when dropped. For tests.
    pub fn memory() -> Result<Db> {
        let writer = Connection::open_in_memory()?;
        prepare(&writer, Options::default())?;
        Ok(Db {
            writer: Mutex::new(writer),
            place: Place::Memory,
        })
    }

    /// Runs `work` in the one write transaction. Its changes happen together when it gives `Ok`,
    /// and not at all when it gives `Err` or panics. Do not call [`Db::read`] or [`Db::write`]
    /// inside: use the transaction that is given.
    pub fn write<T, E: From<Error>>(
        &self,
        work: impl FnOnce(&Tx<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut writer = lock(&self.writer);
        let transaction = writer
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(|error| self.noticing(error))?;
        let value = self.run(&Tx::on(&transaction), work)?;
        transaction.commit().map_err(|error| self.noticing(error))?;
        Ok(value)
    }

    /// Runs `work` on one moment of the database. Does not wait for writers.
    pub fn read<T, E: From<Error>>(
        &self,
        work: impl FnOnce(&Tx<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let Place::File {
            path,
            options,
            readers,
            ..
        } = &self.place
        else {
            let mut connection = lock(&self.writer);
            let transaction = connection.transaction().map_err(Error::from)?;
            return work(&Tx::on(&transaction));
        };
        let idle = lock(readers).pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => open_file(path, *options)?,
        };
        let value = {
            let transaction = connection
                .transaction()
                .map_err(|error| self.noticing(error))?;
            self.run(&Tx::on(&transaction), work)
        };
        let mut readers = lock(readers);
        if readers.len() < IDLE_READERS {
            readers.push(connection);
        }
        value
    }

    /// Brings the tables called `tables` up to date: `steps[n]` takes them from version n to
    /// n + 1 and each step is run once in the life of the file. Never change a step that was
    /// released; add one.
    pub fn migrate(&self, tables: &str, steps: &[&str]) -> Result<()> {
        let version = |tx: &Tx<'_>| -> Result<usize> {
            let sql = "SELECT version FROM table_versions WHERE tables = ?1";
            Ok(tx
                .row(sql, [tables], |row| row.get::<_, i64>(0))?
                .unwrap_or(0) as usize)
        };
        if self.read(version)? == steps.len() {
            return Ok(());
        }
        self.write(|tx| {
            let found = version(tx)?;
            if found > steps.len() {
                let tables = tables.to_owned();
                return Err(Error::FromTheFuture {
                    tables,
                    found,
                    known: steps.len(),
                });
            }
            for step in &steps[found..] {
                tx.batch(step)?;
            }
            let sql = "INSERT INTO table_versions VALUES (?1, ?2) \
                       ON CONFLICT (tables) DO UPDATE SET version = excluded.version";
            tx.execute(sql, rusqlite::params![tables, steps.len() as i64])?;
            Ok(())
        })
    }

    /// Moves what the write-ahead log holds into the file and flushes it.
    pub fn checkpoint(&self) -> Result<()> {
        let writer = lock(&self.writer);
        writer.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
        Ok(())
    }

    fn run<T, E>(&self, tx: &Tx<'_>, work: impl FnOnce(&Tx<'_>) -> Result<T, E>) -> Result<T, E> {
        let value = work(tx);
        if let Place::File { path, .. } = &self.place
            && tx.met_damage()
        {
            damage::mark(path);
        }
        value
    }

    /// Remembers damage, so that the next open sets the file aside.
    fn noticing(&self, error: rusqlite::Error) -> Error {
        let error = Error::from(error);
        if let Place::File { path, .. } = &self.place
            && error.is_damage()
        {
            damage::mark(path);
        }
        error
    }
}

/// A panic inside a transaction rolled it back: the connection behind the lock is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open_file(path: &Path, options: Options) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    prepare(&connection, options)?;
    Ok(connection)
}

/// Settings of every connection, and a first look at the file that finds most damage.
fn prepare(connection: &Connection, options: Options) -> Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    let synchronous = match options.durability {
        Durability::Rebuildable => "NORMAL",
        Durability::Full => "FULL",
    };
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    let known: bool = connection.query_row(
        "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'table_versions')",
        [],
        |row| row.get(0),
    )?;
    if !known {
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS table_versions \
             (tables TEXT PRIMARY KEY, version INTEGER NOT NULL) WITHOUT ROWID",
        )?;
    }
    Ok(())
}
