//! Telling systemd how we are (row D25): a datagram to `NOTIFY_SOCKET`.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

/// Sends `state` (`READY=1`, `STOPPING=1`); a socket that is gone is not an error.
pub fn notify(socket: Option<&Path>, state: &str) {
    let Some(path) = socket else { return };
    if let Err(error) = send(path, state) {
        tracing::debug!(%error, state, "could not tell systemd");
    }
}

fn send(path: &Path, state: &str) -> std::io::Result<()> {
    let address = match path.as_os_str().as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(path)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows: D25
    #[test]
    fn systemd_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        notify(Some(&path), "READY=1");
        let mut heard = [0; 32];
        let length = socket.recv(&mut heard).unwrap();
        assert_eq!(&heard[..length], b"READY=1");
        notify(Some(Path::new("/nonexistent/notify")), "READY=1");
        notify(None, "READY=1");
    }
}
