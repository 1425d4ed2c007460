//! What can keep the daemon from starting or serving.

use std::io;
use std::path::PathBuf;

use stdx::Kind;

/// The daemon could not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file named by `--config` is not there.
    #[error("no configuration file at {0:?}")]
    NoConfig(PathBuf),
    /// The configuration is wrong.
    #[error("{}:{line}: {problem}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// The line in it.
        line: usize,
        /// What is wrong there.
        problem: String,
    },
    /// A file of `provenanceEnvDir` is wrong.
    #[error("{}: {problem}", path.display())]
    Environment {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: attest::Error,
    },
    /// A setting's value is wrong.
    #[error("{setting} {value:?} {problem}")]
    BadSetting {
        /// The setting.
        setting: &'static str,
        /// What was given.
        value: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Of certificate and key, only one was given.
    #[error("--tlscert and --tlskey belong together (and --tlscacert needs both)")]
    HalfTls,
    /// Known, but with nothing behind it yet.
    #[error("not supported yet: {0}")]
    NotYet(String),
    /// What the network of builds needs is not there.
    #[error("networkMode {mode}")]
    Network {
        /// The mode, as given.
        mode: String,
        /// What is missing.
        source: executor::Error,
    },
    /// Another process uses the state directory.
    #[error("{root:?} is in use by process {owner}; stop it, or use another --root")]
    Locked {
        /// The state directory.
        root: PathBuf,
        /// Who has it: a process id, or `?`.
        owner: String,
    },
    /// Another daemon answers at this address.
    #[error("another program answers at {0}")]
    AddressInUse(String),
    /// The address is not one we can listen on.
    #[error("address {address:?}: {problem}")]
    BadAddress {
        /// As given.
        address: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The address could not be opened.
    #[error("listening at {address}")]
    Listen {
        /// As given.
        address: String,
        /// Why it failed.
        source: io::Error,
    },
    /// Certificates could not be used.
    #[error("setting up TLS")]
    Tls(#[source] tonic::transport::Error),
    /// A file could not be read or written.
    #[error("{doing} {path:?}")]
    File {
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Signals could not be watched.
    #[error("watching for signals")]
    Signals {
        /// Why it failed.
        source: io::Error,
    },
    /// The engine could not use the state directory.
    #[error(transparent)]
    Open(#[from] engine::OpenError),
    /// Records of builds could not be opened.
    #[error("opening the build history")]
    History(#[from] crate::builder::ArchiveError),
    /// The server ended with an error.
    #[error("serving")]
    Serve(#[source] tonic::transport::Error),
    /// Server reflection could not read our own descriptors.
    #[error("reading our own service descriptors")]
    Reflection(#[source] tonic_reflection::server::Error),
}

impl Error {
    /// What a caller can do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Error::NoConfig(_) => Kind::NotFound,
            Error::Config { .. }
            | Error::Environment { .. }
            | Error::BadSetting { .. }
            | Error::HalfTls
            | Error::BadAddress { .. }
            | Error::Tls(_) => Kind::InvalidInput,
            Error::NotYet(_) => Kind::Unsupported,
            Error::Network { .. } => Kind::InvalidInput,
            Error::Open(error) => error.kind(),
            Error::History(error) => error.kind(),
            Error::Locked { .. } | Error::AddressInUse(_) => Kind::Unavailable,
            Error::Listen { source, .. } | Error::File { source, .. }
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                Kind::Denied
            }
            Error::Listen { .. } | Error::File { .. } | Error::Serve(_) => Kind::Unavailable,
            Error::Signals { .. } | Error::Reflection(_) => Kind::Internal,
        }
    }
}
