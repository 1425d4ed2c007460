//! What many tests need: a registry in memory that misbehaves on command, and
//! images, trees and tars made from a seed, so that no fixture files lie about.
//!
//! ```no_run
//! # async fn example() {
//! use testkit::{image::Image, registry::{Fault, Server}};
//! let server = Server::start().await;
//! let image = Image::seeded(1, 3, 10, 1000);
//! server.add_image("app", "latest", &image);
//! server.fault(Fault::status(500).on("/blobs/").times(2));
//! let name = format!("{}/app:latest", server.host());
//! # }
//! ```
#![forbid(unsafe_code)]
#![warn(missing_docs)]

#[cfg(feature = "bridge")]
pub mod bridge;
pub mod dice;
#[cfg(feature = "executor")]
pub mod executor;
pub mod image;
pub mod registry;
pub mod tar;
pub mod tree;
pub mod web;
