//! A list of what is in a result, made by an image that looks at its files
//! (BuildKit's SBOM scanning protocol).

use std::collections::BTreeMap;

use oci::ImageName;

use crate::{Error, Result};

/// The scanner that is used when nobody names one.
pub const DEFAULT_GENERATOR: &str = "docker/buildkit-syft-scanner:stable-1";

/// The predicate type of SPDX documents.
pub const SPDX: &str = "https://spdx.dev/Document";

/// The predicate type of CycloneDX documents.
pub const CYCLONEDX: &str = "https://cyclonedx.org/bom";

/// Keys and values of an attestation's metadata.
pub mod key {
    /// Why it was made.
    pub const REASON: &str = "reason";
    /// The value of [`REASON`] for lists of contents.
    pub const REASON_SBOM: &str = "sbom";
    /// Name, without its endings, of the document about the result itself.
    pub const SBOM_CORE: &str = "sbom-core";
    /// `true` where the statement is only for exporters that keep it in the image.
    pub const INLINE_ONLY: &str = "inline-only";
}

/// The settings of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sbom {
    /// The scanner's image.
    pub generator: ImageName,
    /// What is handed on to it, as `BUILDKIT_SCAN_<key>`.
    pub parameters: BTreeMap<String, String>,
}

impl Sbom {
    /// Reads the settings: what is not the generator is for the generator.
    pub fn parse(attrs: &BTreeMap<String, String>) -> Result<Sbom> {
        let mut parameters = attrs.clone();
        let generator = parameters.remove("generator");
        let generator = generator.unwrap_or_else(|| DEFAULT_GENERATOR.to_owned());
        // buildx repeats what it asks for.
        if parameters.get("type").is_some_and(|kind| kind == "sbom") {
            parameters.remove("type");
        }
        let wrong = |reason| Error::Value {
            kind: "sbom".to_owned(),
            key: "generator".to_owned(),
            value: generator.clone(),
            reason,
        };
        if generator.is_empty() {
            return Err(wrong("the scanner's image cannot be empty"));
        }
        let name = generator.parse::<ImageName>();
        let name = name.map_err(|_| wrong("not the name of an image"))?;
        let no_name = |key: &&String| key.is_empty() || key.contains(['=', '\0']);
        if parameters.keys().any(|key| no_name(&key)) {
            return Err(wrong("a parameter beside it has no name"));
        }
        Ok(Sbom {
            generator: name.or_latest(),
            parameters,
        })
    }
}

/// Whether a predicate of this type lists contents.
pub fn is_sbom(predicate_type: &str) -> bool {
    matches!(predicate_type, SPDX | CYCLONEDX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<Sbom> {
        let pairs = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Sbom::parse(&pairs.collect())
    }

    /// Rows: P01
    #[test]
    fn a_scanner_is_named_or_is_buildkits() {
        let usual = parse(&[("type", "sbom")]).unwrap();
        assert_eq!(
            usual.generator.to_string(),
            "docker.io/docker/buildkit-syft-scanner:stable-1"
        );
        assert!(usual.parameters.is_empty());
        let own = parse(&[("generator", "localhost:5000/scan"), ("DEPTH", "2")]).unwrap();
        assert_eq!(own.generator.to_string(), "localhost:5000/scan:latest");
        assert_eq!(own.parameters["DEPTH"], "2");
        for wrong in ["", "No Such Name"] {
            let error = parse(&[("generator", wrong)]).unwrap_err();
            assert_eq!(error.kind(), stdx::Kind::InvalidInput, "{error}");
        }
    }
}
