//! The links along a record's parents, and the names of chains (core.md §4.8).

use db::Tx;
use oci::{DiffId, Digest};

use crate::Result;
use crate::record::{Link, Record, Shape};

/// One link of a record's file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chained {
    /// The link.
    pub(crate) link: i64,
    /// The record whose own change it is; the layers under *that* record are what it changed.
    pub(crate) of: String,
    /// What kind of record that is.
    pub(crate) shape: Shape,
    /// What that record was made on.
    pub(crate) parent: Option<String>,
}

/// The links of a record, bottom first. A merge of things that share a base has it several times.
pub(crate) fn chain_of(tx: &Tx<'_>, id: &str) -> Result<Vec<Chained>> {
    let mut chain = Vec::new();
    // Walks down the parents without recursion: chains of steps are long, merges are shallow.
    let mut next = Some(id.to_owned());
    let mut upper: Vec<Vec<Chained>> = Vec::new();
    while let Some(id) = next.take() {
        let record = Record::need(tx, &id)?;
        let own = record.link.map(|link| Chained {
            link,
            of: id.clone(),
            shape: record.shape,
            parent: record.parent.clone(),
        });
        match record.shape {
            Shape::Layer => {
                upper.push(own.into_iter().collect());
                next = record.parent;
            }
            Shape::Merge => {
                for input in Record::inputs(tx, &id)? {
                    chain.extend(chain_of(tx, &input)?);
                }
            }
            Shape::Diff => chain.extend(match own {
                Some(own) => vec![own],
                None => above(tx, &id)?,
            }),
            // A kept directory is no layer anyone can stack on.
            Shape::Kept => {}
        }
    }
    chain.extend(upper.into_iter().rev().flatten());
    Ok(chain)
}

/// The links of a difference whose lower chain begins the upper one.
fn above(tx: &Tx<'_>, diff: &str) -> Result<Vec<Chained>> {
    let inputs = Record::inputs(tx, diff)?;
    let Some((upper, lower)) = inputs.split_last() else {
        return Ok(Vec::new());
    };
    let mut chain = chain_of(tx, upper)?;
    let below = match lower.first() {
        Some(lower) => chain_of(tx, lower)?.len(),
        None => 0,
    };
    Ok(chain.split_off(below.min(chain.len())))
}

/// Whether `lower` begins `upper`, link by link.
pub(crate) fn begins(lower: &[Chained], upper: &[Chained]) -> bool {
    lower.len() <= upper.len() && lower.iter().zip(upper).all(|(l, u)| l.link == u.link)
}

/// For each link, whether all that lies below is what it was made on.
pub(crate) fn in_place(tx: &Tx<'_>, chain: &[Chained]) -> Result<Vec<bool>> {
    let mut flags: Vec<bool> = Vec::with_capacity(chain.len());
    for (at, chained) in chain.iter().enumerate() {
        let below = &chain[..at];
        flags.push(match (chained.shape, &chained.parent, below.last()) {
            (Shape::Layer, None, None) => true,
            // The usual case, without a look at the whole chain.
            (Shape::Layer, Some(parent), Some(last)) if last.of == *parent && flags[at - 1] => true,
            (Shape::Layer, Some(parent), _) => {
                let own = chain_of(tx, parent)?;
                own.len() == at && begins(&own, below)
            }
            _ => false,
        });
    }
    Ok(flags)
}

/// `C(a, b)`: the name of `upper` on `lower`.
pub(crate) fn on(lower: Option<Digest>, upper: Digest) -> Digest {
    match lower {
        None => upper,
        Some(lower) => Digest::of(format!("{lower} {upper}")),
    }
}

/// The name of one blob in a blob chain: `C(blob, diff ID)`.
pub(crate) fn blob_step(blob: Digest, diff_id: DiffId) -> Digest {
    on(Some(blob), diff_id.0)
}

/// Names the record's chains, and those of its parents, as far as their blobs are known.
pub(crate) fn name_chains(tx: &Tx<'_>, id: &str) -> Result<()> {
    let record = Record::need(tx, id)?;
    if record.chain.is_some() && record.blob_chain.is_some() {
        return Ok(());
    }
    if let (Shape::Layer, Some(parent)) = (record.shape, &record.parent) {
        name_chains(tx, parent)?;
    }
    let (mut chain, mut blob_chain) = (None, None);
    for chained in chain_of(tx, id)? {
        let Some(link) = Link::get(tx, chained.link)? else {
            return Ok(());
        };
        let main = Link::blobs(tx, chained.link)?
            .into_iter()
            .find(|blob| blob.main);
        let (Some(diff_id), Some(main)) = (link.diff_id, main) else {
            return Ok(());
        };
        chain = Some(on(chain, diff_id.0));
        blob_chain = Some(on(blob_chain, blob_step(main.descriptor.digest, diff_id)));
    }
    let sql = "UPDATE refs_records SET chain = ?2, blob_chain = ?3 WHERE id = ?1";
    let text = |digest: Option<Digest>| digest.map(|digest| digest.to_string());
    tx.execute(sql, db::params![id, text(chain), text(blob_chain)])?;
    Ok(())
}
