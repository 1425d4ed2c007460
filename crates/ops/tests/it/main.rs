//! Ops done for real: trees in real layer directories, processes in real containers.

mod build_op;
mod container;
mod contents;
mod exec;
mod exec_shared;
mod failed;
mod lent;
mod pins;
mod setup;

executor::helper_hook!();
