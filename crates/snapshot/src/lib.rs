//! Directory states: prepare, mount, commit, remove; overlay and plain-copy kinds; merge and diff.

mod tree;

pub use tree::Tree;
