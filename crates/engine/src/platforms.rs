//! What this machine runs (row D38): its own platform with all that its processor can, the
//! 32-bit one beside it, and what emulators are registered for.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use oci::Platform;

/// Where the kernel shows what it runs with the help of other programs.
const BINFMT: &str = "/proc/sys/fs/binfmt_misc";
/// Emulators under the names they are registered by.
const EMULATED: &[(&str, &[&str])] = &[
    ("qemu-x86_64", &["linux/amd64"]),
    ("qemu-aarch64", &["linux/arm64"]),
    ("qemu-riscv64", &["linux/riscv64"]),
    ("qemu-ppc64le", &["linux/ppc64le"]),
    ("qemu-s390x", &["linux/s390x"]),
    ("qemu-i386", &["linux/386"]),
    ("qemu-mips64el", &["linux/mips64le"]),
    ("qemu-mips64", &["linux/mips64"]),
    ("qemu-loongarch64", &["linux/loong64"]),
    ("qemu-arm", &["linux/arm/v7", "linux/arm/v6"]),
];

/// The platforms there are, looked up anew when they are too old.
pub(crate) struct Found {
    known: Mutex<(Vec<Platform>, Instant)>,
    max_age: Option<Duration>,
}

impl Found {
    /// `platforms`, for ever if there is no `max_age`.
    pub(crate) fn new(platforms: Vec<Platform>, max_age: Option<Duration>) -> Found {
        Found {
            known: Mutex::new((platforms, Instant::now())),
            max_age,
        }
    }

    /// Those there are now.
    pub(crate) fn now(&self) -> Vec<Platform> {
        self.now_with(of_this_machine)
    }

    fn now_with(&self, look: impl FnOnce() -> Vec<Platform>) -> Vec<Platform> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if self.max_age.is_some_and(|age| known.1.elapsed() >= age) {
            *known = (look(), Instant::now());
        }
        known.0.clone()
    }
}

/// This machine's, its own platform first.
pub(crate) fn of_this_machine() -> Vec<Platform> {
    let host = Platform::host().normalized();
    let mut texts = variants(&host.architecture);
    if host.architecture == "amd64" {
        texts.push("linux/386".to_owned());
    }
    all(host, texts, Path::new(BINFMT))
}

fn all(host: Platform, more: Vec<String>, binfmt: &Path) -> Vec<Platform> {
    let mut platforms = vec![host];
    let registered = EMULATED.iter().filter(|(name, _)| {
        let entry = std::fs::read_to_string(binfmt.join(name));
        entry.is_ok_and(|text| text.starts_with("enabled"))
    });
    let emulated = registered.flat_map(|(_, texts)| texts.iter().map(|text| (*text).to_owned()));
    for text in more.into_iter().chain(emulated) {
        if let Ok(platform) = text.parse::<Platform>()
            && !platforms.contains(&platform)
        {
            platforms.push(platform);
        }
    }
    platforms
}

/// The levels of the architecture that this processor reaches beyond the first.
#[cfg(target_arch = "x86_64")]
fn variants(_: &str) -> Vec<String> {
    use std::arch::is_x86_feature_detected as has;
    let second = has!("cmpxchg16b")
        && has!("popcnt")
        && has!("sse3")
        && has!("ssse3")
        && has!("sse4.1")
        && has!("sse4.2");
    let third = second
        && has!("avx")
        && has!("avx2")
        && has!("bmi1")
        && has!("bmi2")
        && has!("f16c")
        && has!("fma")
        && has!("lzcnt")
        && has!("movbe");
    let fourth = third
        && has!("avx512f")
        && has!("avx512bw")
        && has!("avx512cd")
        && has!("avx512dq")
        && has!("avx512vl");
    let levels = [(second, "v2"), (third, "v3"), (fourth, "v4")];
    let reached = levels.iter().filter(|(reached, _)| *reached);
    reached
        .map(|(_, level)| format!("linux/amd64/{level}"))
        .collect()
}

/// The levels of the architecture that this processor reaches beyond the first.
#[cfg(not(target_arch = "x86_64"))]
fn variants(_: &str) -> Vec<String> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(platforms: &[Platform]) -> Vec<String> {
        platforms.iter().map(ToString::to_string).collect()
    }

    /// Rows: D38
    #[test]
    fn native_levels_and_registered_emulators_are_offered_native_first() {
        let dir = tempfile::tempdir().unwrap();
        let entry = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        entry(
            "qemu-aarch64",
            "enabled\ninterpreter /usr/bin/qemu-aarch64\n",
        );
        entry("qemu-arm", "enabled\n");
        entry("qemu-riscv64", "disabled\n");
        entry("qemu-x86_64", "enabled\n");
        let host: Platform = "linux/amd64".parse().unwrap();
        let found = all(
            host,
            vec!["linux/amd64/v2".into(), "linux/386".into()],
            dir.path(),
        );
        assert_eq!(
            texts(&found),
            [
                "linux/amd64",
                "linux/amd64/v2",
                "linux/386",
                "linux/arm64",
                "linux/arm/v7",
                "linux/arm/v6"
            ]
        );
    }

    /// Rows: D38
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn what_the_processor_tells_is_what_is_offered() {
        let told = std::fs::read_to_string("/proc/cpuinfo").unwrap();
        let flags = told.lines().find(|line| line.starts_with("flags")).unwrap();
        let flag = |name: &str| flags.split_whitespace().any(|flag| flag == name);
        let levels = variants("amd64");
        let offered = |level: &str| levels.contains(&format!("linux/amd64/{level}"));
        assert_eq!(
            offered("v2"),
            flag("sse4_2") && flag("popcnt") && flag("cx16")
        );
        assert_eq!(
            offered("v3"),
            flag("avx2") && flag("bmi2") && flag("fma") && flag("movbe")
        );
    }

    /// Rows: D13
    #[test]
    fn what_was_found_is_looked_up_again_when_it_is_old() {
        let platform = |text: &str| vec![text.parse::<Platform>().unwrap()];
        let old = Found::new(platform("linux/amd64"), Some(Duration::ZERO));
        assert_eq!(
            texts(&old.now_with(|| platform("linux/arm64"))),
            ["linux/arm64"]
        );
        let young = Found::new(platform("linux/amd64"), Some(Duration::from_secs(60)));
        assert_eq!(texts(&young.now_with(Vec::new)), ["linux/amd64"]);
        let fixed = Found::new(platform("linux/amd64"), None);
        assert_eq!(texts(&fixed.now_with(Vec::new)), ["linux/amd64"]);
    }
}
