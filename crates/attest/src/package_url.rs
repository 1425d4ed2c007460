//! Package URLs of images: `pkg:docker/alpine@3.19?platform=linux%2Famd64`.

use std::fmt::Write as _;

use oci::{Digest, ImageName, Platform};

/// Where a package is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PackageKind {
    /// In a registry.
    Docker,
    /// In a layout on somebody's disk.
    Oci,
}

/// The package URL of an image. Without tag and digest it is the latest; `more` are
/// further qualifiers.
pub fn package_url(
    kind: PackageKind,
    name: &ImageName,
    platform: Option<&Platform>,
    more: &[(&str, &str)],
) -> String {
    let path = if name.registry() == "docker.io" {
        let path = name.repository();
        path.strip_prefix("library/").unwrap_or(path).to_owned()
    } else {
        name.name()
    };
    let tag = match (name.tag(), name.digest()) {
        (None, None) => Some("latest"),
        (tag, _) => tag,
    };
    url(kind, (&path, tag, name.digest()), platform, more)
}

/// The package URL of something in a layout, where any text is a name.
pub fn package_url_in_layout(
    name: &str,
    digest: Option<Digest>,
    platform: Option<&Platform>,
    more: &[(&str, &str)],
) -> String {
    url(PackageKind::Oci, (name, None, digest), platform, more)
}

fn url(
    kind: PackageKind,
    (path, tag, digest): (&str, Option<&str>, Option<Digest>),
    platform: Option<&Platform>,
    more: &[(&str, &str)],
) -> String {
    let kind = match kind {
        PackageKind::Docker => "docker",
        PackageKind::Oci => "oci",
    };
    let (folder, last) = match path.rsplit_once('/') {
        Some((folder, last)) => (Some(folder), last),
        None => (None, path),
    };
    let mut url = format!("pkg:{kind}/");
    for part in folder.into_iter().flat_map(|folder| folder.split('/')) {
        escape(&mut url, part, false);
        url.push('/');
    }
    escape(&mut url, last, true);
    if let Some(tag) = tag {
        url.push('@');
        escape(&mut url, tag, true);
    }
    let digest = digest.map(|digest| digest.to_string());
    let platform = platform.map(|platform| platform.clone().normalized().to_string());
    let own = [
        ("digest", digest.as_deref()),
        ("platform", platform.as_deref()),
    ];
    let own = own
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)));
    let mut mark = '?';
    for (key, value) in own.chain(more.iter().copied()) {
        url.push(mark);
        url.push_str(key);
        url.push('=');
        escape(&mut url, value, true);
        mark = '&';
    }
    url
}

/// Percent-encodes. `@` and its like may stay, except in the folder.
fn escape(out: &mut String, text: &str, lenient: bool) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            b'$' | b'&' | b'+' | b'=' | b':' | b'@' if lenient => out.push(char::from(byte)),
            other => write!(out, "%{other:02X}").expect("strings take everything"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, platform: Option<&str>) -> String {
        let platform: Option<Platform> = platform.map(|platform| platform.parse().unwrap());
        let name = name.parse().unwrap();
        package_url(PackageKind::Docker, &name, platform.as_ref(), &[])
    }

    /// Rows: W51, P02
    #[test]
    fn in_a_layout_any_text_is_a_name() {
        let digest = Digest::of(b"test");
        let of = |name, digest| package_url_in_layout(name, digest, None, &[("a", "b")]);
        assert_eq!(of("My_Store", None), "pkg:oci/My_Store?a=b");
        let wanted = format!("pkg:oci/a%20b/C?digest={digest}&a=b");
        assert_eq!(of("a b/C", Some(digest)), wanted);
    }

    /// Rows: W51, P02
    #[test]
    fn names_become_package_urls() {
        let digest = oci::Digest::of(b"test").to_string();
        assert_eq!(of("alpine", None), "pkg:docker/alpine@latest");
        assert_eq!(
            of("docker.io/library/alpine:3.15", None),
            "pkg:docker/alpine@3.15"
        );
        assert_eq!(of("user/test:v2", None), "pkg:docker/user/test@v2");
        assert_eq!(
            of("ghcr.io/foo/bar", None),
            "pkg:docker/ghcr.io/foo/bar@latest"
        );
        let pinned = format!("pkg:docker/alpine@latest?digest={digest}");
        assert_eq!(of(&format!("alpine:latest@{digest}"), None), pinned);
        let platform = format!("pkg:docker/busybox?digest={digest}&platform=linux%2Farm64");
        assert_eq!(
            of(&format!("busybox@{digest}"), Some("linux/arm64")),
            platform
        );
        assert_eq!(
            of("reg.example:5000/a/b:t", Some("linux/arm/v7")),
            "pkg:docker/reg.example%3A5000/a/b@t?platform=linux%2Farm%2Fv7"
        );
        let blob = [("ref_type", "blob")];
        let name: ImageName = format!("r.io/a@{digest}").parse().unwrap();
        assert_eq!(
            package_url(PackageKind::Oci, &name, None, &blob),
            format!("pkg:oci/r.io/a?digest={digest}&ref_type=blob")
        );
    }
}
