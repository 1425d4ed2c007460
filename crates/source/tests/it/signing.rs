//! GnuPG and OpenSSH with keys of their own, which are gone with the value.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A GnuPG with keys of its own.
pub(crate) struct Gpg {
    home: tempfile::TempDir,
}

impl Drop for Gpg {
    fn drop(&mut self) {
        let _ = self.command("gpgconf").args(["--kill", "all"]).status();
    }
}

/// `None`, with the reason said, where a program is missing.
fn has(program: &str, version: &str) -> bool {
    let found = Command::new(program)
        .arg(version)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok();
    if !found {
        let _ = writeln!(std::io::stderr(), "skipped: there is no {program}");
    }
    found
}

impl Gpg {
    pub(crate) fn new() -> Option<Gpg> {
        has("gpg", "--version").then(|| Gpg {
            home: tempfile::tempdir().unwrap(),
        })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("GNUPGHOME", self.home.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// What gpg prints when given `args` and `input`.
    pub(crate) fn run(&self, args: &[&str], input: &[u8]) -> String {
        let file = self.home.path().join("input");
        std::fs::write(&file, input).unwrap();
        let out = self
            .command("gpg")
            .args(["--batch", "--yes", "--passphrase", "", "--armor"])
            .args(["--pinentry-mode", "loopback", "--trust-model", "always"])
            .args(args)
            .stdin(std::fs::File::open(&file).unwrap())
            .output()
            .unwrap();
        assert!(
            out.status.success(),
            "gpg {args:?}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
        String::from_utf8(out.stdout).unwrap()
    }

    /// Makes a key that signs; `more` are options of gpg. Gives the public key.
    pub(crate) fn key(&self, name: &str, algorithm: &str, expires: &str, more: &[&str]) -> String {
        let args = ["--quick-gen-key", name, algorithm, "sign", expires];
        self.run(&[more, &args].concat(), b"");
        self.run(&["--export", name], b"")
    }

    /// A detached signature.
    pub(crate) fn sign(&self, name: &str, more: &[&str], data: &[u8]) -> String {
        let args = ["--local-user", name, "--detach-sign"];
        self.run(&[more, &args].concat(), data)
    }

    /// A program that is this gpg with options.
    pub(crate) fn program(&self, options: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = self.home.path().join("gpg-for-git");
        let home = self.home.path().display();
        let script = format!("#!/bin/sh\nexec env GNUPGHOME={home} gpg {options} \"$@\"\n");
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }
}

/// Makes an SSH key in `dir`. Gives the path of its private part, and the public line.
pub(crate) fn ssh_key(dir: &Path, name: &str, args: &[&str]) -> Option<(PathBuf, String)> {
    if !has("ssh-keygen", "-?") {
        return None;
    }
    let path = dir.join(name);
    let made = Command::new("ssh-keygen")
        .args(["-q", "-N", "", "-C", name, "-f"])
        .arg(&path)
        .args(args)
        .status()
        .unwrap();
    assert!(made.success(), "ssh-keygen {args:?}");
    let public = std::fs::read_to_string(path.with_extension("pub")).unwrap();
    Some((path, public))
}
