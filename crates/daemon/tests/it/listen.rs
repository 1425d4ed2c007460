//! Addresses.

use std::os::unix::fs::PermissionsExt;

use daemon::config::file::File;
use daemon::config::flags::Flags;
use daemon::config::{Config, Name, Surroundings};
use daemon::listen::{self, Listener};

fn open(addresses: &[String]) -> Result<Vec<Listener>, daemon::Error> {
    let flags = Flags {
        addr: addresses.to_vec(),
        ..Flags::default()
    };
    let (uid, gid) = (rustix_uid(), rustix_gid());
    let surroundings = Surroundings {
        uid,
        gid,
        home: Some("/tmp".into()),
        ..Surroundings::default()
    };
    let config = Config::resolve(File::default(), &flags, Name::Kiln, &surroundings).unwrap();
    listen::open(&config, 0)
}

fn rustix_uid() -> u32 {
    rustix::process::getuid().as_raw()
}

fn rustix_gid() -> u32 {
    rustix::process::getgid().as_raw()
}

/// Rows: D01
#[tokio::test]
async fn a_socket_is_made_guarded_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/kiln.sock");
    let address = format!("unix://{}", path.display());
    let listeners = open(&[address, "tcp://127.0.0.1:0".to_owned()]).unwrap();
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o660
    );
    assert!(listeners[1].address.starts_with("tcp://127.0.0.1:"));
    drop(listeners);
    assert!(!path.exists());
}

/// Rows: D01, D21
#[tokio::test]
async fn a_socket_left_behind_is_replaced_and_a_living_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kiln.sock");
    let address = format!("unix://{}", path.display());
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let living = open(std::slice::from_ref(&address)).unwrap();
    let error = open(std::slice::from_ref(&address)).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("another program answers at unix://"),
        "{error}"
    );
    drop(living);
    std::fs::write(&path, "a file").unwrap();
    assert!(open(&[address]).is_err());
    assert_eq!(std::fs::read(&path).unwrap(), b"a file");
}

/// Rows: D01
#[tokio::test]
async fn addresses_that_are_none_are_refused() {
    for (address, problem) in [
        ("/run/x.sock", "did you mean unix:///run/x.sock"),
        ("npipe:////./pipe/x", "use unix://, tcp:// or fd://"),
        ("fd://", "no sockets were handed over"),
    ] {
        let error = open(&[address.to_owned()]).unwrap_err();
        assert!(error.to_string().contains(problem), "{error}");
    }
}
