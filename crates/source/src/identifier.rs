//! What a source op names: its identifier and attributes, read strictly.
//! An attribute nobody knows is an error, because ignoring it could mean
//! building from the wrong files.

mod address;
mod attrs;
mod canonical;
mod git;
mod http;
mod image;
mod local;

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use attrs::Attrs;

pub use canonical::canonical;
pub use git::{GitBundle, GitId, GitSignature, Mtime};
pub(crate) use git::{is_commit, redacted};
pub use http::{FileAttrs, HttpId, HttpSignature};
pub use image::{BlobId, BlobPlace, ImageId, LayoutId, ResolveMode};
pub use local::LocalId;

/// One source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identifier {
    /// An image in a registry.
    Image(ImageId),
    /// An image in a layout of the client.
    Layout(LayoutId),
    /// One blob as a file.
    Blob(BlobId),
    /// A commit.
    Git(GitId),
    /// A download.
    Http(HttpId),
    /// A directory of the client.
    Local(LocalId),
}

impl Identifier {
    /// Reads the identifier and attributes of a source op.
    pub fn parse(identifier: &str, attrs: &BTreeMap<String, String>) -> Result<Identifier> {
        let wrong = |reason: &str| Error::Identifier {
            identifier: identifier.into(),
            reason: reason.into(),
        };
        let (scheme, rest) = identifier
            .split_once("://")
            .ok_or_else(|| wrong("it has no scheme"))?;
        let mut attrs = Attrs::new(identifier, attrs);
        let parsed = match scheme {
            "docker-image" => Identifier::Image(ImageId::parse(rest, &mut attrs)?),
            "oci-layout" => Identifier::Layout(LayoutId::parse(rest, &mut attrs)?),
            "docker-image+blob" => Identifier::Blob(BlobId::parse(rest, false, &mut attrs)?),
            "oci-layout+blob" => Identifier::Blob(BlobId::parse(rest, true, &mut attrs)?),
            "git" => Identifier::Git(GitId::parse(rest, &mut attrs)?),
            "http" | "https" => Identifier::Http(HttpId::parse(identifier, &mut attrs)?),
            "local" => Identifier::Local(LocalId::parse(rest, &mut attrs)?),
            other => return Err(wrong(&format!("scheme `{other}` is not known"))),
        };
        attrs.finish()?;
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(identifier: &str, attrs: &[(&str, &str)]) -> Result<Identifier> {
        let attrs = attrs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        Identifier::parse(identifier, &attrs)
    }

    /// Rows: L08
    #[test]
    fn nonsense_is_refused_with_its_reason() {
        for (identifier, attrs, expected) in [
            ("nothing", &[][..], "it has no scheme"),
            ("ftp://x", &[], "scheme `ftp` is not known"),
            ("docker-image://UPPER", &[], "UPPER"),
            (
                "docker-image://docker.io/library/a:1",
                &[("image.layerlimit", "-1")],
                "image.layerlimit",
            ),
            (
                "docker-image://docker.io/library/a:1",
                &[("image.color", "red")],
                "image.color: not known",
            ),
            ("docker-image://docker.io/library/a", &[], "object required"),
            (
                "docker-image://docker.io/library/a:1",
                &[("git.keepgitdir", "true")],
                "git.keepgitdir: not known",
            ),
            (
                "docker-image://docker.io/library/a:1",
                &[("image.checksum", "md5:1")],
                "image.checksum",
            ),
            ("oci-layout://l:1", &[], "digest"),
            ("local://", &[], "name"),
            ("local://a", &[("local.includepattern", "*.c")], "JSON list"),
            ("http://", &[], "host"),
            ("https://h/a", &[("http.perm", "rw")], "http.perm"),
            (
                "git://h/r",
                &[("git.keepgitdir", "maybe")],
                "git.keepgitdir",
            ),
        ] {
            let error = parse(identifier, attrs).expect_err(identifier).to_string();
            assert!(error.contains(expected), "{identifier}: {error}");
        }
    }

    #[test]
    fn each_scheme_has_its_source() {
        assert!(matches!(
            parse("docker-image://docker.io/library/a:1", &[]),
            Ok(Identifier::Image(_))
        ));
        let digest = oci::Digest::of("x");
        assert!(matches!(
            parse(&format!("oci-layout://l@{digest}"), &[]),
            Ok(Identifier::Layout(_))
        ));
        assert!(matches!(
            parse(&format!("docker-image+blob://r.io/a@{digest}"), &[]),
            Ok(Identifier::Blob(_))
        ));
        assert!(matches!(
            parse("git://h/r.git#main:sub", &[]),
            Ok(Identifier::Git(_))
        ));
        assert!(matches!(
            parse("https://h/f.tar", &[]),
            Ok(Identifier::Http(_))
        ));
        assert!(matches!(
            parse("local://context", &[]),
            Ok(Identifier::Local(_))
        ));
    }
}
