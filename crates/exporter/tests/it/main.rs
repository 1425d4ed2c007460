//! Exports from real results: golden images, archives, directories, a registry.

mod archive;
mod files;
mod golden;
mod image;
mod push;
mod setup;
