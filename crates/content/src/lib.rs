//! Blobs: bytes with a digest. A [`Store`] keeps them on disk; a [`Provider`] is any place they
//! can be read from (a store, a registry, a client's disk), a [`Sink`] any place they can be put,
//! and [`copy`] moves one from the first to the second, skipping what is there and surviving
//! broken connections.
//!
//! What comes out of a provider is not trusted: wrap it in [`Verified`] or write it through an
//! [`Ingest`], and bytes that are not what their digest says never become visible.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod copy;
mod error;
mod ingest;
mod label;
mod provider;
mod resuming;
mod sink;
mod store;
mod stream;
pub mod testing;

pub use copy::{Copied, copy};
pub use error::Error;
pub use ingest::Ingest;
pub use provider::{FirstOf, Limited, Memory, Provider};
pub use resuming::{RETRY_DELAYS, Resuming, resuming};
pub use sink::Sink;
pub use store::{BlobInfo, Store};
pub use stream::{ByteStream, Verified, collect, lazy, once};

/// What this crate's functions give.
pub type Result<T, E = Error> = std::result::Result<T, E>;
