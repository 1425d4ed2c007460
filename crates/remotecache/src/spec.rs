//! What a request says about remote caches, parsed.

use std::collections::BTreeMap;

use oci::{Digest, ImageName};
use solver::export::Mode;
use tracing::debug;

use crate::{Error, Result};

/// The document around the config.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// An OCI image manifest.
    Image,
    /// An OCI index.
    Index,
    /// A Docker manifest list.
    DockerList,
}

/// Where a cache goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExportTo {
    /// To a tag in a registry.
    Registry {
        /// The name.
        name: ImageName,
        /// Speak to it without checking who it is.
        insecure: bool,
    },
    /// To a directory of the client.
    Local {
        /// Name of the client's content store.
        dest: String,
    },
    /// Into the image that is built.
    Inline,
}

/// One export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportSpec {
    /// Where to.
    pub to: ExportTo,
    /// How much.
    pub mode: Mode,
    /// In which form.
    pub form: Form,
    /// Compression of layers that have to be made: `gzip`, `zstd`, …
    pub compression: Option<String>,
    /// Its level.
    pub level: Option<i32>,
    /// Also layers that are there are converted to that compression.
    pub force_compression: bool,
    /// A failure does not fail the build.
    pub ignore_error: bool,
}

/// Where a cache comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImportFrom {
    /// From a registry: a cache manifest, or an image with an inline cache.
    Registry {
        /// The name.
        name: ImageName,
        /// Speak to it without checking who it is.
        insecure: bool,
    },
    /// From a directory of the client.
    Local {
        /// Name of the client's content store.
        src: String,
        /// The manifest in it.
        digest: Digest,
    },
}

/// One import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportSpec {
    /// Where from.
    pub from: ImportFrom,
    /// Names it within a build: the same key is imported once. Shown to people.
    pub key: String,
}

type Attrs = BTreeMap<String, String>;

fn boolean(attrs: &Attrs, name: &str, default: bool) -> Result<bool> {
    let Some(value) = attrs.get(name) else {
        return Ok(default);
    };
    stdx::text::go_bool(value).ok_or_else(|| Error::Bool {
        name: name.to_owned(),
        value: value.clone(),
    })
}

fn image_name(attrs: &Attrs) -> Result<ImageName> {
    let name = attrs.get("ref").filter(|name| !name.is_empty());
    Ok(name
        .ok_or(Error::MissingAttribute("missing ref"))?
        .parse()?)
}

impl ExportSpec {
    /// Reads an entry of a request.
    pub fn parse(kind: &str, attrs: &Attrs) -> Result<ExportSpec> {
        let to = match kind {
            "registry" => ExportTo::Registry {
                name: image_name(attrs)?,
                insecure: boolean(attrs, "registry.insecure", false)?,
            },
            "local" => {
                let dest = attrs.get("dest").filter(|dest| !dest.is_empty());
                let missing = Error::MissingAttribute("local cache exporter requires dest");
                ExportTo::Local {
                    dest: dest.ok_or(missing)?.clone(),
                }
            }
            "inline" => ExportTo::Inline,
            "gha" | "s3" | "azblob" => return Err(Error::NotSupportedYet(kind.to_owned())),
            other => return Err(Error::UnknownExporter(other.to_owned())),
        };
        let level = match attrs.get("compression-level") {
            None => None,
            Some(text) => Some(text.parse().map_err(|_| Error::Attribute {
                name: "compression-level".to_owned(),
                value: text.clone(),
            })?),
        };
        Ok(ExportSpec {
            mode: if to == ExportTo::Inline {
                Mode::Min
            } else {
                mode(attrs)
            },
            to,
            form: form(attrs)?,
            compression: attrs.get("compression").cloned(),
            level,
            force_compression: boolean(attrs, "force-compression", false)?,
            ignore_error: ignore_error(attrs),
        })
    }

    /// What the step that does it is called.
    pub fn title(&self) -> &'static str {
        match self.to {
            ExportTo::Registry { .. } => "exporting cache to registry",
            ExportTo::Local { .. } => "exporting cache to client directory",
            ExportTo::Inline => "exporting inline cache",
        }
    }
}

fn mode(attrs: &Attrs) -> Mode {
    match attrs.get("mode").map(String::as_str) {
        Some("max") => Mode::Max,
        None | Some("min") => Mode::Min,
        Some(other) => {
            debug!(mode = other, "unknown cache export mode: taking min");
            Mode::Min
        }
    }
}

fn ignore_error(attrs: &Attrs) -> bool {
    let Some(value) = attrs.get("ignore-error") else {
        return false;
    };
    stdx::text::go_bool(value).unwrap_or_else(|| {
        debug!(
            value,
            "ignore-error is neither true nor false: taking false"
        );
        false
    })
}

fn form(attrs: &Attrs) -> Result<Form> {
    let oci = boolean(attrs, "oci-mediatypes", true)?;
    let image = boolean(attrs, "image-manifest", oci)?;
    match (oci, image) {
        (true, true) => Ok(Form::Image),
        (true, false) => Ok(Form::Index),
        (false, false) => Ok(Form::DockerList),
        (false, true) => Err(Error::ImageManifestNeedsOci),
    }
}

impl ImportSpec {
    /// Reads an entry of a request.
    pub fn parse(kind: &str, attrs: &Attrs) -> Result<ImportSpec> {
        match kind {
            "registry" => {
                let name = image_name(attrs)?;
                let insecure = boolean(attrs, "registry.insecure", false)?;
                let key = attrs.get("ref").cloned().unwrap_or_default();
                Ok(ImportSpec {
                    from: ImportFrom::Registry { name, insecure },
                    key,
                })
            }
            "local" => {
                let missing = Error::MissingAttribute("local cache importer requires src");
                let src = attrs
                    .get("src")
                    .filter(|src| !src.is_empty())
                    .ok_or(missing)?
                    .clone();
                let missing =
                    Error::MissingAttribute("local cache importer requires explicit digest");
                let digest = attrs.get("digest").filter(|digest| !digest.is_empty());
                let digest = digest.ok_or(missing)?;
                let wrong = |_| Error::Attribute {
                    name: "digest".to_owned(),
                    value: digest.clone(),
                };
                let digest = digest.parse().map_err(wrong)?;
                let attrs = serde_json::to_vec(attrs).expect("text is always JSON");
                let key = format!("local:{}", Digest::of(attrs));
                Ok(ImportSpec {
                    from: ImportFrom::Local { src, digest },
                    key,
                })
            }
            "gha" | "s3" | "azblob" => Err(Error::NotSupportedYet(kind.to_owned())),
            other => Err(Error::UnknownImporter(other.to_owned())),
        }
    }
}

/// Refuses two exports to one place; of several inline ones the first is kept.
pub fn check_duplicates(exports: Vec<(String, Attrs)>) -> Result<Vec<(String, Attrs)>> {
    let mut kept: Vec<(String, Attrs)> = Vec::new();
    let mut twice = Vec::new();
    for (kind, attrs) in exports {
        let same = |other: &(String, Attrs)| {
            other.0 == kind
                && match kind.as_str() {
                    "registry" => other.1.get("ref") == attrs.get("ref"),
                    "inline" => true,
                    _ => other.1 == attrs,
                }
        };
        if !kept.iter().any(same) {
            kept.push((kind, attrs));
        } else if kind != "inline" {
            twice.push(kind);
        }
    }
    if twice.is_empty() {
        Ok(kept)
    } else {
        Err(Error::Duplicate(twice.join(" ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attrs(pairs: &[(&str, &str)]) -> Attrs {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    fn export(kind: &str, pairs: &[(&str, &str)]) -> Result<ExportSpec, String> {
        ExportSpec::parse(kind, &attrs(pairs)).map_err(|error| error.to_string())
    }

    /// Rows: R01, R02, R03, X5, X24, X35, X37, X40
    #[test]
    fn exports_are_read() {
        let spec = export("registry", &[("ref", "example.com/cache")]).unwrap();
        assert_eq!((spec.mode, spec.form), (Mode::Min, Form::Image));
        assert!(!spec.ignore_error && !spec.force_compression);
        let spec = export(
            "local",
            &[
                ("dest", "x"),
                ("mode", "max"),
                ("image-manifest", "false"),
                ("ignore-error", "true"),
            ],
        )
        .unwrap();
        assert_eq!(
            (spec.mode, spec.form, spec.ignore_error),
            (Mode::Max, Form::Index, true)
        );
        assert_eq!(spec.title(), "exporting cache to client directory");
        let docker = [("dest", "x"), ("oci-mediatypes", "false"), ("mode", "most")];
        let spec = export("local", &docker).unwrap();
        assert_eq!((spec.mode, spec.form), (Mode::Min, Form::DockerList));
        assert_eq!(
            export("inline", &[("mode", "max")]).unwrap().mode,
            Mode::Min
        );
        let conflict = [
            ("dest", "x"),
            ("oci-mediatypes", "false"),
            ("image-manifest", "true"),
        ];
        for (kind, pairs, expected) in [
            ("registry", &[][..], "missing ref"),
            ("local", &[], "local cache exporter requires dest"),
            ("paper", &[], r#"unknown cache exporter: "paper""#),
            ("s3", &[], "cache type s3 is not supported yet"),
            (
                "registry",
                &[("ref", "a"), ("registry.insecure", "maybe")],
                "failed to parse registry.insecure",
            ),
        ] {
            assert_eq!(export(kind, pairs).unwrap_err(), expected);
        }
        let error = export("local", &conflict).unwrap_err();
        assert!(
            error.starts_with("invalid configuration for remote cache"),
            "{error}"
        );
    }

    /// Rows: R01, R02, I45
    #[test]
    fn imports_are_read() {
        let import = |kind: &str, pairs: &[(&str, &str)]| {
            ImportSpec::parse(kind, &attrs(pairs)).map_err(|error| error.to_string())
        };
        assert_eq!(import("registry", &[("ref", "a/b")]).unwrap().key, "a/b");
        for (kind, pairs, expected) in [
            ("registry", &[][..], "missing ref"),
            ("local", &[], "local cache importer requires src"),
            (
                "local",
                &[("src", "x")],
                "local cache importer requires explicit digest",
            ),
            ("paper", &[], "unknown cache importer: paper"),
            ("gha", &[], "cache type gha is not supported yet"),
        ] {
            assert_eq!(import(kind, pairs).unwrap_err(), expected);
        }
    }

    /// Rows: R07, X39
    #[test]
    fn two_exports_to_one_place_are_refused() {
        let entry = |kind: &str, pairs: &[(&str, &str)]| (kind.to_owned(), attrs(pairs));
        let kept = check_duplicates(vec![
            entry("inline", &[]),
            entry("inline", &[("x", "y")]),
            entry("registry", &[("ref", "a")]),
            entry("registry", &[("ref", "b")]),
            entry("local", &[("dest", "a")]),
        ]);
        assert_eq!(kept.unwrap().len(), 4);
        let same = [("ref", "a"), ("mode", "max")];
        let error = check_duplicates(vec![
            entry("registry", &[("ref", "a")]),
            entry("registry", &same),
        ]);
        assert_eq!(
            error.unwrap_err().to_string(),
            "duplicate cache exports [registry]"
        );
    }
}
