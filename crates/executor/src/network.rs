//! Networks of sandboxed containers (row X07): the host's, none, or namespaces that CNI
//! plugins connect to something.
//!
//! Plugins keep things outside of a namespace, too: addresses that are taken, firewall
//! rules. To undo them when kiln was killed, the next start needs the namespace as they
//! left it. So it is mounted at a file of the state directory, beside a note that is
//! written before any plugin is called.

mod cni;
mod orphans;
mod pool;

use std::net::IpAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::Error;

use crate::proxy::Inside;
pub(crate) use pool::{Joined, Networks};

/// Where CNI plugins are unless told otherwise.
pub const CNI_PLUGINS: &str = "/opt/cni/bin";
/// The CNI configuration that is used when it is there, unless told otherwise.
pub const CNI_CONFIG: &str = "/etc/buildkit/cni.json";
/// Name of our own bridge unless told otherwise.
pub const BRIDGE_NAME: &str = "buildkit0";
/// Its addresses unless told otherwise.
pub const BRIDGE_SUBNET: &str = "10.10.0.0/16";

/// Which network a container in the sandbox sees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SandboxNetwork {
    /// The host's.
    #[default]
    Host,
    /// Only a loopback.
    None,
    /// A namespace of its own that CNI plugins set up.
    Cni(CniOptions),
}

/// How CNI plugins are used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CniOptions {
    /// What they shall make.
    pub network: CniNetwork,
    /// Directory of the plugins.
    pub plugins: PathBuf,
    /// Namespaces kept ready.
    pub pool: usize,
    /// Directory of our own to write down what plugins have to undo.
    pub state: PathBuf,
    /// A file to lock while the first namespace is made: several daemons on one machine
    /// then do not race to make the same bridge.
    pub init_lock: Option<PathBuf>,
}

/// What CNI plugins shall make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CniNetwork {
    /// What a `.conflist` or `.conf` file says.
    File(PathBuf),
    /// A bridge of our own, with masquerading, in which containers cannot be reached from
    /// other bridges.
    Bridge {
        /// Name of the interface; removed at the end if it was not there before.
        name: String,
        /// Addresses, such as `10.10.0.0/16`.
        subnet: String,
    },
}

impl SandboxNetwork {
    /// What is missing on this host for it; told at the start rather than in a build.
    pub fn check(&self) -> Result<(), Error> {
        match self {
            SandboxNetwork::Host | SandboxNetwork::None => Ok(()),
            SandboxNetwork::Cni(options) => cni::List::load(options).map(drop),
        }
    }

    /// Has plugins undo what they did for a kiln that was killed.
    pub async fn sweep(&self) {
        if let SandboxNetwork::Cni(options) = self {
            pool::sweep(options).await;
        }
    }
}

/// A network namespace with its loopback switched on.
pub(crate) struct Namespace {
    fd: OwnedFd,
}

impl Namespace {
    pub(crate) async fn new() -> Result<Namespace, Error> {
        let made = stdx::task::blocking(crate::sys::new_network_namespace).await;
        let fd = made.map_err(crate::prepare::setup("making a network namespace"))?;
        Ok(Namespace { fd })
    }

    fn fd(&self) -> BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.fd)
    }

    /// A socket of ours that listens on its loopback.
    pub(crate) async fn listen(&self) -> std::io::Result<tokio::net::TcpListener> {
        let namespace = self.fd.try_clone()?;
        let making = || {
            let listener = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0))?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let made = stdx::task::blocking(move || crate::sys::in_network(&namespace, making)).await;
        tokio::net::TcpListener::from_std(made?)
    }

    /// A path by which programs open it while we hold it.
    pub(crate) fn named(&self) -> PathBuf {
        let number = std::os::fd::AsRawFd::as_raw_fd(&self.fd);
        format!("/proc/{}/fd/{number}", std::process::id()).into()
    }

    /// Lets it outlive us at `path`, where plugins open it.
    fn keep(&self, path: &Path) -> std::io::Result<()> {
        std::fs::File::create_new(path)?;
        let number = std::os::fd::AsRawFd::as_raw_fd(&self.fd);
        let ours = format!("/proc/self/fd/{number}");
        Ok(rustix::mount::mount_bind(ours, path)?)
    }
}

/// Whether a namespace is mounted at `path`.
fn is_kept(path: &Path) -> bool {
    const NSFS_MAGIC: i64 = 0x6e73_6673;
    rustix::fs::statfs(path).is_ok_and(|fs| fs.f_type == NSFS_MAGIC)
}

/// Lets go of the namespace at `path`.
fn let_go(path: &Path) {
    if is_kept(path)
        && let Err(error) = rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH)
    {
        tracing::warn!(%error, path = %path.display(), "a network namespace stays");
    }
    let _was_none = std::fs::remove_file(path);
}

/// The network of one container.
#[derive(Clone, Default)]
pub(crate) enum Attached {
    /// The host's, or only a loopback: nothing to hold.
    #[default]
    Plain,
    /// A namespace.
    Joined(Arc<Joined>),
    /// A namespace with nothing but a proxy.
    Proxied(Arc<Inside>),
}

impl Attached {
    /// The namespace to be in.
    pub(crate) fn namespace(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Attached::Plain => None,
            Attached::Joined(joined) => Some(joined.namespace.fd()),
            Attached::Proxied(inside) => Some(inside.namespace().fd()),
        }
    }

    /// The same, to hold on to; nothing if others are in it, too.
    pub(crate) fn own(&self) -> Option<OwnedFd> {
        self.namespace()?.try_clone_to_owned().ok()
    }

    /// A path to it, for programs.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Attached::Plain => None,
            Attached::Joined(joined) => Some(&joined.path),
            Attached::Proxied(inside) => Some(inside.path()),
        }
    }

    /// How the container reaches this machine.
    pub(crate) fn host(&self) -> Option<IpAddr> {
        match self {
            Attached::Plain => None,
            Attached::Joined(joined) => joined.gateway,
            Attached::Proxied(inside) => inside.outside().host(),
        }
    }
}
