//! What std could have had: error kinds, owned tasks, paths opened beneath a root.
//! Knows nothing of containers.

mod kind;
pub mod owner;
pub mod patterns;
pub mod sys;
pub mod task;

pub use kind::Kind;
