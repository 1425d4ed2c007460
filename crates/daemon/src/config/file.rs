//! The TOML file as BuildKit's users write it (rows D03–D13). A key that is not
//! known is refused with its line; nothing is set silently to no effect.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::Error;
use crate::config::space::{DiskSpace, Span};

/// Tables of the file. What is absent keeps its default, a key that is not known is an
/// error, and keys are spelled as in `keepDuration` unless they say otherwise.
macro_rules! tables {
    ($(
        $(#[$about:meta])*
        $table:ident { $($(#[$key_about:meta])* $key:ident: $value:ty,)* }
    )*) => {$(
        $(#[$about])*
        #[derive(Clone, Debug, Default, PartialEq, Deserialize)]
        #[serde(deny_unknown_fields, default, rename_all = "camelCase")]
        pub struct $table {
            $($(#[$key_about])* pub $key: $value,)*
        }
    )*};
}

tables! {
    /// The whole file. What is absent stays `None`, so that flags can override.
    File {
        /// More in the log.
        debug: bool,
        /// Everything in the log.
        trace: bool,
        /// Where state is kept.
        root: Option<PathBuf>,
        /// What builds may ask for beyond the sandbox.
        #[serde(rename = "insecure-entitlements")]
        insecure_entitlements: Vec<String>,
        /// Steps reach the network through a proxy only.
        proxy_network: Option<bool>,
        /// A directory of JSON files that are told in every provenance.
        provenance_env_dir: Option<PathBuf>,
        /// How the log is written.
        log: Log,
        /// Where clients connect.
        grpc: Grpc,
        /// Where spans come in.
        otel: Otel,
        /// Devices for containers.
        cdi: Cdi,
        /// How builds are run.
        worker: Workers,
        /// How each registry is talked to, by host.
        registry: BTreeMap<String, Registry>,
        /// Name lookup inside containers.
        dns: Option<Dns>,
        /// How long finished builds are remembered.
        history: Option<History>,
        /// Which frontends may be used.
        frontend: Frontends,
        /// The rest.
        system: Option<System>,
        /// Remote caches.
        cache: Cache,
    }

    /// `[log]`
    Log {
        /// `text` or `json`.
        format: Option<String>,
        /// `debug`, `info`, `warn`, `error`.
        level: Option<String>,
    }

    /// `[grpc]`
    Grpc {
        /// `unix://…`, `tcp://…`, `fd://…`.
        address: Vec<String>,
        /// Where the debug pages are.
        debug_address: Option<String>,
        /// Owner of the sockets.
        uid: Option<u32>,
        /// Group of the sockets.
        gid: Option<u32>,
        /// Windows only.
        security_descriptor: Option<String>,
        /// Certificates for `tcp://`.
        tls: Tls,
    }

    /// `[grpc.tls]`
    Tls {
        /// Our certificate chain, PEM.
        cert: Option<PathBuf>,
        /// Its key, PEM.
        key: Option<PathBuf>,
        /// Who signs the certificates of clients; with it, clients must have one.
        ca: Option<PathBuf>,
    }

    /// `[otel]`
    Otel {
        /// The socket containers send spans to.
        socket_path: Option<PathBuf>,
    }

    /// `[cdi]`
    Cdi {
        /// No devices at all.
        disabled: Option<bool>,
        /// Where device specs are read from.
        spec_dirs: Vec<PathBuf>,
        /// Devices that need no entitlement.
        auto_allowed: Vec<String>,
    }

    /// `[worker]`
    Workers {
        /// The one kiln has.
        oci: Oci,
        /// Known, so that a shared file can be read; kiln has none.
        containerd: Containerd,
    }

    /// `[worker.oci]`
    Oci {
        /// `false` is refused: there would be no worker.
        enabled: Option<bool>,
        /// Labels shown by `ListWorkers`.
        labels: BTreeMap<String, String>,
        /// Platforms to offer instead of those found.
        platforms: Vec<String>,
        /// `auto`, `overlayfs` or `native`.
        snapshotter: Option<String>,
        /// In a user namespace.
        rootless: Option<bool>,
        /// Share the host's process namespace.
        no_process_sandbox: Option<bool>,
        /// Keep the cache within limits.
        gc: Option<bool>,
        /// Old name of `reservedSpace`.
        gckeepstorage: Option<DiskSpace>,
        /// What the cache may always keep.
        reserved_space: Option<DiskSpace>,
        /// What the cache may use at most.
        max_used_space: Option<DiskSpace>,
        /// What should stay free on the disk.
        min_free_space: Option<DiskSpace>,
        /// Rules instead of the default ones.
        gcpolicy: Vec<GcPolicy>,
        /// `auto`, `host`, `none`, `cni`, `bridge`.
        network_mode: Option<String>,
        /// What CNI plugins shall make.
        cni_config_path: Option<PathBuf>,
        /// Where they are.
        cni_binary_path: Option<PathBuf>,
        /// Network namespaces kept ready.
        cni_pool_size: Option<usize>,
        /// The bridge to use.
        bridge_name: Option<String>,
        /// Its addresses.
        bridge_subnet: Option<String>,
        /// An OCI runtime to use instead of the built-in executor.
        binary: Option<String>,
        /// A snapshotter behind a socket.
        proxy_snapshotter_path: Option<PathBuf>,
        /// Cgroup above all containers.
        default_cgroup_parent: Option<String>,
        /// Keep all cgroups below our own.
        isolate_cgroups: Option<bool>,
        /// Lazy pulling.
        stargz_snapshotter: Option<toml::Table>,
        /// AppArmor profile of containers.
        #[serde(rename = "apparmor-profile")]
        apparmor_profile: Option<String>,
        /// SELinux labels on containers.
        selinux: Option<bool>,
        /// Steps running at the same time.
        #[serde(rename = "max-parallelism")]
        max_parallelism: Option<usize>,
    }

    /// `[[worker.oci.gcpolicy]]`
    GcPolicy {
        /// Internal records too.
        all: bool,
        /// Which records.
        filters: Vec<String>,
        /// Only what was not used for so long.
        keep_duration: Option<Span>,
        /// Old name of `reservedSpace`.
        keep_bytes: Option<DiskSpace>,
        /// Never below this.
        reserved_space: Option<DiskSpace>,
        /// Never above this.
        max_used_space: Option<DiskSpace>,
        /// Try to leave this free.
        min_free_space: Option<DiskSpace>,
    }

    /// `[registry."host"]`
    Registry {
        /// Asked before the host itself.
        mirrors: Vec<String>,
        /// Plain HTTP.
        http: Option<bool>,
        /// Any certificate, or plain HTTP.
        insecure: Option<bool>,
        /// Who may sign its certificate.
        ca: Vec<PathBuf>,
        /// Our certificates for it.
        keypair: Vec<KeyPair>,
        /// Directories with `*.crt`, `*.cert`, `*.key`.
        tlsconfigdir: Vec<PathBuf>,
    }

    /// `[dns]`
    Dns {
        /// `nameserver` lines.
        nameservers: Vec<String>,
        /// `options` line.
        options: Vec<String>,
        /// `search` line.
        search_domains: Vec<String>,
    }

    /// `[history]`
    History {
        /// Older builds are forgotten.
        max_age: Option<Span>,
        /// More builds are forgotten.
        max_entries: Option<i64>,
    }

    /// `[frontend]`
    Frontends {
        /// The built-in Dockerfile frontend.
        #[serde(rename = "dockerfile.v0")]
        dockerfile: DockerfileFrontend,
        /// Frontends from images.
        #[serde(rename = "gateway.v0")]
        gateway: GatewayFrontend,
    }

    /// `[frontend."dockerfile.v0"]`
    DockerfileFrontend {
        /// Whether it may be used.
        enabled: Option<bool>,
    }

    /// `[frontend."gateway.v0"]`
    GatewayFrontend {
        /// Whether it may be used.
        enabled: Option<bool>,
        /// Images it may be, without tags; empty for any.
        allowed_repositories: Vec<String>,
    }

    /// `[system]`
    System {
        /// How long the list of emulated platforms is believed; `-1` for ever.
        platforms_cache_max_age: Option<Span>,
        /// Transfers per registry host at the same time.
        max_registry_concurrency: Option<usize>,
    }

    /// `[cache]`
    Cache {
        /// `[cache.gha]`: signing of GitHub's cache entries.
        gha: Option<toml::Table>,
    }
}

/// `[worker.containerd]`, of which only `enabled` matters here: kiln has no such worker.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Containerd {
    /// `true` is refused.
    pub enabled: Option<bool>,
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
