//! Real containers, of the executor built in and of runtime binaries.

mod native;
mod runtime;

executor::helper_hook!();
