//! What must stay, and the sweep that removes the rest.
//!
//! Three kinds of things are kept: blobs, layers and the records that point at them. A thing
//! stays while a record reaches it, while a [`Lease`] on it lives, or while it is pinned under a
//! name. A lease belongs to its process: the row that tells other processes of it counts only
//! as long as that process holds its lock file, so a killed build keeps nothing.
//!
//! [`sweep`] goes by reach, never by age, and does its looking and removing in one write
//! transaction, which no commit of a blob or record can overlap.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod error;
mod leases;
mod sweep;
mod thing;

pub use error::Error;
pub use leases::{Lease, Leases};
pub use sweep::{Roots, Swept, sweep};
pub use thing::Thing;

/// What this crate's functions give.
pub type Result<T, E = Error> = std::result::Result<T, E>;
