//! Whole builds in this process, without a wire.

mod failed;
mod platforms;
mod statements;

executor::helper_hook!();
