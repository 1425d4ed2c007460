//! Where clients connect (rows D01, D24): unix sockets, TCP with or without
//! certificates, and sockets handed over by systemd.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, UnixListener};
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

use crate::Error;
use crate::config::{Config, TlsFiles};

/// The first descriptor systemd hands over.
const FIRST_FD: i32 = 3;

/// An open place to connect to. A unix socket we made is removed when this is dropped.
#[derive(Debug)]
pub struct Listener {
    /// As it was asked for.
    pub address: String,
    socket: Option<Socket>,
    remove: Option<PathBuf>,
}

/// The two kinds of sockets.
#[derive(Debug)]
pub(crate) enum Socket {
    /// On this machine.
    Unix(UnixListener),
    /// For other machines.
    Tcp(TcpListener),
}

impl Listener {
    /// The socket, to serve it; the file is still removed when the listener is dropped.
    pub(crate) fn take_socket(&mut self) -> Option<Socket> {
        self.socket.take()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(path) = &self.remove
            && let Err(error) = std::fs::remove_file(path)
        {
            tracing::debug!(%error, path = %path.display(), "could not remove our socket");
        }
    }
}

/// Opens all addresses, or none.
pub fn open(config: &Config, listen_fds: u32) -> Result<Vec<Listener>, Error> {
    let mut listeners = Vec::new();
    for address in &config.addresses {
        match address.split_once("://") {
            Some(("unix", path)) => listeners.push(unix(address, Path::new(path), config)?),
            Some(("tcp", host)) => listeners.push(tcp(address, host, config.tls.is_some())?),
            Some(("fd", name)) => listeners.extend(inherited(address, name, listen_fds)?),
            Some((scheme, _)) => {
                let problem = format!("cannot listen on {scheme}://; use unix://, tcp:// or fd://");
                return Err(Error::BadAddress {
                    address: address.clone(),
                    problem,
                });
            }
            None => {
                let problem = format!("has no scheme, did you mean unix://{address}");
                return Err(Error::BadAddress {
                    address: address.clone(),
                    problem,
                });
            }
        }
    }
    Ok(listeners)
}

/// A unix socket that programs in steps reach, whoever they are there.
pub(crate) fn for_steps(path: &Path, config: &Config) -> Result<Listener, Error> {
    let address = format!("unix://{}", path.display());
    let listener = unix(&address, path, config)?;
    let everybody = std::fs::Permissions::from_mode(0o666);
    let opened = std::fs::set_permissions(path, everybody);
    opened.map_err(|source| Error::Listen { address, source })?;
    Ok(listener)
}

fn unix(address: &str, path: &Path, config: &Config) -> Result<Listener, Error> {
    let failed = |source| Error::Listen {
        address: address.to_owned(),
        source,
    };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    clear_stale(address, path)?;
    let socket = UnixListener::bind(path).map_err(failed)?;
    let listener = Listener {
        address: address.to_owned(),
        socket: Some(Socket::Unix(socket)),
        remove: Some(path.to_owned()),
    };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(failed)?;
    std::os::unix::fs::chown(path, Some(config.uid), Some(config.gid)).map_err(failed)?;
    Ok(listener)
}

/// Removes a socket nobody answers at, left behind by a daemon that was killed.
fn clear_stale(address: &str, path: &Path) -> Result<(), Error> {
    let failed = |source| Error::Listen {
        address: address.to_owned(),
        source,
    };
    let kind = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    if !kind.is_socket() {
        return Err(failed(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "the path is there and is no socket",
        )));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(Error::AddressInUse(address.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}

fn tcp(address: &str, host: &str, protected: bool) -> Result<Listener, Error> {
    let failed = |source| Error::Listen {
        address: address.to_owned(),
        source,
    };
    let found: Vec<SocketAddr> = host.to_socket_addrs().map_err(failed)?.collect();
    if !protected && found.iter().any(|at| !at.ip().is_loopback()) {
        tracing::warn!(
            address,
            "TLS is not set up: anyone who reaches this address can run programs here as this user"
        );
    }
    let socket = std::net::TcpListener::bind(found.as_slice()).map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    let socket = TcpListener::from_std(socket).map_err(failed)?;
    let bound = socket.local_addr().map_err(failed)?;
    Ok(Listener {
        address: format!("tcp://{bound}"),
        socket: Some(Socket::Tcp(socket)),
        remove: None,
    })
}

/// `fd://` takes all sockets systemd handed over, `fd://4` the one with this number.
fn inherited(address: &str, name: &str, count: u32) -> Result<Vec<Listener>, Error> {
    let bad = |problem: &str| Error::BadAddress {
        address: address.to_owned(),
        problem: problem.to_owned(),
    };
    let count = i32::try_from(count).map_err(|_| bad("LISTEN_FDS is too large"))?;
    if count == 0 {
        return Err(bad(
            "no sockets were handed over (LISTEN_FDS and LISTEN_PID)",
        ));
    }
    let wanted: Vec<i32> = match name {
        "" | "*" => (FIRST_FD..FIRST_FD + count).collect(),
        number => match number.parse() {
            Ok(fd) if (FIRST_FD..FIRST_FD + count).contains(&fd) => vec![fd],
            _ => return Err(bad("is not among the sockets handed over")),
        },
    };
    wanted.into_iter().map(|fd| adopt(address, fd)).collect()
}

fn adopt(address: &str, fd: i32) -> Result<Listener, Error> {
    let failed = |source| Error::Listen {
        address: address.to_owned(),
        source,
    };
    let owned = stdx::sys::inherited(fd).map_err(failed)?;
    let family = rustix::net::getsockname(&owned)
        .map_err(|errno| failed(errno.into()))?
        .address_family();
    let socket = if family == rustix::net::AddressFamily::UNIX {
        let socket = std::os::unix::net::UnixListener::from(owned);
        socket.set_nonblocking(true).map_err(failed)?;
        Socket::Unix(UnixListener::from_std(socket).map_err(failed)?)
    } else {
        let socket = std::net::TcpListener::from(owned);
        socket.set_nonblocking(true).map_err(failed)?;
        Socket::Tcp(TcpListener::from_std(socket).map_err(failed)?)
    };
    Ok(Listener {
        address: format!("fd://{fd}"),
        socket: Some(socket),
        remove: None,
    })
}

/// Certificates, read from their files.
pub fn tls(files: &TlsFiles) -> Result<ServerTlsConfig, Error> {
    let read = |path: &Path| {
        std::fs::read(path).map_err(|source| Error::File {
            doing: "reading",
            path: path.to_owned(),
            source,
        })
    };
    let identity = Identity::from_pem(read(&files.cert)?, read(&files.key)?);
    let mut tls = ServerTlsConfig::new().identity(identity);
    if let Some(ca) = &files.ca {
        tls = tls.client_ca_root(Certificate::from_pem(read(ca)?));
    }
    Ok(tls)
}
