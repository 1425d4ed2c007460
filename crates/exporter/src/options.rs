//! Options of the image exporters, parsed once and strictly (core.md §3.2).

use std::collections::BTreeMap;
use std::str::FromStr;

use layer::{Algorithm, Compression};

use crate::{Annotations, Error, Result, Stamp};

/// Everything one can say about an image export. What is not an option here is
/// passed on as metadata, as BuildKit does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageOptions {
    /// Names to give; `*` takes the one the frontend found.
    pub names: Vec<String>,
    /// OCI documents (true) or Docker's.
    pub oci_types: Option<bool>,
    /// Attestations as OCI artifacts.
    pub oci_artifact: Option<bool>,
    /// Write attestations that are only meant for inline use, too.
    pub attestation_inline: bool,
    /// Keep layers that may not be distributed as such.
    pub prefer_nondist: bool,
    /// For layers that are made now.
    pub compression: Compression,
    /// Convert layers that are there already.
    pub force_compression: bool,
    /// Set times in layers back to the epoch.
    pub rewrite_timestamp: bool,
    /// No time in the image is later than this.
    pub epoch: Option<Stamp>,
    /// Annotations of documents and descriptors.
    pub annotations: Annotations,
    /// Push to the registries of the names.
    pub push: bool,
    /// Push without a tag.
    pub push_by_digest: bool,
    /// Plain HTTP and unknown certificates are fine.
    pub insecure: bool,
    /// Keep the image here under its names.
    pub store: Option<bool>,
    /// Unpack the layers here.
    pub unpack: bool,
    /// A name for images without one: `<prefix>@<digest>`.
    pub dangling_prefix: Option<String>,
    /// Only when there is no other name.
    pub dangling_empty_only: bool,
    /// Also name it `<name>@<digest>`.
    pub name_canonical: bool,
    /// One tarball (true) or blob by blob into the client's store.
    pub tar: Option<bool>,
    /// Everything else.
    pub rest: BTreeMap<String, String>,
}

impl ImageOptions {
    /// Reads the options of an exporter.
    pub fn parse(attrs: &BTreeMap<String, String>) -> Result<ImageOptions> {
        let mut options = ImageOptions::default();
        for (key, value) in attrs {
            options.set(key, value)?;
        }
        options.check()?;
        Ok(options)
    }

    /// Whether OCI documents are written.
    pub fn oci(&self) -> bool {
        self.oci_types.unwrap_or(true)
    }

    /// Whether attestations are written as OCI artifacts.
    pub fn artifact(&self) -> bool {
        self.oci_artifact.unwrap_or(true) && self.oci()
    }

    /// As it was before statements became artifacts, where nothing is said: they are images
    /// (P03), and documents are OCI's only if `oci` (E08).
    pub fn or_as_before_artifacts(mut self, oci: bool) -> Result<ImageOptions> {
        self.oci_types.get_or_insert(oci);
        self.oci_artifact.get_or_insert(false);
        self.check()?;
        Ok(self)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        match key {
            "name" => {
                let names = value
                    .split(',')
                    .map(str::trim)
                    .filter(|name| !name.is_empty());
                self.names = names.map(str::to_owned).collect();
            }
            "oci-mediatypes" => self.oci_types = Some(flag(key, value)?),
            "oci-artifact" => self.oci_artifact = Some(flag(key, value)?),
            "attestation-inline" => self.attestation_inline = flag(key, value)?,
            "prefer-nondist-layers" => self.prefer_nondist = flag(key, value)?,
            "compression" => self.compression.algorithm = Algorithm::from_str(value)?,
            "force-compression" => self.force_compression = flag(key, value)?,
            "compression-level" => self.compression.level = Some(integer(key, value)?),
            "rewrite-timestamp" => self.rewrite_timestamp = flag(key, value)?,
            "source-date-epoch" if value.is_empty() => self.epoch = None,
            "source-date-epoch" => self.epoch = Some(epoch(key, value)?),
            "push" => self.push = flag(key, value)?,
            "push-by-digest" => self.push_by_digest = flag(key, value)?,
            "registry.insecure" => self.insecure = flag(key, value)?,
            "store" => self.store = Some(flag(key, value)?),
            "unpack" => self.unpack = flag(key, value)?,
            "dangling-name-prefix" => self.dangling_prefix = Some(value.to_owned()),
            // Misspelt in BuildKit; clients send it so.
            "danging-name-empty-only" => self.dangling_empty_only = flag(key, value)?,
            "name-canonical" => self.name_canonical = flag(key, value)?,
            "tar" => self.tar = Some(flag(key, value)?),
            key if key.starts_with("annotation") => self.annotations.set(key, value)?,
            key => drop(self.rest.insert(key.to_owned(), value.to_owned())),
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        let conflict = |first: &str, second: &str| {
            Err(Error::Conflict {
                first: first.to_owned(),
                second: second.to_owned(),
            })
        };
        if self.unpack && self.rewrite_timestamp {
            return conflict("rewrite-timestamp", "unpack");
        }
        if !self.oci() && self.compression.algorithm == Algorithm::Estargz {
            return conflict("compression=estargz", "oci-mediatypes=false");
        }
        if !self.oci() && self.oci_artifact == Some(true) {
            return conflict("oci-artifact=true", "oci-mediatypes=false");
        }
        if self.compression.algorithm == Algorithm::Estargz {
            return Err(Error::Unsupported("compression=estargz"));
        }
        if !self.oci() && self.annotations.need_oci() {
            return Err(Error::NeedsOci("annotations"));
        }
        Ok(())
    }
}

/// True or false as Go reads them; nothing at all is true.
pub(crate) fn flag(key: &str, value: &str) -> Result<bool> {
    match value {
        "" => Ok(true),
        value => stdx::text::go_bool(value).ok_or_else(|| Error::NotBool(key.to_owned())),
    }
}

fn integer(key: &str, value: &str) -> Result<i32> {
    let wrong = || Error::NotInteger {
        key: key.to_owned(),
        value: value.to_owned(),
    };
    value.parse().map_err(|_| wrong())
}

pub(crate) fn epoch(key: &str, value: &str) -> Result<Stamp> {
    let seconds = value.parse().ok().and_then(Stamp::from_epoch);
    seconds.ok_or_else(|| Error::NotInteger {
        key: key.to_owned(),
        value: value.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<ImageOptions> {
        let attrs = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        ImageOptions::parse(&attrs)
    }

    /// Rows: E02, E06, E08
    #[test]
    fn options_are_read_and_what_is_unknown_is_passed_on() {
        let options = parse(&[
            ("name", "a, b:1"),
            ("force-compression", ""),
            ("compression", "zstd"),
            ("compression-level", "9"),
            ("source-date-epoch", "5"),
            ("whatever", "x"),
        ])
        .unwrap();
        assert_eq!(options.names, ["a", "b:1"]);
        assert!(options.force_compression && options.oci() && options.artifact());
        assert_eq!(options.compression.level, Some(9));
        assert_eq!(options.epoch.unwrap().to_string(), "1970-01-01T00:00:05Z");
        assert_eq!(options.rest["whatever"], "x");
        assert!(!parse(&[("oci-mediatypes", "0")]).unwrap().artifact());
    }

    /// Rows: A17, E08, P03
    #[test]
    fn older_defaults_hold_where_nothing_is_said() {
        let old = |pairs: &[(&str, &str)], oci| {
            let options = parse(pairs).unwrap().or_as_before_artifacts(oci);
            options.map(|options| (options.oci(), options.artifact()))
        };
        assert_eq!(old(&[], false).unwrap(), (false, false));
        assert_eq!(old(&[], true).unwrap(), (true, false));
        let (types, artifact) = (("oci-mediatypes", "true"), ("oci-artifact", "true"));
        assert_eq!(old(&[types], false).unwrap(), (true, false));
        assert_eq!(old(&[types, artifact], false).unwrap(), (true, true));
        assert_eq!(
            old(&[("oci-mediatypes", "0")], true).unwrap(),
            (false, false)
        );
        for (pairs, message) in [
            (
                &[artifact],
                "exporter option \"oci-artifact=true\" conflicts with \"oci-mediatypes=false\"",
            ),
            (
                &[("annotation-index.a", "b")],
                "cannot export annotations with \"oci-mediatypes=false\"",
            ),
        ] {
            assert_eq!(old(pairs, false).unwrap_err().to_string(), message);
        }
    }

    /// Rows: E06, W10, W26
    #[test]
    fn bad_and_conflicting_options_are_refused() {
        for (pairs, message) in [
            (
                &[("push", "maybe")][..],
                "non-bool value specified for push",
            ),
            (
                &[("compression-level", "x")],
                "non-integer value \"x\" specified for compression-level",
            ),
            (
                &[("compression", "lzma")],
                "unsupported compression type lzma",
            ),
            (
                &[("unpack", "true"), ("rewrite-timestamp", "1")],
                "exporter option \"rewrite-timestamp\" conflicts with \"unpack\"",
            ),
            (
                &[("compression", "estargz"), ("oci-mediatypes", "false")],
                "exporter option \"compression=estargz\" conflicts with \"oci-mediatypes=false\"",
            ),
            (
                &[("compression", "estargz")],
                "compression=estargz is not supported yet",
            ),
            (
                &[("annotation-index.a", "b"), ("oci-mediatypes", "false")],
                "cannot export annotations with \"oci-mediatypes=false\"",
            ),
            (
                &[("annotation-nowhere.a", "b")],
                "invalid annotation key \"annotation-nowhere.a\"",
            ),
        ] {
            assert_eq!(parse(pairs).unwrap_err().to_string(), message);
        }
    }
}
