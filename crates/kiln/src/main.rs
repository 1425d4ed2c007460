//! The one binary: command line, daemon and container helper under one name.
fn main() {}
