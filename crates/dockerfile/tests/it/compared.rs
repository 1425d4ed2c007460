//! Dockerfiles whose graphs and configs were compared, op by op and entry by entry, with
//! those of the BuildKit inside Docker 28.5, which has no merge op and shows health
//! checks in another way. What was equal then has to stay as it is.

use std::path::{Path, PathBuf};

use frontend::metadata_key;
use serde_json::Value;

use testkit::bridge::FakeBridge;

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compared");
    let mut cases: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    cases.sort();
    assert_eq!(cases.len(), 12);
    cases
}

/// Without what is drawn by lot, and without the text, which stands beside it.
fn graph(json: &[u8]) -> Value {
    let mut graph: Value = serde_json::from_slice(json).unwrap();
    for (_, metadata) in graph["metadata"].as_object_mut().unwrap() {
        if let Some(group) = metadata.get_mut("progress_group") {
            group["id"] = "".into();
        }
    }
    graph["source"]["infos"] = Value::Null;
    graph
}

/// Rows: F13, F14, F21, F22, F23, F24, F25, F26, F27, F29
#[tokio::test]
async fn graphs_and_configs_stay_as_they_were_compared() {
    for case in cases() {
        let text = std::fs::read_to_string(case.join("Dockerfile")).unwrap();
        let bridge = FakeBridge::new(&text).options(&[("requestid", "frontend.convertllb")]);
        let result = dockerfile::build(&bridge).await.unwrap();
        let ours = graph(&result.metadata[metadata_key::RESULT_JSON]);
        let kept = std::fs::read(case.join("llb.json")).unwrap();
        assert_eq!(ours, graph(&kept), "{}", case.display());

        let bridge = FakeBridge::new(&text);
        let result = dockerfile::build(&bridge).await.unwrap();
        let kept = std::fs::read(case.join("config.json")).unwrap();
        assert_eq!(
            result.metadata[metadata_key::IMAGE_CONFIG],
            kept.strip_suffix(b"\n").unwrap(),
            "{}",
            case.display()
        );
    }
}
