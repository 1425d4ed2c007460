//! Whether programs of a platform run here: by themselves, or through an emulator
//! the kernel knows (`binfmt_misc`).

use std::path::Path;

use oci::Platform;

use crate::{Error, Result};

/// Where the kernel shows the emulators it knows.
const EMULATORS: &str = "/proc/sys/fs/binfmt_misc";

/// Refuses a platform whose programs do not run here.
pub(super) fn check(platform: &Platform) -> Result<()> {
    let host = Platform::host();
    if platform.os == "linux"
        && (runs(platform, &host) || is_registered(platform, Path::new(EMULATORS)))
    {
        return Ok(());
    }
    Err(Error::Emulation {
        wanted: platform.clone(),
        host,
    })
}

/// Whether the processor runs its programs itself.
fn runs(platform: &Platform, host: &Platform) -> bool {
    let (wanted, here) = (platform.architecture.as_str(), host.architecture.as_str());
    wanted == here || matches!((wanted, here), ("386", "amd64") | ("arm", "arm64"))
}

/// Class, byte order and machine as the header of an ELF file has them.
fn machine(architecture: &str) -> Option<(u8, u8, u16)> {
    Some(match architecture {
        "386" => (1, 1, 3),
        "amd64" => (2, 1, 62),
        "arm" => (1, 1, 40),
        "arm64" => (2, 1, 183),
        "loong64" => (2, 1, 258),
        "mips" => (1, 2, 8),
        "mipsle" => (1, 1, 8),
        "mips64" => (2, 2, 8),
        "mips64le" => (2, 1, 8),
        "ppc64" => (2, 2, 21),
        "ppc64le" => (2, 1, 21),
        "riscv64" => (2, 1, 243),
        "s390x" => (2, 2, 22),
        _ => return None,
    })
}

fn is_registered(platform: &Platform, dir: &Path) -> bool {
    let Some(wanted) = machine(&platform.architecture) else {
        return false;
    };
    let on = std::fs::read_to_string(dir.join("status"));
    if !on.is_ok_and(|status| status.trim() == "enabled") {
        return false;
    }
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| std::fs::read_to_string(entry.path()).ok())
        .any(|entry| is_for(&entry, wanted))
}

/// Whether an entry is in use and for such programs.
fn is_for(entry: &str, (class, order, machine): (u8, u8, u16)) -> bool {
    let mut lines = entry.lines();
    if lines.next() != Some("enabled") {
        return false;
    }
    let field = |name: &str| {
        let mut fields = entry.lines().filter_map(|line| line.split_once(' '));
        fields.find(|(key, _)| *key == name).map(|(_, value)| value)
    };
    let magic = field("magic").map(bytes_of_hex).unwrap_or_default();
    let number = match magic.get(18..20) {
        Some(&[low, high]) if order == 1 => u16::from_le_bytes([low, high]),
        Some(&[high, low]) => u16::from_be_bytes([high, low]),
        _ => return false,
    };
    field("offset").is_none_or(|offset| offset == "0")
        && magic.starts_with(b"\x7fELF")
        && magic[4] == class
        && magic[5] == order
        && number == machine
}

fn bytes_of_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .map_while(|c| c.to_digit(16))
        .map(|d| d as u8)
        .collect();
    digits
        .chunks_exact(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARM64: &str = "enabled\ninterpreter /usr/bin/qemu-aarch64\nflags: OCF\noffset 0\n\
        magic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n";

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    /// Rows: X14
    #[test]
    fn an_emulator_is_found_by_the_programs_it_is_for() {
        let dir = tempfile::tempdir().unwrap();
        let known = |text| is_registered(&platform(text), dir.path());
        assert!(!known("linux/arm64"), "no binfmt_misc at all");
        std::fs::write(dir.path().join("any-name"), ARM64).unwrap();
        assert!(!known("linux/arm64"), "switched off as a whole");
        std::fs::write(dir.path().join("status"), "enabled\n").unwrap();
        assert!(known("linux/arm64"));
        for other in [
            "linux/arm",
            "linux/s390x",
            "linux/ppc64le",
            "linux/nonsense",
        ] {
            assert!(!known(other), "{other}");
        }
        std::fs::write(
            dir.path().join("any-name"),
            ARM64.replace("enabled", "disabled"),
        )
        .unwrap();
        assert!(!known("linux/arm64"));
        for broken in ["", "enabled", "enabled\nmagic 7f45", "enabled\nmagic zz\n"] {
            std::fs::write(dir.path().join("any-name"), broken).unwrap();
            assert!(!known("linux/arm64"), "{broken}");
        }
    }

    /// Rows: X14, Q10
    #[test]
    fn a_machine_runs_its_own_programs_and_its_twins() {
        let (amd64, arm64) = (platform("linux/amd64"), platform("linux/arm64"));
        assert!(runs(&amd64, &amd64) && runs(&platform("linux/386"), &amd64));
        assert!(runs(&platform("linux/arm/v7"), &arm64));
        assert!(!runs(&arm64, &amd64) && !runs(&platform("linux/386"), &arm64));
        let error = check(&platform("linux/nonsense")).unwrap_err();
        assert_eq!(error.kind(), stdx::Kind::Unsupported);
        assert!(error.to_string().contains("emulat"), "{error}");
        assert!(check(&Platform::host()).is_ok());
    }
}
