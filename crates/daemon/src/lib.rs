//! gRPC services, configuration, start and stop.
//!
//! The daemon translates: requests into [`engine`]'s words, results into messages.
//! What it decides itself is where it listens, who may use its state directory, and
//! how it ends.

pub mod config;
mod error;
mod from_proto;
mod gateway;
pub mod listen;
pub mod lock;
mod notify;
mod to_proto;

pub use error::Error;
