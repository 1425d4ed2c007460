//! Names of uncompressed layers and of stacks of them (OCI image-spec, "Layer ChainID").

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Digest;

/// Digest of an *uncompressed* layer tar.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DiffId(pub Digest);

/// Name of a stack of layers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChainId(pub Digest);

impl ChainId {
    /// The name of the stack with `upper` laid on `lower`.
    pub fn on(lower: Option<ChainId>, upper: DiffId) -> ChainId {
        match lower {
            None => ChainId(upper.0),
            Some(lower) => ChainId(Digest::of(format!("{lower} {upper}"))),
        }
    }
}

/// The name of the whole stack, bottom first; `None` when there is no layer.
pub fn chain_id(diff_ids: &[DiffId]) -> Option<ChainId> {
    diff_ids
        .iter()
        .fold(None, |lower, diff_id| Some(ChainId::on(lower, *diff_id)))
}

macro_rules! shown_as_digest {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { self.0.fmt(f) }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { fmt::Display::fmt(&self.0, f) }
        }
    )*};
}
shown_as_digest!(DiffId, ChainId);
