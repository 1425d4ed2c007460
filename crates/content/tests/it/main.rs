//! The content store from outside.

mod copying;
mod crash;
mod store;
mod suites;
