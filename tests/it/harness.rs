//! What the tests stand on: the program itself, places to run it in, registries,
//! the tools of others, and a look at what was left behind.

mod archive;
mod binary;
mod buildx;
mod daemon;
mod docker;
mod leaks;
mod peers;
mod place;
mod plain;
mod registry;
mod running;

pub(crate) use archive::{Layout, entries, json, unpacked};
pub(crate) use binary::kiln;
pub(crate) use buildx::Buildx;
pub(crate) use daemon::Daemon;
pub(crate) use docker::{Docker, WITH_BUILDKIT, docker, dockerd};
pub(crate) use peers::Peers;
pub(crate) use place::Place;
pub(crate) use registry::{BaseImage, Memory, Real, free_port, golden, mirror};
pub(crate) use running::{Ran, Running};
