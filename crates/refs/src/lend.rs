//! Files of a client's directory that results have by another name instead of copying them.
//!
//! Nothing ever writes into a file of such a directory: what comes from the client is a new file
//! in the place of the old one, and what writes into a result works on a copy (overlayfs). So a
//! result may share its files, which costs neither their bytes nor their inodes.
//!
//! One thing gives it away: the number of names a file has (`stat -c %h`) is more than one. Who
//! looks for a second name in the same tree finds none, and that must stay so: if a tree showed a
//! file under two names, everybody who looked (a tar, a `cp -a`) would take them for links to each
//! other, which they are not. Therefore each file is lent to one place only, as long as a result
//! that borrowed it lives. In layers above each other it then has the same place, where only the
//! topmost shows. The directory itself may be one of the layers: what is built on it borrows
//! nothing for another place, and where a merge brings it together with a borrower, the upper of
//! both is used in a form that shares nothing (`unveil.rs`).

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard, PoisonError, Weak};

use db::Tx;
use snapshot::{LayerId, Tree};

use crate::chain::{Chained, chain_of};
use crate::record::{Link, Record, Shape};
use crate::{MutableRef, RecordType, Ref, Refs, Result};

/// More places than this are not lent to: each is compared with all others.
const MOST: usize = 64;

/// What a result that is still being written borrows.
pub(crate) struct Loan {
    /// Held, so that nobody takes the directory back meanwhile.
    lender: Ref,
    place: Place,
}

/// What results that are being written borrow, and how many loans there have been.
#[derive(Default)]
pub(crate) struct Loans {
    begun: u64,
    under_way: Vec<UnderWay>,
}

/// A loan as all others see it.
struct UnderWay {
    lender: String,
    place: Place,
    loan: Weak<Loan>,
}

impl Ref {
    /// The files as they lie on the disk, of which the regular ones at and below the directory
    /// `from` may be linked into the layer of `borrower`, each at the same path below `to`. `None`
    /// when they may not: then they can only be copied.
    pub fn lend(&self, from: &Path, to: &Path, borrower: &MutableRef) -> Result<Option<Arc<Tree>>> {
        let layers = self.unpacked_layers()?;
        let [layer] = layers.as_slice() else {
            return Ok(None);
        };
        let place = (from.to_owned(), to.to_owned());
        let Some(loan) = self.promise(place, borrower)? else {
            return Ok(None);
        };
        borrower.borrow(loan);
        self.forget_size(layer)?;
        Ok(Some(self.refs().0.parts.snapshots.layer(layer)?))
    }

    /// Says that a place is lent to, unless that would give a file two places.
    fn promise(&self, place: Place, borrower: &MutableRef) -> Result<Option<Arc<Loan>>> {
        // Locked until the new one is in, so that of two who come at once one sees the other. What
        // becomes final meanwhile is seen here, or there: it leaves when it is written down.
        let mut loans = self.refs().loans();
        loans.under_way.retain(UnderWay::lasts);
        let ours = loans
            .under_way
            .iter()
            .filter(|other| other.lender == self.id());
        let mut places: BTreeSet<Place> = ours.map(|other| other.place.clone()).collect();
        let lends = self.refs().0.parts.db.read(|tx| -> Result<bool> {
            let record = Record::need(tx, self.id())?;
            if !may_lend(&record) {
                return Ok(false);
            }
            places.extend(
                places_of(tx, self.id())?
                    .into_iter()
                    .map(|(place, _)| place),
            );
            if let Some(below) = borrower.parent() {
                let below = chain_of(tx, below.id())?;
                if below.iter().any(|chained| chained.of == record.id) {
                    places.insert(itself());
                }
            }
            Ok(true)
        })?;
        let agreed = places.iter().all(|known| agree(known, &place));
        let fits = places.len() < MOST || places.contains(&place);
        if !(lends && agreed && fits) {
            return Ok(None);
        }
        let loan = Arc::new(Loan {
            lender: self.clone(),
            place,
        });
        loans.begun += 1;
        loans.under_way.push(UnderWay {
            lender: self.id().to_owned(),
            place: loan.place.clone(),
            loan: Arc::downgrade(&loan),
        });
        Ok(Some(loan))
    }

    /// What was counted as the directory's alone is shared from now on.
    fn forget_size(&self, layer: &LayerId) -> Result<()> {
        let db = &self.refs().0.parts.db;
        let sql = "SELECT 1 FROM refs_links WHERE layer = ?1 AND size NOT NULL";
        if db.read(|tx| tx.exists(sql, [layer.as_str()]))? {
            let sql = "UPDATE refs_links SET size = NULL, shared = NULL WHERE layer = ?1";
            db.write(|tx| tx.execute(sql, [layer.as_str()]))?;
        }
        Ok(())
    }
}

impl Refs {
    pub(crate) fn loans(&self) -> MutexGuard<'_, Loans> {
        self.0.loans.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Loans {
    /// How many loans there have been, if no file of the record is being linked right now. As
    /// long as that is the answer, no file of it has got another name.
    pub(crate) fn at_rest(&self, id: &str) -> Option<u64> {
        let mut under_way = self.under_way.iter();
        let busy = under_way.any(|other| other.lender == id && other.lasts());
        (!busy).then_some(self.begun)
    }
}

impl UnderWay {
    fn lasts(&self) -> bool {
        self.loan.strong_count() > 0
    }
}

/// Whether others may have files of a record by another name.
fn may_lend(record: &Record) -> bool {
    record.record_type == RecordType::LocalSource
        && record.shape == Shape::Layer
        && record.name.is_some()
}

/// Writes down what a layer borrowed. It is forgotten with the layer's last link.
pub(crate) fn lent(tx: &Tx<'_>, loans: &[Arc<Loan>], borrower: &LayerId) -> db::Result<()> {
    for Loan { lender, place } in loans.iter().map(|loan| &**loan) {
        let sql = "INSERT INTO refs_lent VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING";
        let (from, to) = (place.0.as_os_str(), place.1.as_os_str());
        let row = db::params![
            lender.id(),
            from.as_bytes(),
            to.as_bytes(),
            borrower.as_str()
        ];
        tx.execute(sql, row)?;
    }
    Ok(())
}

/// What one record lends is another's to lend now.
pub(crate) fn hand_over(tx: &Tx<'_>, from: &str, to: &str) -> db::Result<()> {
    tx.execute(
        "UPDATE refs_lent SET lender = ?2 WHERE lender = ?1",
        [from, to],
    )?;
    Ok(())
}

/// Where in a chain a link stands above another with the same files at other places: in both
/// forms, a tree would show them twice.
pub(crate) fn shown_twice(tx: &Tx<'_>, chain: &[Chained]) -> Result<BTreeSet<usize>> {
    let mut found = BTreeSet::new();
    for (at, lender) in chain.iter().enumerate() {
        let places = places_of(tx, &lender.of)?;
        let elsewhere = places.into_iter().filter(|(p, _)| !agree(p, &itself()));
        let borrowers: BTreeSet<String> = elsewhere.map(|(_, borrower)| borrower).collect();
        if borrowers.is_empty() {
            continue;
        }
        for (other, borrower) in chain.iter().enumerate() {
            let layer = Link::get(tx, borrower.link)?.and_then(|link| link.layer);
            if layer.is_some_and(|layer| borrowers.contains(layer.as_str())) {
                found.insert(at.max(other));
            }
        }
    }
    Ok(found)
}

/// From where in the directory to where in a result.
type Place = (PathBuf, PathBuf);

/// Where the files are in the directory itself.
fn itself() -> Place {
    Place::default()
}

/// The places a record lends to, with the layers that have its files there.
fn places_of(tx: &Tx<'_>, id: &str) -> db::Result<Vec<(Place, String)>> {
    let sql = "SELECT source, target, borrower FROM refs_lent WHERE lender = ?1";
    let path = |bytes: Vec<u8>| PathBuf::from(OsStr::from_bytes(&bytes));
    tx.rows(sql, [id], |row| {
        Ok(((path(row.get(0)?), path(row.get(1)?)), row.get(2)?))
    })
}

/// Whether no file would get two places.
fn agree(one: &Place, other: &Place) -> bool {
    let (outer, inner) = match one.0.components().count() <= other.0.components().count() {
        true => (one, other),
        false => (other, one),
    };
    match inner.0.strip_prefix(&outer.0) {
        Ok(rest) => outer
            .1
            .components()
            .chain(rest.components())
            .eq(inner.1.components()),
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(from: &str, to: &str) -> Place {
        (from.into(), to.into())
    }

    #[test]
    fn each_file_has_one_place() {
        let whole = place("", "app");
        for (other, agrees) in [
            (place("", "app"), true),
            (place("src", "app/src"), true),
            (place("src/deep", "app/src/deep"), true),
            (place("src", "app"), false),
            (place("src", "elsewhere"), false),
            (place("", "srv"), false),
            (itself(), false),
        ] {
            assert_eq!(agree(&whole, &other), agrees, "{other:?}");
            assert_eq!(agree(&other, &whole), agrees, "{other:?}");
        }
        assert!(agree(&place("src", "app"), &place("tests", "app")));
        assert!(agree(&place("src", "app"), &place("src2", "other")));
        assert!(agree(&itself(), &place("src", "src")));
    }
}
