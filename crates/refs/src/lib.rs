//! Handles to filesystem results. A [`Ref`] is final and cheap to clone; the last drop lets go.
//! It may be *lazy*: known by its blobs, not unpacked, perhaps not fetched. A [`MutableRef`] is
//! being written, and its commit gives a `Ref`.
//!
//! Behind each is a *record*: a layer on a parent, a merge of several, the difference of two, or
//! a kept directory. Merging and taking differences move no files: a file system is a list of
//! layers, and these only make other lists.
//!
//! Life of a pulled image: [`Refs::from_layers`] finds or makes lazy refs, asking no network.
//! [`Ref::tree`] fetches and unpacks what is missing when a step wants to read, and
//! [`Ref::layers`] gives the blobs again for a push, untouched.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod blob;
mod chain;
mod error;
mod fetch;
mod filter;
mod immutable;
mod introduced;
mod kept;
mod lend;
mod mutable;
mod note;
mod places;
mod prune;
mod record;
mod repair;
mod skeleton;
mod store;
mod unpack;
mod unveil;
mod usage;

pub use blob::{BlobOptions, Create};
pub use error::Error;
pub use filter::Filter;
pub use immutable::Ref;
pub use kept::Sharing;
pub use mutable::MutableRef;
pub use prune::{Disk, Limits, PrunePolicy, choose, default_policies};
pub use record::{LayerBlob, RecordMeta, RecordType};
pub use store::{Parts, Refs};
pub use usage::UsageRecord;

/// What this crate's functions give.
pub type Result<T, E = Error> = std::result::Result<T, E>;
