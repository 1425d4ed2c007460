//! Where files come from: image, git, http, local folder, OCI layout.
//!
//! A source op's identifier and attributes become an [`Identifier`], strictly.
//! [`Sources`] holds what the daemon reads with; a [`Context`] says on whose
//! behalf. Each kind of source answers two questions: `cache_key`, which may
//! ask the network but moves no file, and `fetch`, which gives a [`refs::Ref`].
//!
//! ```text
//! Identifier::parse(op) ─┬─ Image::new(..).cache_key(cx, 0), cache_key(cx, 1), fetch(cx)
//!                        ├─ Git::new(..)   .cache_key(cx),                    fetch(cx)
//!                        ├─ Http::new(..)  .cache_key(cx),                    fetch(cx)
//!                        ├─ Blob::new(..)  .cache_key(),                      fetch(cx)
//!                        └─ Local::new(..) .cache_key(cx),                    fetch(cx)
//! ```

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod blob;
mod context;
mod credentials;
mod error;
mod file;
mod git;
mod http;
mod identifier;
mod image;
mod local;
mod pins;
mod resolutions;
mod source;

pub use blob::Blob;
pub use context::{Context, Parts, Sources};
pub use credentials::SessionCredentials;
pub use error::{Error, Result};
pub use git::Git;
pub use http::Http;
pub use identifier::{
    BlobId, BlobPlace, FileAttrs, GitBundle, GitId, GitSignature, HttpId, HttpSignature,
    Identifier, ImageId, LayoutId, LocalId, Mtime, ResolveMode, canonical,
};
pub use image::{Image, ImageConfig, documents};
pub use local::{CONTENTS_NOTE, Local};
pub use pins::{Pinned, Pins};
pub use resolutions::Resolutions;
pub use source::{Key, Source};
