//! Whole builds in this process, without a wire.

mod exporters;
mod failed;
mod nested;
mod platforms;
mod policies;
mod statements;

executor::helper_hook!();
