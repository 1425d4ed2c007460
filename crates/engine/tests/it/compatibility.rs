//! Output as earlier releases made it.

use std::collections::BTreeMap;

use engine::{Built, Compatibility, Engine, Failure, Request, Spec};
use serde_json::Value;

use crate::setup;

/// Builds an image of one file.
async fn build(
    engine: &Engine,
    compatibility: Compatibility,
    options: &[(&str, &str)],
    attrs: &[(&str, &str)],
) -> Result<Built, Failure> {
    let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        let pairs = pairs.iter();
        pairs.map(|(k, v)| ((*k).into(), (*v).into())).collect()
    };
    let spec = Spec {
        kind: "image".to_owned(),
        attrs: map(attrs),
    };
    let request = Request {
        exporters: vec![spec],
        compatibility,
        ..setup::of_one_file(map(options))
    };
    setup::build(engine, request).await
}

/// The media types, the form of statements, the number in provenance: each version has its own.
/// The oldest has no zstd, which is said before anything is done.
///
/// Rows: A17, E08, P03, W8
#[tokio::test(flavor = "multi_thread")]
async fn privileged_each_version_writes_images_as_it_did() {
    let Some((engine, _dir)) = setup::engine().await else {
        return;
    };
    let read = |digest: &Value| setup::read(&engine, digest);
    let built = |built: Result<Built, Failure>| {
        let digest = &built.unwrap().response["containerimage.digest"];
        read(&Value::from(digest.clone()))
    };
    for number in [10, 20, 30] {
        let version = Compatibility::of(number).unwrap();
        let newest = version == Compatibility::default();
        let manifest = built(build(&engine, version, &[], &[]).await);
        let expected = match newest {
            true => oci::media_type::OCI_MANIFEST,
            false => oci::media_type::DOCKER_MANIFEST,
        };
        assert_eq!(manifest["mediaType"], expected, "{number}");
        let chosen = built(build(&engine, version, &[], &[("oci-mediatypes", "true")]).await);
        assert_eq!(chosen["mediaType"], oci::media_type::OCI_MANIFEST);

        let told = [("attest:provenance", "mode=min")];
        let index = built(build(&engine, version, &told, &[]).await);
        assert_eq!(index["mediaType"], oci::media_type::OCI_INDEX, "{number}");
        let statements = read(&index["manifests"][1]["digest"]);
        assert_eq!(statements["artifactType"].is_string(), newest, "{number}");
        let statement = read(&statements["layers"][0]["digest"]);
        let request = &statement["predicate"]["buildDefinition"]["externalParameters"]["request"];
        assert_eq!(request["compatibilityVersion"], number);

        let zstd = build(&engine, version, &[], &[("compression", "zstd")]).await;
        if version == Compatibility::V013 {
            let failure = zstd.unwrap_err();
            let feature = "image exporter compression=zstd";
            assert_eq!(
                failure.message,
                format!("unsupported compatibility-version 10 feature {feature}")
            );
            assert_eq!(
                failure.lacks,
                Some(engine::Lack::Feature(version, feature.to_owned()))
            );
        } else {
            zstd.unwrap();
        }
    }
    engine.close().await;
}
