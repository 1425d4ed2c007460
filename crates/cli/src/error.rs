//! What can go wrong before and around a build. A failed build itself is a
//! [`client::Error`] with details; [`crate::report`] prints both.

use std::io;
use std::path::PathBuf;

use stdx::Kind;

/// A command could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `--progress=tty` without a terminal.
    #[error("--progress=tty needs a terminal on standard error")]
    NoTerminal,
    /// A flag's value is wrong.
    #[error("{flag} {value:?}: {problem}")]
    BadFlag {
        /// The flag, with dashes.
        flag: &'static str,
        /// What was given.
        value: String,
        /// What is wrong with it, and what it should be.
        problem: String,
    },
    /// Two flags exclude each other.
    #[error("{one} and {other} cannot be used together")]
    Conflict {
        /// The one.
        one: &'static str,
        /// The other.
        other: &'static str,
    },
    /// Understood, but not there yet.
    #[error("not supported yet: {0}")]
    NotYet(String),
    /// The build context is no directory.
    #[error("build context {0:?} is not a directory, `-`, or a URL")]
    NoContext(PathBuf),
    /// The Dockerfile is not there.
    #[error("no Dockerfile at {0:?}")]
    NoDockerfile(PathBuf),
    /// Nothing was written to standard input.
    #[error("standard input is empty: the context `-` wants a tar archive or a Dockerfile there")]
    EmptyInput,
    /// What was given as a Dockerfile is something else.
    #[error("standard input is larger than {0} bytes: is it a Dockerfile?")]
    LargeDockerfile(u64),
    /// An image layout has no such tag.
    #[error("no image tagged {tag:?} in the layout {path:?}")]
    NoTag {
        /// The layout.
        path: PathBuf,
        /// The tag.
        tag: String,
    },
    /// Several exporters made images that differ, and only one of them is told.
    #[error(
        "the image in the layout {0:?} has no name: another exporter of this build made another image; export them one by one"
    )]
    OtherImage(PathBuf),
    /// The Docker configuration cannot be read.
    #[error("reading logins from {0}")]
    BadLogins(String),
    /// `--load` without Docker.
    #[error(
        "--load needs the program `docker` in PATH; use --output type=docker,dest=FILE to write an archive instead"
    )]
    NoDocker,
    /// A file could not be read or written.
    #[error("{doing} {path:?}")]
    File {
        /// What was being done: `reading`.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The terminal or standard output is gone.
    #[error("writing output")]
    Output(#[source] io::Error),
    /// The daemon answered with an error, or could not be reached.
    #[error(transparent)]
    Client(#[from] client::Error),
    /// The person at the terminal stopped it.
    #[error("canceled")]
    Interrupted,
    /// A check (`--call=check`) found something.
    #[error("{0} problem(s) found")]
    ChecksFailed(u32),
}

impl Error {
    /// What a caller can do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Error::NoTerminal
            | Error::BadFlag { .. }
            | Error::Conflict { .. }
            | Error::NoContext(_)
            | Error::EmptyInput
            | Error::LargeDockerfile(_)
            | Error::OtherImage(_)
            | Error::BadLogins(_)
            | Error::ChecksFailed(_) => Kind::InvalidInput,
            Error::NoDockerfile(_) | Error::NoTag { .. } | Error::NoDocker => Kind::NotFound,
            Error::NotYet(_) => Kind::Unsupported,
            Error::File { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Kind::NotFound
            }
            Error::File { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Kind::Denied
            }
            Error::File { .. } | Error::Output(_) => Kind::Unavailable,
            Error::Client(error) => error.kind(),
            Error::Interrupted => Kind::Canceled,
        }
    }

    /// What the process should exit with.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Interrupted => 130,
            Error::BadFlag { .. } | Error::Conflict { .. } => 2,
            _ => 1,
        }
    }
}
