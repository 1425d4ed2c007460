//! The exec op: a process, its mounts, and what it may do.

/// Runs a process in a container.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exec {
    /// The command line, at least one word.
    pub args: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Absolute.
    pub cwd: String,
    /// `name`, `uid`, `name:group` …; empty is root.
    pub user: String,
    /// Set while the process runs, not part of the cache key.
    pub proxy: Option<ProxyEnv>,
    /// Lines for /etc/hosts.
    pub extra_hosts: Vec<ExtraHost>,
    /// Name of the machine as the process sees it.
    pub hostname: String,
    /// Resource limits.
    pub ulimits: Vec<Ulimit>,
    /// Control group the process's own is made in.
    pub cgroup_parent: String,
    /// Take away the whole path of directories made as mount points.
    pub remove_mount_stubs_recursive: bool,
    /// Exit codes that are success; empty is just 0.
    pub valid_exit_codes: Vec<i32>,
    /// Trees the process sees. The first is `/`.
    pub mounts: Vec<Mount>,
    /// Which network the process sees.
    pub network: Network,
    /// How far the process is confined.
    pub security: Security,
    /// Environment variables that hold secrets.
    pub secret_env: Vec<SecretEnv>,
    /// Devices.
    pub devices: Vec<CdiDevice>,
}

impl Exec {
    /// A command in `/` with nothing else said.
    pub fn new<S: Into<String>>(args: impl IntoIterator<Item = S>) -> Exec {
        Exec {
            args: args.into_iter().map(Into::into).collect(),
            cwd: "/".into(),
            ..Exec::default()
        }
    }
}

/// Proxies, put into the environment under both spellings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyEnv {
    /// `http_proxy`
    pub http: String,
    /// `https_proxy`
    pub https: String,
    /// `ftp_proxy`
    pub ftp: String,
    /// `no_proxy`
    pub no: String,
    /// `all_proxy`
    pub all: String,
}

/// A line for /etc/hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtraHost {
    /// The name.
    pub host: String,
    /// Its address.
    pub ip: String,
}

/// A resource limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ulimit {
    /// Like `nofile`.
    pub name: String,
    /// Soft limit.
    pub soft: i64,
    /// Hard limit.
    pub hard: i64,
}

/// The network a process sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Network {
    /// One of its own, with a way out.
    #[default]
    Sandbox,
    /// The builder's.
    Host,
    /// None but loopback.
    None,
}

/// How far a process is confined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Security {
    /// As usual.
    #[default]
    Sandbox,
    /// Hardly; needs an entitlement.
    Insecure,
}

/// An environment variable that holds a secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretEnv {
    /// Which secret.
    pub id: String,
    /// The variable.
    pub name: String,
    /// Not an error when the client has none.
    pub optional: bool,
}

/// A device by its CDI name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CdiDevice {
    /// `vendor.com/class=name`
    pub name: String,
    /// Not an error when there is none.
    pub optional: bool,
}

/// A tree the process sees.
#[derive(Clone, Debug, PartialEq)]
pub struct Mount {
    /// Number of the input it starts as; `None` is empty.
    pub input: Option<u32>,
    /// The part of the input that is mounted.
    pub selector: String,
    /// Where.
    pub target: String,
    /// Number of the output it becomes. Secrets and sockets say `Some(0)` on the
    /// wire and mean nothing by it: ask [`Mount::becomes`].
    pub output: Option<u32>,
    /// May not be written.
    pub readonly: bool,
    /// What it is.
    pub kind: MountKind,
    /// For looking at failed steps.
    pub result_id: String,
    /// Whether the step is cached by what is in the mount.
    pub content_cache: ContentCache,
}

impl Mount {
    /// The output this mount becomes, if it is one that can.
    pub fn becomes(&self) -> Option<u32> {
        match self.kind {
            MountKind::Bind => self.output,
            _ => None,
        }
    }
}

/// What a mount is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum MountKind {
    /// A tree.
    #[default]
    Bind,
    /// A file with a secret.
    Secret(Secret),
    /// A socket of the client's SSH agent.
    Ssh(Owned),
    /// A directory kept between builds.
    Cache(CacheMount),
    /// Memory, of at most so many bytes; 0 is no limit.
    Tmpfs {
        /// Bytes.
        size: i64,
    },
}

/// A file with a secret: which one, and how the file looks.
pub type Secret = Owned;

/// Something of the client's with an owner: a secret or a socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owned {
    /// Which one.
    pub id: String,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Mode bits.
    pub mode: u32,
    /// Not an error when the client has none.
    pub optional: bool,
}

/// A directory kept between builds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheMount {
    /// Same id, same directory.
    pub id: String,
    /// What two users do.
    pub sharing: Sharing,
}

/// What happens when two steps want one cache mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Sharing {
    /// Both write it.
    #[default]
    Shared,
    /// The second gets another.
    Private,
    /// The second waits.
    Locked,
}

/// Whether a step is cached by what is in a mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ContentCache {
    /// When it is safe.
    #[default]
    Default,
    /// Yes; refused when the mount can be written.
    On,
    /// No.
    Off,
}
