//! Compressions by their names in options and in media types.

use std::fmt;
use std::str::FromStr;

use oci::media_type as media;

use super::Algorithm;
use crate::{Error, Result};

impl Algorithm {
    /// The name in options.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Uncompressed => "uncompressed",
            Algorithm::Gzip => "gzip",
            Algorithm::Estargz => "estargz",
            Algorithm::Zstd => "zstd",
        }
    }

    /// The OCI media type of a layer so compressed.
    pub fn media_type(self) -> &'static str {
        match self {
            Algorithm::Uncompressed => media::OCI_LAYER,
            Algorithm::Gzip | Algorithm::Estargz => media::OCI_LAYER_GZIP,
            Algorithm::Zstd => media::OCI_LAYER_ZSTD,
        }
    }

    /// What a layer's media type says; its suffix decides.
    pub fn of_media_type(media_type: &str) -> Result<Algorithm> {
        if !media::is_layer(media_type) {
            return Err(Error::MediaType(media_type.to_owned()));
        }
        match media_type.rsplit(['+', '.']).next() {
            Some("gzip") => Ok(Algorithm::Gzip),
            Some("zstd") => Ok(Algorithm::Zstd),
            Some("tar") => Ok(Algorithm::Uncompressed),
            _ => Err(Error::MediaType(media_type.to_owned())),
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Algorithm {
    type Err = Error;

    fn from_str(text: &str) -> Result<Algorithm> {
        match text {
            "uncompressed" => Ok(Algorithm::Uncompressed),
            "gzip" => Ok(Algorithm::Gzip),
            "estargz" => Ok(Algorithm::Estargz),
            "zstd" => Ok(Algorithm::Zstd),
            other => Err(Error::UnknownCompression(other.to_owned())),
        }
    }
}

/// Pairs of one layer kind in the two families, OCI first.
const FAMILIES: [(&str, &str); 5] = [
    (media::OCI_LAYER, media::DOCKER_LAYER),
    (media::OCI_LAYER_GZIP, media::DOCKER_LAYER_GZIP),
    (media::OCI_LAYER_ZSTD, media::DOCKER_LAYER_ZSTD),
    (media::OCI_LAYER_NONDIST, media::DOCKER_FOREIGN),
    (media::OCI_LAYER_NONDIST_GZIP, media::DOCKER_FOREIGN_GZIP),
];

/// The same layer's media type in OCI's family; unknown ones stay.
pub fn to_oci(media_type: &str) -> &str {
    FAMILIES
        .iter()
        .find(|pair| pair.1 == media_type)
        .map_or(media_type, |pair| pair.0)
}

/// The same layer's media type in Docker's family; ones without a twin stay
/// (zstd that may not be distributed has none).
pub fn to_docker(media_type: &str) -> &str {
    FAMILIES
        .iter()
        .find(|pair| pair.0 == media_type)
        .map_or(media_type, |pair| pair.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows: W18
    #[test]
    fn media_types_convert_both_ways_and_name_their_compression() {
        for (oci, docker) in FAMILIES {
            assert_eq!((to_oci(docker), to_docker(oci)), (oci, docker));
            assert_eq!((to_oci(oci), to_docker(docker)), (oci, docker));
            assert_eq!(
                Algorithm::of_media_type(oci).unwrap(),
                Algorithm::of_media_type(docker).unwrap()
            );
        }
        assert_eq!(
            to_docker(media::OCI_LAYER_NONDIST_ZSTD),
            media::OCI_LAYER_NONDIST_ZSTD
        );
        assert_eq!(
            Algorithm::of_media_type(media::OCI_LAYER_ZSTD).unwrap(),
            Algorithm::Zstd
        );
        let error = Algorithm::of_media_type("text/plain").unwrap_err();
        assert_eq!(error.to_string(), "unsupported media type text/plain");
        assert_eq!(
            "lzma".parse::<Algorithm>().unwrap_err().to_string(),
            "unsupported compression type lzma"
        );
    }
}
