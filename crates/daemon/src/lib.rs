//! gRPC services, configuration, start and stop.
//!
//! The daemon translates: requests into [`engine`]'s words, results into messages.
//! What it decides itself is where it listens, who may use its state directory, and
//! how it ends.
#![forbid(unsafe_code)]

mod blobs;
pub mod builder;
mod builds;
pub mod config;
mod control;
mod debug;
pub mod engine_builder;
mod error;
mod from_proto;
mod gateway;
mod gc;
mod history;
pub mod listen;
pub mod lock;
pub mod notify;
pub mod run;
mod serve;
mod streamed;
mod to_proto;
mod traces;

pub use error::Error;
pub use serve::Services;
