//! What BuildKit made of our Dockerfiles: the same graph, digest by digest, and the
//! same config.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use frontend::metadata_key;
use serde_json::Value;

use testkit::bridge::FakeBridge;

/// Golden Dockerfiles that do not pass yet.
const EXPECTED_TO_FAIL: [&str; 0] = [];

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden")
}

fn read(name: &str, file: &str) -> String {
    std::fs::read_to_string(golden().join(name).join(file)).unwrap()
}

fn json(name: &str, file: &str) -> Value {
    serde_json::from_str(&read(name, file)).unwrap()
}

/// The session id is part of the local source's digest; with the same one, all
/// digests have to be the same.
fn session(llb: &Value) -> String {
    let ops = llb["def"].as_object().unwrap().values();
    let attr = |op: &Value| {
        op["source"]["attrs"]["local.session"]
            .as_str()
            .map(str::to_owned)
    };
    ops.filter_map(attr)
        .next()
        .unwrap_or_else(|| "session".into())
}

fn bridge(name: &str, llb: &Value) -> FakeBridge {
    let mut bridge = FakeBridge::new(&read(name, "Dockerfile"))
        .options(&[("build-arg:SOURCE_DATE_EPOCH", "1700000000")]);
    bridge.session = session(llb);
    let ignore = std::fs::read(golden().join("ctx/.dockerignore")).unwrap();
    bridge.file("context", ".dockerignore", ignore);
    bridge
}

/// Ids of progress groups are drawn by lot, and how the file was loaded has another
/// session.
fn without_lots(mut llb: Value) -> Value {
    for (_, metadata) in llb["metadata"].as_object_mut().unwrap() {
        if let Some(group) = metadata.get_mut("progress_group") {
            group["id"] = "".into();
        }
    }
    for info in llb["source"]["infos"].as_array_mut().unwrap() {
        info["definition"] = Value::Null;
    }
    llb
}

fn differences(at: &str, ours: &Value, theirs: &Value, found: &mut Vec<String>) {
    match (ours, theirs) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let (a, b) = (
                    a.get(key).unwrap_or(&Value::Null),
                    b.get(key).unwrap_or(&Value::Null),
                );
                differences(&format!("{at}.{key}"), a, b, found);
            }
        }
        (a, b) if a == b => {}
        (a, b) => found.push(format!("{at}: ours {a}, theirs {b}")),
    }
}

async fn convert(name: &str) -> Result<Vec<String>, String> {
    let theirs = json(name, "llb.json");
    let bridge = bridge(name, &theirs).options(&[("requestid", "frontend.convertllb")]);
    let result = dockerfile::build(&bridge)
        .await
        .map_err(|e| format!("{e:?}"))?;
    let ours: Value = serde_json::from_slice(&result.metadata[metadata_key::RESULT_JSON]).unwrap();
    let mut found = Vec::new();
    differences("", &without_lots(ours), &without_lots(theirs), &mut found);
    Ok(found)
}

/// The parts of a config the frontend decides: all but the layers.
async fn config(name: &str) -> Result<Vec<String>, String> {
    let mut theirs = json(name, "config.json");
    let bridge = bridge(name, &json(name, "llb.json"));
    let result = dockerfile::build(&bridge)
        .await
        .map_err(|e| format!("{e:?}"))?;
    let text = String::from_utf8(result.metadata[metadata_key::IMAGE_CONFIG].to_vec()).unwrap();
    let mut ours: Value = serde_json::from_str(&text).unwrap();
    for side in [&mut ours, &mut theirs] {
        side.as_object_mut().unwrap().remove("rootfs");
        side.as_object_mut().unwrap().remove("created");
    }
    let mut found = Vec::new();
    differences("", &ours, &theirs, &mut found);
    // The exporter passes the inner config on as it is: its bytes count.
    let theirs = read(name, "config.json");
    let inner = |text: &str| {
        let at = text.find("\"config\":").unwrap();
        let end = text[at..].find("},\"").map_or(text.len(), |end| at + end);
        text[at..end].to_owned()
    };
    if inner(&text) != inner(&theirs) {
        found.push(format!(
            "bytes of config: ours {}, theirs {}",
            inner(&text),
            inner(&theirs)
        ));
    }
    Ok(found)
}

fn names() -> Vec<String> {
    let entries = std::fs::read_dir(golden())
        .unwrap()
        .map(|entry| entry.unwrap());
    let dockerfiles = entries.filter(|entry| entry.path().join("Dockerfile").exists());
    let mut names: Vec<String> = dockerfiles
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names.len(), 24, "all golden Dockerfiles are there");
    names
}

fn judge(results: BTreeMap<String, Result<Vec<String>, String>>) {
    let mut wrong = Vec::new();
    for (name, result) in results {
        let passed = result.as_ref().is_ok_and(Vec::is_empty);
        match (passed, EXPECTED_TO_FAIL.contains(&name.as_str())) {
            (true, false) | (false, true) => {}
            (true, true) => wrong.push(format!("{name} passes now: take it off the list")),
            (false, false) => wrong.push(format!("{name}: {result:#?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Rows: F13, F20, F21, F22, F23, F24, F25, F26, F27, F29, F08, F07
#[tokio::test]
async fn graphs_are_equal_op_by_op_and_digest_by_digest() {
    let mut results = BTreeMap::new();
    for name in names() {
        results.insert(name.clone(), convert(&name).await);
    }
    judge(results);
}

/// Rows: F27, F28, F29, F32
#[tokio::test]
async fn configs_are_equal() {
    let mut results = BTreeMap::new();
    for name in names() {
        results.insert(name.clone(), config(&name).await);
    }
    judge(results);
}
