//! Making and finding refs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::SystemTime;

use content::Store;
use db::{Db, Tx};
use lease::{Leases, Roots, Swept, Thing};
use snapshot::{LayerId, Snapshotter, Tree};
use stdx::locks::Locks;

use crate::chain::{begins, blob_step, chain_of, on};
use crate::immutable::Inner as RefInner;
use crate::kept::Kept;
use crate::lend::Loans;
use crate::record::{Link, LinkBlob, Record, Shape, TABLES, nanos};
use crate::{Error, LayerBlob, MutableRef, RecordMeta, Ref, Result};

/// Layers fetched and unpacked at once, over all builds. Fetching waits for the network and
/// unpacking for cores; the registry has its own limit of connections.
const UNPACKS_AT_ONCE: usize = 6;

/// What refs are made of.
#[derive(Clone)]
pub struct Parts {
    /// Where the tables are.
    pub db: Arc<Db>,
    /// Where blobs are.
    pub store: Store,
    /// Where layers are.
    pub snapshots: Arc<dyn Snapshotter>,
    /// Who holds what.
    pub leases: Leases,
}

/// All filesystem results of a state directory. Cloning gives another handle.
#[derive(Clone)]
pub struct Refs(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) parts: Parts,
    /// By diff ID (or link): who unpacks it.
    pub(crate) unpacking: Locks<String>,
    /// By link and compression: who packs it.
    pub(crate) packing: Locks<String>,
    pub(crate) turns: tokio::sync::Semaphore,
    pub(crate) introduced: crate::introduced::Introduced,
    pub(crate) kept: Mutex<HashMap<String, Weak<Kept>>>,
    pub(crate) loans: Mutex<Loans>,
    open: Mutex<HashMap<String, Weak<RefInner>>>,
    views: Mutex<HashMap<Vec<LayerId>, Weak<Tree>>>,
    /// Uses not yet written down: when, and how many.
    uses: Mutex<HashMap<String, (SystemTime, u64)>>,
}

impl Refs {
    /// Opens the results, and drops records whose layers or blobs did not survive.
    pub fn open(parts: Parts) -> Result<Refs> {
        parts.db.migrate("refs", TABLES)?;
        let refs = Refs(Arc::new(Inner {
            parts,
            unpacking: Locks::default(),
            packing: Locks::default(),
            turns: tokio::sync::Semaphore::new(UNPACKS_AT_ONCE),
            introduced: Default::default(),
            kept: Mutex::default(),
            loans: Mutex::default(),
            open: Mutex::default(),
            views: Mutex::default(),
            uses: Mutex::default(),
        }));
        refs.repair()?;
        Ok(refs)
    }

    /// The ref with this id, if it is still there.
    pub fn get(&self, id: &str) -> Result<Option<Ref>> {
        if let Some(inner) = self.open_handles().get(id).and_then(Weak::upgrade) {
            self.used(id);
            return Ok(Some(Ref(inner)));
        }
        let found = self.0.parts.db.write(|tx| -> Result<_> {
            match Record::get(tx, id)? {
                Some(record) if record.shape != Shape::Kept => Ok(Some(self.handle(tx, record)?)),
                _ => Ok(None),
            }
        })?;
        if found.is_some() {
            self.used(id);
        }
        Ok(found)
    }

    /// The ref of a stack of layers, bottom first; `None` for no layers. Nothing is fetched: what
    /// is known by its blobs or diff IDs is found again, the rest becomes lazy records.
    pub fn from_layers(&self, layers: Vec<LayerBlob>) -> Result<Option<Ref>> {
        let found = self.0.parts.db.write(|tx| -> Result<_> {
            let (mut below, mut chain, mut blob_chain) = (None, None, None);
            for layer in layers {
                let step = blob_step(layer.descriptor.digest, layer.diff_id);
                let below_name = chain.map_or(String::new(), |c: oci::Digest| c.to_string());
                (chain, blob_chain) =
                    (Some(on(chain, layer.diff_id.0)), Some(on(blob_chain, step)));
                let known = Record::by_chain(tx, "blob_chain", blob_chain.expect("just set"))?;
                below = Some(match known {
                    Some(record) => {
                        remember_sources(tx, &record, &layer)?;
                        record
                    }
                    None => {
                        let same = Link::same_layer(tx, layer.diff_id, &below_name)?;
                        let link = Link::insert(tx, None, Some(layer.diff_id))?;
                        if let Some((same, settled_on)) = same {
                            Link::set_layer(tx, link, &same, settled_on.as_deref())?;
                        }
                        let blob = LinkBlob {
                            descriptor: layer.descriptor,
                            main: true,
                            from_outside: true,
                        };
                        Link::put_blob(tx, link, &blob)?;
                        let mut record =
                            Record::new(Shape::Layer, &RecordMeta::new(layer.description));
                        record.parent = below.map(|below: Record| below.id);
                        record.link = Some(link);
                        (record.chain, record.blob_chain) = (chain, blob_chain);
                        record.created = layer.created.unwrap_or(record.created);
                        record.insert(tx)?;
                        record
                    }
                });
            }
            below.map(|record| self.handle(tx, record)).transpose()
        })?;
        if let Some(found) = &found {
            self.used(found.id());
        }
        Ok(found)
    }

    /// Begins a new result on `parent`, which must be unpacked ([`Ref::tree`]), or on nothing.
    pub fn begin(&self, parent: Option<&Ref>, meta: RecordMeta) -> Result<MutableRef> {
        let lowers = match parent {
            Some(parent) => parent.unpacked_layers()?,
            None => Vec::new(),
        };
        let active = self.0.parts.snapshots.begin(&lowers)?;
        Ok(MutableRef::new(self.clone(), active, parent.cloned(), meta))
    }

    /// The refs laid one on the other, bottom first. Moves no files.
    pub fn merge(&self, refs: Vec<Ref>) -> Result<Ref> {
        let mut refs = refs.into_iter();
        let Some(first) = refs.next() else {
            return Err(Error::EmptyMerge);
        };
        let rest: Vec<Ref> = refs.collect();
        if rest.is_empty() {
            return Ok(first);
        }
        let inputs: Vec<&str> = std::iter::once(&first).chain(&rest).map(Ref::id).collect();
        self.insert_combined(Shape::Merge, &inputs, "merge", None)
    }

    /// What `upper` changes on `lower`; with no `lower` all of it, with no `upper` the removal of
    /// all that `lower` has. When `lower` is what `upper` was built on, its layers are used as
    /// they are.
    pub fn diff(&self, lower: Option<&Ref>, upper: Option<&Ref>) -> Result<Option<Ref>> {
        let Some(lower) = lower else {
            return Ok(upper.cloned());
        };
        let nothing;
        let upper = match upper {
            Some(upper) => upper,
            None => {
                nothing = self.begin(None, RecordMeta::new("nothing"))?.commit()?;
                &nothing
            }
        };
        let prefix = self.0.parts.db.read(|tx| -> Result<_> {
            let (below, above) = (chain_of(tx, lower.id())?, chain_of(tx, upper.id())?);
            Ok(begins(&below, &above).then(|| above.len() - below.len()))
        });
        match prefix? {
            Some(0) => Ok(None),
            Some(_) => Ok(Some(self.insert_combined(
                Shape::Diff,
                &[lower.id(), upper.id()],
                "diff",
                None,
            )?)),
            None => {
                let inputs = [lower.id(), upper.id()];
                Ok(Some(self.insert_combined(
                    Shape::Diff,
                    &inputs,
                    "diff",
                    Some(()),
                )?))
            }
        }
    }

    /// Flushes what a crash of the machine would take: layers, and the rows about them, and tells
    /// other processes what is no longer held here. For quiet moments, like the end of a build; a
    /// killed process loses nothing without it.
    pub fn sync(&self) -> Result<()> {
        self.write_uses()?;
        self.0.parts.leases.flush()?;
        self.0.parts.snapshots.sync()?;
        self.0.parts.db.checkpoint()?;
        Ok(())
    }

    /// The content store.
    pub fn store(&self) -> &Store {
        &self.0.parts.store
    }

    /// The database.
    pub fn db(&self) -> &Arc<Db> {
        &self.0.parts.db
    }

    /// The snapshotter.
    pub fn snapshots(&self) -> &Arc<dyn Snapshotter> {
        &self.0.parts.snapshots
    }

    /// The leases. Hold a blob ([`Thing::Blob`]) before fetching it when no ref has it yet.
    pub fn leases(&self) -> &Leases {
        &self.0.parts.leases
    }

    /// Removes blobs and layers nothing reaches: neither refs, nor leases, nor `others`.
    pub fn sweep(&self, others: &[&dyn Roots]) -> Result<Swept> {
        let parts = &self.0.parts;
        let mut roots: Vec<&dyn Roots> = vec![self];
        roots.extend(others);
        Ok(lease::sweep(
            &parts.db,
            &parts.leases,
            &parts.store,
            &*parts.snapshots,
            &roots,
        )?)
    }

    fn insert_combined(
        &self,
        shape: Shape,
        inputs: &[&str],
        what: &str,
        own: Option<()>,
    ) -> Result<Ref> {
        self.0.parts.db.write(|tx| {
            let mut record = Record::new(shape, &RecordMeta::new(what));
            if own.is_some() {
                record.link = Some(Link::insert(tx, None, None)?);
            }
            record.insert(tx)?;
            Record::set_inputs(tx, &record.id, inputs)?;
            crate::chain::name_chains(tx, &record.id)?;
            self.handle(tx, record)
        })
    }

    /// A handle to a record seen in this transaction.
    pub(crate) fn handle(&self, tx: &Tx<'_>, record: Record) -> Result<Ref> {
        if let Some(inner) = self.open_handles().get(&record.id).and_then(Weak::upgrade) {
            return Ok(Ref(inner));
        }
        let lease = self
            .0
            .parts
            .leases
            .hold_in(tx, Thing::Record(record.id.clone()))?;
        let inner = Arc::new(RefInner::new(self.clone(), record, lease));
        let mut open = self.open_handles();
        open.retain(|_, inner| inner.strong_count() > 0);
        open.insert(inner.id().to_owned(), Arc::downgrade(&inner));
        Ok(Ref(inner))
    }

    /// One mount for all who read the same layers.
    pub(crate) fn view(&self, layers: Vec<LayerId>) -> Result<Arc<Tree>> {
        let views = || self.0.views.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tree) = views().get(&layers).and_then(Weak::upgrade) {
            return Ok(tree);
        }
        let tree = self.0.parts.snapshots.view(&topmost(&layers))?;
        let mut views = views();
        views.retain(|_, tree| tree.strong_count() > 0);
        views.insert(layers, Arc::downgrade(&tree));
        Ok(tree)
    }

    /// Remembers a use; written down with others later.
    pub(crate) fn used(&self, id: &str) {
        let mut uses = self.0.uses.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = uses
            .entry(id.to_owned())
            .or_insert((SystemTime::UNIX_EPOCH, 0));
        *entry = (SystemTime::now(), entry.1 + 1);
    }

    pub(crate) fn write_uses(&self) -> Result<()> {
        let uses = std::mem::take(&mut *self.0.uses.lock().unwrap_or_else(PoisonError::into_inner));
        if uses.is_empty() {
            return Ok(());
        }
        self.0.parts.db.write(|tx| {
            for (id, (when, count)) in &uses {
                let sql = "UPDATE refs_records SET last_used = max(coalesce(last_used, 0), ?2), uses = uses + ?3 WHERE id = ?1";
                tx.execute(sql, db::params![id, nanos(*when), *count as i64])?;
            }
            Ok(())
        })
    }

    fn open_handles(&self) -> MutexGuard<'_, HashMap<String, Weak<RefInner>>> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let uses = std::mem::take(self.uses.get_mut().unwrap_or_else(PoisonError::into_inner));
        let written = self.parts.db.write(|tx| -> db::Result<()> {
            for (id, (when, count)) in &uses {
                let sql = "UPDATE refs_records SET last_used = max(coalesce(last_used, 0), ?2), uses = uses + ?3 WHERE id = ?1";
                tx.execute(sql, db::params![id, nanos(*when), *count as i64])?;
            }
            Ok(())
        });
        if let Err(error) = written {
            tracing::debug!(%error, "the last uses were not written down");
        }
    }
}

impl Roots for Refs {
    fn reached(&self, tx: &Tx<'_>) -> db::Result<Vec<Thing>> {
        let read = |row: &db::Row<'_>| row.get::<_, String>(0);
        let mut things = Vec::new();
        let sql = "SELECT layer FROM refs_links WHERE layer NOT NULL UNION \
                   SELECT skeleton FROM refs_links WHERE skeleton NOT NULL UNION \
                   SELECT unveiled FROM refs_links WHERE unveiled NOT NULL";
        let layers = tx.rows(sql, [], read)?;
        things.extend(
            layers
                .iter()
                .filter_map(|text| text.parse().ok().map(Thing::Layer)),
        );
        let sql = "SELECT digest FROM refs_blobs UNION SELECT digest FROM refs_attached";
        let blobs = tx.rows(sql, [], read)?;
        things.extend(
            blobs
                .iter()
                .filter_map(|text| text.parse().ok().map(Thing::Blob)),
        );
        Ok(things)
    }
}

/// A layer that comes twice matters only where it is topmost: there it puts back and hides again
/// all that it put and hid below, and overlayfs refuses to stack it twice.
pub(crate) fn topmost(layers: &[LayerId]) -> Vec<LayerId> {
    let mut seen = std::collections::HashSet::new();
    let mut kept: Vec<LayerId> = layers
        .iter()
        .rev()
        .filter(|l| seen.insert(*l))
        .cloned()
        .collect();
    kept.reverse();
    kept
}

/// A known blob was met again: it can be fetched from there too.
fn remember_sources(tx: &Tx<'_>, record: &Record, layer: &LayerBlob) -> Result<()> {
    const SOURCE: &str = "containerd.io/distribution.source.";
    let Some(link) = record.link else {
        return Ok(());
    };
    let known = Link::blobs(tx, link)?
        .into_iter()
        .find(|b| b.descriptor.digest == layer.descriptor.digest);
    let Some(mut blob) = known else { return Ok(()) };
    let before = blob.descriptor.annotations.clone();
    for (key, value) in &layer.descriptor.annotations {
        let there = blob.descriptor.annotations.entry(key.clone()).or_default();
        if key.starts_with(SOURCE) && key != "containerd.io/distribution.source.ref" {
            let mut repositories: Vec<&str> = there
                .split(',')
                .chain(value.split(','))
                .filter(|r| !r.is_empty())
                .collect();
            repositories.sort_unstable();
            repositories.dedup();
            *there = repositories.join(",");
        } else {
            there.clone_from(value);
        }
    }
    blob.from_outside = true;
    if before != blob.descriptor.annotations {
        Link::put_blob(tx, link, &blob)?;
    }
    Ok(())
}
