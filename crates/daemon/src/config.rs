//! What the daemon is told: defaults, then the TOML file, then flags.

pub(crate) mod environment;
pub mod file;
pub mod flags;
pub mod gc;
mod network;
pub mod space;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use executor::SandboxNetwork;
use executor::cdi::Cdi;

use crate::Error;
use crate::config::file::{File, Registry};
use crate::config::flags::Flags;
use crate::config::gc::GcRule;
use crate::config::space::Span;
pub use crate::traces::Collector;

/// How long the list of emulated platforms is believed unless told otherwise.
const PLATFORMS_MAX_AGE: Duration = Duration::from_secs(20);

/// What the process knows of its surroundings, read once at the rim.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// The effective user id.
    pub uid: u32,
    /// The effective group id.
    pub gid: u32,
    /// `HOME`.
    pub home: Option<PathBuf>,
    /// `XDG_RUNTIME_DIR`.
    pub runtime_dir: Option<PathBuf>,
    /// `XDG_DATA_HOME`.
    pub data_home: Option<PathBuf>,
    /// `XDG_CONFIG_HOME`.
    pub config_home: Option<PathBuf>,
    /// `NOTIFY_SOCKET`.
    pub notify_socket: Option<PathBuf>,
    /// `LISTEN_FDS`, if `LISTEN_PID` is us.
    pub listen_fds: u32,
    /// `BUILDKIT_CNI_INIT_LOCK_PATH`.
    pub cni_init_lock: Option<PathBuf>,
    /// `BUILDKIT_NETWORK_BRIDGE_AUTO`: `auto` means a bridge of our own.
    pub bridge_auto: bool,
    /// Variables whose names begin with `OTEL_`.
    pub otel: BTreeMap<String, String>,
    /// `BUILDKIT_STEP_LOG_MAX_SIZE` and `…_SPEED`.
    pub log_limits: progress::LogLimits,
    /// `BUILDKIT_SETUP_CGROUPV2_ROOT`: processes at the top of the hierarchy make room.
    pub free_cgroup_top: bool,
    /// `BUILDKIT_SCHEDULER_DEBUG`: the log has what the solver decides.
    pub scheduler_debug: bool,
    /// Variables of BuildKit's that are set and mean nothing to us.
    pub unheeded: Vec<String>,
}

impl Surroundings {
    /// Where state is kept unless told otherwise: `/var/lib/kiln` for root, else
    /// `kiln` in the user's data directory.
    pub fn state_dir(&self) -> PathBuf {
        match (self.uid, &self.data_home, &self.home) {
            (0, _, _) => PathBuf::from("/var/lib/kiln"),
            (_, Some(data), _) => data.join("kiln"),
            (_, None, Some(home)) => home.join(".local/share/kiln"),
            (_, None, None) => PathBuf::from("/var/lib/kiln"),
        }
    }

    /// Where clients look for us: BuildKit's own default for `as_buildkitd`, else ours.
    pub fn address(&self, name: Name) -> String {
        let (dir, file) = match name {
            Name::Kiln => ("kiln", "kiln.sock"),
            Name::Buildkitd => ("buildkit", "buildkitd.sock"),
        };
        let base = match (&self.runtime_dir, self.uid) {
            (Some(runtime), uid) if uid != 0 => runtime.clone(),
            _ => PathBuf::from("/run"),
        };
        format!("unix://{}", base.join(dir).join(file).display())
    }

    /// Where the settings are unless told otherwise.
    pub fn config_file(&self, name: Name) -> PathBuf {
        let file = match name {
            Name::Kiln => "kiln.toml",
            Name::Buildkitd => "buildkitd.toml",
        };
        self.config_dir(name).join(file)
    }

    /// Where settings are.
    fn config_dir(&self, name: Name) -> PathBuf {
        let base = match (&self.config_home, &self.home, self.uid) {
            (_, _, 0) => PathBuf::from("/etc"),
            (Some(config), _, _) => config.clone(),
            (None, Some(home), _) => home.join(".config"),
            (None, None, _) => PathBuf::from("/etc"),
        };
        base.join(match name {
            Name::Kiln => "kiln",
            Name::Buildkitd => "buildkit",
        })
    }
}

/// The name the daemon was started under; it decides the default places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// `kiln daemon`
    Kiln,
    /// `buildkitd`
    Buildkitd,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines.
    Json,
}

/// All settings, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where state is kept.
    pub root: PathBuf,
    /// Where clients connect.
    pub addresses: Vec<String>,
    /// Owner of unix sockets.
    pub uid: u32,
    /// Group of unix sockets.
    pub gid: u32,
    /// Certificates for `tcp://`.
    pub tls: Option<TlsFiles>,
    /// Where metrics are shown: `host:port`.
    pub debug_address: Option<String>,
    /// How the log is written.
    pub log_format: LogFormat,
    /// What is written to it: a `tracing` level.
    pub log_level: String,
    /// Processes at the top of the cgroup hierarchy are moved, so that controllers can be handed
    /// down: for a daemon that has a container to itself.
    pub free_cgroup_top: bool,
    /// What builds may ask for beyond the sandbox.
    pub entitlements: Vec<String>,
    /// Whose files are told in every provenance; it need not be there.
    pub provenance_env_dir: PathBuf,
    /// Labels of the worker.
    pub labels: BTreeMap<String, String>,
    /// Platforms to offer instead of those found.
    pub platforms: Vec<String>,
    /// `auto`, `overlayfs` or `native`.
    pub snapshotter: String,
    /// Network of steps that name none.
    pub network: SandboxNetwork,
    /// Steps of all builds reach it through a proxy and in no other way.
    pub proxy_network: bool,
    /// AppArmor profile of steps in the sandbox.
    pub apparmor: Option<String>,
    /// Devices that steps can ask for.
    pub cdi: Cdi,
    /// An OCI runtime instead of the built-in executor.
    pub runtime: Option<String>,
    /// Which frontends may be used.
    pub frontends: file::Frontends,
    /// Cgroup above all containers.
    pub cgroup_parent: Option<String>,
    /// Steps running at the same time; `None` for no limit.
    pub max_parallelism: Option<usize>,
    /// Rules the cache is kept within; empty for none.
    pub gc: Vec<GcRule>,
    /// How each registry is talked to.
    pub registries: BTreeMap<String, Registry>,
    /// Transfers per registry host at the same time.
    pub registry_concurrency: Option<usize>,
    /// Name lookup inside containers.
    pub dns: Option<file::Dns>,
    /// Finished builds older than this are forgotten.
    pub history_age: Duration,
    /// More finished builds than this are forgotten.
    pub history_entries: usize,
    /// How much each step may print.
    pub log_limits: progress::LogLimits,
    /// Where spans are sent on to.
    pub collector: Option<Collector>,
    /// Where programs in steps send theirs.
    pub trace_socket: Option<PathBuf>,
    /// How long the list of emulated platforms is believed; `None` for ever.
    pub platforms_max_age: Option<Duration>,
}

/// Where certificates lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Our certificate chain.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Who signs clients' certificates.
    pub ca: Option<PathBuf>,
}

impl Config {
    /// Reads the file the flags name (or the default one, if it is there) and puts
    /// the flags on top.
    pub fn load(flags: &Flags, name: Name, surroundings: &Surroundings) -> Result<Config, Error> {
        let file = match &flags.config {
            Some(path) => File::read(path)?.ok_or_else(|| Error::NoConfig(path.clone()))?,
            None => File::read(&surroundings.config_file(name))?.unwrap_or_default(),
        };
        Config::resolve(file, flags, name, surroundings)
    }

    /// Puts flags over a file's settings.
    pub fn resolve(
        file: File,
        flags: &Flags,
        name: Name,
        surroundings: &Surroundings,
    ) -> Result<Config, Error> {
        for (setting, value) in [
            ("--oci-worker", &flags.oci_worker),
            ("--containerd-worker", &flags.containerd_worker),
        ] {
            if let Some(value) = value {
                one_of(setting, value.clone(), &["true", "false", "auto"])?;
            }
        }
        refuse_what_is_not_there(&file, flags)?;
        let worker = file.worker.oci;
        let root = flags
            .root
            .clone()
            .or(file.root)
            .unwrap_or_else(|| surroundings.state_dir());
        let root = std::path::absolute(&root).unwrap_or(root);
        let addresses = [
            flags.addr.clone(),
            file.grpc.address,
            vec![surroundings.address(name)],
        ];
        let gid = match &flags.group {
            Some(group) => flags::group_id(group)?,
            None => file.grpc.gid.unwrap_or(surroundings.gid),
        };
        let mut labels = worker.labels.clone();
        labels.extend(flags::labels(&flags.oci_worker_labels)?);
        let history = file.history.unwrap_or_default();
        let gc = gc::rules(&worker, flags, disk_size(&root))?;
        let cdi = cdi(file.cdi, flags);
        let mut entitlements = entitlements(pick_list(
            &flags.allow_insecure_entitlement,
            file.insecure_entitlements,
        ))?;
        // Where there can be devices at all, it is the client who says which.
        if !cdi.dirs.is_empty() && !entitlements.iter().any(|name| name.starts_with("device")) {
            entitlements.push("device".to_owned());
        }
        Ok(Config {
            addresses: addresses
                .into_iter()
                .find(|some| !some.is_empty())
                .unwrap_or_default(),
            uid: file.grpc.uid.unwrap_or(surroundings.uid),
            gid,
            tls: tls(&file.grpc.tls, flags)?,
            debug_address: flags
                .debugaddr
                .clone()
                .or_else(|| file.grpc.debug_address.clone()),
            log_format: log_format(flags.log_format.as_deref().or(file.log.format.as_deref()))?,
            log_level: {
                let level = log_level(flags, file.debug, file.trace, file.log.level.as_deref())?;
                match surroundings.scheduler_debug {
                    true => format!("{level},solver=debug"),
                    false => level,
                }
            },
            free_cgroup_top: surroundings.free_cgroup_top,
            entitlements,
            provenance_env_dir: file
                .provenance_env_dir
                .filter(|dir| !dir.as_os_str().is_empty())
                .unwrap_or_else(|| surroundings.config_dir(name).join("provenance.d")),
            labels,
            platforms: pick_list(&flags.oci_worker_platform, worker.platforms.clone()),
            snapshotter: one_of(
                "snapshotter",
                flags
                    .oci_worker_snapshotter
                    .clone()
                    .or_else(|| worker.snapshotter.clone())
                    .unwrap_or_else(|| "auto".into()),
                &["auto", "overlayfs", "native"],
            )?,
            network: network::of(&worker, flags, surroundings, &root)?,
            proxy_network: flags.proxy_network || file.proxy_network == Some(true),
            apparmor: flags
                .oci_worker_apparmor_profile
                .clone()
                .or_else(|| worker.apparmor_profile.clone())
                .filter(|name| !name.is_empty()),
            cdi,
            runtime: flags
                .oci_worker_binary
                .clone()
                .or(worker.binary)
                .filter(|name| !name.is_empty()),
            frontends: file.frontend,
            cgroup_parent: worker.default_cgroup_parent.filter(|name| !name.is_empty()),
            max_parallelism: flags
                .oci_max_parallelism()?
                .or(worker.max_parallelism)
                .filter(|limit| *limit > 0),
            gc,
            registries: file.registry,
            registry_concurrency: file
                .system
                .as_ref()
                .and_then(|system| system.max_registry_concurrency),
            dns: file.dns,
            history_age: history
                .max_age
                .and_then(Span::duration)
                .unwrap_or(Duration::from_secs(48 * 3600)),
            history_entries: match history.max_entries {
                Some(entries) => usize::try_from(entries).unwrap_or(usize::MAX),
                None => 50,
            },
            log_limits: surroundings.log_limits,
            collector: Collector::of(&surroundings.otel)?,
            trace_socket: flags
                .otel_socket_path
                .clone()
                .or(file.otel.socket_path)
                .filter(|path| !path.as_os_str().is_empty()),
            platforms_max_age: match file
                .system
                .and_then(|system| system.platforms_cache_max_age)
            {
                Some(span) => span.duration(),
                None => Some(PLATFORMS_MAX_AGE),
            },
            root,
        })
    }

    /// Where a client on this machine finds the daemon: its first unix address.
    pub fn local_address(&self) -> Option<&str> {
        self.addresses
            .iter()
            .map(String::as_str)
            .find(|address| address.starts_with("unix://"))
    }
}

fn pick_list(flag: &[String], file: Vec<String>) -> Vec<String> {
    if flag.is_empty() { file } else { flag.to_vec() }
}

fn one_of(setting: &'static str, value: String, known: &[&'static str]) -> Result<String, Error> {
    if known.contains(&value.as_str()) {
        return Ok(value);
    }
    Err(Error::BadSetting {
        setting,
        problem: format!("is not one of {}", known.join(", ")),
        value,
    })
}

fn log_format(text: Option<&str>) -> Result<LogFormat, Error> {
    match text {
        None | Some("" | "text") => Ok(LogFormat::Text),
        Some("json") => Ok(LogFormat::Json),
        Some(other) => Err(Error::BadSetting {
            setting: "log format",
            value: other.to_owned(),
            problem: "is not text or json".to_owned(),
        }),
    }
}

fn log_level(
    flags: &Flags,
    debug: bool,
    trace: bool,
    level: Option<&str>,
) -> Result<String, Error> {
    if flags.trace || (trace && !flags.debug) {
        return Ok("trace".to_owned());
    }
    if flags.debug || debug {
        return Ok("debug".to_owned());
    }
    let level = flags.log_level.as_deref().or(level).unwrap_or("info");
    let level = if level == "warning" { "warn" } else { level };
    one_of(
        "log level",
        level.to_owned(),
        &["trace", "debug", "info", "warn", "error"],
    )
}

fn entitlements(list: Vec<String>) -> Result<Vec<String>, Error> {
    for name in &list {
        match name.strip_prefix("device=") {
            None => {}
            // An alias is the client's own.
            Some(device) if !device.is_empty() && !device.contains(',') => continue,
            Some(_) => {
                return Err(Error::BadSetting {
                    setting: "entitlement",
                    value: name.clone(),
                    problem: "is not like device=NAME".to_owned(),
                });
            }
        }
        one_of(
            "entitlement",
            name.to_owned(),
            &["security.insecure", "network.host", "device"],
        )?;
    }
    Ok(list)
}

/// Where devices are described; nowhere when they are switched off.
fn cdi(file: file::Cdi, flags: &Flags) -> Cdi {
    if flags.cdi_disabled || file.disabled == Some(true) {
        return Cdi::default();
    }
    let usual = executor::cdi::SPEC_DIRS.map(PathBuf::from).to_vec();
    let dirs = [flags.cdi_spec_dir.clone(), file.spec_dirs, usual];
    Cdi {
        dirs: dirs
            .into_iter()
            .find(|some| !some.is_empty())
            .unwrap_or_default(),
        auto_allowed: file.auto_allowed.into_iter().collect(),
    }
}

fn tls(file: &file::Tls, flags: &Flags) -> Result<Option<TlsFiles>, Error> {
    let cert = flags.tlscert.clone().or_else(|| file.cert.clone());
    let key = flags.tlskey.clone().or_else(|| file.key.clone());
    let ca = flags.tlscacert.clone().or_else(|| file.ca.clone());
    match (cert, key, ca) {
        (Some(cert), Some(key), ca) => Ok(Some(TlsFiles { cert, key, ca })),
        (None, None, None) => Ok(None),
        _ => Err(Error::HalfTls),
    }
}

/// Settings that are known but have nothing behind them yet are refused: a
/// protection one believes to have must not be missing in silence.
fn refuse_what_is_not_there(file: &File, flags: &Flags) -> Result<(), Error> {
    let worker = &file.worker.oci;
    let wanted = [
        (
            file.worker.containerd.enabled == Some(true),
            "the containerd worker (worker.containerd.enabled)",
        ),
        (
            flags.containerd_worker.as_deref() == Some("true"),
            "the containerd worker (--containerd-worker)",
        ),
        (
            flags.containerd_worker.as_deref() != Some("false")
                && flags.containerd.given().is_some(),
            "the containerd worker, which flags set up here (say --containerd-worker=false to \
             leave them without effect)",
        ),
        (
            worker.enabled == Some(false),
            "running without the OCI worker (worker.oci.enabled = false)",
        ),
        (
            flags.oci_worker.as_deref() == Some("false"),
            "running without the OCI worker (--oci-worker=false)",
        ),
        (
            worker.rootless == Some(true) || flags.rootless || flags.oci_worker_rootless,
            "rootless",
        ),
        (
            worker.no_process_sandbox == Some(true) || flags.oci_worker_no_process_sandbox,
            "noProcessSandbox",
        ),
        (
            worker.proxy_snapshotter_path.is_some()
                || flags.oci_worker_proxy_snapshotter_path.is_some(),
            "proxySnapshotterPath",
        ),
        (worker.stargz_snapshotter.is_some(), "stargzSnapshotter"),
        (worker.isolate_cgroups == Some(true), "isolateCgroups"),
        (
            worker.selinux == Some(true) || flags.oci_worker_selinux,
            "SELinux labels (selinux)",
        ),
        (
            file.grpc.security_descriptor.is_some(),
            "securityDescriptor (it is for Windows)",
        ),
        (flags.save_cache_debug, "--save-cache-debug"),
        (file.cache.gha.is_some(), "cache.gha"),
    ];
    match wanted.iter().find(|(asked, _)| *asked) {
        Some((_, what)) => Err(Error::NotYet((*what).to_owned())),
        None => Ok(()),
    }
}

/// The size of the disk `path` will be on: of the nearest directory that exists.
fn disk_size(path: &Path) -> u64 {
    path.ancestors().find_map(blocks).unwrap_or_default()
}

fn blocks(dir: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(dir).ok()?;
    Some(stat.f_blocks * stat.f_frsize)
}
