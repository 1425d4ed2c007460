//! The flags of `kiln daemon`, which are those of `buildkitd` (rows D01, D02, D15).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgAction, Parser};

use crate::Error;

/// The daemon's flags. Started as `buildkitd`, the program takes these alone.
#[derive(Clone, Debug, Default, Parser)]
#[command(
    name = "buildkitd",
    about = "The build daemon",
    disable_version_flag = true
)]
pub struct Flags {
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print the version and exit
    #[arg(long, short = 'v')]
    pub version: bool,
    /// Write more to the log
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", hide_default_value = true)]
    pub debug: bool,
    /// Write everything to the log
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", hide = true)]
    pub trace: bool,
    /// State directory
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Where to listen: unix://path, tcp://host:port, fd://; may be given several times
    #[arg(long, value_name = "ADDRESS")]
    pub addr: Vec<String>,
    /// Log format: text or json
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// Log level: trace, debug, info, warn or error
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// Group (name or number) that owns the unix sockets
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
    /// Address of the debug pages
    #[arg(long, value_name = "ADDRESS")]
    pub debugaddr: Option<String>,
    /// Certificate for tcp:// (PEM)
    #[arg(long, value_name = "FILE")]
    pub tlscert: Option<PathBuf>,
    /// Key of the certificate (PEM)
    #[arg(long, value_name = "FILE")]
    pub tlskey: Option<PathBuf>,
    /// Who signs the certificates of clients (PEM); clients then must have one
    #[arg(long, value_name = "FILE")]
    pub tlscacert: Option<PathBuf>,
    /// Let builds ask for security.insecure, network.host or device; may be given several times
    #[arg(long, value_name = "ENTITLEMENT")]
    pub allow_insecure_entitlement: Vec<String>,
    /// Let steps reach the network through a proxy only, and tell what they got there
    #[arg(long)]
    pub proxy_network: bool,
    /// Socket spans are sent to
    #[arg(long, value_name = "PATH")]
    pub otel_socket_path: Option<PathBuf>,
    /// No devices for containers
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", hide_default_value = true)]
    pub cdi_disabled: bool,
    /// Where device specs are read from
    #[arg(long, value_name = "DIR")]
    pub cdi_spec_dir: Vec<PathBuf>,
    /// Keep what cache keys were made of
    #[arg(long)]
    pub save_cache_debug: bool,
    /// Run in a user namespace
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", hide_default_value = true)]
    pub rootless: bool,
    /// Enable the worker: true, false or auto
    #[arg(long, value_name = "BOOL")]
    pub oci_worker: Option<String>,
    /// Labels of the worker (key=value); may be given several times
    #[arg(long, value_name = "LABEL")]
    pub oci_worker_labels: Vec<String>,
    /// Snapshotter: auto, overlayfs or native
    #[arg(long, value_name = "NAME")]
    pub oci_worker_snapshotter: Option<String>,
    /// Socket of a snapshotter in another process
    #[arg(long, value_name = "PATH")]
    pub oci_worker_proxy_snapshotter_path: Option<PathBuf>,
    /// Platforms to offer instead of those found; may be given several times
    #[arg(long, value_name = "PLATFORM", value_delimiter = ',')]
    pub oci_worker_platform: Vec<String>,
    /// Network of containers: auto, host, cni, bridge or none
    #[arg(long, value_name = "MODE")]
    pub oci_worker_net: Option<String>,
    /// CNI configuration
    #[arg(long, value_name = "FILE")]
    pub oci_cni_config_path: Option<PathBuf>,
    /// CNI plugins
    #[arg(long, value_name = "DIR")]
    pub oci_cni_binary_dir: Option<PathBuf>,
    /// Network namespaces kept ready
    #[arg(long, value_name = "COUNT")]
    pub oci_cni_pool_size: Option<usize>,
    /// OCI runtime to use instead of the built-in executor
    #[arg(long, value_name = "BINARY")]
    pub oci_worker_binary: Option<String>,
    /// AppArmor profile of containers
    #[arg(long, value_name = "NAME")]
    pub oci_worker_apparmor_profile: Option<String>,
    /// SELinux labels on containers
    #[arg(long)]
    pub oci_worker_selinux: bool,
    /// Run the worker in a user namespace
    #[arg(long)]
    pub oci_worker_rootless: bool,
    /// Share the host's process namespace with containers
    #[arg(long)]
    pub oci_worker_no_process_sandbox: bool,
    /// Keep the cache within limits
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub oci_worker_gc: Option<bool>,
    /// Limits of the cache in megabytes: `Reserved[,Free[,Max]]`
    #[arg(long, value_name = "MB")]
    pub oci_worker_gc_keepstorage: Option<String>,
    /// Steps running at the same time: a number, or num-cpu
    #[arg(long, value_name = "COUNT")]
    pub oci_max_parallelism: Option<String>,
    /// The containerd worker, which kiln does not have: false or auto
    #[arg(long, value_name = "BOOL")]
    pub containerd_worker: Option<String>,
    #[command(flatten)]
    /// What would be set of that worker
    pub containerd: ContainerdFlags,
}

/// Flags of the containerd worker, known so that they are answered with a sentence.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Of the containerd worker, which kiln does not have")]
pub struct ContainerdFlags {
    #[arg(long, hide = true)]
    containerd_worker_addr: Option<String>,
    #[arg(long, hide = true)]
    containerd_worker_labels: Vec<String>,
    #[arg(long, hide = true)]
    containerd_worker_platform: Vec<String>,
    #[arg(long, hide = true)]
    containerd_worker_namespace: Option<String>,
    #[arg(long, hide = true)]
    containerd_worker_runtime: Option<String>,
    #[arg(long, hide = true)]
    containerd_worker_snapshotter: Option<String>,
    #[arg(long, hide = true)]
    containerd_worker_net: Option<String>,
    #[arg(long, hide = true)]
    containerd_worker_apparmor_profile: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    containerd_worker_selinux: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    containerd_worker_rootless: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    containerd_worker_gc: Option<String>,
    #[arg(long, hide = true)]
    containerd_worker_gc_keepstorage: Option<String>,
    #[arg(long, hide = true)]
    containerd_cni_config_path: Option<String>,
    #[arg(long, hide = true)]
    containerd_cni_binary_dir: Option<String>,
    #[arg(long, hide = true)]
    containerd_cni_pool_size: Option<String>,
    #[arg(long, hide = true)]
    containerd_max_parallelism: Option<String>,
}

impl ContainerdFlags {
    /// The first that was given.
    pub(crate) fn given(&self) -> Option<&'static str> {
        let one = |name, flag: &Option<String>| flag.is_some().then_some(name);
        let list = |name, flag: &Vec<String>| (!flag.is_empty()).then_some(name);
        [
            one("addr", &self.containerd_worker_addr),
            list("labels", &self.containerd_worker_labels),
            list("platform", &self.containerd_worker_platform),
            one("namespace", &self.containerd_worker_namespace),
            one("runtime", &self.containerd_worker_runtime),
            one("snapshotter", &self.containerd_worker_snapshotter),
            one("net", &self.containerd_worker_net),
            one("apparmor-profile", &self.containerd_worker_apparmor_profile),
            one("selinux", &self.containerd_worker_selinux),
            one("rootless", &self.containerd_worker_rootless),
            one("gc", &self.containerd_worker_gc),
            one("gc-keepstorage", &self.containerd_worker_gc_keepstorage),
            one("CNI configuration", &self.containerd_cni_config_path),
            one("CNI plugins", &self.containerd_cni_binary_dir),
            one("CNI pool", &self.containerd_cni_pool_size),
            one("max-parallelism", &self.containerd_max_parallelism),
        ]
        .into_iter()
        .flatten()
        .next()
    }
}

impl Flags {
    /// Parses a command line. Go programs take long flags with one dash too; so do we.
    pub fn parse_from_args(args: impl IntoIterator<Item = OsString>) -> Result<Flags, clap::Error> {
        Flags::try_parse_from(args.into_iter().map(two_dashes))
    }

    /// The limit of `--oci-max-parallelism`.
    pub fn oci_max_parallelism(&self) -> Result<Option<usize>, Error> {
        match self.oci_max_parallelism.as_deref() {
            None => Ok(None),
            Some("num-cpu") => Ok(std::thread::available_parallelism().ok().map(usize::from)),
            Some(text) => match text.parse() {
                Ok(limit) => Ok(Some(limit)),
                Err(_) => Err(Error::BadSetting {
                    setting: "--oci-max-parallelism",
                    value: text.to_owned(),
                    problem: "is not a number or num-cpu".to_owned(),
                }),
            },
        }
    }
}

fn two_dashes(arg: OsString) -> OsString {
    match arg.to_str() {
        Some(text) if text.starts_with('-') && !text.starts_with("--") && text.len() > 2 => {
            OsString::from(format!("-{text}"))
        }
        _ => arg,
    }
}

/// `key=value` pairs.
pub(crate) fn labels(list: &[String]) -> Result<BTreeMap<String, String>, Error> {
    list.iter()
        .map(|label| match label.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err(Error::BadSetting {
                setting: "--oci-worker-labels",
                value: label.clone(),
                problem: "is not like key=value".to_owned(),
            }),
        })
        .collect()
}

/// A group's number, from its number or its name in `/etc/group`.
pub(crate) fn group_id(group: &str) -> Result<u32, Error> {
    if let Ok(id) = group.parse() {
        return Ok(id);
    }
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    groups
        .lines()
        .find_map(|line| {
            let mut fields = line.split(':');
            (fields.next() == Some(group))
                .then(|| fields.nth(1)?.parse().ok())
                .flatten()
        })
        .ok_or_else(|| Error::BadSetting {
            setting: "--group",
            value: group.to_owned(),
            problem: "is no group of this system".to_owned(),
        })
}
