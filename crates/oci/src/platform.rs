//! Which machines an image is for (OCI image-spec, "Image Index", `platform`), with
//! containerd's rules for normalising and matching.

mod windows;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Operating system, architecture and variant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// Like `amd64`, in Go's names.
    #[serde(default)]
    pub architecture: String,
    /// Like `linux`.
    #[serde(default)]
    pub os: String,
    /// Like `10.0.14393.1066`; Windows only in practice.
    #[serde(
        rename = "os.version",
        default,
        skip_serializing_if = "String::is_empty"
    )]
    pub os_version: String,
    /// Like `win32k`.
    #[serde(rename = "os.features", default, skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    /// Like `v7` of `arm`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

/// The text is no platform.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a platform like linux/amd64 or linux/arm/v7")]
pub struct InvalidPlatform(pub String);

impl Platform {
    /// The platform this program runs on, normalised, without CPU micro-variants.
    pub fn host() -> Platform {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            other => other,
        };
        Platform {
            architecture: architecture.into(),
            os: std::env::consts::OS.into(),
            ..Platform::default()
        }
    }

    /// The same platform under its one usual spelling (`x86_64` is `amd64`,
    /// `aarch64/v8` is `arm64`, `arm` alone is `arm/v7`, `amd64/v1` is `amd64`).
    pub fn normalized(mut self) -> Platform {
        self.os = self.os.to_lowercase();
        if self.os == "macos" {
            self.os = "darwin".into();
        }
        let arch = self.architecture.to_lowercase();
        let variant = self.variant.to_lowercase();
        let (arch, variant) = match (arch.as_str(), variant.as_str()) {
            ("i386", _) => ("386", ""),
            ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
            ("x86_64" | "x86-64", v) => ("amd64", v),
            ("aarch64" | "arm64", "8" | "v8" | "v8.0") => ("arm64", ""),
            ("aarch64" | "arm64", "9" | "9.0" | "v9.0") => ("arm64", "v9"),
            ("aarch64", v) => ("arm64", v),
            ("armhf", _) | ("arm", "" | "7") => ("arm", "v7"),
            ("armel", _) | ("arm", "6") => ("arm", "v6"),
            ("arm", "5") => ("arm", "v5"),
            ("arm", "8") => ("arm", "v8"),
            (a, v) => (a, v),
        };
        (self.architecture, self.variant) = (arch.to_owned(), variant.to_owned());
        self
    }

    /// How well an image for `offered` suits one who asks for `self`: lower is
    /// better, `None` is not at all. A newer variant runs what an older one runs. Of Windows the
    /// version counts, too: of those that suit the newest is best.
    pub fn suits(&self, offered: &Platform) -> Option<u32> {
        let want = self.clone().normalized();
        let have = offered.clone().normalized();
        if want.os != have.os {
            return None;
        }
        let machine = Platform::machine_suits(&want, &have)?;
        match want.os.as_str() {
            "windows" => {
                let version = windows::suits(&want.os_version, &have.os_version)?;
                Some((machine << 16) + u32::from(version))
            }
            _ => Some(machine),
        }
    }

    fn machine_suits(want: &Platform, have: &Platform) -> Option<u32> {
        let level = |variant: &str, base: u32| match variant.strip_prefix('v') {
            Some(n) => n.split('.').next().and_then(|n| n.parse().ok()),
            None if variant.is_empty() => Some(base),
            None => None,
        };
        if want.architecture == have.architecture {
            if want.variant == have.variant {
                return Some(0);
            }
            let base = match want.architecture.as_str() {
                "arm64" => 8,
                "arm" => 7,
                _ => 1,
            };
            let (want_level, have_level): (u32, u32) =
                (level(&want.variant, base)?, level(&have.variant, base)?);
            return (have_level <= want_level).then(|| want_level - have_level);
        }
        // A 64-bit ARM machine runs 32-bit ARM images, and amd64 runs 386, when nothing better is offered.
        match (want.architecture.as_str(), have.architecture.as_str()) {
            ("arm64", "arm") => Some(100 + 8 - level(&have.variant, 7)?.min(8)),
            ("amd64", "386") => Some(100),
            _ => None,
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

impl FromStr for Platform {
    type Err = InvalidPlatform;

    /// Reads `os/arch[/variant]`, or an architecture or `os` alone with the rest from the host.
    fn from_str(text: &str) -> Result<Platform, InvalidPlatform> {
        let invalid = || InvalidPlatform(text.to_owned());
        let part_ok = |p: &str| {
            !p.is_empty()
                && p.bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
        };
        let parts: Vec<&str> = text.split('/').collect();
        if !parts.iter().all(|p| part_ok(p)) {
            return Err(invalid());
        }
        let host = Platform::host();
        let (os, architecture, variant) = match parts[..] {
            [one] if ["linux", "windows", "darwin", "macos", "freebsd"].contains(&one) => {
                (one, host.architecture.as_str(), "")
            }
            [one] => (host.os.as_str(), one, ""),
            [os, arch] => (os, arch, ""),
            [os, arch, variant] => (os, arch, variant),
            _ => return Err(invalid()),
        };
        Ok(Platform {
            architecture: architecture.into(),
            os: os.into(),
            variant: variant.into(),
            ..Platform::default()
        }
        .normalized())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_become_one() {
        for (text, shown) in [
            ("linux/x86_64", "linux/amd64"),
            ("linux/aarch64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/amd64/v1", "linux/amd64"),
            ("linux/amd64/v3", "linux/amd64/v3"),
        ] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), shown);
        }
        assert!("linux//x".parse::<Platform>().is_err());
        assert!("a/b/c/d".parse::<Platform>().is_err());
    }

    #[test]
    fn the_closest_variant_suits_best() {
        let p = |s: &str| s.parse::<Platform>().unwrap();
        assert_eq!(p("linux/arm/v7").suits(&p("linux/arm/v6")), Some(1));
        assert_eq!(p("linux/arm/v6").suits(&p("linux/arm/v7")), None);
        assert_eq!(p("linux/amd64").suits(&p("linux/arm64")), None);
        assert!(p("linux/amd64").suits(&p("linux/386")).is_some());
    }
}
