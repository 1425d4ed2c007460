//! The open line to a client: its files, secrets, SSH agent, passwords.
//!
//! Each thing a client may offer is a trait ([`FileSync`], [`FileSend`], [`Auth`],
//! [`Secrets`], [`SshAgent`], [`ContentStores`], [`Upload`], [`Exporters`]). A
//! [`Session`] has those its client offers, and [`Sessions`] knows all sessions.
//! There are three ways to come by one:
//!
//! - [`tunnel::accept`]: the daemon's end. A client opened `Control.Session`; calls
//!   travel *to* it through that stream.
//! - [`serve`]: the client's end of the same, served from an [`Attachables`].
//! - [`Session::direct`]: no wire at all, for the command that builds in one process.
//!
//! The services behind the client's end are in [`local`]: directories, files with
//! secrets, an agent's socket.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod api;
mod error;
pub mod facts;
pub mod fsutil;
mod group;
pub mod local;
mod metadata;
pub mod patterns;
mod registry;
pub mod remote;
pub mod serve;
pub mod tunnel;

pub use api::{
    Attachables, Auth, Bytestream, ContentStore, ContentStores, Credentials, DirRequest,
    ExporterRequest, Exporters, FileSend, FileSync, Observer, Policies, PolicyAnswer,
    PolicyQuestion, Secrets, SendRequest, SshAgent, SshStream, Summary, Target, Token,
    TokenRequest, Upload,
};
pub use error::Error;
pub use group::{Group, WAIT};
pub use registry::{Registration, Session, Sessions};

/// The result of anything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;
