//! Exports from real results: golden images, archives, directories, a registry.

mod archive;
mod files;
mod golden;
mod push;
mod setup;
