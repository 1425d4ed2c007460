//! The tools of others, from the folder `tests/peers` makes.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use super::binary;

/// Proof that the tools are there.
#[derive(Clone, Copy)]
pub(crate) struct Peers(());

impl Peers {
    /// The tools, or nothing if `KILN_E2E_PEERS=0` says to do without.
    ///
    /// # Panics
    /// If they are wanted and not there: a test that quietly does nothing tests nothing.
    pub(crate) fn get() -> Option<Peers> {
        static THERE: OnceLock<bool> = OnceLock::new();
        let there = THERE.get_or_init(|| {
            if std::env::var_os("KILN_E2E_PEERS").is_some_and(|value| value == "0") {
                return false;
            }
            let place = folder();
            assert!(
                place.join(".complete").exists(),
                "{} is not there: run `tests/peers setup`, or set KILN_E2E_PEERS=0 to skip these tests",
                place.display()
            );
            true
        });
        if !there {
            let name = std::thread::current().name().unwrap_or("?").to_owned();
            let _ = writeln!(std::io::stderr(), "{name}: skipped, KILN_E2E_PEERS=0");
        }
        there.then_some(Peers(()))
    }

    /// The folder they are in.
    pub(crate) fn folder(self) -> PathBuf {
        folder()
    }

    /// BuildKit's own client, if it was made.
    pub(crate) fn buildctl(self) -> Option<PathBuf> {
        let program = self.folder().join("opt/buildctl");
        let there = program.exists();
        if !there {
            let name = std::thread::current().name().unwrap_or("?").to_owned();
            let path = program.display();
            let _ = writeln!(
                std::io::stderr(),
                "{name}: skipped, {path} is not there: `tests/peers frontend` makes it"
            );
        }
        there.then_some(program)
    }

    /// A command of theirs.
    pub(crate) fn command(self, args: &[&str]) -> Command {
        let mut command = Command::new(script());
        command.arg("run").args(args);
        command
    }
}

fn folder() -> PathBuf {
    let place = Command::new(script()).arg("where").output();
    let place = place.expect("tests/peers can be run").stdout;
    PathBuf::from(String::from_utf8_lossy(&place).trim())
}

fn script() -> std::path::PathBuf {
    binary::repository().join("tests/peers")
}
