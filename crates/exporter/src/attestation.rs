//! Statements about an image, in a manifest of their own beside it (core.md §3.8).

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::PathBuf;

use attest::{PackageKind, Subject, package_url};
use bytes::Bytes;
use oci::{Descriptor, ImageName, Platform, annotation, go_json, media_type as media};
use serde_json::value::RawValue;
use stdx::sys::{FileKind, Root};

use crate::document::{self, Parts};
use crate::{About, Error, Result, Statement};

const ARTIFACT_TYPE: &str = "application/vnd.docker.attestation.manifest.v1+json";

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
            .insert(annotation::PREDICATE_TYPE.to_owned(), predicate_type);
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
            annotation::REFERENCE_DIGEST.to_owned(),
            image.digest.to_string(),
        ),
        (
            annotation::REFERENCE_TYPE.to_owned(),
            annotation::ATTESTATION_MANIFEST.to_owned(),
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
    let mut own: Vec<Subject> = names
        .iter()
        .map(|name| {
            let name = package_url(PackageKind::Docker, name, Some(platform), &[]);
            Subject::new(name, &image.digest)
        })
        .collect();
    if own.is_empty() {
        own.push(Subject::new("_", &image.digest));
    }
    Ok(go_json::compact(&whole(statement, &own)?).into_bytes())
}

/// The predicate with what it speaks of; `own` is the result.
fn whole(statement: &Statement, own: &[Subject]) -> Result<attest::Statement> {
    let subject = match &statement.about[..] {
        [] => own.to_vec(),
        about => about.iter().flat_map(|one| subjects_of(one, own)).collect(),
    };
    let size = statement.predicate.len() as u64;
    if size > attest::MAX_STATEMENT_SIZE {
        let name = statement.file_name.clone();
        return Err(Error::StatementSize { name, size });
    }
    let text = match statement.predicate.is_empty() {
        // A file with nothing in it states nothing.
        true => "null".into(),
        false => String::from_utf8_lossy(&statement.predicate),
    };
    let predicate = RawValue::from_string(go_json::squeezed(&text)).map_err(Error::Statement)?;
    let kind = &statement.predicate_type;
    Ok(attest::Statement::new(kind, subject, predicate))
}

fn subjects_of(about: &About, own: &[Subject]) -> Vec<Subject> {
    match about {
        About::Other(subject) => vec![subject.clone()],
        About::Result(None) => own.to_vec(),
        About::Result(Some(name)) => own
            .iter()
            .flat_map(|one| {
                let renamed = Subject {
                    name: name.clone(),
                    ..one.clone()
                };
                [one.clone(), renamed]
            })
            .collect(),
    }
}

/// Statements about the files of a tree, by file name (row P04). `suffix` tells one
/// platform's files from another's.
pub(crate) fn about_files(
    statements: &[Statement],
    tree: Option<&Root>,
    prefix: &str,
    suffix: Option<&str>,
) -> Result<Vec<(String, Bytes)>> {
    if statements.is_empty() {
        return Ok(Vec::new());
    }
    let subjects = match tree {
        Some(root) => subjects(root).map_err(Error::io("reading files for attestations"))?,
        None => Vec::new(),
    };
    let mut files: Vec<(String, Bytes)> = Vec::new();
    for statement in statements {
        let own = match (suffix, statement.file_name.rsplit_once('.')) {
            (None, _) => statement.file_name.clone(),
            (Some(suffix), Some((stem, extension))) => format!("{stem}.{suffix}.{extension}"),
            (Some(suffix), None) => format!("{}.{suffix}", statement.file_name),
        };
        let name = format!("{prefix}{own}");
        if files.iter().any(|(known, _)| *known == name) {
            return Err(Error::StatementName(name));
        }
        // Through a value, so that the predicate is indented too.
        let whole = serde_json::to_value(whole(statement, &subjects)?);
        let whole = whole.map_err(Error::Statement)?;
        files.push((name, Bytes::from(go_json::indented(&whole))));
    }
    Ok(files)
}

/// Every regular file with its digest, in the order of a walk.
fn subjects(root: &Root) -> io::Result<Vec<Subject>> {
    let mut subjects = Vec::new();
    let mut todo = vec![(PathBuf::new(), true)];
    let mut buffer = vec![0; 64 << 10];
    while let Some((path, is_dir)) = todo.pop() {
        if is_dir {
            let mut inside = Vec::new();
            for entry in root.read_dir_sorted(&path)? {
                let path = path.join(&entry.name);
                match root.lstat(&path)?.kind {
                    FileKind::Dir => inside.push((path, true)),
                    FileKind::File => inside.push((path, false)),
                    _ => {}
                }
            }
            todo.extend(inside.into_iter().rev());
            continue;
        }
        let mut file = root.open_file(&path)?;
        let mut hasher = oci::Algorithm::Sha256.hasher();
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                count => hasher.update(&buffer[..count]),
            }
        }
        subjects.push(Subject::new(path.to_string_lossy(), &hasher.finish()));
    }
    Ok(subjects)
}

fn legacy_config(layers: &[Descriptor]) -> Vec<u8> {
    let diff_ids: Vec<_> = layers.iter().map(|layer| layer.digest).collect();
    go_json::compact(&serde_json::json!({
        "architecture": "unknown",
        "os": "unknown",
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    }))
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows: W49
    #[test]
    fn an_empty_file_is_a_predicate_that_states_nothing() {
        let empty = Statement {
            predicate_type: "https://example.com/p".to_owned(),
            file_name: "empty.json".to_owned(),
            ..Statement::default()
        };
        let files = about_files(&[empty], None, "", None).unwrap();
        let text = String::from_utf8_lossy(&files[0].1).into_owned();
        assert!(text.ends_with("\"predicate\": null\n}"), "{text}");
    }

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
            ..Statement::default()
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
