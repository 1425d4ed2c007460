//! The TOML file as BuildKit's users write it (rows D03–D13). A key that is not
//! known is refused with its line; nothing is set silently to no effect.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::Error;
use crate::config::space::{DiskSpace, Span};

/// The whole file. What is absent stays `None`, so that flags can override.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    /// More in the log.
    pub debug: bool,
    /// Everything in the log.
    pub trace: bool,
    /// Where state is kept.
    pub root: Option<PathBuf>,
    /// What builds may ask for beyond the sandbox.
    #[serde(rename = "insecure-entitlements")]
    pub insecure_entitlements: Vec<String>,
    /// A network that sees all traffic of builds.
    #[serde(rename = "proxyNetwork")]
    pub proxy_network: Option<bool>,
    /// JSON files merged into every provenance.
    #[serde(rename = "provenanceEnvDir")]
    pub provenance_env_dir: Option<PathBuf>,
    /// How the log is written.
    pub log: Log,
    /// Where clients connect.
    pub grpc: Grpc,
    /// Where spans come in.
    pub otel: Otel,
    /// Devices for containers.
    pub cdi: Cdi,
    /// How builds are run.
    pub worker: Workers,
    /// How each registry is talked to, by host.
    pub registry: BTreeMap<String, Registry>,
    /// Name lookup inside containers.
    pub dns: Option<Dns>,
    /// How long finished builds are remembered.
    pub history: Option<History>,
    /// Which frontends may be used.
    pub frontend: Frontends,
    /// The rest.
    pub system: Option<System>,
    /// Remote caches.
    pub cache: Cache,
}

/// `[log]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `text` or `json`.
    pub format: Option<String>,
    /// `debug`, `info`, `warn`, `error`.
    pub level: Option<String>,
}

/// `[grpc]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Grpc {
    /// `unix://…`, `tcp://…`, `fd://…`.
    pub address: Vec<String>,
    /// Where the debug pages are.
    #[serde(rename = "debugAddress")]
    pub debug_address: Option<String>,
    /// Owner of the sockets.
    pub uid: Option<u32>,
    /// Group of the sockets.
    pub gid: Option<u32>,
    /// Windows only.
    #[serde(rename = "securityDescriptor")]
    pub security_descriptor: Option<String>,
    /// Certificates for `tcp://`.
    pub tls: Tls,
}

/// `[grpc.tls]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// Our certificate chain, PEM.
    pub cert: Option<PathBuf>,
    /// Its key, PEM.
    pub key: Option<PathBuf>,
    /// Who signs the certificates of clients; with it, clients must have one.
    pub ca: Option<PathBuf>,
}

/// `[otel]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Otel {
    /// The socket containers send spans to.
    #[serde(rename = "socketPath")]
    pub socket_path: Option<PathBuf>,
}

/// `[cdi]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cdi {
    /// No devices at all.
    pub disabled: Option<bool>,
    /// Where device specs are read from.
    #[serde(rename = "specDirs")]
    pub spec_dirs: Vec<PathBuf>,
    /// Devices that need no entitlement.
    #[serde(rename = "autoAllowed")]
    pub auto_allowed: Vec<String>,
}

/// `[worker]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Workers {
    /// The one kiln has.
    pub oci: Oci,
    /// Known, so that a shared file can be read; kiln has none.
    pub containerd: Containerd,
}

/// `[worker.oci]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Oci {
    /// `false` is refused: there would be no worker.
    pub enabled: Option<bool>,
    /// Labels shown by `ListWorkers`.
    pub labels: BTreeMap<String, String>,
    /// Platforms to offer instead of those found.
    pub platforms: Vec<String>,
    /// `auto`, `overlayfs` or `native`.
    pub snapshotter: Option<String>,
    /// In a user namespace.
    pub rootless: Option<bool>,
    /// Share the host's process namespace.
    #[serde(rename = "noProcessSandbox")]
    pub no_process_sandbox: Option<bool>,
    /// Keep the cache within limits.
    pub gc: Option<bool>,
    /// Old name of `reservedSpace`.
    pub gckeepstorage: Option<DiskSpace>,
    /// What the cache may always keep.
    #[serde(rename = "reservedSpace")]
    pub reserved_space: Option<DiskSpace>,
    /// What the cache may use at most.
    #[serde(rename = "maxUsedSpace")]
    pub max_used_space: Option<DiskSpace>,
    /// What should stay free on the disk.
    #[serde(rename = "minFreeSpace")]
    pub min_free_space: Option<DiskSpace>,
    /// Rules instead of the default ones.
    pub gcpolicy: Vec<GcPolicy>,
    /// `auto`, `host`, `none`, `cni`, `bridge`.
    #[serde(rename = "networkMode")]
    pub network_mode: Option<String>,
    /// CNI.
    #[serde(rename = "cniConfigPath")]
    pub cni_config_path: Option<PathBuf>,
    /// CNI.
    #[serde(rename = "cniBinaryPath")]
    pub cni_binary_path: Option<PathBuf>,
    /// CNI.
    #[serde(rename = "cniPoolSize")]
    pub cni_pool_size: Option<u32>,
    /// The bridge to use.
    #[serde(rename = "bridgeName")]
    pub bridge_name: Option<String>,
    /// Its addresses.
    #[serde(rename = "bridgeSubnet")]
    pub bridge_subnet: Option<String>,
    /// An OCI runtime to use instead of the built-in executor.
    pub binary: Option<String>,
    /// A snapshotter behind a socket.
    #[serde(rename = "proxySnapshotterPath")]
    pub proxy_snapshotter_path: Option<PathBuf>,
    /// Cgroup above all containers.
    #[serde(rename = "defaultCgroupParent")]
    pub default_cgroup_parent: Option<String>,
    /// Keep all cgroups below our own.
    #[serde(rename = "isolateCgroups")]
    pub isolate_cgroups: Option<bool>,
    /// Lazy pulling.
    #[serde(rename = "stargzSnapshotter")]
    pub stargz_snapshotter: Option<toml::Table>,
    /// AppArmor profile of containers.
    #[serde(rename = "apparmor-profile")]
    pub apparmor_profile: Option<String>,
    /// SELinux labels on containers.
    pub selinux: Option<bool>,
    /// Steps running at the same time.
    #[serde(rename = "max-parallelism")]
    pub max_parallelism: Option<usize>,
}

/// `[worker.containerd]`, of which only `enabled` matters here.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Containerd {
    /// `true` is refused.
    pub enabled: Option<bool>,
}

/// `[[worker.oci.gcpolicy]]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GcPolicy {
    /// Internal records too.
    pub all: bool,
    /// Which records.
    pub filters: Vec<String>,
    /// Only what was not used for so long.
    #[serde(rename = "keepDuration")]
    pub keep_duration: Option<Span>,
    /// Old name of `reservedSpace`.
    #[serde(rename = "keepBytes")]
    pub keep_bytes: Option<DiskSpace>,
    /// Never below this.
    #[serde(rename = "reservedSpace")]
    pub reserved_space: Option<DiskSpace>,
    /// Never above this.
    #[serde(rename = "maxUsedSpace")]
    pub max_used_space: Option<DiskSpace>,
    /// Try to leave this free.
    #[serde(rename = "minFreeSpace")]
    pub min_free_space: Option<DiskSpace>,
}

/// `[registry."host"]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Registry {
    /// Asked before the host itself.
    pub mirrors: Vec<String>,
    /// Plain HTTP.
    pub http: Option<bool>,
    /// Any certificate, or plain HTTP.
    pub insecure: Option<bool>,
    /// Who may sign its certificate.
    pub ca: Vec<PathBuf>,
    /// Our certificates for it.
    pub keypair: Vec<KeyPair>,
    /// Directories with `*.crt`, `*.cert`, `*.key`.
    pub tlsconfigdir: Vec<PathBuf>,
}

/// `[[registry."host".keypair]]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyPair {
    /// PEM.
    pub key: PathBuf,
    /// PEM.
    pub cert: PathBuf,
}

/// `[dns]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dns {
    /// `nameserver` lines.
    pub nameservers: Vec<String>,
    /// `options` line.
    pub options: Vec<String>,
    /// `search` line.
    #[serde(rename = "searchDomains")]
    pub search_domains: Vec<String>,
}

/// `[history]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct History {
    /// Older builds are forgotten.
    #[serde(rename = "maxAge")]
    pub max_age: Option<Span>,
    /// More builds are forgotten.
    #[serde(rename = "maxEntries")]
    pub max_entries: Option<i64>,
}

/// `[frontend]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Frontends {
    /// The built-in Dockerfile frontend.
    #[serde(rename = "dockerfile.v0")]
    pub dockerfile: DockerfileFrontend,
    /// Frontends from images.
    #[serde(rename = "gateway.v0")]
    pub gateway: GatewayFrontend,
}

/// `[frontend."dockerfile.v0"]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DockerfileFrontend {
    /// Whether it may be used.
    pub enabled: Option<bool>,
}

/// `[frontend."gateway.v0"]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GatewayFrontend {
    /// Whether it may be used.
    pub enabled: Option<bool>,
    /// Images it may be, without tags; empty for any.
    #[serde(rename = "allowedRepositories")]
    pub allowed_repositories: Vec<String>,
}

/// `[system]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct System {
    /// How long the list of emulated platforms is believed; `-1` for ever.
    #[serde(rename = "platformsCacheMaxAge")]
    pub platforms_cache_max_age: Option<Span>,
    /// Transfers per registry host at the same time.
    #[serde(rename = "maxRegistryConcurrency")]
    pub max_registry_concurrency: Option<usize>,
}

/// `[cache]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cache {
    /// `[cache.gha]`: signing of GitHub's cache entries.
    pub gha: Option<toml::Table>,
}

impl File {
    /// Reads a file. `None` if it is not there.
    pub fn read(path: &Path) -> Result<Option<File>, Error> {
        match std::fs::read_to_string(path) {
            Ok(text) => File::parse(&text, path).map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::File {
                doing: "reading",
                path: path.to_owned(),
                source,
            }),
        }
    }

    /// Parses text that came from `path`.
    pub fn parse(text: &str, path: &Path) -> Result<File, Error> {
        toml::from_str(text).map_err(|error| {
            let before = error
                .span()
                .map_or("", |span| &text[..span.start.min(text.len())]);
            Error::Config {
                path: path.to_owned(),
                line: before.matches('\n').count() + 1,
                problem: error.message().to_owned(),
            }
        })
    }
}
