//! The command line: one file per command, and the progress display.
//!
//! The program parses [`Kiln`] and calls [`run`] with a way to reach an engine;
//! this crate knows daemons only through the `client` crate.
#![forbid(unsafe_code)]

pub mod display;
mod error;

pub use error::Error;
