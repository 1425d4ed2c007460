//! The snapshotters from outside.

mod overlay;
