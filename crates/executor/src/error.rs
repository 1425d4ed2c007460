//! What can go wrong around a container, as opposed to inside it.

use std::io;
use std::path::PathBuf;

use stdx::Kind;

/// Why a process could not be run (or not to its own end).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Asked for something this executor or this host does not do.
    #[error("not supported: {what}")]
    Unsupported {
        /// What was asked for, and what would help.
        what: String,
    },
    /// The request itself is wrong.
    #[error("{what} is not valid: {reason}")]
    Invalid {
        /// Which part of the request.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A mount's source is not there or not usable.
    #[error("mount source {source_path:?} for {target}")]
    Source {
        /// Path inside the tree, or on the host.
        source_path: String,
        /// Where it should have been mounted.
        target: String,
        /// Why not.
        source: io::Error,
    },
    /// A mount point could not be made or must not be used.
    #[error("mount point {target}: {reason}")]
    Target {
        /// Path in the container.
        target: String,
        /// Why not.
        reason: String,
    },
    /// The user or group is not in the root's passwd and group files.
    #[error("unable to find user {user}: {reason}")]
    User {
        /// As asked for.
        user: String,
        /// Which part, and where it was looked for.
        reason: String,
    },
    /// The program could not be executed.
    #[error("exec {program:?}")]
    Program {
        /// First argument.
        program: String,
        /// Why not.
        source: io::Error,
    },
    /// The working directory could not be entered.
    #[error("working directory {cwd:?}")]
    Cwd {
        /// As asked for.
        cwd: String,
        /// Why not.
        source: io::Error,
    },
    /// A part of the container could not be set up; nothing was run.
    #[error("setting up the container: {step}")]
    Setup {
        /// What was being done.
        step: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A cgroup could not be made or limited.
    #[error("cgroup {path}")]
    Cgroup {
        /// The directory or file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The network of containers could not be made.
    #[error("network: {step}: {reason}")]
    Network {
        /// What was being done.
        step: String,
        /// Why it failed, in the words of whoever did it.
        reason: String,
    },
    /// The helper process that starts containers is gone.
    #[error("the container helper ended: {reason}")]
    Helper {
        /// What is known about it.
        reason: String,
    },
    /// An OCI runtime binary failed before or instead of the process.
    #[error("{binary} failed: {message}")]
    Runtime {
        /// The program.
        binary: String,
        /// Its own words.
        message: String,
    },
    /// No running container has this name.
    #[error("no running container {name}")]
    NoContainer {
        /// As asked for.
        name: String,
    },
    /// The caller cancelled it; the container was killed.
    #[error("the process was killed: {}", progress::CANCELED)]
    Canceled,
}

impl Error {
    /// What a caller can do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Error::Unsupported { .. } => Kind::Unsupported,
            Error::Invalid { .. }
            | Error::Target { .. }
            | Error::User { .. }
            | Error::Program { .. }
            | Error::Cwd { .. } => Kind::InvalidInput,
            Error::Source { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Kind::NotFound
            }
            Error::Source { .. } => Kind::InvalidInput,
            Error::Setup { source, .. } | Error::Cgroup { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => Kind::Denied,
                io::ErrorKind::StorageFull | io::ErrorKind::OutOfMemory => Kind::Unavailable,
                _ => Kind::Internal,
            },
            Error::Helper { .. } | Error::Runtime { .. } | Error::Network { .. } => Kind::Internal,
            Error::NoContainer { .. } => Kind::NotFound,
            Error::Canceled => Kind::Canceled,
        }
    }

    /// The exit code a shell gives for a program it cannot run, if this is such an
    /// error: 127 for one that is not there, 126 for one that cannot be executed.
    pub fn exit_code(&self) -> Option<i32> {
        match self {
            Error::Program { source, .. } if source.kind() == io::ErrorKind::NotFound => Some(127),
            Error::Program { .. } => Some(126),
            _ => None,
        }
    }
}
