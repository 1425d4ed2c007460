//! Cache records to and from elsewhere: a registry, an image (inline), a client's directory.
//!
//! The exchanged document is BuildKit's cache config ([`config`]): which keys lead to which
//! layers. Around it lies an image manifest, an index or a Docker list ([`container`]) so that
//! registries keep the layers. [`Chains`] is the graph in between: [`import`] makes it from a
//! document and offers it to the solver as a store of records whose results are lazy;
//! [`export`](mod@export) makes it from what the solver knows and writes the document. The same
//! graph gives the same bytes.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod chains;
pub mod config;
pub mod container;
mod error;
pub mod export;
pub mod import;
pub mod inline;
mod spec;
mod when;

pub use chains::{Chains, Layer, NodeId, Stored};
pub use error::{Error, ParseError};
pub use spec::{ExportSpec, ExportTo, Form, ImportFrom, ImportSpec, check_duplicates};

/// What this crate's functions give.
pub type Result<T, E = Error> = std::result::Result<T, E>;
