//! The command line: one file per command, and the progress display.
//!
//! This crate knows daemons only through the `client` crate; the program gives it a
//! way to reach one.
#![forbid(unsafe_code)]

pub mod build;
pub mod display;
pub mod du;
mod error;
pub mod prune;
pub mod report;
pub mod rim;

pub use error::Error;
