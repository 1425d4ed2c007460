//! AppArmor: the program of a container runs under a profile the host has loaded.

use std::path::Path;

use crate::error::Error;

/// Where the kernel says whether it has it, and which profiles are loaded.
const ENABLED: &str = "/sys/module/apparmor/parameters/enabled";
const LOADED: &str = "/sys/kernel/security/apparmor/profiles";

/// Refuses a profile that this host cannot apply: a step must not run without the
/// protection its owner believes it has.
pub(crate) fn check(profile: &str) -> Result<(), Error> {
    look(profile, Path::new(ENABLED), Path::new(LOADED))
}

fn look(profile: &str, enabled: &Path, loaded: &Path) -> Result<(), Error> {
    let unsupported = |why: &str| Error::Unsupported {
        what: format!("AppArmor profile {profile}: {why}"),
    };
    let on = std::fs::read_to_string(enabled).unwrap_or_default();
    if !on.starts_with('Y') {
        return Err(unsupported(
            "this kernel has no AppArmor, or it is switched off",
        ));
    }
    // Not everyone may read the list; the kernel then answers when the program starts.
    let Ok(list) = std::fs::read_to_string(loaded) else {
        return Ok(());
    };
    // Each line is `name (mode)`.
    let names = list
        .lines()
        .filter_map(|line| Some(line.rsplit_once(" (")?.0));
    if names.into_iter().any(|name| name == profile) || profile == "unconfined" {
        return Ok(());
    }
    Err(unsupported(
        "it is not loaded; load it with apparmor_parser",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(on: &str, list: Option<&str>) -> String {
        let dir = tempfile::tempdir().unwrap();
        let (enabled, loaded) = (dir.path().join("enabled"), dir.path().join("loaded"));
        std::fs::write(&enabled, on).unwrap();
        if let Some(list) = list {
            std::fs::write(&loaded, list).unwrap();
        }
        match look("kiln-default", &enabled, &loaded) {
            Ok(()) => "fine".into(),
            Err(error) => error.to_string(),
        }
    }

    /// Rows: X10
    #[test]
    fn a_profile_that_cannot_be_applied_is_refused() {
        let list = "/usr/bin/man (enforce)\nkiln-default (enforce)\n";
        assert_eq!(said("Y\n", Some(list)), "fine");
        assert_eq!(said("Y\n", None), "fine");
        assert_eq!(
            said("Y\n", Some("other (complain)\n")),
            "not supported: AppArmor profile kiln-default: it is not loaded; load it with \
             apparmor_parser"
        );
        let off = "not supported: AppArmor profile kiln-default: this kernel has no AppArmor, \
                   or it is switched off";
        assert_eq!(said("N\n", Some(list)), off);
        assert_eq!(said("", None), off);
    }
}
