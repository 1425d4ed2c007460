//! Image names: what `FROM` accepts, and the full form of it.

use std::sync::LazyLock;

use oci::Digest;
use regex::Regex;

static NAME: LazyLock<Regex> = LazyLock::new(|| {
    let component = "[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*";
    let label = "(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])";
    let host = format!(r"(?:{label}(?:\.{label})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?");
    let pattern = format!(
        r"^((?:{host}/)?{component}(?:/{component})*)(?::([a-zA-Z0-9_][a-zA-Z0-9_.-]{{0,127}}))?(?:@([a-z0-9+._-]+:[a-fA-F0-9]{{32,}}))?$"
    );
    Regex::new(&pattern).expect("a constant pattern")
});

/// An image's full name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    /// Host and path: `docker.io/library/alpine`.
    pub(crate) name: String,
    /// Tag, if any.
    pub(crate) tag: Option<String>,
    /// Digest, if any.
    pub(crate) digest: Option<String>,
}

impl Reference {
    /// Reads what people write; `None` if no image can be called that.
    pub(crate) fn parse(text: &str) -> Option<Reference> {
        // 64 hex digits alone name an image's id, never an image.
        if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let (first, rest) = text.split_once('/').unwrap_or(("", text));
        let is_host =
            first.contains(['.', ':']) || first == "localhost" || first.to_lowercase() != first;
        let full = match (first.is_empty(), is_host) {
            (false, true) => match first {
                "index.docker.io" | "docker.io" if !rest.contains('/') => {
                    format!("docker.io/library/{rest}")
                }
                "index.docker.io" => format!("docker.io/{rest}"),
                _ => text.to_owned(),
            },
            (true, _) if !text.contains('/') => format!("docker.io/library/{text}"),
            _ => format!("docker.io/{text}"),
        };
        let parts = NAME.captures(&full)?;
        let part = |at: usize| parts.get(at).map(|m| m.as_str().to_owned());
        let digest = part(3);
        if digest
            .as_ref()
            .is_some_and(|d| d.parse::<Digest>().is_err())
        {
            return None;
        }
        let name = part(1)?;
        (name.len() <= 255).then_some(Reference {
            name,
            tag: part(2),
            digest,
        })
    }

    /// With the tag `latest` if it has neither tag nor digest.
    pub(crate) fn tagged(mut self) -> Reference {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some("latest".into());
        }
        self
    }

    /// As short as people write it: `alpine`, `me/app:1`.
    pub(crate) fn familiar(&self) -> String {
        let full = self.to_string();
        match full.strip_prefix("docker.io/") {
            Some(rest) => rest.strip_prefix("library/").unwrap_or(rest).to_owned(),
            None => full,
        }
    }
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_get_their_full_form() {
        let full = |text: &str| Reference::parse(text).map(|r| r.tagged().to_string());
        assert_eq!(full("alpine").unwrap(), "docker.io/library/alpine:latest");
        assert_eq!(full("me/app:1").unwrap(), "docker.io/me/app:1");
        assert_eq!(full("localhost:5000/a").unwrap(), "localhost:5000/a:latest");
        assert_eq!(full("docker.io/a").unwrap(), "docker.io/library/a:latest");
        let digest = format!("a@sha256:{}", "0".repeat(64));
        assert_eq!(
            full(&digest).unwrap(),
            format!("docker.io/library/{digest}")
        );
        assert_eq!(full("Alpine"), None);
        assert_eq!(full(&"0".repeat(64)), None);
        assert_eq!(full("a b"), None);
        assert_eq!(
            Reference::parse("docker.io/library/a:1")
                .unwrap()
                .familiar(),
            "a:1"
        );
    }
}
