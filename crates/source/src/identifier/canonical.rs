//! The one name of what an identifier leads to, for those who decide by names.

use std::collections::BTreeMap;

use llb::attr;
use oci::ImageName;
use reqwest::Url;

use super::address::{Address, unescaped};
use super::git::{clean, with_scheme};

/// The one name of what a source's identifier leads to. An image has its registry and no port that
/// is anyway so; an address its host in small letters, no user, and the shortest path; and a
/// repository the same name however it is reached. What cannot be read, or has one name only, is
/// given back.
pub fn canonical(identifier: &str, attrs: &BTreeMap<String, String>) -> String {
    let Some((scheme, rest)) = identifier.split_once("://") else {
        return identifier.to_owned();
    };
    let name = match scheme {
        "docker-image" | "docker-image+blob" => image(rest),
        "http" | "https" => return download(identifier).unwrap_or(identifier.to_owned()),
        "git" => git(rest, attrs),
        _ => None,
    };
    name.map_or(identifier.to_owned(), |name| format!("{scheme}://{name}"))
}

fn image(rest: &str) -> Option<String> {
    let name: ImageName = rest.parse().ok()?;
    let full = name.to_string();
    let path = full.strip_prefix(name.registry())?;
    let registry = name.registry().to_ascii_lowercase();
    let registry = match registry.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.trim_start_matches('0') == "443" => host,
        _ => &registry,
    };
    // Written so, it may be Docker's own after all.
    let small = format!("{registry}{path}").parse::<ImageName>().ok();
    small.map(|name| name.to_string())
}

fn download(identifier: &str) -> Option<String> {
    let mut url = Url::parse(identifier).ok()?;
    url.set_username("").ok()?;
    url.set_password(None).ok()?;
    url.set_fragment(None);
    if let Some(host) = url.host_str().and_then(|host| host.strip_suffix('.')) {
        let host = host.to_owned();
        url.set_host(Some(&host)).ok()?;
    }
    let path = unescaped(url.path()).into_owned();
    url.set_path(&path);
    Some(url.to_string())
}

fn git(rest: &str, attrs: &BTreeMap<String, String>) -> Option<String> {
    let (remote, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
    let remote = with_scheme(remote);
    let address = Address::parse(&remote)?;
    // It says how the repository is reached; where it is, the identifier says.
    let full = attrs
        .get(attr::GIT_FULL_URL)
        .filter(|full| !full.is_empty());
    let full = full.map(|full| with_scheme(full));
    let way = full.as_deref().and_then(Address::parse).unwrap_or(address);
    let mut name = format!("{}{}", way.bare_host(), address.path());
    let subdir = clean(subdir);
    if !reference.is_empty() || !subdir.is_empty() {
        name.push('#');
        name.push_str(reference);
    }
    if !subdir.is_empty() {
        name.push(':');
        name.push_str(&subdir);
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows: P05
    #[test]
    fn however_it_is_written_it_has_one_name() {
        let alpine = "docker-image://docker.io/library/alpine:3";
        let (release, main) = (
            "https://example.com/a/b?c",
            "git://example.com/a/b.git#main:x/y",
        );
        for (written, name) in [
            ("docker-image://alpine:3", alpine),
            ("docker-image://docker.io/alpine:3", alpine),
            ("docker-image://index.docker.io/library/alpine:3", alpine),
            ("docker-image://Docker.IO:443/alpine:3", alpine),
            ("docker-image://h:5000/a:1", "docker-image://h:5000/a:1"),
            ("docker-image://H.io:0443/a:1", "docker-image://h.io/a:1"),
            ("https://EXAMPLE.com:443/a/./b?c", release),
            ("https://u:p@example.com./x/%2e%2e/%61/b?c#d", release),
            ("http://example.com:443/a", "http://example.com:443/a"),
            ("git://example.com/a/b.git#main:x/y", main),
            (
                "git://https://u:p@Example.com:443/a/b.git#main:/x//y/",
                main,
            ),
            ("git://git@example.com:a/b.git#main:x/y", main),
            (
                "git://ssh://git@example.com:22/x/../%61/b.git/?q#main:x/y",
                main,
            ),
            ("git://example.com:443/a/b.git#main:x/y", main),
            ("git://example.com./a/b.git#main:x/y", main),
            ("git://h:9418/r#", "git://h:9418/r"),
            ("git://git://h:9418/r#:/", "git://h/r"),
            ("git://h/r#:x", "git://h/r#:x"),
            ("local://Context", "local://Context"),
            ("oci-layout://A/../b", "oci-layout://A/../b"),
            ("nothing", "nothing"),
            ("docker-image://NOT/AN/IMAGE", "docker-image://NOT/AN/IMAGE"),
        ] {
            let none = BTreeMap::new();
            assert_eq!(canonical(written, &none), name, "{written}");
            assert_eq!(canonical(name, &none), name, "{name}");
        }
        let reached = BTreeMap::from([("git.fullurl".into(), "ssh://git@h:22/r".into())]);
        assert_eq!(canonical("git://h:22/r", &reached), "git://h/r");
    }
}
