//! The one binary: command line, daemon and container helper under one name.
#![forbid(unsafe_code)]

mod args;
mod error;
mod local;
mod surroundings;

use std::io::Write as _;
use std::process::ExitCode;

use cli::rim::Rim;
use daemon::config::flags::Flags;
use daemon::config::{Config, Name};
use tokio::signal::unix::{SignalKind, signal};

use crate::args::{Command, Global, Kiln, Started};
use crate::error::Error;
use crate::local::Answering;

fn main() -> ExitCode {
    // Containers are started by a copy of this program that has no threads.
    executor::helper_main();
    let started = match args::parse(std::env::args_os().collect()) {
        Ok(started) => started,
        Err(error) => error.exit(),
    };
    let outcome = match started {
        Started::Kiln(kiln) => kiln_main(*kiln),
        Started::Buildkitd(flags) => daemon_main(&flags, Name::Buildkitd),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without standard error there is nobody to tell.
            let _ = std::io::stderr().write_all(error.report().as_bytes());
            ExitCode::from(error.exit_code())
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Error::Runtime)
}

fn kiln_main(kiln: Kiln) -> Result<(), Error> {
    match kiln.command {
        Command::Daemon(flags) => daemon_main(&flags, Name::Kiln),
        Command::Version => say_version("kiln"),
        command => {
            init_log(kiln.global.debug);
            let runtime = runtime()?;
            let outcome = runtime.block_on(client_main(command, &kiln.global));
            // A thread reading standard input must not keep us.
            runtime.shutdown_background();
            outcome
        }
    }
}

fn say_version(name: &str) -> Result<(), Error> {
    let text = format!(
        "{name} {} ({}/{})\n",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::OS,
        std::env::consts::ARCH
    );
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(|error| cli::Error::Output(error).into())
}

/// The log of commands: only when asked for.
fn init_log(debug: bool) {
    let filter = match std::env::var("KILN_LOG") {
        Ok(filter) => filter,
        Err(_) if debug => "debug".to_owned(),
        Err(_) => return,
    };
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
        .with_writer(std::io::stderr)
        .init();
}

async fn client_main(command: Command, global: &Global) -> Result<(), Error> {
    let rim = Rim::read();
    let surroundings = surroundings::read();
    let answering = Answering::default();
    let connect = async || answering.connect(global, &surroundings).await;
    let outcome = match command {
        Command::Build(flags) => cli::build::run(&flags, &rim, interrupted(), connect).await,
        Command::Du(flags) => match connect().await {
            Ok(client) => cli::du::run(&flags, &client).await.map_err(Error::from),
            Err(error) => Err(error),
        },
        Command::Prune(flags) => cli::prune::run(&flags, &rim, connect).await,
        Command::Daemon(_) | Command::Version => Ok(()),
    };
    answering.close().await;
    outcome
}

/// Comes back at SIGINT or SIGTERM. A second signal ends the process at once.
async fn interrupted() {
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    stdx::task::spawn("impatience", async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        std::process::exit(130);
    })
    .detach();
}

fn daemon_main(flags: &Flags, name: Name) -> Result<(), Error> {
    if flags.version {
        return say_version(match name {
            Name::Kiln => "kiln",
            Name::Buildkitd => "buildkitd kiln",
        });
    }
    let surroundings = surroundings::read();
    let config = Config::load(flags, name, &surroundings)?;
    daemon::run::init_log(&config);
    daemon::run::say_unheeded(&surroundings);
    let open = async |config: Config| daemon::engine_builder::open(&config).await;
    let runtime = runtime()?;
    let outcome = runtime.block_on(daemon::run::run(config, &surroundings, open));
    runtime.shutdown_background();
    Ok(outcome?)
}
