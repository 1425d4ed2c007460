//! Leases of this process, and the rows that tell others of them.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use db::{Db, Tx};
use stdx::owner::{self, Owner};

use crate::{Error, Result, Thing};

const TABLES: &[&str] = &["
    CREATE TABLE leases (
        owner TEXT NOT NULL,
        kind TEXT NOT NULL,
        name TEXT NOT NULL,
        PRIMARY KEY (owner, kind, name)
    ) WITHOUT ROWID;
    CREATE INDEX leases_by_thing ON leases (kind, name);
    CREATE TABLE lease_pins (
        pin TEXT NOT NULL,
        kind TEXT NOT NULL,
        name TEXT NOT NULL,
        PRIMARY KEY (pin, kind, name)
    ) WITHOUT ROWID;
    CREATE INDEX lease_pins_by_thing ON lease_pins (kind, name);
"];

/// Rows of leases let go are removed together once there are so many.
const LET_GO_TOGETHER: usize = 256;

/// The leases of this process. Cloning gives another handle.
#[derive(Clone)]
pub struct Leases(Arc<Inner>);

struct Inner {
    db: Arc<Db>,
    owners: PathBuf,
    owner: Owner,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    held: HashMap<Thing, usize>,
    /// Nobody here holds them, but their rows are still there.
    let_go: HashSet<Thing>,
}

/// A promise that one thing stays. Dropping it asks no disk: its row is removed with others, or
/// is worth nothing once the process has ended.
#[must_use = "dropping a Lease lets the thing go"]
pub struct Lease {
    thing: Thing,
    inner: Arc<Inner>,
}

impl Leases {
    /// Opens the leases with lock files in `dir` and rows in `db`, and forgets those of processes
    /// that are gone.
    pub fn open(dir: impl AsRef<Path>, db: Arc<Db>) -> Result<Leases> {
        let owners = dir.as_ref().join("owners");
        db.migrate("leases", TABLES)?;
        let owner = Owner::announce(&owners).map_err(|source| Error::Io {
            path: owners.clone(),
            source,
        })?;
        let leases = Leases(Arc::new(Inner {
            db,
            owners,
            owner,
            state: Mutex::default(),
        }));
        leases.forget_departed()?;
        Ok(leases)
    }

    /// Holds a thing. Whether it is there is for the caller to see, in the same transaction if it
    /// matters: [`Leases::hold_in`].
    pub fn hold(&self, thing: Thing) -> Result<Lease> {
        {
            let mut state = self.0.state();
            if let Some(count) = state.held.get_mut(&thing) {
                *count += 1;
                return Ok(Lease {
                    thing,
                    inner: Arc::clone(&self.0),
                });
            }
            if state.let_go.remove(&thing) {
                state.held.insert(thing.clone(), 1);
                return Ok(Lease {
                    thing,
                    inner: Arc::clone(&self.0),
                });
            }
        }
        self.0.db.write(|tx| self.hold_in(tx, thing))
    }

    /// Holds a thing in the transaction that saw or made it.
    pub fn hold_in(&self, tx: &Tx<'_>, thing: Thing) -> Result<Lease> {
        let sql = "INSERT INTO leases VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
        tx.execute(sql, [self.0.owner.name(), thing.kind(), &thing.name()])?;
        let mut state = self.0.state();
        state.let_go.remove(&thing);
        *state.held.entry(thing.clone()).or_default() += 1;
        if state.let_go.len() >= LET_GO_TOGETHER {
            self.0.remove_rows(tx, &mut state)?;
        }
        drop(state);
        Ok(Lease {
            thing,
            inner: Arc::clone(&self.0),
        })
    }

    /// Tells other processes what is no longer held here. Until this, or the next lease, prune or
    /// sweep of this process, they may take a thing for held that is not.
    pub fn flush(&self) -> Result<()> {
        if self.0.state().let_go.is_empty() {
            return Ok(());
        }
        self.0
            .db
            .write(|tx| self.0.remove_rows(tx, &mut self.0.state()))
    }

    /// Whether any living process holds the thing, or a pin does.
    pub fn is_held(&self, tx: &Tx<'_>, thing: &Thing) -> Result<bool> {
        {
            let mut state = self.0.state();
            if state.held.contains_key(thing) {
                return Ok(true);
            }
            self.0.remove_rows(tx, &mut state)?;
        }
        let sql = "SELECT 1 FROM leases WHERE kind = ?1 AND name = ?2 UNION ALL \
                   SELECT 1 FROM lease_pins WHERE kind = ?1 AND name = ?2";
        Ok(tx.exists(sql, [thing.kind(), &thing.name()])?)
    }

    /// Everything that is held or pinned. In a write transaction nothing can be added meanwhile.
    pub fn held(&self, tx: &Tx<'_>) -> Result<HashSet<Thing>> {
        let mut state = self.0.state();
        self.0.remove_rows(tx, &mut state)?;
        drop(state);
        let sql = "SELECT kind, name FROM leases UNION SELECT kind, name FROM lease_pins";
        let rows = tx.rows(sql, [], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))?;
        Ok(rows
            .into_iter()
            .filter_map(|(kind, name)| Thing::read(&kind, name))
            .collect())
    }

    /// Keeps things under a name until [`Leases::unpin`], whatever happens to this process.
    /// What the name pinned before is no longer pinned by it.
    pub fn pin_in(&self, tx: &Tx<'_>, pin: &str, things: &[Thing]) -> Result<()> {
        self.unpin_in(tx, pin)?;
        for thing in things {
            let sql = "INSERT INTO lease_pins VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
            tx.execute(sql, [pin, thing.kind(), &thing.name()])?;
        }
        Ok(())
    }

    /// Lets go of what a name pinned.
    pub fn unpin_in(&self, tx: &Tx<'_>, pin: &str) -> Result<()> {
        tx.execute("DELETE FROM lease_pins WHERE pin = ?1", [pin])?;
        Ok(())
    }

    /// [`Leases::pin_in`] in a transaction of its own.
    pub fn pin(&self, pin: &str, things: &[Thing]) -> Result<()> {
        self.0.db.write(|tx| self.pin_in(tx, pin, things))
    }

    /// [`Leases::unpin_in`] in a transaction of its own.
    pub fn unpin(&self, pin: &str) -> Result<()> {
        self.0.db.write(|tx| self.unpin_in(tx, pin))
    }

    /// Forgets the leases of processes that are gone.
    pub fn forget_departed(&self) -> Result<()> {
        let io = |source| Error::Io {
            path: self.0.owners.clone(),
            source,
        };
        let departed = owner::departed(&self.0.owners).map_err(io)?;
        if departed.is_empty() {
            return Ok(());
        }
        self.0.db.write(|tx| -> Result<()> {
            for gone in &departed {
                tx.execute("DELETE FROM leases WHERE owner = ?1", [gone.name()])?;
            }
            Ok(())
        })?;
        departed
            .into_iter()
            .try_for_each(|gone| gone.forget().map_err(io))
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remove_rows(&self, tx: &Tx<'_>, state: &mut State) -> Result<()> {
        for thing in state.let_go.drain() {
            let sql = "DELETE FROM leases WHERE owner = ?1 AND kind = ?2 AND name = ?3";
            tx.execute(sql, [self.owner.name(), thing.kind(), &thing.name()])?;
        }
        Ok(())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let owner = self.owner.name();
        let removed = self
            .db
            .write(|tx| tx.execute("DELETE FROM leases WHERE owner = ?1", [owner]));
        if let Err(error) = removed {
            tracing::debug!(%error, "leases left for the next start to forget");
        }
    }
}

impl Lease {
    /// What it keeps.
    pub fn thing(&self) -> &Thing {
        &self.thing
    }
}

impl Clone for Lease {
    fn clone(&self) -> Lease {
        *self
            .inner
            .state()
            .held
            .entry(self.thing.clone())
            .or_default() += 1;
        Lease {
            thing: self.thing.clone(),
            inner: Arc::clone(&self.inner),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut state = self.inner.state();
        if let Some(count) = state.held.get_mut(&self.thing) {
            *count -= 1;
            if *count == 0 {
                state.held.remove(&self.thing);
                state.let_go.insert(self.thing.clone());
            }
        }
    }
}
