//! What every index promises, for each of them.

use std::sync::Arc;

use oci::Digest;

use super::*;
use crate::key::KeyDigest;

fn root(name: &str) -> KeyId {
    KeyId::root(&KeyDigest::Stable(Digest::of(name)), 0)
}

fn step(index: &dyn Index, name: &str, from: &[KeyId]) -> KeyId {
    let record = KeyDigest::Stable(Digest::of(name)).record(0);
    let inputs: Vec<_> = from.iter().map(|id| (*id, None)).collect();
    let id = KeyId::reached(record, &inputs);
    let links = from
        .iter()
        .enumerate()
        .map(|(i, from)| {
            (
                *from,
                Link {
                    input: i as u32,
                    record,
                    selector: None,
                },
            )
        })
        .collect();
    index
        .save(&[Entry {
            nodes: vec![Node { id, links }],
            result: None,
        }])
        .unwrap();
    id
}

fn add(index: &dyn Index, result: &ResultId, at: i64, keys: &[KeyId]) {
    let result = Some((result.clone(), Created(at), keys.to_vec()));
    index
        .save(&[Entry {
            nodes: Vec::new(),
            result,
        }])
        .unwrap();
}

fn result(index: &dyn Index, key: KeyId, name: &str, at: i64) -> ResultId {
    let result = ResultId(name.to_owned());
    add(index, &result, at, std::slice::from_ref(&key));
    result
}

fn finds_by_links_and_only_by_the_right_one(index: &dyn Index) {
    let a = root("a");
    let b = step(index, "b", &[a]);
    let link = Link {
        input: 0,
        record: KeyDigest::Stable(Digest::of("b")).record(0),
        selector: None,
    };
    assert_eq!(index.children(&a, &link).unwrap(), [b]);
    for other in [
        Link { input: 1, ..link },
        Link {
            selector: Some(Digest::of("s")),
            ..link
        },
        Link {
            record: Digest::of("c"),
            ..link
        },
    ] {
        assert_eq!(index.children(&a, &other).unwrap(), []);
    }
    assert_eq!(index.parents(&b).unwrap(), [(a, link)]);
    assert_eq!(record_digest(index, &b).unwrap(), link.record);
    assert_eq!(record_digest(index, &a).unwrap(), a.0);
}

fn a_result_belongs_to_several_keys(index: &dyn Index) {
    let (a, b) = (root("a"), root("b"));
    let one = ResultId("one".to_owned());
    add(index, &one, 1, &[a, b]);
    add(index, &one, 2, &[a]);
    assert_eq!(index.records(&a).unwrap(), [(one.clone(), Created(2))]);
    let mut keys = index.keys_of(&one).unwrap();
    keys.sort();
    let mut both = vec![a, b];
    both.sort();
    assert_eq!(keys, both);
    assert_eq!(index.results().unwrap(), [one]);
}

fn releasing_removes_what_leads_nowhere(index: &dyn Index) {
    let a = root("a");
    let b = step(index, "b", &[a]);
    let c = step(index, "c", &[b]);
    let d = step(index, "d", &[b]);
    let gone = result(index, c, "gone", 1);
    let kept = result(index, d, "kept", 1);
    index.release(&gone).unwrap();
    assert_eq!(index.parents(&c).unwrap(), []);
    assert_eq!(index.parents(&d).unwrap().len(), 1);
    assert_eq!(
        index.parents(&b).unwrap().len(),
        1,
        "d is still reached through it"
    );
    assert_eq!(index.results().unwrap(), std::slice::from_ref(&kept));
    index.release(&kept).unwrap();
    assert_eq!(index.parents(&b).unwrap(), []);
    index.release(&kept).unwrap();
}

fn suite(index: impl Fn() -> Arc<dyn Index>) {
    finds_by_links_and_only_by_the_right_one(&*index());
    a_result_belongs_to_several_keys(&*index());
    releasing_removes_what_leads_nowhere(&*index());
}

/// Rows: C03
#[test]
fn in_memory() {
    suite(|| Arc::new(MemoryIndex::new()));
}

/// Rows: C03
#[test]
fn in_the_database() {
    suite(|| Arc::new(DbIndex::open(Arc::new(::db::Db::memory().unwrap())).unwrap()));
}

/// Rows: C03
#[test]
fn the_database_keeps_it_for_the_next_process() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let open = || DbIndex::open(Arc::new(::db::Db::open(&path).unwrap())).unwrap();
    let first = open();
    let beside = open();
    let key = step(&first, "b", &[root("a")]);
    result(&first, key, "r", 7);
    drop(first);
    assert_eq!(beside.records(&key).unwrap().len(), 1);
    assert_eq!(
        open().records(&key).unwrap(),
        [(ResultId("r".to_owned()), Created(7))]
    );
}
