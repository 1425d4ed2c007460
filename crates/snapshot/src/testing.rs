//! What every [`crate::Snapshotter`] promises, as tests.
