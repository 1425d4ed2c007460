//! `kiln build`: from flags to a request, and from the answer to files and words.

pub(crate) mod csv;
pub mod flags;
mod name;
pub mod output;
pub mod plan;
pub mod subrequest;
