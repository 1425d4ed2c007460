//! The command line as people and scripts see it.

mod display;
mod plan;
