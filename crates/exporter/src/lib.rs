//! Where results go: image, OCI or Docker archive, tar, local folder.
//!
//! [`Source`] is what a build gave, [`image::write`] makes the documents of an image
//! of it, [`push`] sends them to a registry, [`archive`] writes them as one tar, and
//! [`files`] takes the files themselves out. No exporter keeps anything between two
//! calls.
#![forbid(unsafe_code)]

mod annotations;
pub mod archive;
mod attestation;
mod config;
mod document;
mod error;
pub mod files;
mod history;
pub mod image;
mod options;
mod push;
mod rewrite;
mod sbom;
mod source;
mod stamp;

pub use annotations::Annotations;
pub use config::default_config;
pub use error::{Error, Result};
pub use history::History;
pub use options::ImageOptions;
pub use push::{PushOptions, push};
pub use source::{About, PlatformResult, Source, Statement};
pub use stamp::Stamp;
