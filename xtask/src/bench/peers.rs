//! The peers: real tools in a root directory of their own, entered through a private mount
//! namespace, so that whatever they mount is gone when they are.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::Error;

/// Makes the namespace, says so, and keeps it until killed.
///
/// `$1` is the root directory, `$2` a directory of the host to be seen at its own path.
const ENTER: &str = r#"
set -e
mount --bind "$1" "$1"
for each in /proc /sys /dev "$2"; do
  mkdir -p "$1$each"
  mount --rbind "$each" "$1$each"
done
mkdir -p "$1/.host"
cp /etc/resolv.conf /etc/hosts "$1/etc/"
cd "$1"
pivot_root . .host
umount -l /.host
echo inside
exec sleep infinity
"#;

/// The namespace, for as long as this lives.
pub(crate) struct Peers {
    keeper: Child,
    dir: PathBuf,
}

impl Peers {
    /// Enters the folder; programs in it see `shared` at its own path.
    pub(crate) fn enter(named: Option<PathBuf>, shared: &Path) -> Result<Peers, Error> {
        let root = named.unwrap_or_else(default_folder);
        if !root.join("usr/bin/dockerd").exists() && !root.join("usr/sbin/dockerd").exists() {
            return Err(Error::NoPeers(root));
        }
        let mut keeper = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", ENTER])
            .arg("peers")
            .args([&root, shared])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|source| Error::Start {
                program: "unshare".to_owned(),
                source,
            })?;
        let mut line = String::new();
        let inside = match keeper.stdout.take() {
            Some(out) => BufReader::new(out).read_line(&mut line).is_ok() && line == "inside\n",
            None => false,
        };
        let peers = Peers {
            keeper,
            dir: shared.to_owned(),
        };
        if inside {
            Ok(peers)
        } else {
            Err(Error::NoPeers(root))
        }
    }

    /// A command inside. `nsenter` becomes the program, so the process is the program's own.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--target={}", self.keeper.id()))
            .args(["--mount", "--root"])
            .arg(format!("--wdns={}", self.dir.display()))
            .arg(program)
            .env("HOME", self.dir.join("home"))
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("XDG_RUNTIME_DIR", self.dir.join("home"))
            .stdin(Stdio::null());
        command
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        // It may be gone already; either way it is reaped.
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

fn default_folder() -> PathBuf {
    let var = |name| std::env::var_os(name).map(PathBuf::from);
    var("XDG_CACHE_HOME")
        .or_else(|| var("HOME").map(|home| home.join(".cache")))
        .unwrap_or_else(|| PathBuf::from("/root/.cache"))
        .join("kiln-peers")
}
