//! The life of the daemon: take the state directory, listen, serve, stop.

use std::sync::{Arc, Weak};

use tokio::signal::unix::{SignalKind, signal};

use crate::builder::Builder;
use crate::config::{Config, LogFormat, Surroundings};
use crate::lock::StateLock;
use crate::{Error, Services, listen, notify};

/// A signal more than this, and the process ends at once.
const PATIENCE: u32 = 2;

/// Sets up the log on standard error.
pub fn init_log(config: &Config) {
    let filter = tracing_subscriber::EnvFilter::new(&config.log_level);
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // A second call (tests) keeps the first log.
    let _ = match config.log_format {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().try_init(),
    };
}

/// Says which variables are set in vain. After [`init_log`].
pub fn say_unheeded(surroundings: &Surroundings) {
    for name in &surroundings.unheeded {
        tracing::warn!("{name} is set and means nothing to kiln: see docs/differences.md");
    }
}

/// Runs the daemon until it is asked to stop. `open` makes what builds, once the state
/// directory is ours.
pub async fn run(
    config: Config,
    surroundings: &Surroundings,
    open: impl AsyncFnOnce(Config) -> Result<Arc<dyn Builder>, Error>,
) -> Result<(), Error> {
    let lock = Arc::new(StateLock::take_when_free(&config.root).await?);
    // Before anybody can see us: who then asks us to stop must not end us half-way.
    let asked = asked_to_stop(Arc::downgrade(&lock));
    let asked = asked.map_err(|source| Error::Signals { source })?;
    let listeners = listen::open(&config, surroundings.listen_fds)?;
    let builder = open(config.clone()).await?;
    let services = Services::new(builder, &config)?;
    if let Err(source) = lock.announce(config.local_address()) {
        return Err(Error::File {
            doing: "writing the lock in",
            path: config.root.clone(),
            source,
        });
    }
    notify::notify(surroundings.notify_socket.as_deref(), "READY=1");
    let served = services.serve(listeners, &config, async {
        asked.await;
        notify::notify(surroundings.notify_socket.as_deref(), "STOPPING=1");
    });
    served.await?;
    drop(services);
    drop(lock);
    Ok(())
}

/// Comes back at the first SIGTERM or SIGINT. The third ends the process at once. That we end stands
/// in the lock at once, also while we are still beginning.
fn asked_to_stop(lock: Weak<StateLock>) -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (first, mut heard) = tokio::sync::watch::channel(false);
    let watching = stdx::task::spawn("signals", async move {
        let mut count = 0;
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            count += 1;
            if let (1, Some(lock)) = (count, lock.upgrade()) {
                let said = stdx::task::blocking(move || lock.stopping()).await;
                if let Err(error) = said {
                    tracing::warn!(%error, "who starts next does not know that we end");
                }
            }
            first.send_replace(true);
            if count > PATIENCE {
                tracing::error!("asked to stop three times: ending without cleaning up");
                std::process::exit(1);
            }
        }
    });
    // It watches as long as the process lives.
    watching.detach();
    Ok(async move {
        // The sender lives in the task.
        let _ = heard.wait_for(|heard| *heard).await;
    })
}
