//! What a client offers from its own machine. Used without a wire by the command that
//! builds in one process, and behind [`crate::serve`] by the one that asks a daemon.

mod dirs;
mod logins;
mod secrets;
mod ssh;
mod stores;
mod targets;

pub use dirs::Dirs;
pub use logins::{FindLogin, Logins};
pub use secrets::{SecretSource, SecretValues};
pub use ssh::SshSockets;
pub use stores::Stores;
pub use targets::{OpenWriter, Target, Targets};
