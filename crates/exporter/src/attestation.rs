//! Statements about an image, in a manifest of their own beside it (core.md §3.8).

use std::collections::BTreeMap;

use bytes::Bytes;
use oci::{Descriptor, ImageName, Platform, media_type as media};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::document::{self, Parts};
use crate::{Error, Result, Statement, go_json};

const ARTIFACT_TYPE: &str = "application/vnd.docker.attestation.manifest.v1+json";
const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";

#[derive(Serialize)]
struct InToto<'a> {
    #[serde(rename = "_type")]
    kind: &'static str,
    #[serde(rename = "predicateType")]
    predicate_type: &'a str,
    subject: Vec<Subject>,
    predicate: Box<RawValue>,
}

#[derive(Serialize)]
struct Subject {
    name: String,
    digest: BTreeMap<&'static str, String>,
}

/// A manifest with statements, and everything it points at.
pub(crate) struct Attestations {
    pub(crate) documents: Vec<(Descriptor, Bytes)>,
    pub(crate) manifest: Descriptor,
}

/// Makes the manifest of all statements about one image manifest.
pub(crate) fn manifest(
    statements: &[Statement],
    image: &Descriptor,
    platform: &Platform,
    names: &[ImageName],
    oci: bool,
    artifact: bool,
) -> Result<Attestations> {
    let mut documents = Vec::new();
    let mut layers = Vec::new();
    for statement in statements {
        let bytes = in_toto(statement, image, platform, names)?;
        let mut layer = Descriptor::of(media::IN_TOTO, &bytes);
        let predicate_type = statement.predicate_type.clone();
        layer
            .annotations
            .insert(PREDICATE_TYPE.to_owned(), predicate_type);
        documents.push((layer.clone(), Bytes::from(bytes)));
        layers.push(layer);
    }
    let config_bytes = if artifact {
        b"{}".to_vec()
    } else {
        legacy_config(&layers)
    };
    let config_type = match (artifact, oci) {
        (true, _) => media::OCI_EMPTY,
        (false, true) => media::OCI_CONFIG,
        (false, false) => media::DOCKER_CONFIG,
    };
    let mut config = Descriptor::of(config_type, &config_bytes);
    if artifact {
        config.data = Some("e30=".to_owned());
    }
    documents.push((config.clone(), Bytes::from(config_bytes)));
    let subject = Descriptor::new(image.media_type.clone(), image.digest, image.size);
    let parts = Parts {
        artifact_type: artifact.then_some(ARTIFACT_TYPE),
        subject: artifact.then_some(&subject),
        annotations: BTreeMap::new(),
    };
    let (media_type, bytes) = document::manifest(oci, &config, &layers, &parts);
    let mut manifest = Descriptor::of(media_type, &bytes);
    documents.push((manifest.clone(), Bytes::from(bytes)));
    manifest.platform = Some(Platform {
        architecture: "unknown".to_owned(),
        os: "unknown".to_owned(),
        ..Platform::default()
    });
    manifest.annotations = BTreeMap::from([
        (
            "vnd.docker.reference.digest".to_owned(),
            image.digest.to_string(),
        ),
        (
            "vnd.docker.reference.type".to_owned(),
            "attestation-manifest".to_owned(),
        ),
    ]);
    Ok(Attestations {
        documents,
        manifest,
    })
}

fn in_toto(
    statement: &Statement,
    image: &Descriptor,
    platform: &Platform,
    names: &[ImageName],
) -> Result<Vec<u8>> {
    let text = String::from_utf8_lossy(&statement.predicate);
    let predicate = RawValue::from_string(go_json::squeezed(&text)).map_err(Error::ConfigJson)?;
    let digest = || BTreeMap::from([("sha256", image.digest.hex())]);
    let mut subject: Vec<Subject> = names
        .iter()
        .map(|name| Subject {
            name: package_url(name, platform),
            digest: digest(),
        })
        .collect();
    if subject.is_empty() {
        subject.push(Subject {
            name: "_".to_owned(),
            digest: digest(),
        });
    }
    Ok(go_json::compact(&InToto {
        kind: "https://in-toto.io/Statement/v1",
        predicate_type: &statement.predicate_type,
        subject,
        predicate,
    }))
}

/// `pkg:docker/<path>@<tag>?platform=<os>%2F<arch>`.
pub(crate) fn package_url(name: &ImageName, platform: &Platform) -> String {
    let path = if name.registry() == "docker.io" {
        let path = name.repository();
        path.strip_prefix("library/").unwrap_or(path).to_owned()
    } else {
        name.name().replace(':', "%3A")
    };
    let version = name.tag().map(|tag| format!("@{tag}")).unwrap_or_default();
    format!(
        "pkg:docker/{path}{version}?platform={}",
        platform.to_string().replace('/', "%2F")
    )
}

fn legacy_config(layers: &[Descriptor]) -> Vec<u8> {
    let diff_ids: Vec<_> = layers.iter().map(|layer| layer.digest).collect();
    go_json::compact(&serde_json::json!({
        "architecture": "unknown",
        "os": "unknown",
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows: W51, W52, W53, W54
    #[test]
    fn statements_name_their_image_and_the_manifest_points_at_it() {
        let image = Descriptor::of(media::OCI_MANIFEST, b"image");
        let platform: Platform = "linux/amd64".parse().unwrap();
        let names = [
            "alpine:3".parse().unwrap(),
            "reg.example:5000/a/b:t".parse().unwrap(),
        ];
        let statement = Statement {
            predicate_type: "https://spdx.dev/Document".to_owned(),
            predicate: Bytes::from_static(b"{ \"a\": 1 }"),
            file_name: "sbom.spdx.json".to_owned(),
            inline_only: false,
        };
        let made = manifest(&[statement], &image, &platform, &names, true, true).unwrap();
        let text = |at: usize| String::from_utf8(made.documents[at].1.to_vec()).unwrap();
        expect_test::expect![[r#"{"_type":"https://in-toto.io/Statement/v1","predicateType":"https://spdx.dev/Document","subject":[{"name":"pkg:docker/alpine@3?platform=linux%2Famd64","digest":{"sha256":"6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d"}},{"name":"pkg:docker/reg.example%3A5000/a/b@t?platform=linux%2Famd64","digest":{"sha256":"6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d"}}],"predicate":{"a":1}}"#]]
            .assert_eq(&text(0));
        assert!(text(2).contains("\"artifactType\": \"application/vnd.docker.attestation"));
        assert!(text(2).contains("\"data\": \"e30=\"") && text(2).contains("\"subject\": {"));
        assert_eq!(
            made.manifest.annotations["vnd.docker.reference.digest"],
            image.digest.to_string()
        );
    }
}
