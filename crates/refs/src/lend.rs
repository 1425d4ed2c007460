//! Files of a client's directory that results have by another name instead of copying them.
//!
//! Nothing ever writes into a file of such a directory: what comes from the client is a new file
//! in the place of the old one, and what writes into a result works on a copy (overlayfs). So a
//! result may share its files, which costs neither their bytes nor their inodes.
//!
//! One thing could give that away: if a tree showed a file under two names, everybody who looked
//! (a tar, a `cp -a`) would take them for links to each other, which they are not. Therefore
//! each file is lent to one place only, for as long as the directory is kept. In layers above
//! each other it then has the same place, where only the topmost shows.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use snapshot::Tree;

use crate::record::{Record, Shape};
use crate::{RecordType, Ref, Result, note};

/// The note beside the directory: pairs of paths, from where to where, each ended by a zero.
const NOTE: &str = "lent";
/// More directories than this are not lent from: each is compared with all others.
const MOST: usize = 64;

impl Ref {
    /// The files as they lie on the disk, of which the regular ones at and below the directory
    /// `from` may be linked into a layer, each at the same path below `to`. `None` when they may
    /// not: then they can only be copied.
    pub fn lend(&self, from: &Path, to: &Path) -> Result<Option<Arc<Tree>>> {
        let layers = self.unpacked_layers()?;
        let [layer] = layers.as_slice() else {
            return Ok(None);
        };
        let parts = &self.refs().0.parts;
        let lent = parts.db.write(|tx| -> Result<bool> {
            let record = Record::need(tx, self.id())?;
            let is_a_clients = record.record_type == RecordType::LocalSource
                && record.shape == Shape::Layer
                && record.name.is_some();
            if !is_a_clients {
                return Ok(false);
            }
            let note = note::get(tx, self.id(), NOTE)?;
            let mut places = read(&note.unwrap_or_default());
            let wanted = (from.to_owned(), to.to_owned());
            if places.contains(&wanted) {
                return Ok(true);
            }
            if places.len() >= MOST || !places.iter().all(|place| agree(place, &wanted)) {
                return Ok(false);
            }
            places.push(wanted);
            note::set(tx, self.id(), NOTE, &written(&places))?;
            Ok(true)
        })?;
        match lent {
            true => Ok(Some(parts.snapshots.layer(layer)?)),
            false => Ok(None),
        }
    }
}

/// From where in the directory to where in a result.
type Place = (PathBuf, PathBuf);

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

fn written(places: &[Place]) -> Vec<u8> {
    let paths = places.iter().flat_map(|(from, to)| [from, to]);
    let bytes = paths.flat_map(|path| path.as_os_str().as_bytes().iter().copied().chain([0]));
    bytes.collect()
}

fn read(note: &[u8]) -> Vec<Place> {
    let path = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
    let paths: Vec<_> = note.split(|byte| *byte == 0).map(path).collect();
    let pairs = paths.chunks_exact(2);
    pairs
        .map(|pair| (pair[0].clone(), pair[1].clone()))
        .collect()
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
            (place("", ""), false),
        ] {
            assert_eq!(agree(&whole, &other), agrees, "{other:?}");
            assert_eq!(agree(&other, &whole), agrees, "{other:?}");
        }
        assert!(agree(&place("src", "app"), &place("tests", "app")));
        assert!(agree(&place("src", "app"), &place("src2", "other")));
        assert!(agree(&place("", ""), &place("src", "src")));
    }

    #[test]
    fn places_are_read_as_they_were_written() {
        let places = vec![place("", ""), place("a b\n", "ü/c"), place("x", "")];
        assert_eq!(read(&written(&places)), places);
        assert_eq!(read(b""), []);
    }
}
