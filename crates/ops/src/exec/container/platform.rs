//! What the platform of a frontend's container means: which programs must run, and where
//! they are looked for.

use oci::Platform;

use crate::Result;
use crate::exec::emulation;

/// Where programs are on Windows, as BuildKit has it.
const WINDOWS_PATH: &str =
    r"c:\Windows\System32;c:\Windows;C:\Windows\System32\WindowsPowerShell\v1.0";

/// A platform as it was asked for, with the worker's where nothing was said.
pub(super) fn whole(wanted: Option<Platform>, own: &Platform) -> Platform {
    let mut platform = wanted.unwrap_or_default();
    if platform.os.is_empty() {
        platform.os.clone_from(&own.os);
    }
    if platform.architecture.is_empty() {
        platform.architecture.clone_from(&own.architecture);
        platform.variant.clone_from(&own.variant);
    }
    platform.normalized()
}

/// Refuses programs of another processor without an emulator. Another system is only asked
/// for its `PATH`, as clients are used to: the programs are those of Linux all the same.
pub(super) fn check_runs(platform: &Platform) -> Result<()> {
    match platform.os.as_str() {
        "linux" => emulation::check(platform),
        _ => Ok(()),
    }
}

/// `PATH` of a process whose environment has none.
pub(super) fn default_path(platform: &Platform) -> &'static str {
    match platform.os.as_str() {
        "windows" => WINDOWS_PATH,
        _ => executor::DEFAULT_PATH,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows: G09, X14
    #[test]
    fn a_platform_chooses_the_path_and_asks_for_emulation_only_on_linux() {
        let own = Platform::host();
        let named = |os: &str, architecture: &str| Platform {
            os: os.into(),
            architecture: architecture.into(),
            ..Platform::default()
        };
        assert_eq!(whole(None, &own), own);
        let unix = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        for (os, architecture, path, runs) in [
            ("", "", unix, true),
            ("linux", "", unix, true),
            ("linux", "nonsense", unix, false),
            ("", "nonsense", unix, false),
            ("windows", "", WINDOWS_PATH, true),
            ("Windows", "amd64", WINDOWS_PATH, true),
            ("freebsd", "", unix, true),
        ] {
            let platform = whole(Some(named(os, architecture)), &own);
            assert_eq!(default_path(&platform), path, "{platform}");
            assert_eq!(check_runs(&platform).is_ok(), runs, "{platform}");
        }
    }
}
