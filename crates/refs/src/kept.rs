//! Directories kept between builds: cache mounts, and clients' folders.
//!
//! They have a key, and several may have the same one. A client's folder is frozen into a final
//! result when it is in step with the client, and thawed in place by the next build, so that
//! only what changed is sent again and nothing is copied.

use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use db::Tx;
use lease::{Lease, Thing};
use snapshot::{Active, LayerId};

use crate::record::{Link, Record, Shape, remove_unused_links};
use crate::{Error, MutableRef, RecordMeta, Ref, Refs, Result, lend, note};

/// How often a locked directory of another user is asked for again (row X03).
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// Who else may use a kept directory at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    /// Everyone, all in the same one.
    #[default]
    Shared,
    /// Nobody; a second user gets another one.
    Private,
    /// Nobody; a second user waits.
    Locked,
}

/// A kept directory in use by this process.
pub(crate) struct Kept {
    pub(crate) id: String,
    pub(crate) active: Active,
    alone: bool,
    _lease: Lease,
}

/// What became of one try to open.
enum Tried {
    Opened(Arc<Kept>),
    Busy,
}

impl Refs {
    /// The directory kept under `key`, on `parent` if given (which must be unpacked); made when
    /// there is none. Waits for a locked one.
    pub async fn named(
        &self,
        key: &str,
        parent: Option<&Ref>,
        sharing: Sharing,
        meta: RecordMeta,
    ) -> Result<MutableRef> {
        loop {
            let tried = {
                let (refs, key, parent, meta) =
                    (self.clone(), key.to_owned(), parent.cloned(), meta.clone());
                stdx::task::blocking(move || refs.try_named(&key, parent.as_ref(), sharing, &meta))
                    .await?
            };
            if let Tried::Opened(kept) = tried {
                self.used(&kept.id);
                return Ok(MutableRef::of_kept(
                    self.clone(),
                    kept,
                    parent.cloned(),
                    meta,
                ));
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    /// Removes what is kept under `key` and not in use.
    pub fn forget_named(&self, key: &str) -> Result<()> {
        self.forget([key], |_, _| Ok(()))
    }

    /// The next user of each of `keys` begins empty, also when someone uses what is kept there:
    /// that stays with them, under no name, and is pruned like any other once they are done.
    pub fn begin_anew<'k>(&self, keys: impl IntoIterator<Item = &'k str>) -> Result<()> {
        self.forget(keys, |tx, record| Ok(Record::forget_name(tx, &record.id)?))
    }

    fn forget<'k>(
        &self,
        keys: impl IntoIterator<Item = &'k str>,
        in_use: impl Fn(&Tx<'_>, &Record) -> Result<()>,
    ) -> Result<()> {
        let forget = |tx: &Tx<'_>, record: &Record| {
            let thing = Thing::Record(record.id.clone());
            let used = self.0.parts.leases.is_held(tx, &thing)?
                || !Record::children(tx, &record.id)?.is_empty();
            match used {
                true => in_use(tx, record),
                false => self.remove_record(tx, record).map(drop),
            }
        };
        self.0.parts.db.write(|tx| {
            for key in keys {
                for record in Record::named(tx, key)? {
                    forget(tx, &record)?;
                }
            }
            Ok(())
        })
    }

    fn try_named(
        &self,
        key: &str,
        parent: Option<&Ref>,
        sharing: Sharing,
        meta: &RecordMeta,
    ) -> Result<Tried> {
        let lowers = parent.map_or(Ok(Vec::new()), Ref::unpacked_layers)?;
        let alone = sharing != Sharing::Shared;
        self.0.parts.db.write(|tx| {
            let mut busy = false;
            for record in Record::named(tx, key)? {
                let opened = match record.shape {
                    Shape::Kept if record.parent.as_deref() == parent.map(Ref::id) => {
                        self.open_kept(tx, &record, &lowers, alone)?
                    }
                    Shape::Layer if parent.is_none() => self.thaw(tx, &record, alone)?,
                    _ => continue,
                };
                match opened {
                    Some(kept) => return Ok(Tried::Opened(kept)),
                    None => busy |= record.shape == Shape::Kept,
                }
            }
            if busy && sharing != Sharing::Private {
                return Ok(Tried::Busy);
            }
            let active = self.0.parts.snapshots.begin_kept(&lowers, alone)?;
            let mut record = Record::new(Shape::Kept, meta);
            record.parent = parent.map(|parent| parent.id().to_owned());
            record.name = Some(key.to_owned());
            record.kept = active.kept().cloned();
            record.insert(tx)?;
            Ok(Tried::Opened(self.keep(tx, record.id, active, alone)?))
        })
    }

    fn open_kept(
        &self,
        tx: &Tx<'_>,
        record: &Record,
        lowers: &[LayerId],
        alone: bool,
    ) -> Result<Option<Arc<Kept>>> {
        let Some(kept_id) = &record.kept else {
            return Ok(None);
        };
        if let Some(open) = self.kept_here().get(&record.id).and_then(Weak::upgrade) {
            return Ok((!alone && !open.alone).then_some(open));
        }
        match self.0.parts.snapshots.open_kept(kept_id, lowers, alone) {
            Ok(active) => Ok(Some(self.keep(tx, record.id.clone(), active, alone)?)),
            Err(snapshot::Error::KeptInUse(_)) => Ok(None),
            Err(snapshot::Error::NoKept(_)) => {
                self.remove_record(tx, record)?;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Takes a frozen directory back, if nobody looks at it any more.
    fn thaw(&self, tx: &Tx<'_>, record: &Record, alone: bool) -> Result<Option<Arc<Kept>>> {
        let Some(link) = record.link else {
            return Ok(None);
        };
        let Some(layer) = Link::get(tx, link)?.and_then(|link| link.layer) else {
            return Ok(None);
        };
        let in_use = self
            .0
            .parts
            .leases
            .is_held(tx, &Thing::Record(record.id.clone()))?
            || self
                .0
                .parts
                .leases
                .is_held(tx, &Thing::Layer(layer.clone()))?
            || !Record::children(tx, &record.id)?.is_empty()
            || tx.exists(
                "SELECT 1 FROM refs_links WHERE layer = ?1 AND n != ?2",
                db::params![layer.as_str(), link],
            )?;
        if in_use || !self.0.parts.snapshots.contains(&layer) {
            return Ok(None);
        }
        let meta = RecordMeta {
            description: record.description.clone(),
            record_type: record.record_type,
        };
        let mut kept = Record::new(Shape::Kept, &meta);
        kept.name.clone_from(&record.name);
        kept.created = record.created;
        kept.uses = record.uses;
        let kept_id = self.0.parts.snapshots.thaw(&layer)?;
        kept.kept = Some(kept_id.clone());
        replace(tx, record, &kept)?;
        let active = self.0.parts.snapshots.open_kept(&kept_id, &[], alone)?;
        Ok(Some(self.keep(tx, kept.id, active, alone)?))
    }

    /// Makes a kept directory a final result, in place. The result has an id of its own: another
    /// state of the folder is another result.
    pub(crate) fn freeze(&self, kept: Arc<Kept>) -> Result<Ref> {
        let cannot = || Error::CannotFreeze(kept.id.clone());
        if !kept.alone || !kept.active.lowers().is_empty() {
            return Err(cannot());
        }
        let kept = Arc::try_unwrap(kept).map_err(|kept| Error::CannotFreeze(kept.id.clone()))?;
        let Kept {
            id, active, _lease, ..
        } = kept;
        let frozen = self.0.parts.db.write(|tx| -> Result<Ref> {
            let before = Record::need(tx, &id)?;
            let meta = RecordMeta {
                description: before.description.clone(),
                record_type: before.record_type,
            };
            let mut record = Record::new(Shape::Layer, &meta);
            record.name.clone_from(&before.name);
            record.created = before.created;
            record.uses = before.uses;
            let layer = self.0.parts.snapshots.commit(active)?;
            record.link = Some(Link::insert(tx, Some(&layer), None)?);
            replace(tx, &before, &record)?;
            self.handle(tx, record)
        })?;
        self.used(frozen.id());
        Ok(frozen)
    }

    fn keep(&self, tx: &Tx<'_>, id: String, active: Active, alone: bool) -> Result<Arc<Kept>> {
        let lease = self.0.parts.leases.hold_in(tx, Thing::Record(id.clone()))?;
        let kept = Arc::new(Kept {
            id: id.clone(),
            active,
            alone,
            _lease: lease,
        });
        let mut here = self.kept_here();
        here.retain(|_, kept| kept.strong_count() > 0);
        here.insert(id, Arc::downgrade(&kept));
        Ok(kept)
    }

    fn kept_here(
        &self,
    ) -> std::sync::MutexGuard<'_, std::collections::HashMap<String, Weak<Kept>>> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts a record in the place of another, with its notes.
fn replace(tx: &Tx<'_>, before: &Record, after: &Record) -> Result<()> {
    after.insert(tx)?;
    note::hand_over(tx, &before.id, &after.id)?;
    lend::hand_over(tx, &before.id, &after.id)?;
    Record::remove(tx, &before.id)?;
    remove_unused_links(tx)?;
    Ok(())
}
