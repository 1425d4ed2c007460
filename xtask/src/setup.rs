//! What Debian or Ubuntu must give: looked for, and installed if missing.

use std::path::Path;

use crate::{Error, Result, shell};

/// A package, and how one sees that it is there.
pub(crate) struct Need {
    package: &'static str,
    present: fn() -> bool,
}

/// A shell and its tools in one file that needs no libraries: what images of tests are made of.
pub(crate) const BUSYBOX: Need = Need {
    package: "busybox-static",
    present: || stands_alone(Path::new("/bin/busybox")),
};
/// A registry to push to.
pub(crate) const REGISTRY: Need = Need {
    package: "docker-registry",
    present: || shell::has("docker-registry"),
};
/// Repositories as build contexts.
pub(crate) const GIT: Need = Need {
    package: "git",
    present: || shell::has("git"),
};
/// OCI runtimes the executor can drive instead of its own.
pub(crate) const RUNC: Need = Need {
    package: "runc",
    present: || shell::has("runc"),
};
/// The other OCI runtime.
pub(crate) const CRUN: Need = Need {
    package: "crun",
    present: || shell::has("crun"),
};

/// Installs what is missing.
pub(crate) fn ensure(needs: &[&Need]) -> Result<()> {
    let missing: Vec<&str> = needs
        .iter()
        .filter(|need| !(need.present)())
        .map(|need| need.package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !is_root() || !shell::has("apt-get") {
        return Err(Error::Missing(format!(
            "{} (as root on Debian or Ubuntu they are installed; here, install them first)",
            missing.join(", ")
        )));
    }
    println!("installing {}", missing.join(", "));
    let apt = |args: &[&str]| {
        let mut command = shell::command("apt-get", args);
        command.env("DEBIAN_FRONTEND", "noninteractive");
        shell::output(&mut command).map(drop)
    };
    apt(&["update", "-q"])?;
    let install = ["install", "-q", "-y", "--no-install-recommends"];
    apt(&[&install[..], &missing].concat())?;
    if missing.contains(&REGISTRY.package) && Path::new("/run/systemd/system").is_dir() {
        // The package starts a registry of its own; ours are started when needed.
        shell::output(&mut shell::command(
            "systemctl",
            &["disable", "--now", "docker-registry"],
        ))?;
    }
    match needs.iter().find(|need| !(need.present)()) {
        Some(need) => Err(Error::Missing(format!(
            "{} (though it was installed)",
            need.package
        ))),
        None => Ok(()),
    }
}

/// Whether we are root.
pub(crate) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|it| it.uid() == 0)
}

/// Whether a program needs no other file: its ELF image names no interpreter.
fn stands_alone(path: &Path) -> bool {
    let Ok(bytes) = std::fs::read(path) else {
        return false;
    };
    let names = |what: &[u8]| bytes.windows(what.len()).any(|window| window == what);
    !names(b"/ld-linux") && !names(b"/ld-musl")
}
