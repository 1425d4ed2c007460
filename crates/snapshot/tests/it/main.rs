//! The snapshotters from outside.

mod copies;
mod crash;
mod overlay;
