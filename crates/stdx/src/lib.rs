//! What std could have had: error kinds, owned tasks, locks by key, paths opened beneath a root,
//! readings of text.
//! Knows nothing of containers.

mod kind;
pub mod locks;
pub mod owner;
pub mod patterns;
pub mod sys;
pub mod task;
pub mod text;

pub use kind::Kind;
