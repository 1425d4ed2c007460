//! Directory states. A *layer* is one change to a directory tree, kept as a directory in the
//! form overlayfs understands (a character device 0/0 hides a name, an `overlay.opaque`
//! attribute hides what lies under a directory); a file system is an ordered list of layers.
//!
//! A [`Snapshotter`] shows such a list as a [`Tree`] to read ([`Snapshotter::view`]) or to write
//! ([`Snapshotter::begin`]), and makes what was written a layer of its own. There are two kinds:
//! [`Overlay`], which mounts, and [`Copies`], which needs no mount and no rights.
//!
//! Mounts are *detached*: they hang on a file descriptor and appear in no mount table, so a
//! killed process leaves none behind. Layers do not know what lies under them; which list they
//! belong to is the business of `refs`.
#![warn(missing_docs)]

mod active;
mod auto;
mod copies;
mod error;
mod folder;
mod keeper;
mod layer_id;
mod overlay;
mod snapshotter;
pub mod testing;
mod tree;
mod usage;

pub use active::Active;
pub use auto::{Choice, open};
pub use copies::Copies;
pub use error::Error;
pub use layer_id::{KeptId, LayerId};
pub use overlay::Overlay;
pub use snapshotter::Snapshotter;
pub use tree::Tree;
pub use usage::{SharedFile, Usage, disk_usage};

/// What this crate's functions give.
pub type Result<T, E = Error> = std::result::Result<T, E>;
