//! Layers with opaque directories, on other layers than they were made on. Overlayfs makes a
//! directory opaque when it is removed and made again, often also when it is new: nothing that
//! lies below shows through. The layer's blob says which names are gone, and nothing of what
//! else may lie there one day. So where such a layer is laid on others, in a merge, another
//! form of it is used, unpacked from what its blob says. What came from outside says itself
//! whether a directory is opaque, and stays as it is.
//!
//! The same is done with a layer that holds files as they were below, which its blob leaves out:
//! a file that was moved away and back is in the directory overlayfs wrote, and no change. Shown
//! alone, as a difference of two trees, it would be one.
//!
//! And with a layer that shares files with one below it, which shows them at other
//! places (`lend.rs`): in the form unpacked from its blob they are copies.

use std::io;
use std::path::PathBuf;

use content::Provider;
use progress::StepProgress;
use stdx::sys::Root;
use stdx::task::blocking;

use crate::chain::{Chained, in_place};
use crate::lend::shown_twice;
use crate::record::{Link, Shape};
use crate::unpack::through_a_pipe;
use crate::{Error, Refs, Result};

/// A link that may need another form.
#[derive(Clone, Copy)]
struct Veiling<'c> {
    chained: &'c Chained,
    /// It does, for the files it shares.
    shares: bool,
}

/// Whether the form a link needs is there, or it was found to need none.
fn is_known(link: &Link, shares: bool) -> bool {
    match &link.unveiled {
        Some(form) => form.is_some() || !shares,
        None => false,
    }
}

impl Refs {
    /// Sees that the links of a chain, all unpacked, can stand where they do.
    pub(crate) async fn unveil(
        &self,
        chain: &[Chained],
        provider: &dyn Provider,
        step: &StepProgress,
    ) -> Result<()> {
        for veiling in self.veiling(chain)? {
            let key = format!("unveil {}", veiling.chained.link);
            let _alone = self.0.unpacking.lock(key).await;
            self.unveil_link(veiling, provider, step).await?;
        }
        Ok(())
    }

    /// Links of our own that do not stand on what they were made on, and were not looked at yet.
    fn veiling<'c>(&self, chain: &'c [Chained]) -> Result<Vec<Veiling<'c>>> {
        self.0.parts.db.read(|tx| {
            let mut found = Vec::new();
            let in_place = in_place(tx, chain)?;
            if in_place.iter().all(|in_place| *in_place) {
                return Ok(found);
            }
            let shown_twice = shown_twice(tx, chain)?;
            for (at, chained) in chain.iter().enumerate().filter(|(at, _)| !in_place[*at]) {
                let shares = shown_twice.contains(&at);
                let veiling = Veiling { chained, shares };
                let link = Link::get(tx, chained.link)?;
                let blobs = Link::blobs(tx, chained.link)?;
                let known = link.is_none_or(|link| is_known(&link, veiling.shares))
                    || blobs.iter().any(|blob| blob.from_outside)
                    || chained.shape != Shape::Layer;
                if !known {
                    found.push(veiling);
                }
            }
            Ok(found)
        })
    }

    async fn unveil_link(
        &self,
        veiling: Veiling<'_>,
        provider: &dyn Provider,
        step: &StepProgress,
    ) -> Result<()> {
        let Veiling { chained, shares } = veiling;
        let (link, of) = (chained.link, chained.of.clone());
        let known = self.0.parts.db.read(|tx| Link::get(tx, link))?;
        let known = known.is_none_or(|link| is_known(&link, veiling.shares));
        let Some(layer) = self.layer_of(link)?.filter(|_| !known) else {
            return Ok(());
        };
        let own = self.0.parts.snapshots.layer(&layer)?;
        let below = match &chained.parent {
            Some(parent) => Some(self.need(parent)?.tree_boxed(provider, step).await?),
            None => None,
        };
        let (looked, under) = (own.clone(), below.clone());
        let anew = shares
            || blocking(move || says_more(looked.root(), under.as_ref().map(|tree| tree.root())))
                .await
                .map_err(|source| Error::Pack {
                    record: chained.of.clone(),
                    source,
                })?;
        let refs = self.clone();
        blocking(move || {
            let active = match anew {
                true => Some(refs.0.parts.snapshots.new_layer()?),
                false => None,
            };
            if let Some(active) = &active {
                let below = below.as_ref().map(|tree| tree.root());
                let options = refs.apply_options();
                through_a_pipe(active.tree().root(), &options, |tar| {
                    layer::diff(own.root(), below, tar).map(drop)
                })
                .map_err(|source| Error::Pack { record: of, source })?;
            }
            refs.0.parts.db.write(|tx| {
                let now = Link::get(tx, link)?;
                if now.is_none_or(|link| is_known(&link, shares)) {
                    return Ok(());
                }
                let layer = active
                    .map(|active| refs.0.parts.snapshots.commit(active))
                    .transpose()?;
                Ok(Link::set_unveiled(tx, link, layer.as_ref())?)
            })
        })
        .await
    }
}

/// Whether a layer's directory, anywhere else than on what is below it, would show or hide more
/// than its blob says.
fn says_more(own: &Root, below: Option<&Root>) -> layer::Result<bool> {
    if has_opaque(own).map_err(layer::Error::Read)? {
        return Ok(true);
    }
    below.map_or(Ok(false), |below| layer::holds_more(own, below))
}

/// Whether overlayfs marked any directory as opaque.
fn has_opaque(layer: &Root) -> io::Result<bool> {
    let mut todo = vec![PathBuf::new()];
    while let Some(dir) = todo.pop() {
        for (name, value) in layer.xattrs(&dir)? {
            let ours = matches!(
                name.as_encoded_bytes(),
                b"trusted.overlay.opaque" | b"user.overlay.opaque"
            );
            if ours && value == b"y" {
                return Ok(true);
            }
        }
        for entry in layer.read_dir(&dir)? {
            let path = dir.join(&entry.name);
            let is_dir = match entry.kind {
                Some(kind) => kind == stdx::sys::FileKind::Dir,
                None => layer.lstat(&path)?.is_dir(),
            };
            if is_dir {
                todo.push(path);
            }
        }
    }
    Ok(false)
}
