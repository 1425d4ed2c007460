//! Lists of contents say for each file which layer it is in (core.md W50).

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use oci::go_json;
use refs::{LayerBlob, Ref};
use serde_json::{Value, json};

use crate::image::Context;
use crate::{PlatformResult, Result, Statement};

/// Who added to the list: the version as the daemon tells it to BuildKit's clients.
const TOOL: &str = concat!("Tool: buildkit-v", env!("CARGO_PKG_VERSION"));

/// The statements, with layers in the list of contents of the result itself. A document that
/// cannot be read, that is not SPDX, or that would be too large with them, stays as it is.
pub(crate) async fn with_layers(
    statements: Vec<Statement>,
    result: &PlatformResult,
    layers: &[LayerBlob],
    cx: &Context,
) -> Result<Vec<Statement>> {
    let Some(files) = &result.files else {
        return Ok(statements);
    };
    let mut done = Vec::with_capacity(statements.len());
    for mut statement in statements {
        let core = statement.core_sbom && statement.predicate_type == attest::SPDX;
        if core && let Some(more) = supplemented(&statement.predicate, files, layers, cx).await? {
            statement.predicate = more;
        }
        done.push(statement);
    }
    Ok(done)
}

async fn supplemented(
    predicate: &Bytes,
    files: &Ref,
    layers: &[LayerBlob],
    cx: &Context,
) -> Result<Option<Bytes>> {
    // These documents have many megabytes.
    let predicate = predicate.clone();
    let read = stdx::task::blocking(move || {
        let mut document = spdx(&predicate)?;
        let mut names = HashSet::new();
        each_file(&mut document, &mut |name, _| {
            names.insert(name.to_owned());
        });
        Some((document, names))
    });
    let Some((document, names)) = read.await else {
        return Ok(None);
    };
    let places = files.places(names, &*cx.provider, &cx.step).await?;
    let layers = layers.to_vec();
    let limit = attest::MAX_STATEMENT_SIZE;
    let told = move || told(document, &places, &layers, limit);
    Ok(stdx::task::blocking(told).await)
}

/// The document with what was found; nothing if it is too large then, though it was not before.
fn told(
    mut document: Value,
    places: &HashMap<String, usize>,
    layers: &[LayerBlob],
    limit: u64,
) -> Option<Bytes> {
    add(&mut document, places, layers);
    let text = go_json::compact(&document);
    (text.len() as u64 <= limit).then(|| text.into())
}

/// The document, if it is one.
fn spdx(predicate: &[u8]) -> Option<Value> {
    let document: Value = serde_json::from_slice(predicate).ok()?;
    let version = document.get("spdxVersion")?.as_str()?;
    version.starts_with("SPDX-2.").then_some(document)
}

/// Files without a comment, by their name in a layer.
fn each_file(
    document: &mut Value,
    visit: &mut impl FnMut(&str, &mut serde_json::Map<String, Value>),
) {
    let mut visit_all = |files: Option<&mut Value>| {
        for file in files.and_then(Value::as_array_mut).into_iter().flatten() {
            let Some(file) = file.as_object_mut() else {
                continue;
            };
            let commented = file.get("comment").and_then(Value::as_str);
            if commented.is_some_and(|comment| !comment.is_empty()) {
                continue;
            }
            let Some(name) = file.get("fileName").and_then(Value::as_str) else {
                continue;
            };
            let name = name.strip_prefix("./").unwrap_or(name);
            let name = name.trim_start_matches('/').to_owned();
            if !name.is_empty() {
                visit(&name, file);
            }
        }
    };
    visit_all(document.get_mut("files"));
    let packages = document.get_mut("packages").and_then(Value::as_array_mut);
    for package in packages.into_iter().flatten() {
        visit_all(package.get_mut("files"));
    }
}

fn add(document: &mut Value, places: &HashMap<String, usize>, layers: &[LayerBlob]) {
    each_file(document, &mut |name, file| {
        if let Some(layer) = places.get(name).and_then(|at| layers.get(*at)) {
            let comment = format!("layerID: {}", layer.descriptor.digest);
            file.insert("comment".to_owned(), comment.into());
        }
    });
    let Some(document) = document.as_object_mut() else {
        return;
    };
    let info = document.entry("creationInfo").or_insert_with(|| json!({}));
    let Some(info) = info.as_object_mut() else {
        return;
    };
    let creators = info.entry("creators").or_insert_with(|| json!([]));
    if let Some(creators) = creators.as_array_mut() {
        creators.push(TOOL.into());
    }
}

#[cfg(test)]
mod tests {
    use oci::{Descriptor, DiffId, Digest};

    use super::*;

    /// Rows: W50
    #[test]
    fn files_say_their_layer_unless_they_say_something_else() {
        let layer = |text: &str| LayerBlob {
            descriptor: Descriptor::of("layer", text.as_bytes()),
            diff_id: DiffId(Digest::of(text)),
            description: String::new(),
            created: None,
        };
        let text = br#"{"spdxVersion":"SPDX-2.3","files":[{"fileName":"/bin/sh","SPDXID":"a"},
            {"fileName":"etc/x","comment":"mine"},{"fileName":"gone"}],
            "packages":[{"name":"p","files":[{"fileName":"./lib/a"}]}]}"#;
        let mut document = spdx(text).unwrap();
        let mut names = Vec::new();
        each_file(&mut document, &mut |name, _| names.push(name.to_owned()));
        assert_eq!(names, ["bin/sh", "gone", "lib/a"]);
        let places = [("bin/sh", 0), ("lib/a", 1), ("etc/x", 1)];
        let places = places.into_iter().map(|(name, at)| (name.to_owned(), at));
        let layers = [layer("one"), layer("two")];
        add(&mut document, &places.collect(), &layers);
        let [one, two] = layers.map(|layer| format!("layerID: {}", layer.descriptor.digest));
        assert_eq!(
            document,
            json!({
                "spdxVersion": "SPDX-2.3",
                "files": [
                    {"fileName": "/bin/sh", "SPDXID": "a", "comment": one},
                    {"fileName": "etc/x", "comment": "mine"},
                    {"fileName": "gone"},
                ],
                "packages": [{"name": "p", "files": [{"fileName": "./lib/a", "comment": two}]}],
                "creationInfo": {"creators": [TOOL]},
            })
        );
        let whole = go_json::compact(&document);
        let none = HashMap::new();
        let limit = whole.len() as u64;
        let again = || spdx(text).unwrap();
        assert!(told(again(), &none, &[], limit).is_some());
        assert_eq!(told(again(), &none, &[], text.len() as u64 / 2), None);
        for other in [
            &b"[]"[..],
            b"{",
            b"{\"spdxVersion\":\"SPDX-9\"}",
            b"{\"bomFormat\":1}",
        ] {
            assert!(spdx(other).is_none());
        }
    }
}
