//! What std could have had: error kinds, owned tasks, paths opened beneath a root,
//! readings of text.
//! Knows nothing of containers.

mod kind;
pub mod owner;
pub mod patterns;
pub mod sys;
pub mod task;
pub mod text;

pub use kind::Kind;
