//! Wire messages, generated from the `.proto` files beside this crate, and
//! nothing else: clients, servers and the JSON that travels in error details.
//!
//! A module is named after its package: [`pb`] for the graph,
//! [`moby::buildkit::v1`] for the daemon's API, [`moby::filesync::v1`] for the
//! files of a session, and so on; [`Raw`] carries messages nobody looks into. Package names, message names and field numbers
//! are a contract with every other program that speaks to us; see the `.proto`
//! files for what each field means.

pub mod details;
mod raw;

pub use packages::{containerd, errdefs, fsutil, google, grpc, moby, opentelemetry, pb, stack};
pub use raw::Raw;

/// The descriptors of everything here, for server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// How large a list of headers may be. Error details, which hold the whole
/// Dockerfile, travel as a trailer, and the HTTP/2 default of 16 KiB breaks them.
pub const MAX_HEADER_LIST_SIZE: u32 = 16 << 20;

/// How large one message may be, sent or received.
pub const MAX_MESSAGE_SIZE: usize = 16 << 20;

#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    rustdoc::all,
    reason = "generated: the .proto files are where to read"
)]
mod packages {
    include!(concat!(env!("OUT_DIR"), "/packages.rs"));
}

#[cfg(test)]
mod tests;
