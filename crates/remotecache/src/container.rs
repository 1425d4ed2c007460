//! What lies around a cache config: an OCI image manifest, an OCI index or a Docker list.

use std::collections::HashMap;

use oci::media_type::{
    CACHE_CONFIG, DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_LAYER, OCI_MANIFEST,
};
use oci::{Descriptor, Digest, Index, Manifest};
use serde::Deserialize;

use crate::spec::Form;
use crate::{Error, Result};

/// A manifest or an index, as far as a cache needs it.
#[derive(Debug, Deserialize)]
struct Either {
    #[serde(default, rename = "mediaType")]
    media_type: String,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
}

/// What a manifest or an index says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Its media type, from what it says or from its shape.
    pub media_type: &'static str,
    /// The cache config, unless this is an ordinary image.
    pub config: Option<Descriptor>,
    /// The other blobs.
    pub blobs: HashMap<Digest, Descriptor>,
    /// All entries in order: layers of a manifest, manifests of an index.
    pub entries: Vec<Descriptor>,
    /// The image config of an ordinary manifest.
    pub image_config: Option<Descriptor>,
}

impl Container {
    /// Reads a manifest or an index of any family.
    pub fn parse(bytes: &[u8]) -> Result<Container> {
        let either: Either =
            serde_json::from_slice(bytes).map_err(Error::json("the cache manifest"))?;
        let is_manifest = either.config.is_some() || either.layers.is_some();
        if is_manifest && either.manifests.is_some() {
            return Err(Error::Ambiguous);
        }
        let inferred = if is_manifest {
            DOCKER_MANIFEST
        } else {
            DOCKER_LIST
        };
        let said = [OCI_MANIFEST, DOCKER_MANIFEST, OCI_INDEX, DOCKER_LIST]
            .into_iter()
            .find(|known| *known == either.media_type);
        let media_type = said.unwrap_or(inferred);
        let bare = !is_manifest && either.manifests.is_none();
        if oci::media_type::is_manifest(media_type) != is_manifest && !bare {
            return Err(Error::MediaTypeMismatch);
        }
        if bare && oci::media_type::is_manifest(media_type) {
            return Err(Error::MediaTypeMismatch);
        }
        let entries = either.layers.or(either.manifests).unwrap_or_default();
        let is_config = |blob: &&Descriptor| blob.media_type == CACHE_CONFIG;
        let (config, image_config) = match either.config {
            Some(config) if config.media_type == CACHE_CONFIG => (Some(config), None),
            Some(config) => (None, Some(config)),
            None => (entries.iter().rfind(is_config).cloned(), None),
        };
        let others = entries
            .iter()
            .filter(|blob| is_manifest || !is_config(blob));
        let blobs = others.map(|blob| (blob.digest, blob.clone())).collect();
        Ok(Container {
            media_type,
            config,
            blobs,
            entries,
            image_config,
        })
    }
}

/// The media type and bytes of the document around a config and its layers. Compact JSON.
pub fn write(form: Form, config: &Descriptor, layers: &[Descriptor]) -> (&'static str, Vec<u8>) {
    let media_type = match form {
        Form::Image => OCI_MANIFEST,
        Form::Index => OCI_INDEX,
        Form::DockerList => DOCKER_LIST,
    };
    let bytes = if form == Form::Image {
        serde_json::to_vec(&Manifest::new(media_type, config, layers))
    } else {
        let manifests = [layers, std::slice::from_ref(config)].concat();
        serde_json::to_vec(&Index::new(media_type, &manifests))
    };
    (media_type, bytes.expect("descriptors are always JSON"))
}

const DOCKER: &str = "application/vnd.docker.image.rootfs.diff.tar";
const DOCKER_FOREIGN: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar";
const OCI_NONDIST: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar";

/// A layer's media type in the OCI family or in Docker's; `None` when it is in neither.
pub(crate) fn in_family(media_type: &str, oci: bool) -> Option<String> {
    for (docker_base, oci_base) in [(DOCKER, OCI_LAYER), (DOCKER_FOREIGN, OCI_NONDIST)] {
        let compression = match media_type.strip_prefix(docker_base) {
            Some(rest) => rest.trim_start_matches('.'),
            None => match media_type.strip_prefix(oci_base) {
                Some(rest) => rest.trim_start_matches('+'),
                None => continue,
            },
        };
        return Some(match (compression, oci) {
            ("", true) => oci_base.to_owned(),
            ("", false) => docker_base.to_owned(),
            (compression, true) => format!("{oci_base}+{compression}"),
            (compression, false) => format!("{docker_base}.{compression}"),
        });
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> String {
        match Container::parse(text.as_bytes()) {
            Ok(container) => container.media_type.to_owned(),
            Err(error) => error.to_string(),
        }
    }

    /// Rows: I8, I9, I13
    #[test]
    fn what_it_is_shows_in_its_shape_unless_it_says_so() {
        let layer = format!(r#"{{"digest":"{}","size":1}}"#, Digest::of(b"x"));
        let cases = [
            (r#"{}"#.to_owned(), DOCKER_LIST),
            (format!(r#"{{"layers":[{layer}]}}"#), DOCKER_MANIFEST),
            (format!(r#"{{"config":{layer}}}"#), DOCKER_MANIFEST),
            (format!(r#"{{"manifests":[{layer}]}}"#), DOCKER_LIST),
            (
                format!(r#"{{"mediaType":"{OCI_INDEX}","manifests":[]}}"#),
                OCI_INDEX,
            ),
            (
                format!(r#"{{"mediaType":"{OCI_MANIFEST}","layers":[]}}"#),
                OCI_MANIFEST,
            ),
            (
                format!(r#"{{"mediaType":"text/plain","layers":[{layer}]}}"#),
                DOCKER_MANIFEST,
            ),
            (
                format!(r#"{{"layers":[{layer}],"manifests":[{layer}]}}"#),
                "invalid ambiguous manifest and manifest list",
            ),
            (
                format!(r#"{{"mediaType":"{OCI_INDEX}","layers":[{layer}]}}"#),
                "mediaType in manifest does not match manifest contents",
            ),
            (
                format!(r#"{{"mediaType":"{OCI_MANIFEST}","manifests":[{layer}]}}"#),
                "mediaType in manifest does not match manifest contents",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(kind(&text), expected, "{text}");
        }
    }

    /// Rows: I11, I12, I14, X4
    #[test]
    fn every_form_is_read_back() {
        let config = Descriptor::of(CACHE_CONFIG, b"{}");
        let layers = [Descriptor::of(oci::media_type::OCI_LAYER_GZIP, b"layer")];
        for form in [Form::Image, Form::Index, Form::DockerList] {
            let (media_type, bytes) = write(form, &config, &layers);
            let read = Container::parse(&bytes).unwrap();
            assert_eq!(read.media_type, media_type);
            assert_eq!(read.config.as_ref(), Some(&config));
            assert_eq!(
                read.blobs,
                HashMap::from([(layers[0].digest, layers[0].clone())])
            );
        }
        let text = String::from_utf8(write(Form::Index, &config, &layers).1).unwrap();
        assert!(
            text.starts_with(r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index"#)
        );
        assert!(text.ends_with(&format!(r#""digest":"{}","size":2}}]}}"#, config.digest)));
    }

    /// Rows: core:X11, X21
    #[test]
    fn layer_types_change_family() {
        use oci::media_type as m;
        for (docker, oci) in [
            (m::DOCKER_LAYER, m::OCI_LAYER),
            (m::DOCKER_LAYER_GZIP, m::OCI_LAYER_GZIP),
            (m::DOCKER_LAYER_ZSTD, m::OCI_LAYER_ZSTD),
            (m::DOCKER_FOREIGN, m::OCI_LAYER_NONDIST),
            (m::DOCKER_FOREIGN_GZIP, m::OCI_LAYER_NONDIST_GZIP),
        ] {
            for from in [docker, oci] {
                assert_eq!(in_family(from, true).as_deref(), Some(oci));
                assert_eq!(in_family(from, false).as_deref(), Some(docker));
            }
        }
        assert_eq!(in_family("text/plain", true), None);
    }
}
