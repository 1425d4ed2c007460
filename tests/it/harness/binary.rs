//! The program under test, built once.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The `kiln` these tests are about: what `KILN_BIN` names, else the one of this
/// workspace, built now with the profile of the tests.
pub(crate) fn kiln() -> &'static Path {
    static KILN: OnceLock<PathBuf> = OnceLock::new();
    KILN.get_or_init(|| match std::env::var_os("KILN_BIN") {
        Some(path) => PathBuf::from(path),
        None => build(),
    })
}

/// This workspace.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ is in the workspace")
}

fn build() -> PathBuf {
    // Tests run in TARGET/PROFILE/deps.
    let ourselves = std::env::current_exe().expect("a test has a path");
    let profile = ourselves
        .ancestors()
        .nth(2)
        .expect("it lies in TARGET/PROFILE/deps");
    let target = profile.parent().expect("it lies in TARGET/PROFILE");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["build", "--quiet", "--package", "kiln", "--target-dir"])
        .arg(target)
        .current_dir(repository());
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    let status = cargo.status().expect("cargo can be run");
    assert!(status.success(), "kiln does not build");
    profile.join("kiln")
}
