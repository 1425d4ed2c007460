//! What is remembered, and what a restart leaves of it.

use std::path::Path;

use super::*;
use crate::builder::Predicate;

fn archive(dir: &Path) -> Archive {
    let db = Arc::new(db::Db::open(dir.join("kiln.db")).unwrap());
    let store = content::Store::open(dir.join("content"), db.clone()).unwrap();
    let leases = lease::Leases::open(dir.join("leases"), db.clone()).unwrap();
    Archive::open(db, store, leases).unwrap()
}

fn history(dir: &Path, max_age: u64, max_entries: usize) -> History {
    History::new(archive(dir), Duration::from_secs(max_age), max_entries)
}

fn record(id: &str) -> Record {
    Record {
        r#ref: id.to_owned(),
        ..Record::default()
    }
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::now() - Duration::from_secs(100_000) + Duration::from_secs(seconds)
}

fn ended(id: &str, seconds: u64, error: Option<&str>) -> Ended {
    let progress = Progress::default();
    let step = progress.step(oci::Digest::of(id), format!("RUN {id}"), &[]);
    step.start();
    step.log(progress::Stream::Out, "said\n");
    match error {
        Some(error) => step.fail(error),
        None => step.complete(true),
    }
    progress.close();
    let outcome = match error {
        None => Ok(Built {
            response: BTreeMap::from([("image.name".to_owned(), id.to_owned())]),
            images: BTreeMap::new(),
            provenance: BTreeMap::from([(
                String::new(),
                Predicate {
                    kind: "https://slsa.dev/provenance/v1".to_owned(),
                    bytes: format!("{{\"made\":\"{id}\"}}").into(),
                },
            )]),
        }),
        Some(error) => Err(rpc::Status {
            code: 2,
            message: error.to_owned(),
            details: vec![prost_types::Any {
                type_url: "x".into(),
                value: vec![1; 100],
            }],
        }),
    };
    Ended {
        id: id.to_owned(),
        at: at(seconds),
        outcome,
        progress,
    }
}

fn build(history: &History, id: &str, seconds: u64, error: Option<&str>) {
    history.started(record(id), at(seconds));
    history.completed(&ended(id, seconds, error));
}

fn known(history: &History, request: BuildHistoryRequest) -> Vec<Record> {
    let (known, _) = history.listen(&request).unwrap();
    known
        .into_iter()
        .map(|event| event.record.unwrap())
        .collect()
}

fn ids(history: &History, request: BuildHistoryRequest) -> Vec<String> {
    known(history, request)
        .into_iter()
        .map(|record| record.r#ref)
        .collect()
}

fn pinning(id: &str, pinned: bool) -> UpdateBuildHistoryRequest {
    UpdateBuildHistoryRequest {
        r#ref: id.into(),
        pinned,
        ..Default::default()
    }
}

/// Rows: A12, A13, A14, D11, P10
#[test]
fn builds_are_remembered_found_pinned_and_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let history = history(dir.path(), 50_000, 2);
    let all = BuildHistoryRequest::default;
    history.started(record("runs"), at(99_000));
    build(&history, "a", 1, Some("exit code: 1"));
    assert_eq!(
        ids(
            &history,
            BuildHistoryRequest {
                active_only: true,
                ..all()
            }
        ),
        ["runs"]
    );
    assert_eq!(
        ids(
            &history,
            BuildHistoryRequest {
                filter: vec!["status==error".into()],
                ..all()
            }
        ),
        ["a"]
    );
    assert_eq!(
        ids(
            &history,
            BuildHistoryRequest {
                r#ref: "a".into(),
                ..all()
            }
        ),
        ["a"]
    );
    assert_eq!(
        history.update(&pinning("runs", true)).unwrap_err().code(),
        tonic::Code::FailedPrecondition
    );
    history.update(&pinning("a", true)).unwrap();
    // "b" is old and one too many, "c" is old but among the last two.
    build(&history, "b", 2, None);
    build(&history, "c", 3, None);
    build(&history, "d", 60_000, None);
    assert_eq!(ids(&history, all()), ["a", "c", "d", "runs"]);
    // Young ones stay however many they are.
    build(&history, "e", 60_001, None);
    build(&history, "f", 60_002, None);
    assert_eq!(ids(&history, all()), ["a", "d", "e", "f", "runs"]);
    assert_eq!(
        ids(&history, BuildHistoryRequest { limit: 2, ..all() }),
        ["f", "runs"]
    );
    assert!(
        history
            .listen(&BuildHistoryRequest { limit: -1, ..all() })
            .is_err()
    );
    let delete = |id: &str| UpdateBuildHistoryRequest {
        r#ref: id.into(),
        delete: true,
        ..Default::default()
    };
    history.update(&delete("d")).unwrap();
    assert_eq!(
        history.update(&delete("d")).unwrap_err().code(),
        tonic::Code::NotFound
    );
    assert_eq!(ids(&history, all()), ["a", "e", "f", "runs"]);
}

/// Rows: A04, A14, P10
#[test]
fn records_and_their_blobs_outlive_the_daemon() {
    let dir = tempfile::tempdir().unwrap();
    build(&history(dir.path(), 1, 9), "good", 1, None);
    build(&history(dir.path(), 1, 9), "bad", 2, Some("exit code: 1"));
    let again = history(dir.path(), 1, 9);
    let records = known(&again, BuildHistoryRequest::default());
    let counts: Vec<_> = records
        .iter()
        .map(|r| (r.num_total_steps, r.num_completed_steps, r.num_cached_steps))
        .collect();
    assert_eq!(counts, [(1, 1, 1), (1, 0, 0)]);
    assert_eq!(records[0].exporter_response["image.name"], "good");
    let error = records[1].error.as_ref().unwrap();
    assert_eq!((error.code, error.details.len()), (2, 0));
    let whole = records[1].external_error.as_ref().unwrap();
    let mut bytes = Vec::new();
    let mut file = again.0.archive.open_blob(whole).unwrap().unwrap();
    std::io::Read::read_to_end(&mut file, &mut bytes).unwrap();
    assert_eq!(rpc::Status::decode(&bytes[..]).unwrap().details.len(), 1);
    let story: Vec<_> = again
        .story("bad")
        .unwrap()
        .unwrap()
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(story[0].logs[0].msg, "said\n");
    assert!(again.story("never").unwrap().is_none());
    again.set_trace("good", "text/plain", b"{}").unwrap();
    let good = &known(
        &again,
        BuildHistoryRequest {
            r#ref: "good".into(),
            ..Default::default()
        },
    )[0];
    assert_eq!((good.trace.as_ref().unwrap().size, good.generation), (2, 1));
}

/// Rows: A13, P10
#[test]
fn blobs_live_as_long_as_their_records() {
    let dir = tempfile::tempdir().unwrap();
    let history = history(dir.path(), 1, 9);
    build(&history, "a", 1, Some("wrong"));
    let record = known(&history, BuildHistoryRequest::default()).remove(0);
    let logs: oci::Digest = record.logs.unwrap().digest.parse().unwrap();
    let error: oci::Digest = record.external_error.unwrap().digest.parse().unwrap();
    assert!(history.0.archive.has(&logs) && history.0.archive.has(&error));
    // An equal error of another build is one blob for both.
    build(&history, "b", 2, Some("wrong"));
    for id in ["a", "b"] {
        assert!(history.0.archive.has(&error), "{id} still has it");
        history
            .update(&UpdateBuildHistoryRequest {
                r#ref: id.into(),
                delete: true,
                ..Default::default()
            })
            .unwrap();
        assert!(!history.0.archive.has(&logs));
    }
    assert!(!history.0.archive.has(&error));
}

/// Rows: A13, A14, P10
#[test]
fn a_record_tells_how_its_results_were_made_and_takes_all_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let history = history(dir.path(), 1000, 10);
    for (id, error) in [("a", None), ("b", Some("no"))] {
        history.started(record(id), at(1));
        history.completed(&ended(id, 2, error));
        history.set_trace(id, "x", b"spans").unwrap();
    }
    let found = history.0.archive.get("a").unwrap().unwrap();
    let told = &found.result.expect("one result").attestations[0];
    assert_eq!(told.media_type, "application/vnd.in-toto+json");
    let kind = &told.annotations["in-toto.io/predicate-type"];
    assert_eq!(kind, "https://slsa.dev/provenance/v1");
    let mut text = String::new();
    let blob = history.0.archive.open_blob(told).unwrap().unwrap();
    std::io::Read::read_to_string(&mut { blob }, &mut text).unwrap();
    assert_eq!(text, "{\"made\":\"a\"}");
    for id in ["a", "b"] {
        let request = UpdateBuildHistoryRequest {
            r#ref: id.into(),
            delete: true,
            ..UpdateBuildHistoryRequest::default()
        };
        history.update(&request).unwrap();
        // Spans that come late do not bring it back.
        history.set_trace(id, "x", b"late").unwrap();
    }
    assert_eq!(files(&dir.path().join("content/blobs")), 0);
}

/// Every exporter's image is told, as far as it is here, and the first once more.
///
/// Rows: A14
#[test]
fn a_record_tells_the_image_of_each_exporter() {
    let dir = tempfile::tempdir().unwrap();
    let history = history(dir.path(), 1000, 10);
    let held = ["one", "two"].map(|text| {
        let write = |out: &mut dyn std::io::Write| out.write_all(text.as_bytes());
        history.0.archive.blob("a/manifest", write).unwrap()
    });
    let image = |text: &str| oci::Descriptor::of("a/manifest", text.as_bytes());
    let mut ended = ended("a", 2, None);
    let Ok(built) = &mut ended.outcome else {
        panic!("it went well")
    };
    built.images = [(1, image("one")), (2, image("pushed")), (4, image("two"))].into();
    history.started(record("a"), at(1));
    history.completed(&ended);
    drop(held);
    let told = known(&history, BuildHistoryRequest::default())[0].clone();
    let told = told.result.unwrap();
    let mut digests: Vec<_> = told
        .results
        .iter()
        .map(|(at, one)| (*at, &one.digest))
        .collect();
    digests.sort();
    let (one, two) = (image("one").digest, image("two").digest);
    assert_eq!(digests, [(1, &one.to_string()), (4, &two.to_string())]);
    assert_eq!(told.result_deprecated.as_ref(), Some(&told.results[&1]));
    assert!(history.0.archive.has(&two), "the record keeps it");
}

fn files(dir: &Path) -> usize {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let each = entries.map(|entry| match entry.path() {
        path if path.is_dir() => files(&path),
        _ => 1,
    });
    each.sum()
}
