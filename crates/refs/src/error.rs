//! What can go wrong with filesystem results.

use std::io;

use oci::{DiffId, Digest};
use stdx::Kind;

/// What can go wrong with filesystem results.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The record was pruned or never made.
    #[error("no record {0}")]
    NoRecord(String),
    /// The ref must be unpacked first: `Ref::tree` does it.
    #[error("record {0} is not unpacked")]
    NotUnpacked(String),
    /// The ref has no blobs yet and none were to be made.
    #[error("no blobs for snapshot {0}")]
    NoBlobs(String),
    /// A record has neither its layer nor a blob to make it from.
    #[error("layer {layer} of record {record} is lost: it has no blob to unpack again")]
    Lost {
        /// Whose layer.
        record: String,
        /// Which one, as numbered in the tables.
        layer: i64,
    },
    /// The layer's tar is not the one the image's config names.
    #[error("layer {blob} unpacks to {found}, but its image says {expected}")]
    WrongDiffId {
        /// The blob.
        blob: Digest,
        /// What the image says.
        expected: DiffId,
        /// What it is.
        found: DiffId,
    },
    /// A ref made by nothing.
    #[error("a merge needs at least one ref")]
    EmptyMerge,
    /// Only what was begun alone and without a parent can be made final in place.
    #[error("kept directory `{0}` cannot be frozen: it has a parent or is in use elsewhere")]
    CannotFreeze(String),
    /// A filter of records that cannot be read.
    #[error("filter `{filter}`: {reason}")]
    Filter {
        /// The filter as given.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A blob.
    #[error(transparent)]
    Content(#[from] content::Error),
    /// A layer directory.
    #[error(transparent)]
    Snapshot(#[from] snapshot::Error),
    /// Unpacking a layer.
    #[error("unpacking layer {blob}")]
    Unpack {
        /// Which one.
        blob: Digest,
        /// Why.
        source: layer::Error,
    },
    /// Packing a layer.
    #[error("packing a layer of record {record}")]
    Pack {
        /// Whose.
        record: String,
        /// Why.
        source: layer::Error,
    },
    /// A blob that is wanted in another compression.
    #[error("failed to ensure compression type of {compression:?}")]
    Convert {
        /// The compression.
        compression: &'static str,
        /// Why.
        source: Box<Error>,
    },
    /// A lease.
    #[error(transparent)]
    Lease(#[from] lease::Error),
    /// The tables.
    #[error("the tables of filesystem results")]
    Db(#[from] db::Error),
    /// A document in the tables cannot be read.
    #[error("a row of record {record} cannot be read")]
    Row {
        /// Whose.
        record: String,
        /// Why.
        source: serde_json::Error,
    },
    /// Reading what an earlier try left.
    #[error("reading a blob")]
    Io(#[from] io::Error),
}

impl Error {
    /// What a caller can do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Error::NoRecord(_) | Error::NoBlobs(_) | Error::Lost { .. } => Kind::NotFound,
            Error::NotUnpacked(_)
            | Error::EmptyMerge
            | Error::Filter { .. }
            | Error::WrongDiffId { .. } => Kind::InvalidInput,
            Error::CannotFreeze(_) => Kind::Unavailable,
            Error::Content(error) => error.kind(),
            Error::Snapshot(error) => error.kind(),
            Error::Unpack { source, .. } | Error::Pack { source, .. } => source.kind(),
            Error::Convert { source, .. } => source.kind(),
            Error::Lease(error) => error.kind(),
            Error::Db(error) => error.kind(),
            Error::Row { .. } | Error::Io(_) => Kind::Internal,
        }
    }
}
