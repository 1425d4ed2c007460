//! Whole builds in this process, without a wire.

mod compatibility;
mod exporters;
mod failed;
mod nested;
mod platforms;
mod policies;
mod setup;
mod statements;

executor::helper_hook!();
