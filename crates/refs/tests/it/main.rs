//! Filesystem results from outside. Those with real mounts need root.

mod blobs;
mod kept;
mod lazy;
mod prune;
mod setup;
mod world;
