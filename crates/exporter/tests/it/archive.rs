//! Archives: an OCI layout in one pass, and what `docker load` wants.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

use exporter::archive::{Format, stream};
use exporter::{Error, ImageOptions, Source, image};
use futures::TryStreamExt as _;
use oci::Digest;
use serde_json::Value;

use super::setup::{State, attrs, source, state, tar};

async fn archive(
    state: &State,
    pairs: &[(&str, &str)],
    format: Format,
) -> BTreeMap<String, Vec<u8>> {
    let result = state.on(None, &tar(&[("hello", "world")]));
    let options = ImageOptions::parse(&attrs(pairs)).unwrap();
    let written = image::write(&source(Some(result), &[]), &options, &state.cx)
        .await
        .unwrap();
    let pieces = stream(Arc::new(written), format, options.epoch, state.cx.clone()).unwrap();
    let bytes: Vec<u8> = pieces.try_collect::<Vec<_>>().await.unwrap().concat();
    let mut reader = layer::tar::Reader::new(&bytes[..]);
    let mut files = BTreeMap::new();
    while let Some(entry) = reader.entry().unwrap() {
        let mut contents = Vec::new();
        reader.read_to_end(&mut contents).unwrap();
        files.insert(entry.display(), contents);
    }
    files
}

/// Rows: E04, W63
#[tokio::test]
async fn privileged_an_oci_archive_holds_every_blob_and_names_the_image() {
    let Some(state) = state() else { return };
    let pairs = [
        ("name", "app:1,reg.example/app:2"),
        ("source-date-epoch", "0"),
    ];
    let files = archive(&state, &pairs, Format::Oci).await;
    for (path, bytes) in &files {
        if let Some(hex) = path
            .strip_prefix("blobs/sha256/")
            .filter(|hex| !hex.is_empty())
        {
            assert_eq!(Digest::of(bytes).hex(), hex);
        }
    }
    assert_eq!(files["oci-layout"], br#"{"imageLayoutVersion":"1.0.0"}"#);
    assert!(!files.contains_key("manifest.json"));
    let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
    let names: Vec<&str> = index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            entry["annotations"]["io.containerd.image.name"]
                .as_str()
                .unwrap()
        })
        .collect();
    assert_eq!(names, ["docker.io/library/app:1", "reg.example/app:2"]);
    let annotations = &index["manifests"][0]["annotations"];
    assert_eq!(
        annotations["org.opencontainers.image.created"],
        "1970-01-01T00:00:00Z"
    );
    assert_eq!(annotations["org.opencontainers.image.ref.name"], "1");
}

/// Rows: E04, W63
#[tokio::test]
async fn privileged_a_docker_archive_has_its_manifest_and_takes_one_platform() {
    let Some(state) = state() else { return };
    let pairs = [("name", "app"), ("oci-mediatypes", "false")];
    let files = archive(&state, &pairs, Format::Docker).await;
    let manifest: Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
    assert_eq!(manifest[0]["RepoTags"][0], "app:latest");
    for path in [&manifest[0]["Config"], &manifest[0]["Layers"][0]] {
        assert!(files.contains_key(path.as_str().unwrap()), "{path}");
    }
    let platforms =
        br#"{"Platforms":[{"ID":"x","Platform":{"architecture":"amd64","os":"linux"}}]}"#;
    let metadata = BTreeMap::from([("refs.platforms".to_owned(), (&platforms[..]).into())]);
    let many = Source::new(None, BTreeMap::from([("x".to_owned(), None)]), &metadata).unwrap();
    let written = image::write(&many, &ImageOptions::default(), &state.cx)
        .await
        .unwrap();
    let refused = stream(Arc::new(written), Format::Docker, None, state.cx.clone());
    assert!(matches!(refused.err(), Some(Error::DockerList)));
}

/// Rows: W61, W15, W4, W10
#[tokio::test]
async fn privileged_an_empty_image_and_an_index_have_their_response_keys() {
    let Some(state) = state() else { return };
    let options = ImageOptions::parse(&attrs(&[("name", "a,b"), ("annotation.x", "y")])).unwrap();
    let written = image::write(&source(None, &[]), &options, &state.cx)
        .await
        .unwrap();
    let response = written.response();
    assert_eq!(
        response["image.name"],
        "docker.io/library/a:latest,docker.io/library/b:latest"
    );
    assert_eq!(
        response["containerimage.digest"],
        written.descriptor.digest.to_string()
    );
    assert!(response.contains_key("containerimage.config.digest"));
    let text = String::from_utf8(
        written
            .document(&written.descriptor)
            .await
            .unwrap()
            .to_vec(),
    )
    .unwrap();
    assert!(
        text.contains("\"annotations\": {\n    \"x\": \"y\"\n  }"),
        "{text}"
    );
    let options = ImageOptions::parse(&attrs(&[("annotation-index.x", "y")])).unwrap();
    let refused = image::write(&source(None, &[]), &options, &state.cx).await;
    assert!(matches!(refused.err(), Some(Error::NoIndex)));
}

/// Rows: W63
#[tokio::test]
async fn privileged_an_image_is_copied_blob_by_blob() {
    let Some(state) = state() else { return };
    let result = state.on(None, &tar(&[("hello", "world")]));
    let options = ImageOptions::parse(&attrs(&[("tar", "false")])).unwrap();
    assert_eq!(options.tar, Some(false));
    let written = image::write(&source(Some(result), &[]), &options, &state.cx)
        .await
        .unwrap();
    let other = tempfile::tempdir().unwrap();
    let store = content::Store::open(other.path(), Arc::new(db::Db::memory().unwrap())).unwrap();
    exporter::archive::copy_into(&written, &store, &state.cx)
        .await
        .unwrap();
    assert_eq!(store.list().unwrap().len(), 3, "layer, config, manifest");
    assert!(store.contains(&written.descriptor.digest).unwrap());
}

/// A result for each platform gives an index, statements a manifest beside it.
///
/// Rows: W4, W9, W47, W48, W53
#[tokio::test]
async fn privileged_platforms_and_statements_give_an_index() {
    let Some(state) = state() else { return };
    let platforms = br#"{"Platforms":[
        {"ID":"a","Platform":{"architecture":"arm64","os":"linux"}},
        {"ID":"b","Platform":{"architecture":"amd64","os":"linux"}}]}"#;
    let metadata = BTreeMap::from([("refs.platforms".to_owned(), (&platforms[..]).into())]);
    let by_id = BTreeMap::from([("a".to_owned(), None), ("b".to_owned(), None)]);
    let mut source = Source::new(None, by_id, &metadata).unwrap();
    source.results[0].statements.push(exporter::Statement {
        predicate_type: "https://slsa.dev/provenance/v1".to_owned(),
        predicate: (&b"{}"[..]).into(),
        file_name: "provenance.json".to_owned(),
        inline_only: false,
        ..exporter::Statement::default()
    });
    let pairs = [
        ("annotation-index.k", "v"),
        ("annotation[linux/amd64].only", "b"),
    ];
    let options = ImageOptions::parse(&attrs(&pairs)).unwrap();
    let written = image::write(&source, &options, &state.cx).await.unwrap();
    let index: Value =
        serde_json::from_slice(&written.document(&written.descriptor).await.unwrap()).unwrap();
    let entries = index["manifests"].as_array().unwrap();
    let kinds: Vec<&str> = entries
        .iter()
        .map(|e| e["platform"]["architecture"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["arm64", "amd64", "unknown"]);
    assert_eq!(
        entries[2]["annotations"]["vnd.docker.reference.digest"],
        entries[0]["digest"]
    );
    assert_eq!(index["annotations"]["k"], "v");
    let amd64 = written
        .document(&written.manifests[1].descriptor)
        .await
        .unwrap();
    assert!(String::from_utf8_lossy(&amd64).contains("\"only\": \"b\""));
    let wrong = ImageOptions::parse(&attrs(&[("annotation[linux/s390x].x", "y")])).unwrap();
    let error = image::write(&source, &wrong, &state.cx)
        .await
        .err()
        .unwrap();
    assert_eq!(
        error.to_string(),
        "invalid annotation: no platform linux/s390x found in source"
    );
}

/// Statements for inline use alone make no index, but are in one that is there. Docker's
/// documents have no place for any.
///
/// Rows: W4, W11
#[tokio::test]
async fn privileged_inline_statements_go_where_an_index_is() {
    let Some(state) = state() else { return };
    let statement = exporter::Statement {
        predicate_type: "https://slsa.dev/provenance/v1".to_owned(),
        predicate: (&b"{}"[..]).into(),
        file_name: "provenance.json".to_owned(),
        inline_only: true,
        ..exporter::Statement::default()
    };
    let platforms =
        br#"{"Platforms":[{"ID":"a","Platform":{"architecture":"amd64","os":"linux"}}]}"#;
    let metadata = BTreeMap::from([("refs.platforms".to_owned(), (&platforms[..]).into())]);
    let by_id = BTreeMap::from([("a".to_owned(), None)]);
    let mut many = Source::new(None, by_id, &metadata).unwrap();
    let mut one = source(None, &[]);
    for source in [&mut many, &mut one] {
        source.results[0].statements = vec![statement.clone()];
    }
    let inline = [("attestation-inline", "true")];
    for (source, pairs, manifests) in [(&many, &[][..], 2), (&one, &[], 1), (&one, &inline[..], 2)]
    {
        let options = ImageOptions::parse(&attrs(pairs)).unwrap();
        let written = image::write(source, &options, &state.cx).await.unwrap();
        assert_eq!(written.manifests.len(), manifests, "{pairs:?}");
    }
    let docker = ImageOptions::parse(&attrs(&[("oci-mediatypes", "false")])).unwrap();
    image::write(&one, &docker, &state.cx).await.unwrap();
    let refused = image::write(&many, &docker, &state.cx).await.err().unwrap();
    assert_eq!(
        refused.to_string(),
        "cannot export attestations with \"oci-mediatypes=false\""
    );
}
