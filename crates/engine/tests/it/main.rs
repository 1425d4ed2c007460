//! Whole builds in this process, without a wire.

mod statements;
