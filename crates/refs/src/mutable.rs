//! `MutableRef`: a result being written.

use std::sync::{Arc, Mutex, PoisonError};

use snapshot::{Active, Tree};
use stdx::sys::Root;

use crate::kept::Kept;
use crate::lend::{Loan, lent};
use crate::record::{Link, Record, Shape};
use crate::{RecordMeta, Ref, Refs, Result};

/// A result being written. Dropped without a commit, what was written is gone, unless it is one
/// of those kept between builds ([`Refs::named`]).
pub struct MutableRef {
    refs: Refs,
    body: Body,
    parent: Option<Ref>,
    meta: RecordMeta,
    loans: Mutex<Vec<Arc<Loan>>>,
}

enum Body {
    New(Active),
    Kept(Arc<Kept>),
}

impl MutableRef {
    pub(crate) fn new(
        refs: Refs,
        active: Active,
        parent: Option<Ref>,
        meta: RecordMeta,
    ) -> MutableRef {
        MutableRef {
            refs,
            body: Body::New(active),
            parent,
            meta,
            loans: Mutex::default(),
        }
    }

    pub(crate) fn of_kept(
        refs: Refs,
        kept: Arc<Kept>,
        parent: Option<Ref>,
        meta: RecordMeta,
    ) -> MutableRef {
        MutableRef {
            refs,
            body: Body::Kept(kept),
            parent,
            meta,
            loans: Mutex::default(),
        }
    }

    /// The tree to write in. Let go of it before the commit.
    pub fn tree(&self) -> Arc<Tree> {
        match &self.body {
            Body::New(active) => Arc::clone(active.tree()),
            Body::Kept(kept) => Arc::clone(kept.active.tree()),
        }
    }

    /// The directory that becomes its layer, for files to be linked into it from other layers, if
    /// it takes any. What is put there must not be looked for in the tree before the commit.
    pub fn change(&self) -> Result<Option<Root>> {
        match &self.body {
            Body::New(active) => Ok(active.change()?),
            Body::Kept(_) => Ok(None),
        }
    }

    /// Remembers what its layer shares with a directory, until that is written down.
    pub(crate) fn borrow(&self, loan: Arc<Loan>) {
        let loans = self.loans.lock();
        loans.unwrap_or_else(PoisonError::into_inner).push(loan);
    }

    /// What it began as.
    pub fn parent(&self) -> Option<&Ref> {
        self.parent.as_ref()
    }

    /// The id of a kept one.
    pub fn kept_id(&self) -> Option<&str> {
        match &self.body {
            Body::New(_) => None,
            Body::Kept(kept) => Some(&kept.id),
        }
    }

    /// A small fact kept beside a kept directory; `None` for a new one.
    pub fn note(&self, key: &str) -> Result<Option<Vec<u8>>> {
        self.kept_id()
            .map_or(Ok(None), |id| self.refs.note(id, key))
    }

    /// Sets such a fact; a new one has nothing to keep it.
    pub fn set_note(&self, key: &str, value: &[u8]) -> Result<()> {
        self.kept_id()
            .map_or(Ok(()), |id| self.refs.set_note(id, key, value))
    }

    /// Makes the result final: whole, or not at all. A kept directory is frozen in place (it is
    /// the next build's to thaw), which only its single user can do.
    pub fn commit(self) -> Result<Ref> {
        let MutableRef {
            refs,
            body,
            parent,
            meta,
            loans,
        } = self;
        match body {
            Body::New(active) => {
                let loans = loans.into_inner().unwrap_or_else(PoisonError::into_inner);
                refs.commit_new(active, parent.as_ref(), &meta, &loans)
            }
            Body::Kept(kept) => refs.freeze(kept),
        }
    }
}

impl Refs {
    fn commit_new(
        &self,
        active: Active,
        parent: Option<&Ref>,
        meta: &RecordMeta,
        loans: &[Arc<Loan>],
    ) -> Result<Ref> {
        let made = self.0.parts.db.write(|tx| -> Result<Ref> {
            // Inside, so that no sweep comes between the layer and the row that keeps it. If the
            // row fails, the layer is one that nothing reaches and the next sweep finds.
            let layer = self.0.parts.snapshots.commit(active)?;
            let mut record = Record::new(Shape::Layer, meta);
            record.parent = parent.map(|parent| parent.id().to_owned());
            record.link = Some(Link::insert(tx, Some(&layer), None)?);
            record.insert(tx)?;
            lent(tx, loans, &layer)?;
            self.handle(tx, record)
        })?;
        self.used(made.id());
        Ok(made)
    }
}
