//! Which version of Windows runs containers of which other one, as containerd has it.

/// The releases whose containers later ones still run, oldest first: Server 2022 and 2025.
const LONG_TERM: [u16; 2] = [20348, 26100];

/// The first three numbers of a version; it may have more.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Version {
    major: u8,
    minor: u8,
    build: u16,
}

impl Version {
    /// Nothing that can be compared is version 0.0.0.
    fn parse(text: &str) -> Version {
        let mut parts = text.splitn(4, '.');
        let mut next = || parts.next();
        let read = |major: Option<&str>, minor: Option<&str>, build: Option<&str>| {
            Some(Version {
                major: major?.parse().ok()?,
                minor: minor?.parse().ok()?,
                build: build?.parse().ok()?,
            })
        };
        read(next(), next(), next()).unwrap_or_default()
    }

    /// Whether a host of this version runs containers of `other`.
    fn runs(self, other: Version) -> bool {
        if (self.major, self.minor) != (other.major, other.minor) {
            return false;
        }
        if self.build < LONG_TERM[0] {
            return self.build == other.build;
        }
        // From the long-term release before this one on.
        let earlier = LONG_TERM
            .iter()
            .rev()
            .find(|release| self.build > **release);
        let oldest = *earlier.unwrap_or(&LONG_TERM[0]);
        (oldest..=self.build).contains(&other.build)
    }
}

/// How well a container of version `have` suits who asks for `want`: lower is better, `None` is not
/// at all. Who names no version takes any, and one that has none suits everyone.
pub(super) fn suits(want: &str, have: &str) -> Option<u16> {
    let (want, offered) = (Version::parse(want), Version::parse(have));
    let suits = want == Version::default() || have.is_empty() || want.runs(offered);
    suits.then(|| u16::MAX - offered.build)
}

#[cfg(test)]
mod tests {
    use crate::Platform;

    fn windows(version: &str) -> Platform {
        Platform {
            os: "windows".into(),
            architecture: "amd64".into(),
            os_version: version.into(),
            ..Platform::default()
        }
    }

    /// Rows: S01, P13
    #[test]
    fn a_version_runs_its_own_containers_and_some_older_ones() {
        for (host, container, runs) in [
            ("1.1.0", "1.2.3", false),
            ("1.1.0", "1.1.0", true),
            ("10.0.17763.1", "10.0.17763.9", true),
            ("10.0.19041", "10.0.17763", false),
            ("10.0.17763", "10.0.19041", false),
            ("10.0.20348", "10.0.20348.2", true),
            ("10.0.22621", "10.0.20348", true),
            ("10.0.20348", "10.0.22621", false),
            ("10.0.26100", "10.0.20348", true),
            ("10.0.26101", "10.0.20348", false),
            ("10.0.26101", "10.0.26100", true),
            ("", "10.0.17763", true),
            ("nonsense", "10.0.17763", true),
            ("10.0.17763", "", true),
            ("10.0.17763", "nonsense", false),
        ] {
            let suits = windows(host).suits(&windows(container));
            assert_eq!(suits.is_some(), runs, "{container:?} on {host:?}");
        }
        // Elsewhere a version says nothing.
        let linux = |version| Platform {
            os: "linux".into(),
            ..windows(version)
        };
        assert_eq!(linux("1.1.0").suits(&linux("1.2.3")), Some(0));
    }

    /// Rows: S01, P13
    #[test]
    fn the_newest_is_best_and_the_machine_counts_more() {
        let score = |have: &Platform| windows("").suits(have).expect("it suits");
        let (old, new) = (windows("10.0.17763"), windows("10.0.20348"));
        assert!(score(&new) < score(&old));
        let small = Platform {
            architecture: "386".into(),
            ..new
        };
        assert!(score(&old) < score(&small));
    }
}
