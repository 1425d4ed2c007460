//! Real containers, of the executor built in and of runtime binaries.

mod native;

executor::helper_hook!();
