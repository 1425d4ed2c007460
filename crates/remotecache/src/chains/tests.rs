//! The golden configs, and configs that make no sense.

use super::*;
use crate::config::CacheConfig;
use crate::error::ParseError;

fn golden() -> Vec<(String, serde_json::Value)> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
    let Ok(dirs) = std::fs::read_dir(&root) else {
        return Vec::new();
    };
    let mut all = Vec::new();
    for dir in dirs.flatten() {
        if let Ok(bytes) = std::fs::read(dir.path().join("cache.json")) {
            let name = dir.file_name().to_string_lossy().into_owned();
            all.push((name, serde_json::from_slice(&bytes).unwrap()));
        }
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

/// Rows: I26, I27, core:X17, core:X18, X20, X22, X23, R01, R02
#[test]
fn buildkits_own_configs_come_back_byte_for_byte() {
    let all = golden();
    assert!(all.len() > 20, "the golden data is at tests/golden");
    for (name, value) in all {
        let bytes = serde_json::to_vec(&value["config"]).unwrap();
        let digest = Digest::of(&bytes);
        assert_eq!(
            digest.to_string(),
            value["manifest"]["config"]["digest"],
            "{name}"
        );
        let config: CacheConfig = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(serde_json::to_vec(&config).unwrap(), bytes, "{name}");
        let blobs: HashMap<Digest, Descriptor> = value["manifest"]["layers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|layer| serde_json::from_value::<Descriptor>(layer.clone()).unwrap())
            .map(|layer| (layer.digest, layer))
            .collect();
        let chains = Chains::parse(&config, &blobs).unwrap();
        let (again, used) = chains.marshal(|_| true);
        assert_eq!(
            String::from_utf8(serde_json::to_vec(&again).unwrap()).unwrap(),
            String::from_utf8(bytes).unwrap(),
            "{name}"
        );
        assert_eq!(used.len(), blobs.len(), "{name}");
    }
}

fn check(config: &str) -> Result<Chains, ParseError> {
    let digest = Digest::of(b"layer");
    let blob = Descriptor::new(oci::media_type::OCI_LAYER_GZIP, digest, 7);
    let config = config.replace("LAYER", &digest.to_string());
    let config: CacheConfig = serde_json::from_str(&config).unwrap();
    Chains::parse(&config, &HashMap::from([(digest, blob)]))
}

fn key(name: &str) -> String {
    Digest::of(name).to_string()
}

/// Rows: I26, I27, I28, I29
#[test]
fn configs_that_make_no_sense_are_refused() {
    let (a, b) = (key("a"), key("b"));
    let looping = format!(
        r#"{{"records":[{{"digest":"{a}","inputs":[[{{"link":1}}]]}},{{"digest":"{b}","inputs":[[{{"link":0}}]]}}]}}"#
    );
    assert_eq!(
        check(&looping).unwrap_err().to_string(),
        "invalid looping record"
    );
    for link in ["7", "-1"] {
        let outside =
            format!(r#"{{"records":[{{"digest":"{a}","inputs":[[{{"link":{link}}}]]}}]}}"#);
        assert_eq!(
            check(&outside).unwrap_err().to_string(),
            format!("invalid record ID: {link}")
        );
    }
    let empty = format!(r#"{{"records":[{{"digest":"{a}","inputs":[[]]}}]}}"#);
    assert_eq!(
        check(&empty).unwrap_err().to_string(),
        "invalid empty input for record 0"
    );
    let result = |layers: &str, index: i64| {
        format!(
            r#"{{"layers":[{layers}],"records":[{{"digest":"{a}","layers":[{{"layer":{index},"createdAt":"2026-01-01T00:00:00Z"}}]}}]}}"#
        )
    };
    let on_itself = result(r#"{"blob":"LAYER"}"#, 0);
    assert_eq!(
        check(&on_itself).unwrap_err().to_string(),
        "invalid looping layer"
    );
    let outside = result(r#"{"blob":"LAYER","parent":-1}"#, 3);
    assert_eq!(
        check(&outside).unwrap_err().to_string(),
        "invalid layer index 3"
    );
    let no_digest = r#"{"records":[{"digest":"md5:1"}]}"#;
    assert_eq!(
        check(no_digest).unwrap_err().to_string(),
        "failed to add record 0"
    );
}

/// Rows: I27, I30
#[test]
fn what_cannot_be_used_is_left_out() {
    let (a, b, gone) = (key("a"), key("b"), key("gone"));
    let config = format!(
        r#"{{"layers":[{{"blob":"{gone}","parent":-1}},{{"blob":"LAYER","parent":-1}}],"records":[
        {{"digest":"random:1"}},
        {{"digest":"{a}","layers":[{{"layer":0,"createdAt":"2026-01-01T00:00:00Z"}},{{"layer":1,"createdAt":"2025-01-01T00:00:00Z"}}]}},
        {{"digest":"{b}","inputs":[[{{"link":0}}]]}}]}}"#
    );
    let chains = check(&config).unwrap();
    assert_eq!(
        chains.nodes.len(),
        1,
        "only `a`: `b` is reached from a random record alone"
    );
    assert_eq!(chains.nodes[0].results.len(), 1);
}

/// Rows: I32, I33
#[test]
fn records_reached_the_same_way_are_one() {
    let digest = |name: &str| Digest::of(name);
    let layer = |name: &str| Descriptor::new("", digest(name), 1);
    let stored = |name: &str| Stored {
        layers: vec![layer(name)],
        created: Created(5),
    };
    let mut chains = Chains::new();
    let a = chains.add(digest("a"), &[], vec![]).unwrap();
    let b = chains.add(digest("b"), &[], vec![]).unwrap();
    let way = |node| vec![(node, String::new())];
    let one = chains
        .add(digest("step"), &[way(a)], vec![stored("x")])
        .unwrap();
    let two = chains
        .add(digest("step"), &[way(b)], vec![stored("y")])
        .unwrap();
    assert_ne!(one, two, "nothing says that `a` and `b` are the same");
    let child = chains.add(digest("child"), &[way(two)], vec![]).unwrap();
    let both = chains
        .add(
            digest("step"),
            &[[way(a), way(b)].concat()],
            vec![stored("x")],
        )
        .unwrap();
    assert_eq!(both, one);
    assert_eq!(
        chains.nodes[one.0].results.len(),
        2,
        "same time and length, other layers"
    );
    assert_eq!(
        chains.nodes[child.0].inputs[0].first(),
        Some(&(one, String::new()))
    );
    let back = chains.add(digest("child"), &[way(two)], vec![]).unwrap();
    assert_eq!(back, child);
    let looping = chains
        .add(digest("step"), &[[way(a), way(child)].concat()], vec![])
        .unwrap();
    assert_eq!(looping, one);
    assert_eq!(
        chains.in_order().len(),
        4,
        "the way from the child is left out"
    );
}

/// A document of a few megabytes may not cost minutes or gigabytes.
///
/// Rows: I4, I32
#[test]
fn large_and_hostile_configs_cost_what_they_weigh() {
    use std::fmt::Write as _;
    // One chain of records, each one twice.
    let (mut records, count) = (String::new(), 20_000);
    for number in 0..count {
        let digest = key(&number.to_string());
        let inputs = match number {
            0 => String::new(),
            _ => format!(r#","inputs":[[{{"link":{}}}]]"#, 2 * (number - 1)),
        };
        for _ in 0..2 {
            let _ = write!(records, r#"{{"digest":"{digest}"{inputs}}},"#);
        }
    }
    let config = format!(r#"{{"records":[{}]}}"#, records.trim_end_matches(','));
    let chains = check(&config).unwrap();
    assert_eq!(chains.nodes.len(), count);
    assert_eq!(chains.names().len(), count);
    // A tall stack of layers that every record has.
    let tall: Vec<String> = (0..3000)
        .map(|number| format!(r#"{{"blob":"LAYER","parent":{}}}"#, number - 1))
        .collect();
    let result = r#""layers":[{"layer":2999,"createdAt":"2026-01-01T00:00:00Z"}]"#;
    let many: Vec<String> = (0..1000)
        .map(|number| format!(r#"{{"digest":"{}",{result}}}"#, key(&number.to_string())))
        .collect();
    let config = format!(
        r#"{{"layers":[{}],"records":[{}]}}"#,
        tall.join(","),
        many.join(",")
    );
    assert_eq!(check(&config).unwrap_err(), ParseError::TooManyLayers);
    // A record on top of a long chain, told again and again with one way more.
    let (root, above) = (key("root"), key("above"));
    let mut records =
        format!(r#"{{"digest":"{root}"}},{{"digest":"{above}","inputs":[[{{"link":0}}]]}}"#);
    let count = 5_000;
    for number in 0..count {
        let digest = key(&number.to_string());
        let link = number + 1;
        let _ = write!(
            records,
            r#",{{"digest":"{digest}","inputs":[[{{"link":{link}}}]]}}"#
        );
    }
    for number in 0..count {
        let selector = key(&number.to_string());
        let ways = format!(r#"{{"link":0}},{{"link":0,"selector":"{selector}"}}"#);
        let _ = write!(records, r#",{{"digest":"{above}","inputs":[[{ways}]]}}"#);
    }
    let config = format!(r#"{{"records":[{records}]}}"#);
    assert_eq!(check(&config).unwrap_err(), ParseError::Tangled);
}

/// Rows: I31, X29
#[test]
fn a_key_nothing_leads_to_is_left_out() {
    let mut chains = Chains::new();
    let digest = Digest::of("a");
    assert_eq!(chains.add(digest, &[Vec::new()], Vec::new()), None);
    let root = chains.add(digest, &[], Vec::new()).unwrap();
    let half = [vec![(root, String::new())], Vec::new()];
    assert_eq!(chains.add(Digest::of("b"), &half, Vec::new()), None);
    assert_eq!(chains.nodes.len(), 1);
}
