//! What can be kept.

use oci::Digest;
use snapshot::LayerId;

/// Something that can be kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Thing {
    /// A blob of the content store.
    Blob(Digest),
    /// A layer directory.
    Layer(LayerId),
    /// A record of a filesystem result, by its id.
    Record(String),
}

impl Thing {
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Thing::Blob(_) => "blob",
            Thing::Layer(_) => "layer",
            Thing::Record(_) => "record",
        }
    }

    pub(crate) fn name(&self) -> String {
        match self {
            Thing::Blob(digest) => digest.to_string(),
            Thing::Layer(layer) => layer.to_string(),
            Thing::Record(id) => id.clone(),
        }
    }

    /// A row read back; `None` for a row no version of ours writes.
    pub(crate) fn read(kind: &str, name: String) -> Option<Thing> {
        match kind {
            "blob" => name.parse().ok().map(Thing::Blob),
            "layer" => name.parse().ok().map(Thing::Layer),
            "record" => Some(Thing::Record(name)),
            _ => None,
        }
    }
}
