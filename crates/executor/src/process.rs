//! What to run: the process, the files it sees, and how far it may reach.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use snapshot::Tree;

use crate::proxy::NetworkProxy;

/// `PATH` given to a process whose environment has none.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Name of the machine inside a container that asks for none.
pub const DEFAULT_HOSTNAME: &str = "buildkitsandbox";

/// One process and the container around it.
#[derive(Clone)]
pub struct Process {
    /// Name by which [`crate::Executor::exec`] finds the container; none = not findable.
    pub name: Option<String>,
    /// The root filesystem.
    pub root: Arc<Tree>,
    /// Mount the root read-only.
    pub readonly_root: bool,
    /// Further mounts, in this order.
    pub mounts: Vec<Mount>,
    /// Program and arguments. A program without `/` is looked up in `PATH`.
    pub args: Vec<String>,
    /// `KEY=value` each.
    pub env: Vec<String>,
    /// Working directory; made (owned by the user) when absent. Empty means `/`.
    pub cwd: String,
    /// `user[:group]`, names or numbers, looked up in the root's passwd and group
    /// files. Empty means root.
    pub user: String,
    /// Host name; empty means [`DEFAULT_HOSTNAME`].
    pub hostname: String,
    /// Lines added to `/etc/hosts`.
    pub extra_hosts: Vec<HostIp>,
    /// DNS settings instead of the host's.
    pub dns: Option<Dns>,
    /// Which network the process sees.
    pub network: Network,
    /// Its only way to that network, if there is one.
    pub proxy: Option<Arc<dyn NetworkProxy>>,
    /// The variables that tell programs of it, for processes that join.
    pub(crate) proxied: Vec<String>,
    /// How confined it is.
    pub security: Security,
    /// Limits per process; none = inherited.
    pub ulimits: Vec<Ulimit>,
    /// Limits of the whole container.
    pub resources: Resources,
    /// Parent of the container's cgroup instead of the executor's own.
    pub cgroup_parent: Option<String>,
    /// Give it a terminal; its output is then all in [`crate::Io::stdout`].
    pub tty: bool,
    /// Size of `/dev/shm` in bytes; none = 64 MiB.
    pub shm_size: Option<u64>,
    /// After the run also remove directories that were made on the way to a mount
    /// point (the mount points themselves are always removed when still empty).
    pub remove_mount_stubs_recursive: bool,
    /// Groups it is in beside its user's.
    pub groups: Vec<u32>,
    /// Device nodes beside the usual ones, which it may use.
    pub devices: Vec<Device>,
    /// Programs of the host to run on the way. Only an OCI runtime binary does that.
    pub hooks: Vec<Hook>,
    /// Who takes down what the container uses, if anybody does.
    pub usage: Option<crate::usage::Recorder>,
}

impl Process {
    /// `args` in `root` with every default: root user, `/`, sandboxed, no extra mounts.
    pub fn new<S: Into<String>>(root: Arc<Tree>, args: impl IntoIterator<Item = S>) -> Process {
        Process {
            name: None,
            root,
            readonly_root: false,
            mounts: Vec::new(),
            args: args.into_iter().map(Into::into).collect(),
            env: Vec::new(),
            cwd: String::new(),
            user: String::new(),
            hostname: String::new(),
            extra_hosts: Vec::new(),
            dns: None,
            network: Network::Sandbox,
            proxy: None,
            proxied: Vec::new(),
            security: Security::Sandbox,
            ulimits: Vec::new(),
            resources: Resources::default(),
            cgroup_parent: None,
            tty: false,
            shm_size: None,
            remove_mount_stubs_recursive: false,
            groups: Vec::new(),
            devices: Vec::new(),
            hooks: Vec::new(),
            usage: None,
        }
    }

    /// The host name it will see.
    pub fn hostname(&self) -> &str {
        if self.hostname.is_empty() {
            DEFAULT_HOSTNAME
        } else {
            &self.hostname
        }
    }
}

/// One more process in a running container: what differs from the first one.
#[derive(Clone, Debug, Default)]
pub struct ExecProcess {
    /// Program and arguments.
    pub args: Vec<String>,
    /// `KEY=value` each; empty = as the container's first process.
    pub env: Vec<String>,
    /// Working directory; empty = as the container's first process.
    pub cwd: String,
    /// `user[:group]`; empty = as the container's first process.
    pub user: String,
    /// Give it a terminal of its own.
    pub tty: bool,
    /// Limits per process.
    pub ulimits: Vec<Ulimit>,
    /// How confined it is.
    pub security: Security,
}

/// Something mounted into the container.
#[derive(Clone)]
pub struct Mount {
    /// Absolute path in the container; made when absent.
    pub target: String,
    /// What is mounted there.
    pub source: MountSource,
    /// Whether writing is refused.
    pub readonly: bool,
}

/// What can be mounted.
#[derive(Clone)]
pub enum MountSource {
    /// A tree, or the file or directory at `subpath` in it. Symlinks on the way
    /// never lead out of the tree. It must exist.
    Tree {
        /// The tree.
        tree: Arc<Tree>,
        /// Path inside it; empty or `/` for all of it.
        subpath: String,
    },
    /// An empty memory filesystem.
    Tmpfs {
        /// Most bytes it may hold; none = the kernel's default (half of memory).
        size: Option<u64>,
    },
    /// A small file kept in memory only, such as a secret.
    File {
        /// Its content.
        bytes: Bytes,
        /// Permission bits, such as `0o400`.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// A file, directory or socket of this machine, such as an SSH agent's socket.
    Host {
        /// Its path; symlinks are followed.
        path: PathBuf,
        /// What does not count there.
        restrict: Restrict,
    },
    /// The same, already open (`O_PATH` is enough).
    Fd(Arc<OwnedFd>),
}

/// What does not count in files of the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restrict {
    /// Programs that run as their owner.
    pub nosuid: bool,
    /// Device nodes.
    pub nodev: bool,
    /// Programs.
    pub noexec: bool,
}

impl Mount {
    /// `tree` at `target`, writable.
    pub fn tree(target: impl Into<String>, tree: Arc<Tree>) -> Mount {
        let source = MountSource::Tree {
            tree,
            subpath: String::new(),
        };
        Mount {
            target: target.into(),
            source,
            readonly: false,
        }
    }

    /// The same mount, read-only.
    #[must_use]
    pub fn readonly(mut self) -> Mount {
        self.readonly = true;
        self
    }
}

/// A device node in the container's `/dev`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its path in the container, in `/dev`.
    pub path: String,
    /// What it is.
    pub kind: DeviceKind,
    /// Its major number.
    pub major: u32,
    /// Its minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner; none = the process's user.
    pub uid: Option<u32>,
    /// Group; none = the process's.
    pub gid: Option<u32>,
    /// What may be done with it: `r`ead, `w`rite, `m`ake.
    pub access: String,
}

/// The two kinds of devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceKind {
    /// Read and written in blocks.
    Block,
    /// All others.
    Character,
}

/// A program of the host that an OCI runtime runs while it sets up a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// When, in the words of the OCI specification: `createContainer`, …
    pub stage: String,
    /// The program.
    pub path: String,
    /// Its arguments, beginning with its name.
    pub args: Vec<String>,
    /// Its environment, `KEY=value` each.
    pub env: Vec<String>,
    /// Seconds it may take.
    pub timeout: Option<i64>,
}

/// Which network a process sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// What the executor is configured for: see [`crate::SandboxNetwork`].
    #[default]
    Sandbox,
    /// The host's network.
    Host,
    /// Only a loopback of its own.
    None,
}

/// How confined a process is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Security {
    /// Docker's defaults: see `docs/executor.md`.
    #[default]
    Sandbox,
    /// All capabilities and devices, no seccomp, writable `/sys` and cgroups.
    Insecure,
}

/// One line of `/etc/hosts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostIp {
    /// The name.
    pub host: String,
    /// Its address; none = that of the machine the container runs on, as the container
    /// reaches it.
    pub ip: Option<IpAddr>,
}

/// DNS settings; an empty list leaves the host's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dns {
    /// `nameserver` lines.
    pub nameservers: Vec<String>,
    /// `options`.
    pub options: Vec<String>,
    /// `search` domains.
    pub search: Vec<String>,
}

/// One limit of a process, as `ulimit` sets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ulimit {
    /// Name without `RLIMIT_`, any case: `nofile`, `core`, …
    pub name: String,
    /// Soft limit; -1 means unlimited.
    pub soft: i64,
    /// Hard limit; -1 means unlimited.
    pub hard: i64,
}

/// Limits of a container. A limit that the host's cgroups cannot keep is an error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Memory in bytes.
    pub memory: Option<i64>,
    /// Memory and swap together in bytes; -1 means unlimited swap.
    pub memory_swap: Option<i64>,
    /// Relative share of CPU time, 2 to 262144 (cgroup v1 scale).
    pub cpu_shares: Option<u64>,
    /// CPU period in microseconds.
    pub cpu_period: Option<u64>,
    /// CPU time per period in microseconds.
    pub cpu_quota: Option<i64>,
    /// CPUs, such as `0-3,5`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes, such as `0`.
    pub cpuset_mems: Option<String>,
    /// Most processes and threads.
    pub pids: Option<i64>,
    /// Raw cgroup v2 files to set, such as `io.max`.
    pub unified: BTreeMap<String, String>,
}

impl Resources {
    /// Whether nothing is limited.
    pub fn is_empty(&self) -> bool {
        *self == Resources::default()
    }
}
