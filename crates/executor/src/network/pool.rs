//! Namespaces that CNI plugins have set up: made, kept ready, given back, undone.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Notify;

use super::cni::{self, Call, List};
use super::orphans;
use super::{Attached, CniNetwork, CniOptions, Namespace, SandboxNetwork};
use crate::Exit;
use crate::error::Error;
use crate::process::{DEFAULT_HOSTNAME, Network, Process, Security};

/// How long the end waits for what is still being done. A plugin that is slower is stopped, and
/// the next start undoes what it did.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connected namespace.
pub(crate) struct Joined {
    pub(super) namespace: Namespace,
    pub(super) gateway: Option<IpAddr>,
    /// Where programs open the namespace.
    pub(super) path: PathBuf,
    id: String,
    hostname: String,
    result: Value,
}

/// The networks of one executor.
pub(crate) struct Networks {
    options: CniOptions,
    list: List,
    /// Whether the bridge is ours to remove.
    made_bridge: bool,
    ready: Mutex<Ready>,
    /// Told whenever one is undone.
    undone: Notify,
}

#[derive(Default)]
struct Ready {
    namespaces: Vec<Arc<Joined>>,
    /// Those, the ones being made, and the ones in use by containers that may give theirs back.
    made: usize,
    /// Those that are no longer counted as made but not yet gone.
    going: usize,
    closed: bool,
}

impl Networks {
    /// Those that are needed for `network`, if any.
    pub(crate) async fn of(network: &SandboxNetwork) -> Result<Option<Arc<Networks>>, Error> {
        match network {
            SandboxNetwork::Host | SandboxNetwork::None => Ok(None),
            SandboxNetwork::Cni(options) => Networks::start(options.clone()).await.map(Some),
        }
    }

    /// Undoes what a killed kiln left, and tries the plugins once.
    pub(crate) async fn start(options: CniOptions) -> Result<Arc<Networks>, Error> {
        let list = List::load(&options)?;
        let making = crate::prepare::setup("making the directory of networks");
        std::fs::create_dir_all(&options.state).map_err(making)?;
        undo_all(&options, &list).await;
        let _lock = match &options.init_lock {
            Some(path) => Some(lock(path.clone()).await?),
            None => None,
        };
        let mark = bridge_mark(&options);
        let made_bridge = match &options.network {
            CniNetwork::File(_) => false,
            CniNetwork::Bridge { name, .. } => !exists(name) || mark.exists(),
        };
        if made_bridge {
            let marking = crate::prepare::setup("marking the bridge as ours");
            std::fs::write(&mark, "").map_err(marking)?;
        }
        let networks = Arc::new(Networks {
            options,
            list,
            made_bridge,
            ready: Mutex::default(),
            undone: Notify::new(),
        });
        networks.ready().made += 1;
        let first = networks.make_counted(DEFAULT_HOSTNAME).await?;
        networks.give_back(first, true).await;
        let filling = networks.clone();
        stdx::task::spawn("network-pool", async move { filling.fill().await }).detach();
        Ok(networks)
    }

    /// Runs a container in its network, and takes that back when the container has ended. The
    /// process is `run`'s alone: its trees go where that lets them go.
    pub(crate) async fn around<F>(
        networks: Option<&Arc<Networks>>,
        process: Process,
        run: impl FnOnce(Arc<Process>, Attached) -> F,
    ) -> Result<Exit, Error>
    where
        F: Future<Output = Result<Exit, Error>>,
    {
        let networks = networks.filter(|_| process.network == Network::Sandbox);
        let Some(networks) = networks else {
            return run(Arc::new(process), Attached::Plain).await;
        };
        // With all capabilities it may change the network's settings.
        let clean = process.security == Security::Sandbox;
        let joined = networks.get(process.hostname()).await?;
        let ended = run(Arc::new(process), Attached::Joined(joined.clone())).await;
        networks.give_back(joined, clean).await;
        ended
    }

    /// A namespace for a container of this host name, which plugins may want to know.
    async fn get(&self, hostname: &str) -> Result<Arc<Joined>, Error> {
        let waiting = match hostname == DEFAULT_HOSTNAME {
            true => self.ready().namespaces.pop(),
            false => None,
        };
        if let Some(ready) = waiting {
            return Ok(ready);
        }
        self.ready().made += 1;
        self.make_counted(hostname).await
    }

    /// One that is among those made already; no longer if it fails.
    async fn make_counted(&self, hostname: &str) -> Result<Arc<Joined>, Error> {
        let made = self.make(hostname).await;
        if made.is_err() {
            self.ready().made -= 1;
            self.undone.notify_one();
        }
        made
    }

    /// Takes it back: for the next container if it is `clean` and few are waiting.
    async fn give_back(&self, joined: Arc<Joined>, clean: bool) {
        {
            let mut ready = self.ready();
            let few = ready.made <= self.options.pool && !ready.closed;
            if clean && few && joined.hostname == DEFAULT_HOSTNAME {
                ready.namespaces.push(joined);
                return;
            }
            ready.made -= 1;
            ready.going += 1;
        }
        self.undo(&joined).await;
        self.ready().going -= 1;
        self.undone.notify_one();
    }

    /// Undoes everything; the last of this one's life. Whatever is still being set up, and
    /// the containers of builds that were cancelled, come to their ends first.
    pub(crate) async fn close(&self) {
        let waiting = {
            let mut ready = self.ready();
            ready.closed = true;
            std::mem::take(&mut ready.namespaces)
        };
        for joined in waiting {
            self.give_back(joined, false).await;
        }
        let all_undone = async {
            while {
                let ready = self.ready();
                ready.made + ready.going > 0
            } {
                self.undone.notified().await;
            }
        };
        if tokio::time::timeout(PATIENCE, all_undone).await.is_err() {
            tracing::warn!("networks are still being set up or used; the next start undoes them");
        }
        if self.made_bridge {
            remove_bridge(&self.options);
        }
    }

    async fn fill(&self) {
        loop {
            {
                let mut ready = self.ready();
                if ready.closed || ready.made >= self.options.pool {
                    return;
                }
                ready.made += 1;
            }
            match self.make_counted(DEFAULT_HOSTNAME).await {
                Ok(made) => self.give_back(made, true).await,
                Err(error) => {
                    tracing::warn!(%error, "no network can be made ready");
                    return;
                }
            }
        }
    }

    async fn make(&self, hostname: &str) -> Result<Arc<Joined>, Error> {
        let namespace = Namespace::new().await?;
        let id = crate::cgroup::instance_name();
        let path = namespace_of(&self.options.state, &id);
        // First, so that nothing is ever done that nobody knows of.
        self.note(&id, hostname, &Value::Null)?;
        let call = Call {
            id: &id,
            namespace: &path,
            hostname: asked(hostname),
        };
        let kept = namespace.keep(&path);
        let kept = kept.map_err(crate::prepare::setup("keeping a network namespace"));
        let added = match kept {
            Ok(()) => self.list.add(&call).await,
            Err(error) => Err(error),
        };
        let result = match added {
            Ok(result) => result,
            Err(error) => {
                self.undo_call(&call, &Value::Null).await;
                return Err(error);
            }
        };
        self.note(&id, hostname, &result)?;
        Ok(Arc::new(Joined {
            gateway: cni::gateway(&result),
            hostname: hostname.to_string(),
            namespace,
            path,
            id,
            result,
        }))
    }

    fn note(&self, id: &str, hostname: &str, result: &Value) -> Result<(), Error> {
        let text = json!({"hostname": hostname, "result": result}).to_string();
        let aside = self.options.state.join(format!("{id}.new"));
        std::fs::write(&aside, text)
            .and_then(|()| std::fs::rename(&aside, note_of(&self.options.state, id)))
            .map_err(crate::prepare::setup("noting a network"))
    }

    async fn undo(&self, joined: &Joined) {
        let call = Call {
            id: &joined.id,
            namespace: &joined.path,
            hostname: asked(&joined.hostname),
        };
        self.undo_call(&call, &joined.result).await;
    }

    async fn undo_call(&self, call: &Call<'_>, result: &Value) {
        undo(&self.options, &self.list, call, result).await;
    }

    fn ready(&self) -> MutexGuard<'_, Ready> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As [`Networks::start`] does first, where nothing else is needed.
pub(super) async fn sweep(options: &CniOptions) {
    if notes(&options.state).is_empty() && !bridge_mark(options).exists() {
        return;
    }
    match List::load(options) {
        Ok(list) => undo_all(options, &list).await,
        Err(error) => tracing::warn!(%error, "networks of a kiln that was killed stay"),
    }
    if bridge_mark(options).exists() {
        remove_bridge(options);
    }
}

fn remove_bridge(options: &CniOptions) {
    let CniNetwork::Bridge { name, .. } = &options.network else {
        return;
    };
    match crate::sys::remove_bridge(name) {
        Ok(()) => {
            let _next_time = std::fs::remove_file(bridge_mark(options));
        }
        Err(error) => tracing::warn!(%error, name, "our bridge stays"),
    }
}

async fn undo_all(options: &CniOptions, list: &List) {
    for id in notes(&options.state) {
        let text = std::fs::read_to_string(note_of(&options.state, &id)).unwrap_or_default();
        let note: Value = serde_json::from_str(&text).unwrap_or_default();
        let path = namespace_of(&options.state, &id);
        let call = Call {
            id: &id,
            namespace: match super::is_kept(&path) {
                true => &path,
                // The machine was started anew.
                false => Path::new(""),
            },
            hostname: asked(note["hostname"].as_str().unwrap_or_default()),
        };
        // One that a killed kiln started may still be doing what is to be undone.
        let call_id = id.clone();
        stdx::task::blocking(move || orphans::end(&call_id, orphans::PATIENCE)).await;
        tracing::info!(id, "undoing the network of a kiln that was killed");
        undo(options, list, &call, &note["result"]).await;
    }
}

/// What cannot be undone stays noted: the next start tries again.
async fn undo(options: &CniOptions, list: &List, call: &Call<'_>, result: &Value) {
    match list.del(call, result).await {
        Ok(()) => {
            super::let_go(&namespace_of(&options.state, call.id));
            let _gone = std::fs::remove_file(note_of(&options.state, call.id));
        }
        Err(error) => tracing::warn!(%error, id = call.id, "a network could not be undone"),
    }
}

/// The host name plugins are told: none when the container did not ask for one.
fn asked(hostname: &str) -> &str {
    if hostname == DEFAULT_HOSTNAME {
        ""
    } else {
        hostname
    }
}

fn notes(state: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(state).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names
        .filter_map(|name| Some(name.strip_suffix(".json")?.to_string()))
        .collect()
}

fn note_of(state: &Path, id: &str) -> PathBuf {
    state.join(format!("{id}.json"))
}

fn namespace_of(state: &Path, id: &str) -> PathBuf {
    state.join(format!("{id}.ns"))
}

/// Says that the bridge was not there before us.
fn bridge_mark(options: &CniOptions) -> PathBuf {
    options.state.join("bridge-is-ours")
}

fn exists(interface: &str) -> bool {
    Path::new("/sys/class/net").join(interface).exists()
}

async fn lock(path: PathBuf) -> Result<std::fs::File, Error> {
    let locking = stdx::task::blocking(move || {
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)?;
        file.lock()?;
        Ok(file)
    });
    locking
        .await
        .map_err(crate::prepare::setup("waiting for the lock of the network"))
}
