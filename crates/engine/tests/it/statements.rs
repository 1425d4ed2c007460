//! Statements that a frontend brings along.

use std::collections::BTreeMap;

use engine::{ClientFrontend, Engine, Failure, Request, Spec};
use frontend::{Attestation, AttestationKind, FrontendResult, RefId, Refs, SolveRequest, Subject};
use llb::{Builder, FileOps, Meta, Mkfile};
use oci::{Digest, Platform};
use serde_json::Value;

use crate::setup;

const WHOLE: &str = r#"{"_type":"https://in-toto.io/Statement/v1","predicateType":"https://spdx.dev/Document","predicate":{"spdxVersion":"SPDX-2.3"}}"#;

fn attestation(kind: AttestationKind, reference: &RefId, path: &str) -> Attestation {
    Attestation {
        kind,
        reference: Some(reference.clone()),
        path: path.to_owned(),
        predicate_type: String::new(),
        subjects: Vec::new(),
        metadata: BTreeMap::new(),
    }
}

/// A frontend whose result has these statements; what they are read from is a tree with a
/// predicate and a directory of statements.
fn brings(change: impl FnOnce(&mut Attestation) + Send + 'static) -> ClientFrontend {
    Box::new(move |bridge| {
        Box::pin(async move {
            let mut builder = Builder::new();
            let file = |path: &str, text: &str| Mkfile {
                path: path.into(),
                mode: 0o644,
                data: text.to_owned().into(),
                ..Mkfile::default()
            };
            let dir = llb::Mkdir {
                path: "/all".into(),
                mode: 0o755,
                ..llb::Mkdir::default()
            };
            let files = FileOps::on(None)
                .mkfile(file("/p.json", "{\"p\": 1}"))
                .mkdir(dir)
                .mkfile(file("/all/sbom.json", WHOLE));
            let tree = builder.file(files, Meta::default());
            let definition = builder.definition(Some(&tree));
            let request = SolveRequest {
                definition,
                ..SolveRequest::default()
            };
            let reference = bridge.solve(request).await?.expect("it is not empty");
            let mut one = attestation(AttestationKind::InToto, &reference, "/p.json");
            one.predicate_type = "https://example.com/p".to_owned();
            one.subjects = vec![
                Subject::Own {
                    name: String::new(),
                },
                Subject::Raw {
                    name: "other".to_owned(),
                    digests: vec![Digest::of(b"other")],
                },
            ];
            change(&mut one);
            let bundle = attestation(AttestationKind::Bundle, &reference, "all");
            let host = Platform::host().normalized().to_string();
            Ok(FrontendResult {
                refs: Refs::One(Some(reference)),
                metadata: BTreeMap::new(),
                attestations: BTreeMap::from([(host, vec![one, bundle])]),
            })
        })
    })
}

async fn build(engine: &Engine, run: ClientFrontend) -> Result<BTreeMap<String, String>, Failure> {
    let spec = Spec {
        kind: "image".to_owned(),
        attrs: BTreeMap::from([("name".to_owned(), "app:1".to_owned())]),
    };
    let request = Request {
        exporters: vec![spec],
        ..setup::by(run)
    };
    Ok(setup::build(engine, request).await?.response)
}

/// Statements of a client's frontend are in the image, with what they speak of.
///
/// Rows: W49, W51
#[tokio::test(flavor = "multi_thread")]
async fn privileged_statements_of_a_client_are_in_the_image() {
    let Some((engine, _dir)) = setup::engine().await else {
        return;
    };
    let response = build(&engine, brings(|_| {})).await.unwrap();
    let read = |digest: &Value| setup::read(&engine, digest);
    let index = read(&Value::from(response["containerimage.digest"].clone()));
    let entries = index["manifests"].as_array().unwrap();
    assert_eq!(entries.len(), 2, "{index}");
    let manifest = read(&entries[1]["digest"]);
    let statements: Vec<Value> = manifest["layers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|layer| read(&layer["digest"]))
        .collect();
    let [one, bundled] = &statements[..] else {
        panic!("{statements:?}")
    };
    assert_eq!(one["predicateType"], "https://example.com/p");
    assert_eq!(one["predicate"]["p"], 1);
    let image = entries[0]["digest"].as_str().unwrap();
    let subjects = one["subject"].as_array().unwrap();
    let digest = |at: usize| {
        format!(
            "sha256:{}",
            subjects[at]["digest"]["sha256"].as_str().unwrap()
        )
    };
    assert_eq!((subjects.len(), digest(0).as_str()), (2, image));
    assert_eq!(subjects[1]["name"], "other");
    assert_eq!(digest(1), Digest::of(b"other").to_string());
    assert_eq!(bundled["predicateType"], "https://spdx.dev/Document");
    // What nobody may say but the builder is refused, and so is what is not there.
    for (change, message) in [
        (
            (|one: &mut Attestation| one.predicate_type = "https://slsa.dev/provenance/v1".into())
                as fn(&mut Attestation),
            "frontend may not set provenance attestations",
        ),
        (
            |one| one.path = "/none".into(),
            "cannot read in-toto attestation none",
        ),
    ] {
        let failure = build(&engine, brings(change)).await.unwrap_err();
        assert!(failure.message.starts_with(message), "{}", failure.message);
    }
    engine.close().await;
}
