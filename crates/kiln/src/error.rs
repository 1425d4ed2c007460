//! What can end the program with an error.

/// A command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// On the command line's side.
    #[error(transparent)]
    Cli(#[from] cli::Error),
    /// In the daemon, or in the engine in this process.
    #[error(transparent)]
    Daemon(#[from] daemon::Error),
    /// The runtime could not be started.
    #[error("starting the asynchronous runtime")]
    Runtime(#[source] std::io::Error),
    /// Settings were named for a build that another process does.
    #[error("--config is for builds in this process; the daemon at {0} has settings of its own")]
    SettingsOfDaemon(String),
    /// Someone else has the state directory and cannot be asked.
    #[error(
        "the state directory {root} is in use by process {pid}, which serves no one; wait for it, or use another --state"
    )]
    Busy {
        /// The directory.
        root: String,
        /// Who has it.
        pid: String,
    },
}

impl From<client::Error> for Error {
    fn from(error: client::Error) -> Error {
        Error::Cli(cli::Error::Client(error))
    }
}

impl Error {
    /// What the process exits with.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Error::Cli(error) => error.exit_code(),
            Error::Daemon(_)
            | Error::Runtime(_)
            | Error::SettingsOfDaemon(_)
            | Error::Busy { .. } => 1,
        }
    }

    /// How it reads at the terminal.
    pub(crate) fn report(&self) -> String {
        match self {
            Error::Cli(error) => cli::report::Failure::from(error).text(),
            other => format!("error: {}\n", stdx::text::sentence(other)),
        }
    }
}
