//! Whiteouts with nothing under them. Overlayfs hides a whiteout only in directories it merges:
//! where a layer stands without the layers it was made on (in a difference), a directory of it
//! may be in no other layer, and then the whiteout's name is listed though it cannot be opened.
//! A *skeleton* under such a layer, of empty directories wherever whiteouts are, lets overlayfs
//! merge there. Where the layer stands on what it was made on, a skeleton changes nothing: each of
//! its directories is in the layer too, which is above it.

use std::io;
use std::path::{Path, PathBuf};

use stdx::sys::{FileKind, Root};
use stdx::task::blocking;

use crate::chain::{Chained, chain_of};
use crate::record::{Link, Shape};
use crate::{Refs, Result};

impl Refs {
    /// Sees that displaced layers of a chain, all unpacked, have their skeletons.
    pub(crate) async fn give_skeletons(&self, chain: &[Chained]) -> Result<()> {
        for link in self.displaced(chain)? {
            let _alone = self.0.unpacking.lock(format!("skeleton {link}")).await;
            let refs = self.clone();
            blocking(move || refs.give_skeleton(link)).await?;
        }
        Ok(())
    }

    /// Links that do not stand on what they were made on, and were not looked at yet.
    fn displaced(&self, chain: &[Chained]) -> Result<Vec<i64>> {
        self.0.parts.db.read(|tx| {
            let mut displaced = Vec::new();
            for (at, chained) in chain.iter().enumerate() {
                let below = at.checked_sub(1).map(|below| &chain[below]);
                let in_place = match (chained.shape, &chained.parent) {
                    (Shape::Diff, _) => false,
                    (_, None) => true,
                    (_, Some(parent)) => {
                        below.is_some_and(|below| below.of == *parent)
                            || chain_of(tx, parent)?.last() == below
                    }
                };
                let link = Link::get(tx, chained.link)?;
                if link.is_none_or(|link| link.skeleton.is_some()) {
                    continue;
                }
                // What came from outside may have been such a difference there.
                let from_outside = Link::blobs(tx, chained.link)?
                    .iter()
                    .any(|b| b.from_outside);
                if !in_place || from_outside {
                    displaced.push(chained.link);
                }
            }
            Ok(displaced)
        })
    }

    fn give_skeleton(&self, link: i64) -> Result<()> {
        let unveiled = self.0.parts.db.read(|tx| Link::get(tx, link))?;
        let unveiled = unveiled.and_then(|link| link.unveiled.flatten());
        let Some(layer) = unveiled.or(self.layer_of(link)?) else {
            return Ok(());
        };
        let tree = self.0.parts.snapshots.layer(&layer)?;
        let mut dirs = Vec::new();
        with_whiteouts(tree.root(), Path::new(""), &mut dirs)?;
        let active = if dirs.is_empty() {
            None
        } else {
            Some(self.0.parts.snapshots.new_layer()?)
        };
        if let Some(active) = &active {
            for dir in dirs {
                active.tree().root().create_dir_all(dir, 0o755)?;
            }
        }
        self.0.parts.db.write(|tx| {
            if Link::get(tx, link)?.is_none_or(|link| link.skeleton.is_some()) {
                return Ok(());
            }
            let layer = active
                .map(|active| self.0.parts.snapshots.commit(active))
                .transpose()?;
            Ok(Link::set_skeleton(tx, link, layer.as_ref())?)
        })
    }
}

/// Directories below the root in which something is whited out.
fn with_whiteouts(root: &Root, dir: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut here = false;
    for entry in root.read_dir(".")? {
        // The directory tells most kinds, so few files have to be looked at.
        let (is_dir, is_device) = match entry.kind {
            Some(kind) => (kind == FileKind::Dir, kind == FileKind::CharDevice),
            None => (root.lstat(&entry.name)?.is_dir(), true),
        };
        here |= is_device && root.lstat(&entry.name)?.is_whiteout();
        if is_dir {
            with_whiteouts(
                &root.open_dir_nofollow(&entry.name)?,
                &dir.join(&entry.name),
                found,
            )?;
        }
    }
    if here && dir != Path::new("") {
        found.push(dir.to_path_buf());
    }
    Ok(())
}
