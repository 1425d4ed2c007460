//! Building without a daemon: the daemon's services in this process, at the other end
//! of a pipe. If another process has the state directory, its services are used.

use std::cell::RefCell;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use client::{Address, Client};
use daemon::Services;
use daemon::config::flags::Flags;
use daemon::config::{Config, Name, Surroundings};
use daemon::lock::{StateLock, Taken};
use stdx::task::Task;

use crate::args::Global;
use crate::error::Error;

/// Bytes a pipe holds each way.
const PIPE: usize = 1 << 20;
/// How long another process may take to end its build before we give up.
const WAIT: Duration = Duration::from_secs(60);
/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How long a cancelled build may take to clean up.
const CLEAN: Duration = Duration::from_secs(10);

/// Whoever answers, for as long as the command needs it.
#[derive(Default)]
pub(crate) struct Answering(RefCell<Option<InProcess>>);

struct InProcess {
    services: Arc<Services>,
    answering: Task<()>,
    _lock: StateLock,
}

impl Answering {
    /// A client of the daemon that was named, of the process that has the state
    /// directory, or of the engine in this process, started now.
    pub(crate) async fn connect(
        &self,
        global: &Global,
        surroundings: &Surroundings,
    ) -> Result<Client, Error> {
        if let Some(address) = &global.addr {
            if global.config.is_some() {
                return Err(Error::SettingsOfDaemon(address.clone()));
            }
            return Ok(Client::connect(&Address::parse(address)?).await?);
        }
        let config = config(global, surroundings)?;
        let deadline = tokio::time::Instant::now() + WAIT;
        loop {
            let owner = match StateLock::take(&config.root)? {
                Taken::Ours(lock) => return self.start(config, lock).await,
                Taken::Theirs(owner) => owner,
            };
            if let Some(address) = &owner.address {
                match Client::connect(&Address::parse(address)?).await {
                    Ok(client) => {
                        say_whose_settings_count(global, &config, &owner.pid);
                        return Ok(client);
                    }
                    Err(error) => tracing::debug!(%error, address, "its owner does not answer"),
                }
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(Error::Busy {
                    root: config.root.display().to_string(),
                    pid: owner.pid,
                });
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn start(&self, config: Config, lock: StateLock) -> Result<Client, Error> {
        let builder = daemon::engine_builder::open(&config).await?;
        let services = Arc::new(Services::new(builder, &config)?);
        let (ours, theirs) = tokio::io::duplex(PIPE);
        let answering = {
            let services = services.clone();
            stdx::task::spawn("services", async move {
                if let Err(error) = services.answer(theirs).await {
                    tracing::debug!(%error, "the services ended");
                }
            })
        };
        let client = Client::over(ours).await?;
        *self.0.borrow_mut() = Some(InProcess {
            services,
            answering,
            _lock: lock,
        });
        Ok(client)
    }

    /// Lets builds clean up, and ends what was started.
    pub(crate) async fn close(self) {
        if let Some(InProcess {
            services,
            answering,
            _lock,
        }) = self.0.into_inner()
        {
            if tokio::time::timeout(CLEAN, services.stop()).await.is_err() {
                tracing::warn!("a build did not clean up in time");
            }
            drop(answering);
            services.finish().await;
        }
    }
}

/// Settings that somebody named and that are not used are not passed over in silence.
fn say_whose_settings_count(global: &Global, config: &Config, pid: &str) {
    let Some(file) = &global.config else { return };
    let text = format!(
        "warning: process {pid} has {} and builds with settings of its own; those of {} are not used\n",
        config.root.display(),
        file.display()
    );
    // Without standard error there is nobody to tell.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// The settings of builds in this process: what the person may do, the build may.
fn config(global: &Global, surroundings: &Surroundings) -> Result<Config, Error> {
    let flags = Flags {
        config: global.config.clone(),
        root: global.state.clone(),
        allow_insecure_entitlement: ["network.host", "security.insecure", "device"]
            .map(str::to_owned)
            .to_vec(),
        ..Flags::default()
    };
    Ok(Config::load(&flags, Name::Kiln, surroundings)?)
}
