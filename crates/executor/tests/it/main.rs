//! Real containers, of the executor built in and of runtime binaries.

mod crash;
mod escapes;
mod native;
mod network;
mod runtime;
mod trees;

executor::helper_hook!();
