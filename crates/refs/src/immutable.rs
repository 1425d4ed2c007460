//! `Ref`: a final result.

use std::sync::Arc;
use std::time::SystemTime;

use lease::Lease;
use oci::{ChainId, Digest};
use snapshot::LayerId;

use crate::chain::{chain_of, in_place};
use crate::record::{Link, Record};
use crate::{Error, RecordType, Refs, Result};

/// A final filesystem result. Cloning is cheap; the last drop lets go of it, and it may then be
/// pruned.
#[derive(Clone)]
pub struct Ref(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) refs: Refs,
    record: Record,
    _lease: Lease,
}

impl Inner {
    pub(crate) fn new(refs: Refs, record: Record, lease: Lease) -> Inner {
        Inner {
            refs,
            record,
            _lease: lease,
        }
    }

    pub(crate) fn id(&self) -> &str {
        &self.record.id
    }
}

impl Ref {
    /// Its name in the tables, for [`Refs::get`].
    pub fn id(&self) -> &str {
        &self.0.record.id
    }

    /// What made it, for people.
    pub fn description(&self) -> &str {
        &self.0.record.description
    }

    /// When it was made.
    pub fn created(&self) -> SystemTime {
        self.0.record.created
    }

    /// The store it belongs to.
    pub fn refs(&self) -> &Refs {
        &self.0.refs
    }

    /// The name of its stack of layers, once all their diff IDs are known.
    pub fn chain_id(&self) -> Result<Option<ChainId>> {
        let record = self
            .refs()
            .0
            .parts
            .db
            .read(|tx| Record::need(tx, self.id()))?;
        Ok(record.chain.map(ChainId))
    }

    /// Whether a step could read it at once, with nothing to fetch or unpack.
    pub fn is_unpacked(&self) -> Result<bool> {
        match self.unpacked_layers() {
            Ok(_) => Ok(true),
            Err(Error::NotUnpacked(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Its layers, bottom first, each once; `NotUnpacked` when one is missing.
    pub fn unpacked_layers(&self) -> Result<Vec<LayerId>> {
        let links = self.refs().0.parts.db.read(|tx| -> Result<_> {
            let chain = chain_of(tx, self.id())?;
            let links = chain.iter().map(|c| Link::get(tx, c.link));
            let links: Vec<Option<Link>> = links.collect::<db::Result<_>>()?;
            let other = |link: &Option<Link>| {
                matches!(
                    link,
                    Some(Link {
                        unveiled: Some(Some(_)),
                        ..
                    })
                )
            };
            let in_place = match links.iter().any(other) {
                true => in_place(tx, &chain)?,
                false => vec![true; links.len()],
            };
            Ok(links.into_iter().zip(in_place).collect::<Vec<_>>())
        })?;
        let mut layers = Some(Vec::new());
        for (link, in_place) in links {
            let layer = link.and_then(|link| {
                let unveiled = link.unveiled.flatten().filter(|_| !in_place);
                Some((
                    link.skeleton.flatten(),
                    link.layer.map(|own| unveiled.unwrap_or(own))?,
                ))
            });
            match (layer, &mut layers) {
                (Some((skeleton, layer)), Some(layers)) => {
                    layers.extend(skeleton);
                    layers.push(layer);
                }
                _ => layers = None,
            }
        }
        let layers = layers.ok_or_else(|| Error::NotUnpacked(self.id().to_owned()))?;
        Ok(crate::store::topmost(&layers))
    }

    /// Says what the result is for, unless somebody said so before.
    pub fn declare_record_type(&self, record_type: RecordType) -> Result<()> {
        let sql = "UPDATE refs_records SET record_type = ?2 WHERE id = ?1 AND record_type = ?3";
        let usual = RecordType::default();
        let values = [self.id(), record_type.as_str(), usual.as_str()];
        self.refs().0.parts.db.write(|tx| tx.execute(sql, values))?;
        Ok(())
    }

    /// Says what the result is for.
    pub fn set_record_type(&self, record_type: RecordType) -> Result<()> {
        let sql = "UPDATE refs_records SET record_type = ?2 WHERE id = ?1";
        self.refs()
            .0
            .parts
            .db
            .write(|tx| tx.execute(sql, [self.id(), record_type.as_str()]))?;
        Ok(())
    }

    /// Says what made the result, for people.
    pub fn set_description(&self, description: &str) -> Result<()> {
        let sql = "UPDATE refs_records SET description = ?2 WHERE id = ?1";
        self.refs()
            .0
            .parts
            .db
            .write(|tx| tx.execute(sql, [self.id(), description]))?;
        Ok(())
    }

    /// Keeps a blob that is no layer (a manifest, a config) as long as this record.
    pub fn attach(&self, blob: &Digest) -> Result<()> {
        let sql = "INSERT INTO refs_attached VALUES (?1, ?2) ON CONFLICT DO NOTHING";
        self.refs()
            .0
            .parts
            .db
            .write(|tx| tx.execute(sql, [self.id(), &blob.to_string()]))?;
        Ok(())
    }

    /// A small fact kept beside the record (like the content hashes of its files).
    pub fn note(&self, key: &str) -> Result<Option<Vec<u8>>> {
        self.refs().note(self.id(), key)
    }

    /// Sets such a fact.
    pub fn set_note(&self, key: &str, value: &[u8]) -> Result<()> {
        self.refs().set_note(self.id(), key, value)
    }
}

impl PartialEq for Ref {
    fn eq(&self, other: &Ref) -> bool {
        self.id() == other.id()
    }
}

impl Eq for Ref {}

impl std::fmt::Debug for Ref {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ref({} {:?})", self.id(), self.description())
    }
}
