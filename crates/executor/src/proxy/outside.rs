//! The network a proxied container would have had, for its proxy to reach out from.

use std::io;
use std::net::ToSocketAddrs as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;

use crate::network::Attached;
use crate::process::HostIp;

/// One address has so long to answer; a host may have others.
const PATIENCE: Duration = Duration::from_secs(15);
/// Of a host's addresses so many are tried.
const MOST_ADDRESSES: usize = 6;

/// So many names of one container, and of all, are looked up at a time. A lookup has a thread of those
/// that all of us share until it ends, whoever still waits for it.
const MOST_LOOKUPS: usize = 16;
static LOOKUPS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(64)));

/// The network a proxied container would have had. Names mean what they mean to this machine, but
/// for those the container was given.
#[derive(Clone)]
pub struct Outside {
    lookups: Arc<Semaphore>,
    /// `None` is the network of this process.
    namespace: Option<Arc<OwnedFd>>,
    hosts: Arc<[(String, IpAddr)]>,
}

impl Outside {
    /// The network of this process.
    pub fn here() -> Outside {
        Outside {
            lookups: Arc::new(Semaphore::new(MOST_LOOKUPS)),
            namespace: None,
            hosts: Arc::new([]),
        }
    }

    pub(super) fn of(network: &Attached, hosts: &[HostIp]) -> io::Result<Outside> {
        let namespace = network.namespace();
        let namespace = namespace.map(|fd| fd.try_clone_to_owned()).transpose()?;
        let gateway = network.host();
        let gateway = gateway.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let named = |host: &HostIp| (host.host.to_lowercase(), host.ip.unwrap_or(gateway));
        Ok(Outside {
            lookups: Arc::new(Semaphore::new(MOST_LOOKUPS)),
            namespace: namespace.map(Arc::new),
            hosts: hosts.iter().map(named).collect(),
        })
    }

    /// Whether the container was given this name.
    pub fn names(&self, host: &str) -> bool {
        let host = host.to_lowercase();
        self.hosts.iter().any(|(name, _)| *name == host)
    }

    /// A connection to one of the addresses of `host`, which may be an address itself.
    pub async fn connect(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        let addresses = self.addresses(host, port).await?;
        for address in addresses.into_iter().take(MOST_ADDRESSES) {
            let connecting = async { self.socket(address).await?.connect(address).await };
            match tokio::time::timeout(PATIENCE, connecting).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = error,
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(last)
    }

    async fn addresses(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let host = host.to_lowercase();
        let given = self.hosts.iter().filter(|(name, _)| *name == host);
        let given: Vec<SocketAddr> = given.map(|(_, ip)| (*ip, port).into()).collect();
        if !given.is_empty() {
            return Ok(given);
        }
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![(address, port).into()]);
        }
        let (own, all) = (self.lookups.clone(), LOOKUPS.clone());
        let turns = (own.acquire_owned().await, all.acquire_owned().await);
        stdx::task::blocking(move || {
            let _turns = turns;
            Ok((host.as_str(), port).to_socket_addrs()?.collect())
        })
        .await
    }

    /// A socket stays in the network namespace it was made in, whoever uses it from where.
    async fn socket(&self, address: SocketAddr) -> io::Result<TcpSocket> {
        let Some(namespace) = self.namespace.clone() else {
            return match address {
                SocketAddr::V4(_) => TcpSocket::new_v4(),
                SocketAddr::V6(_) => TcpSocket::new_v6(),
            };
        };
        let making = move || {
            use rustix::net::{AddressFamily, SocketFlags, SocketType};
            let family = match address {
                SocketAddr::V4(_) => AddressFamily::INET,
                SocketAddr::V6(_) => AddressFamily::INET6,
            };
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            Ok(rustix::net::socket_with(
                family,
                SocketType::STREAM,
                flags,
                None,
            )?)
        };
        let made = stdx::task::blocking(move || crate::sys::in_network(&namespace, making)).await?;
        Ok(TcpSocket::from_std_stream(made.into()))
    }
}
