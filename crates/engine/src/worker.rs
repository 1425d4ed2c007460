//! A state directory, open: stores, sources, executor, solver.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use content::Store;
use db::Db;
use executor::cdi::{Cdi, DeviceInfo};
use executor::{HelperProgram, SandboxNetwork};
use lease::Leases;
use oci::Platform;
use ops::{ContentsCache, LastTimes, Output, Parts, Results};
use refs::Refs;
use registry::{Hosts, Registry};
use session::Sessions;
use solver::{DbIndex, Solver};
use source::Sources;
use stdx::Kind;

use crate::gateway::FrontendServer;
use crate::lazy_executor::{LazyExecutor, Setting};
use crate::platforms::{self, Found};

/// What runs processes.
#[derive(Clone, Debug)]
pub enum Runner {
    /// Ourselves, through a helper.
    Native(HelperProgram),
    /// An OCI runtime such as runc or crun.
    Runtime(PathBuf),
}

/// How the engine is set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// The state directory, which must be ours alone.
    pub root: PathBuf,
    /// How filesystems are put together.
    pub snapshotter: snapshot::Choice,
    /// What runs processes.
    pub runner: Runner,
    /// Labels of the worker beside its own.
    pub labels: BTreeMap<String, String>,
    /// What it can run; empty means that it finds out.
    pub platforms: Vec<Platform>,
    /// How long it believes what it found; `None` for ever.
    pub platforms_max_age: Option<Duration>,
    /// Registries.
    pub hosts: Hosts,
    /// DNS settings of sandboxes instead of the host's.
    pub dns: Option<executor::Dns>,
    /// Parent of the cgroups of steps that name none.
    pub cgroup_parent: Option<String>,
    /// Network of steps that name none.
    pub network: SandboxNetwork,
    /// Steps of all builds reach it through a proxy and in no other way.
    pub proxy_network: bool,
    /// AppArmor profile of steps in the sandbox.
    pub apparmor: Option<String>,
    /// Devices that steps can ask for.
    pub cdi: Cdi,
    /// A socket that takes the spans of programs in steps, by OTLP.
    pub trace_socket: Option<PathBuf>,
    /// How many exec and file steps run at one time, over all builds.
    pub max_parallelism: Option<usize>,
    /// The git program.
    pub git: PathBuf,
    /// Which frontends may be used.
    pub frontends: Frontends,
    /// What is told of where it runs, in every provenance.
    pub environment: attest::Environment,
}

/// Which frontends may be used (row D12).
#[derive(Clone, Debug)]
pub struct Frontends {
    /// The built-in Dockerfile frontend.
    pub dockerfile: bool,
    /// Frontends that are images.
    pub gateway: bool,
    /// Which images those may be, without tags; empty for any.
    pub allowed_repositories: Vec<String>,
}

impl Default for Frontends {
    fn default() -> Frontends {
        Frontends {
            dockerfile: true,
            gateway: true,
            allowed_repositories: Vec::new(),
        }
    }
}

impl Config {
    /// The usual settings in `root`.
    pub fn new(root: impl Into<PathBuf>) -> Config {
        Config {
            root: root.into(),
            snapshotter: snapshot::Choice::Auto,
            runner: Runner::Native(HelperProgram::ThisProgram),
            labels: BTreeMap::new(),
            platforms: Vec::new(),
            platforms_max_age: None,
            hosts: Hosts::default(),
            dns: None,
            cgroup_parent: None,
            network: SandboxNetwork::Host,
            proxy_network: false,
            apparmor: None,
            cdi: Cdi::default(),
            trace_socket: None,
            max_parallelism: None,
            git: "git".into(),
            frontends: Frontends::default(),
            environment: attest::Environment::default(),
        }
    }
}

/// Why the state directory could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open {part} in the state directory {root}")]
pub struct OpenError {
    /// Which part of it.
    pub part: &'static str,
    /// The state directory.
    pub root: PathBuf,
    /// Why not.
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl OpenError {
    /// What a caller can do about it.
    pub fn kind(&self) -> Kind {
        match self
            .source
            .downcast_ref::<std::io::Error>()
            .map(std::io::Error::kind)
        {
            Some(std::io::ErrorKind::PermissionDenied) => Kind::Denied,
            Some(std::io::ErrorKind::StorageFull) => Kind::Unavailable,
            _ => Kind::Internal,
        }
    }
}

/// What a worker says of itself.
#[derive(Clone, Debug, Default)]
pub struct WorkerInfo {
    /// Kept in the state directory.
    pub id: String,
    /// Labels (row D18).
    pub labels: BTreeMap<String, String>,
    /// What it can run, its own platform first.
    pub platforms: Vec<Platform>,
}

/// Builds. Cloning gives another handle.
#[derive(Clone)]
pub struct Engine(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) parts: Arc<Parts>,
    pub(crate) store: Store,
    pub(crate) registry: Registry,
    pub(crate) sessions: Sessions,
    pub(crate) solver: Solver<Output>,
    pub(crate) info: WorkerInfo,
    /// What it can run now.
    found: Found,
    /// Network of steps that name none.
    network: SandboxNetwork,
    /// Steps of all builds reach theirs through a proxy.
    pub(crate) proxy_network: bool,
    /// How proxies reach servers.
    pub(crate) upstreams: Arc<netproxy::Upstreams>,
    pub(crate) frontends: Frontends,
    pub(crate) environment: attest::Environment,
    /// Set once, by whoever speaks with frontends that are images.
    pub(crate) frontend_server: OnceLock<Arc<dyn FrontendServer>>,
    /// For what lives no longer than a build.
    pub(crate) scratch: PathBuf,
}

impl Engine {
    /// Opens a state directory, made when absent. Blocks on the disk for a moment.
    pub async fn open(config: Config) -> Result<Engine, OpenError> {
        stdx::task::blocking(move || Engine::open_now(config)).await
    }

    /// Beside everything else, flushes what the last process left unflushed, and undoes what
    /// it left behind if it was killed. Ends by itself.
    pub fn catch_up(&self) {
        let engine = self.clone();
        let flushing = async move {
            engine.0.network.sweep().await;
            if let Err(failure) = engine.sync().await {
                tracing::warn!(
                    error = failure.message,
                    "earlier results could not be flushed to the disk"
                );
            }
        };
        stdx::task::spawn("catch-up", flushing).detach();
    }

    fn open_now(config: Config) -> Result<Engine, OpenError> {
        registry::use_ring();
        let root = config.root.clone();
        let failed = |part: &'static str| {
            let root = root.clone();
            move |source: Box<dyn std::error::Error + Send + Sync>| OpenError { part, root, source }
        };
        let scratch = root.join("scratch");
        make_scratch(&scratch).map_err(|e| failed("scratch space")(e.into()))?;
        let db = Db::open(root.join("kiln.db")).map_err(|e| failed("the database")(e.into()))?;
        let db = Arc::new(db);
        let store = Store::open(root.join("content"), db.clone())
            .map_err(|e| failed("the content store")(e.into()))?;
        let snapshots = snapshot::open(root.join("snapshots"), config.snapshotter)
            .map_err(|e| failed("the snapshots")(e.into()))?;
        let snapshotter = snapshots.kind();
        let leases = Leases::open(root.join("leases"), db.clone())
            .map_err(|e| failed("the leases")(e.into()))?;
        let refs = Refs::open(refs::Parts {
            db: db.clone(),
            store: store.clone(),
            snapshots,
            leases,
        })
        .map_err(|e| failed("the results")(e.into()))?;
        let registry = Registry::new(config.hosts.clone());
        let sources = Sources::open(source::Parts {
            refs: refs.clone(),
            registry: registry.clone(),
            db: db.clone(),
            git: config.git.clone(),
            scratch: scratch.clone(),
        })
        .map_err(|e| failed("the sources")(e.into()))?;
        let index =
            DbIndex::open(db.clone()).map_err(|e| failed("the index of cache keys")(e.into()))?;
        let last_times =
            LastTimes::open(db.clone()).map_err(|e| failed("what steps were like")(e.into()))?;
        // What a killed process left is gone before anything new begins.
        executor::sweep();
        let network = config.network.clone();
        let mut labels = own_labels(snapshotter, &config);
        let executor = LazyExecutor::new(Setting {
            runner: config.runner,
            state: root.join("runtime"),
            dns: config.dns.clone(),
            network: config.network,
            apparmor: config.apparmor,
        });
        let options = solver::Options {
            max_parallelism: config.max_parallelism,
        };
        let solver = Solver::new(Arc::new(index), Arc::new(Results(refs.clone())), options);
        let id = worker_id(&root).map_err(|e| failed("the worker's id")(e.into()))?;
        let found = config.platforms.is_empty();
        let platforms = match found {
            true => platforms::of_this_machine(),
            false => config.platforms,
        };
        let max_age = config.platforms_max_age.filter(|_| found);
        labels.extend(config.labels);
        let parts = Parts {
            refs,
            sources,
            executor: Arc::new(executor),
            contents: ContentsCache::default(),
            last_times,
            platform: platforms[0].clone(),
            dns: config.dns,
            cgroup_parent: config.cgroup_parent,
            scratch: scratch.clone(),
            cdi: config.cdi,
            trace_socket: config.trace_socket,
        };
        Ok(Engine(Arc::new(Inner {
            parts: Arc::new(parts),
            store,
            registry,
            sessions: Sessions::new(),
            solver,
            network,
            info: WorkerInfo {
                id,
                labels,
                platforms: platforms.clone(),
            },
            found: Found::new(platforms, max_age),
            frontends: config.frontends,
            proxy_network: config.proxy_network,
            upstreams: Arc::new(netproxy::Upstreams::of_system()),
            environment: config.environment,
            frontend_server: OnceLock::new(),
            scratch,
        })))
    }

    /// Lets `server` speak with frontends that are images. Only the first one counts.
    pub fn serve_frontends(&self, server: Arc<dyn FrontendServer>) {
        let _there_is_one = self.0.frontend_server.set(server);
    }

    /// Where clients' sessions are registered.
    pub fn sessions(&self) -> &Sessions {
        &self.0.sessions
    }

    /// The worker as it is now: an emulator may have come since it was started.
    pub fn worker(&self) -> WorkerInfo {
        WorkerInfo {
            platforms: self.0.found.now(),
            ..self.0.info.clone()
        }
    }

    /// What the worker says of itself.
    pub fn info(&self) -> &WorkerInfo {
        &self.0.info
    }

    /// The devices that steps can ask for now.
    pub async fn devices(&self) -> Vec<DeviceInfo> {
        let cdi = self.0.parts.cdi.clone();
        stdx::task::blocking(move || cdi.read().list()).await
    }

    /// Lets go of what is kept ready for further builds: none may come.
    pub async fn close(&self) {
        self.0.parts.executor.close().await;
    }

    /// The solver's counters, for metrics.
    pub fn counters(&self) -> solver::state::Counters {
        self.0.solver.counters()
    }

    /// Results, for those who look after them.
    pub fn refs(&self) -> &Refs {
        &self.0.parts.refs
    }
}

/// An empty folder for short-lived files: what a killed process left goes.
fn make_scratch(dir: &std::path::Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::create_dir_all(dir)
}

/// The id of this state directory (row D19): made once, then kept.
fn worker_id(root: &std::path::Path) -> std::io::Result<String> {
    let path = root.join("workerid");
    match std::fs::read_to_string(&path) {
        Ok(id) if !id.trim().is_empty() => return Ok(id.trim().to_owned()),
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let random = std::fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    let id: String = random
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(25)
        .collect();
    let aside = root.join("workerid.new");
    std::fs::write(&aside, &id)?;
    std::fs::rename(&aside, &path)?;
    Ok(id)
}

fn own_labels(snapshotter: &str, config: &Config) -> BTreeMap<String, String> {
    let name = |last: &str| format!("org.mobyproject.buildkit.worker.{last}");
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let mode = match config.runner {
        Runner::Native(_) => "native",
        Runner::Runtime(_) => "oci",
    };
    let network = match config.network {
        SandboxNetwork::Host => "host",
        SandboxNetwork::None => "none",
        SandboxNetwork::Cni(_) => "cni",
    };
    let mut labels = BTreeMap::from([
        (name("executor"), mode.to_owned()),
        (name("hostname"), hostname.trim().to_owned()),
        (name("network"), network.to_owned()),
        (name("oci.process-mode"), "sandbox".to_owned()),
        (name("selinux.enabled"), "false".to_owned()),
        (name("snapshotter"), snapshotter.to_owned()),
    ]);
    if let Some(profile) = &config.apparmor {
        labels.insert(name("apparmor.profile"), profile.clone());
    }
    labels
}
