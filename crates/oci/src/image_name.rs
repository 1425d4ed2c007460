//! Image names as people write them: `alpine`, `user/app:1`, `host:5000/a/b@sha256:…`
//! (the rules of Docker's reference package, which all clients follow).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Digest;

/// The registry of names that do not name one.
const DOCKER_HUB: &str = "docker.io";
/// Longest repository name, registry included.
const MAX_NAME: usize = 255;

/// A registry, a repository in it, and perhaps a tag and a digest. Shown in
/// its full form, `docker.io/library/alpine:3`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageName {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// The text is no image name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid image name `{name}`: {reason}")]
pub struct InvalidImageName {
    /// What was given.
    pub name: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl ImageName {
    /// The registry with its port, `docker.io` when none was named.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path in the registry; official images are in `library/`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, if one was named.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if one was named.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// `registry/repository`, without tag and digest.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// With tag `latest` if it has neither tag nor digest.
    pub fn or_latest(mut self) -> ImageName {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some("latest".into());
        }
        self
    }

    /// With this digest, its tag kept.
    pub fn with_digest(mut self, digest: Digest) -> ImageName {
        self.digest = Some(digest);
        self
    }

    /// With this tag and without digest.
    pub fn with_tag(&self, tag: &str) -> Result<ImageName, InvalidImageName> {
        if !is_tag(tag) {
            return Err(InvalidImageName {
                name: format!("{self}:{tag}"),
                reason: "invalid tag",
            });
        }
        Ok(ImageName {
            tag: Some(tag.into()),
            digest: None,
            ..self.clone()
        })
    }

    /// As people write it: without `docker.io/` and `library/`, unless what is left would be
    /// read as another registry.
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        match full.strip_prefix("docker.io/") {
            None => full,
            Some(rest) if split_registry(rest).1 != rest => full,
            Some(rest) => match rest.strip_prefix("library/") {
                Some(official) if !self.repository["library/".len()..].contains('/') => {
                    official.to_owned()
                }
                _ => rest.to_owned(),
            },
        }
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ImageName {
    type Err = InvalidImageName;

    fn from_str(text: &str) -> Result<ImageName, InvalidImageName> {
        let invalid = |reason: &'static str| InvalidImageName {
            name: text.to_owned(),
            reason,
        };
        if text.is_empty() {
            return Err(invalid("it is empty"));
        }
        if text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(invalid("64 hex digits name an image id, not an image"));
        }
        let (rest, digest) = match text.split_once('@') {
            None => (text, None),
            Some((rest, digest)) => (
                rest,
                Some(digest.parse().map_err(|_| invalid("invalid digest"))?),
            ),
        };
        let (registry, path) = split_registry(rest);
        let (path, tag) = match path.rsplit_once(':') {
            Some((path, tag)) if is_tag(tag) => (path, Some(tag.to_owned())),
            Some(_) => return Err(invalid("invalid tag")),
            None => (path, None),
        };
        if path.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(invalid("repository name must be lowercase"));
        }
        if !is_registry(registry) || !path.split('/').all(is_component) {
            return Err(invalid("invalid reference format"));
        }
        let registry = if registry == "index.docker.io" {
            DOCKER_HUB
        } else {
            registry
        };
        let official = registry == DOCKER_HUB && !path.contains('/');
        let repository = if official {
            format!("library/{path}")
        } else {
            path.to_owned()
        };
        if registry.len() + 1 + repository.len() > MAX_NAME {
            return Err(invalid(
                "repository name must not be more than 255 characters",
            ));
        }
        Ok(ImageName {
            registry: registry.to_owned(),
            repository,
            tag,
            digest,
        })
    }
}

/// The first part is a registry if it looks like one: with a dot or a port,
/// `localhost`, or capitals, which no repository has.
fn split_registry(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DOCKER_HUB, name),
    }
}

fn is_registry(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) => {
                let address = !address.is_empty()
                    && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':');
                return address && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
            }
            None => return false,
        },
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let label = |label: &str| {
        let bytes = label.as_bytes();
        let inner = bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || *b == b'-');
        inner
            && bytes.first().is_some_and(|b| *b != b'-')
            && bytes.last().is_some_and(|b| *b != b'-')
    };
    host.split('.').all(label) && port.is_none_or(is_port)
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// Letters and digits in runs, between them one of `.`, `_`, `__` or dashes.
fn is_component(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    if !bytes.first().copied().is_some_and(plain) || !bytes.last().copied().is_some_and(plain) {
        return false;
    }
    bytes.split(|b| plain(*b)).all(|between| {
        matches!(between, b"" | b"." | b"_" | b"__") || between.iter().all(|b| *b == b'-')
    })
}

fn is_tag(text: &str) -> bool {
    let bytes = text.as_bytes();
    let word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    bytes.len() <= 128
        && bytes.first().is_some_and(word)
        && bytes.iter().all(|b| word(b) || matches!(b, b'.' | b'-'))
}

impl Serialize for ImageName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ImageName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ImageName, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn names_have_a_full_and_a_familiar_form() {
        for (text, full, familiar) in [
            ("alpine", "docker.io/library/alpine", "alpine"),
            ("alpine:3", "docker.io/library/alpine:3", "alpine:3"),
            ("user/app", "docker.io/user/app", "user/app"),
            ("docker.io/alpine", "docker.io/library/alpine", "alpine"),
            (
                "index.docker.io/library/alpine",
                "docker.io/library/alpine",
                "alpine",
            ),
            (
                "docker.io/library/a/b",
                "docker.io/library/a/b",
                "library/a/b",
            ),
            ("localhost/a", "localhost/a", "localhost/a"),
            (
                "docker.io/not.a.registry/a",
                "docker.io/not.a.registry/a",
                "docker.io/not.a.registry/a",
            ),
            (
                "docker.io/docker.io/a",
                "docker.io/docker.io/a",
                "docker.io/docker.io/a",
            ),
            (
                "localhost:5000/a/b:t",
                "localhost:5000/a/b:t",
                "localhost:5000/a/b:t",
            ),
            ("[::1]:5000/a", "[::1]:5000/a", "[::1]:5000/a"),
            ("Host/a", "Host/a", "Host/a"),
            ("a--b/c__d.e_f", "docker.io/a--b/c__d.e_f", "a--b/c__d.e_f"),
        ] {
            let name: ImageName = text.parse().unwrap();
            assert_eq!(
                (name.to_string().as_str(), name.familiar().as_str()),
                (full, familiar),
                "{text}"
            );
        }
        let both: ImageName = format!("a:1@{DIGEST}").parse().unwrap();
        assert_eq!(
            (both.tag(), both.digest()),
            (Some("1"), DIGEST.parse().ok())
        );
        assert_eq!(both.to_string(), format!("docker.io/library/a:1@{DIGEST}"));
        assert_eq!(
            "a".parse::<ImageName>().unwrap().or_latest().tag(),
            Some("latest")
        );
    }

    #[test]
    fn what_docker_refuses_is_refused() {
        let long = "a/".repeat(130) + "a";
        let hex = "0".repeat(64);
        for bad in [
            "",
            "Foo",
            "Foo/bar/Baz",
            "a:",
            "a:.",
            "a/",
            "/a",
            "a//b",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a@sha256:1",
            "a b",
            "host:x/a",
            "a@",
            "https://h/a",
            "h.io:5000/",
            "[::1/a",
            "-h.io/a",
            &long,
            &hex,
            &format!("a:{}", "t".repeat(129)),
        ] {
            assert!(bad.parse::<ImageName>().is_err(), "{bad}");
        }
    }
}
