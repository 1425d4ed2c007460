//! Where records of builds outlive the daemon: rows in the database, and the blobs they
//! name, pinned in the content store for as long as the record lives.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::Arc;

use content::Store;
use db::{Db, Tx};
use lease::{Lease, Leases, Thing};
use oci::{Descriptor, Digest};
use prost::Message as _;
use proto::moby::buildkit::v1 as wire;
use proto::moby::buildkit::v1::BuildHistoryRecord as Record;
use stdx::Kind;

const TABLES: &[&str] = &["
    CREATE TABLE history (
        ref TEXT PRIMARY KEY,
        started INTEGER NOT NULL,
        completed INTEGER NOT NULL,
        pinned INTEGER NOT NULL,
        record BLOB NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX history_by_start ON history (started);
"];

/// A manifest or index read to find what it names; real ones are a hundredth of this.
const MAX_MANIFEST: u64 = 4 << 20;

/// Why the archive could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database said no.
    #[error("the records of builds")]
    Db(#[from] db::Error),
    /// The content store said no.
    #[error("the blobs of a build's record")]
    Content(#[from] content::Error),
    /// The leases said no.
    #[error("keeping the blobs of a build's record")]
    Lease(#[from] lease::Error),
    /// A blob could not be written.
    #[error("writing a blob of a build's record")]
    Write(#[source] std::io::Error),
    /// A record was written by nobody we know.
    #[error("the record of build {0} cannot be read")]
    Damaged(String),
}

impl Error {
    /// What a caller can do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Error::Db(error) => error.kind(),
            Error::Content(error) => error.kind(),
            Error::Lease(error) => error.kind(),
            Error::Write(_) | Error::Damaged(_) => Kind::Internal,
        }
    }
}

/// Records of builds that ended. Cloning gives another handle to the same ones.
#[derive(Clone)]
pub struct Archive {
    db: Arc<Db>,
    store: Store,
    leases: Leases,
}

impl std::fmt::Debug for Archive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Archive")
    }
}

/// A blob that stays until its record is written.
pub(crate) struct Held {
    pub(crate) blob: wire::Descriptor,
    _lease: Option<Lease>,
}

fn pin(id: &str) -> String {
    format!("history {id}")
}

fn millis(stamp: Option<&prost_types::Timestamp>) -> i64 {
    stamp.map_or(0, |at| {
        at.seconds
            .saturating_mul(1000)
            .saturating_add(i64::from(at.nanos) / 1_000_000)
    })
}

fn decode(id: &str, bytes: &[u8]) -> Result<Record, Error> {
    Record::decode(bytes).map_err(|_| Error::Damaged(id.to_owned()))
}

impl Archive {
    /// Records in `db`, with blobs in `store` kept by `leases`: all three of one state directory.
    pub fn open(db: Arc<Db>, store: Store, leases: Leases) -> Result<Archive, Error> {
        db.migrate("history", TABLES)?;
        Ok(Archive { db, store, leases })
    }

    /// Writes a blob that `make` fills.
    pub(crate) fn blob(
        &self,
        media_type: &str,
        make: impl FnOnce(&mut dyn std::io::Write) -> std::io::Result<()>,
    ) -> Result<Held, Error> {
        let mut ingest = self.store.ingest(None)?;
        make(&mut ingest).map_err(Error::Write)?;
        ingest.flush().map_err(Error::Write)?;
        let mut lease = None;
        let leases = &self.leases;
        let blob = ingest.commit_with(media_type, |tx, blob| {
            lease = Some(leases.hold_in(tx, Thing::Blob(blob.digest))?);
            Ok::<(), Error>(())
        })?;
        let blob = wire::Descriptor {
            media_type: media_type.to_owned(),
            digest: blob.digest.to_string(),
            size: i64::try_from(blob.size).unwrap_or(i64::MAX),
            ..wire::Descriptor::default()
        };
        Ok(Held {
            blob,
            _lease: lease,
        })
    }

    /// Removes a blob that no record came to name.
    pub(crate) fn discard(&self, held: Held) -> Result<(), Error> {
        let Held {
            blob,
            _lease: lease,
        } = held;
        drop(lease);
        let Ok(digest) = blob.digest.parse::<Digest>() else {
            return Ok(());
        };
        self.db.write(|tx| {
            if !self.leases.is_held(tx, &Thing::Blob(digest))? {
                self.store.remove_in(tx, &digest)?;
            }
            Ok(())
        })
    }

    /// Writes or replaces a record, and keeps what it names.
    pub(crate) fn put(&self, record: &Record) -> Result<(), Error> {
        let mut things = BTreeSet::new();
        for blob in blobs(record) {
            self.reach(blob, &mut things);
        }
        let things: Vec<Thing> = things.into_iter().map(Thing::Blob).collect();
        self.db.write(|tx| {
            let sql = "INSERT OR REPLACE INTO history VALUES (?1, ?2, ?3, ?4, ?5)";
            let started = millis(record.created_at.as_ref());
            let completed = millis(record.completed_at.as_ref());
            let bytes = record.encode_to_vec();
            tx.execute(
                sql,
                db::params![record.r#ref, started, completed, record.pinned, bytes],
            )?;
            self.leases.pin_in(tx, &pin(&record.r#ref), &things)?;
            Ok(())
        })
    }

    /// A blob and, if it is a manifest or index here, what it names except layers.
    fn reach(&self, digest: Digest, found: &mut BTreeSet<Digest>) {
        let here = self.store.info(&digest).ok().flatten();
        let Some(info) = here.filter(|_| found.insert(digest)) else {
            return;
        };
        let kind = info.media_type.as_str();
        if !oci::media_type::is_manifest(kind) && !oci::media_type::is_index(kind) {
            return;
        }
        let Ok(bytes) = self.store.read_all(&digest, MAX_MANIFEST) else {
            return;
        };
        #[derive(serde::Deserialize)]
        struct Names {
            config: Option<Descriptor>,
            #[serde(default)]
            manifests: Vec<Descriptor>,
            #[serde(default)]
            layers: Vec<Descriptor>,
        }
        let Ok(names) = serde_json::from_slice::<Names>(&bytes) else {
            return;
        };
        let statements = names
            .layers
            .into_iter()
            .filter(|layer| layer.media_type.starts_with("application/vnd.in-toto"));
        for next in names
            .config
            .into_iter()
            .chain(names.manifests)
            .chain(statements)
        {
            self.reach(next.digest, found);
        }
    }

    /// The record of a build that ended.
    pub(crate) fn get(&self, id: &str) -> Result<Option<Record>, Error> {
        self.db.read(|tx| get_in(tx, id))
    }

    /// Shows records to `see`, the last begun first, until it has seen enough.
    pub(crate) fn each(&self, mut see: impl FnMut(Record) -> bool) -> Result<(), Error> {
        const PAGE: i64 = 64;
        let mut skip = 0;
        loop {
            let sql =
                "SELECT ref, record FROM history ORDER BY started DESC, ref LIMIT ?1 OFFSET ?2";
            let page = self.db.read(|tx| {
                tx.rows(sql, [PAGE, skip], |row| {
                    Ok((row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?))
                })
            })?;
            let last = (page.len() as i64) < PAGE;
            for (id, bytes) in page {
                match decode(&id, &bytes) {
                    Ok(record) => {
                        if !see(record) {
                            return Ok(());
                        }
                    }
                    Err(error) => tracing::warn!(%error, "skipping a record"),
                }
            }
            if last {
                return Ok(());
            }
            skip += PAGE;
        }
    }

    /// Changes a record, and gives it as it is now.
    pub(crate) fn update(
        &self,
        id: &str,
        change: impl FnOnce(&mut Record),
    ) -> Result<Option<Record>, Error> {
        let Some(mut record) = self.get(id)? else {
            return Ok(None);
        };
        change(&mut record);
        record.generation += 1;
        self.put(&record)?;
        Ok(Some(record))
    }

    /// Forgets a record and removes the blobs only it had; `false` if there was none.
    pub(crate) fn remove(&self, id: &str) -> Result<bool, Error> {
        let Some(record) = self.get(id)? else {
            return Ok(false);
        };
        let mut things = BTreeSet::new();
        for blob in blobs(&record) {
            self.reach(blob, &mut things);
        }
        self.db.write(|tx| {
            if get_in(tx, id)?.is_none() {
                return Ok(false);
            }
            tx.execute("DELETE FROM history WHERE ref = ?1", [id])?;
            self.leases.unpin_in(tx, &pin(id))?;
            for digest in things {
                if !self.leases.is_held(tx, &Thing::Blob(digest))? {
                    self.store.remove_in(tx, &digest)?;
                }
            }
            Ok(true)
        })
    }

    /// The records that are both beyond the newest `keep` and completed before `before`
    /// (milliseconds), as row D11 has it; never pinned ones.
    pub(crate) fn outdated(&self, keep: usize, before: i64) -> Result<Vec<String>, Error> {
        let sql = "SELECT ref FROM (SELECT ref, completed FROM history WHERE pinned = 0
                   ORDER BY completed DESC LIMIT -1 OFFSET ?1) WHERE completed < ?2";
        let keep = i64::try_from(keep).unwrap_or(i64::MAX);
        Ok(self
            .db
            .read(|tx| tx.rows(sql, [keep, before], |row| row.get(0)))?)
    }

    /// How many there are.
    pub(crate) fn count(&self) -> Result<usize, Error> {
        let rows = self.db.read(|tx| {
            tx.row("SELECT count(*) FROM history", [], |row| {
                row.get::<_, i64>(0)
            })
        })?;
        Ok(usize::try_from(rows.unwrap_or(0)).unwrap_or(0))
    }

    /// A blob of a record, to be read from its beginning.
    pub(crate) fn open_blob(
        &self,
        blob: &wire::Descriptor,
    ) -> Result<Option<std::fs::File>, Error> {
        match blob.digest.parse::<Digest>() {
            Ok(digest) => Ok(Some(self.store.open_file(&digest)?)),
            Err(_) => Ok(None),
        }
    }

    /// Whether a blob is here.
    pub(crate) fn has(&self, digest: &Digest) -> bool {
        self.store.contains(digest).unwrap_or(false)
    }
}

fn get_in(tx: &Tx<'_>, id: &str) -> Result<Option<Record>, Error> {
    let sql = "SELECT record FROM history WHERE ref = ?1";
    let bytes = tx.row(sql, [id], |row| row.get::<_, Vec<u8>>(0))?;
    bytes.map(|bytes| decode(id, &bytes)).transpose()
}

/// Every blob a record names.
fn blobs(record: &Record) -> Vec<Digest> {
    let results = record.result.iter().chain(record.results.values());
    let of_results = results.flat_map(|result| {
        result
            .result_deprecated
            .iter()
            .chain(&result.attestations)
            .chain(result.results.values())
    });
    let own = [&record.logs, &record.trace, &record.external_error]
        .into_iter()
        .flatten();
    own.chain(of_results)
        .filter_map(|blob| blob.digest.parse().ok())
        .collect()
}
