//! Usage and pruning: the policy as a pure function, and what is on disk before and after.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use layer::Algorithm;
use progress::StepProgress;
use refs::{
    BlobOptions, Create, Disk, Filter, Limits, PrunePolicy, RecordMeta, RecordType, Ref, Refs,
    Sharing, UsageRecord, choose, default_policies,
};
use rustix::fs::AtFlags;

use crate::setup::{Outside, open, state, step};

const HOUR: u64 = 3600;

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1000 * HOUR)
}

/// A record last used so many hours ago.
fn record(id: &str, size: u64, hours: u64, parents: &[&str]) -> UsageRecord {
    UsageRecord {
        id: id.into(),
        mutable: false,
        in_use: false,
        size,
        parents: parents.iter().map(|p| (*p).to_owned()).collect(),
        created: SystemTime::UNIX_EPOCH,
        last_used: Some(now() - Duration::from_secs(hours * HOUR)),
        usage_count: 1,
        description: id.into(),
        record_type: RecordType::Regular,
        shared: false,
    }
}

#[track_caller]
fn check(records: &[UsageRecord], policy: &PrunePolicy, disk: Disk, expected: &[&str]) {
    assert_eq!(choose(records, policy, now(), disk), expected);
    assert_eq!(
        choose(records, policy, now(), disk),
        expected,
        "the same again"
    );
}

/// Rows: A09
#[test]
fn children_go_before_parents_and_the_used_stay() {
    let mut records = vec![
        record("base", 10, 9, &[]),
        record("mid", 10, 8, &["base"]),
        record("leaf", 10, 1, &["mid"]),
        record("alone", 10, 5, &[]),
    ];
    let policy = PrunePolicy::default();
    check(
        &records,
        &policy,
        Disk::default(),
        &["leaf", "mid", "base", "alone"],
    );
    records[2].in_use = true;
    check(&records, &policy, Disk::default(), &["alone"]);
}

/// Rows: A09, D08
#[test]
fn the_engines_own_records_need_all() {
    let mut records = vec![
        record("a", 1, 3, &[]),
        record("b", 1, 2, &[]),
        record("c", 1, 1, &[]),
    ];
    records[0].record_type = RecordType::Internal;
    records[1].record_type = RecordType::Frontend;
    check(&records, &PrunePolicy::default(), Disk::default(), &["c"]);
    let all = PrunePolicy {
        all: true,
        ..PrunePolicy::default()
    };
    check(&records, &all, Disk::default(), &["a", "b", "c"]);
}

/// Rows: D08, D34
#[test]
fn limits_keep_what_is_used_most_and_last() {
    let mut records: Vec<_> = (0..5)
        .map(|n| record(&n.to_string(), 10, 10 - n, &[]))
        .collect();
    records[0].usage_count = 50;
    let limits = |reserved_space, max_used_space, min_free_space| PrunePolicy {
        limits: Limits {
            reserved_space,
            max_used_space,
            min_free_space,
        },
        ..PrunePolicy::default()
    };
    let disk = Disk {
        total: 1000,
        free: 100,
    };
    check(&records, &limits(0, 100, 0), disk, &[]);
    check(&records, &limits(0, 50, 0), disk, &[]);
    check(&records, &limits(0, 30, 0), disk, &["0", "1"]);
    check(&records, &limits(0, 0, 50), disk, &[]);
    check(&records, &limits(0, 0, 115), disk, &["0", "1"]);
    check(&records, &limits(40, 30, 115), disk, &["0"]);
    check(&records, &limits(40, 0, 0), disk, &["0"]);
    let kept = PrunePolicy {
        keep_duration: Duration::from_secs(9 * HOUR),
        ..limits(0, 1, 0)
    };
    check(&records, &kept, disk, &["0", "1"]);
    let filtered = PrunePolicy {
        filter: Filter::parse(&["id==3"]).unwrap(),
        ..limits(0, 1, 0)
    };
    check(&records, &filtered, disk, &["3"]);
}

/// Rows: D34
#[test]
fn the_default_rules_are_those_of_buildkit() {
    let disk = Disk {
        total: 1_000_000_000_000,
        free: 0,
    };
    let rules = default_policies(disk);
    assert_eq!(rules.len(), 4);
    assert_eq!(rules[0].keep_duration, Duration::from_secs(48 * HOUR));
    assert_eq!(rules[0].limits.max_used_space, 512_000_000);
    assert_eq!(rules[1].keep_duration, Duration::from_secs(60 * 24 * HOUR));
    let limits = Limits {
        reserved_space: 10_000_000_000,
        max_used_space: 100_000_000_000,
        min_free_space: 200_000_000_000,
    };
    assert_eq!((rules[2].limits, rules[3].limits), (limits, limits));
    assert!(rules[3].all && !rules[2].all);
    let small = default_policies(Disk {
        total: 50_000_000_000,
        free: 0,
    });
    assert_eq!(small[2].limits.reserved_space, 5_000_000_000);
    assert_eq!(small[2].limits.max_used_space, 40_000_000_000);
    let mut cheap = record("local", 1, 1, &[]);
    for (kind, cheap_one) in [
        (RecordType::LocalSource, true),
        (RecordType::CacheMount, true),
        (RecordType::GitCheckout, true),
        (RecordType::Regular, false),
    ] {
        cheap.record_type = kind;
        assert_eq!(rules[0].filter.matches(&cheap), cheap_one);
    }
}

/// Bytes of everything in the folders of blobs and layers, but the folders themselves.
fn on_disk(dir: &Path) -> u64 {
    let (mut bytes, mut shared) = (0, BTreeMap::new());
    for part in [
        "content/blobs/sha256",
        "content/ingest",
        "snapshots/overlayfs/layers",
        "snapshots/overlayfs/kept",
        "snapshots/overlayfs/trash",
    ] {
        let root = stdx::sys::Root::open(dir.join(part)).unwrap();
        let usage = snapshot::disk_usage(&root).unwrap();
        bytes += usage.bytes - root.lstat(".").unwrap().allocated;
        shared.extend(usage.shared.iter().map(|file| (file.ino, file.bytes)));
    }
    bytes + shared.values().sum::<u64>()
}

/// Rows: A08, A09, A10, Z4
#[tokio::test(flavor = "multi_thread")]
async fn privileged_what_is_counted_is_what_is_on_disk_and_all_of_it_can_go() {
    let Some(state) = state() else { return };
    let (outside, refs, dir) = (
        Outside::default(),
        &state.refs,
        state.dir.as_ref().unwrap().path(),
    );
    let text = "x".repeat(100_000);
    let base = outside.layer(&[("base", Some(&text))], Algorithm::Uncompressed);
    let image = refs.from_layers(vec![base]).unwrap().unwrap();
    let a = step(refs, Some(&image), &outside, &[("a", Some(&text))]).await;
    let b = step(refs, Some(&image), &outside, &[("b", Some(&text))]).await;
    let merged = refs.merge(vec![a.clone(), b.clone()]).unwrap();
    let diff = refs.diff(Some(&a), Some(&b)).unwrap().unwrap();
    for of in [&merged, &diff] {
        of.tree(&outside, &StepProgress::none()).await.unwrap();
        for force in [false, true] {
            let options = BlobOptions {
                compression: Algorithm::Zstd.into(),
                force,
            };
            of.layers(&options, Create::Yes, &outside, &StepProgress::none())
                .await
                .unwrap();
        }
    }
    let note = refs.store().write_all("application/json", b"{}").unwrap();
    merged.attach(&note.digest).unwrap();
    let cache = refs
        .named("cache", None, Sharing::Shared, RecordMeta::default())
        .await
        .unwrap();
    snapshot::testing::write(cache.tree().root(), "c", &text);
    let usage = refs.usage(&Filter::default()).unwrap();
    let sum: u64 = usage.iter().map(|record| record.size).sum();
    assert_eq!(sum, on_disk(dir));
    let by_id: BTreeMap<_, _> = usage.iter().map(|r| (r.id.as_str(), r)).collect();
    assert!(by_id[merged.id()].in_use);
    assert_eq!(by_id[merged.id()].parents, [a.id(), b.id()]);
    assert_eq!(by_id[a.id()].parents, [image.id()]);
    assert!(by_id[a.id()].size > 100_000);
    assert_eq!(usage.iter().filter(|record| record.mutable).count(), 1);

    let everything = [PrunePolicy {
        all: true,
        ..PrunePolicy::default()
    }];
    assert_eq!(refs.prune(&everything, &[]).unwrap(), []);
    let usage_count = usage.len();
    drop((image, a, b, diff, cache));
    // Another process sees what this one holds.
    refs.sync().unwrap();
    let other = open(dir);
    assert_eq!(
        other.prune(&everything, &[]).unwrap().len(),
        2,
        "the cache and the difference"
    );
    assert_eq!(other.get(merged.id()).unwrap().unwrap().id(), merged.id());
    drop(merged);
    let gone = refs.prune(&everything, &[]).unwrap();
    assert_eq!(
        gone.len(),
        0,
        "the other process has looked at it, and still may hold it"
    );
    drop(other);
    assert_eq!(refs.prune(&everything, &[]).unwrap().len(), usage_count - 2);
    refs.snapshots().settle();
    assert_eq!(on_disk(dir), 0);
    assert_eq!(refs.usage(&Filter::default()).unwrap(), []);
}

/// A client's directory with files `a` and `b`, of which those named are written anew.
async fn folder(refs: &Refs, text: &str, written: &[&str]) -> Ref {
    let meta = RecordMeta {
        record_type: RecordType::LocalSource,
        ..RecordMeta::new("context")
    };
    let folder = refs.named("context", None, Sharing::Private, meta);
    let folder = folder.await.unwrap();
    for name in written {
        let _ = folder.tree().root().remove_tree(OsStr::new(name));
        snapshot::testing::write(folder.tree().root(), name, text);
    }
    folder.commit().unwrap()
}

/// A copy of it that has its files by another name, with what happens before it has.
fn copy_of(folder: &Ref, meanwhile: impl Fn()) -> Ref {
    let copy = folder.refs().begin(None, RecordMeta::new("copy")).unwrap();
    let files = folder.lend(Path::new(""), Path::new(""), &copy).unwrap();
    meanwhile();
    let (files, change) = (files.unwrap(), copy.change().unwrap().unwrap());
    for name in ["a", "b"] {
        rustix::fs::linkat(files.root(), name, &change, name, AtFlags::empty()).unwrap();
    }
    copy.commit().unwrap()
}

/// What many results share is counted once, whoever goes first, and however often it is counted.
///
/// Rows: A10, Z4
#[tokio::test(flavor = "multi_thread")]
async fn privileged_what_is_lent_is_counted_once() {
    let Some(state) = state() else { return };
    let (refs, dir) = (&state.refs, state.dir.as_ref().unwrap().path());
    let sum = || -> u64 {
        let counted = || {
            let usage = refs.usage(&Filter::default()).unwrap();
            usage.iter().map(|record| record.size).sum()
        };
        let first: u64 = counted();
        assert_eq!(first, counted(), "the second time");
        first
    };
    let found = || {
        refs.snapshots().settle();
        on_disk(dir)
    };
    let text = "x".repeat(100_000);
    let first = folder(refs, &text, &["a", "b"]).await;
    assert_eq!(sum(), found(), "before anything was lent");
    let mut copies = vec![copy_of(&first, || ())];
    assert_eq!(sum(), found());
    drop(first);
    for _ in 0..3 {
        let next = folder(refs, &text, &["a"]).await;
        assert_eq!(sum(), found(), "before it was lent");
        copies.push(copy_of(&next, || assert!(sum() > 0)));
        assert_eq!(sum(), found(), "after {} copies", copies.len());
    }
    let (all, one) = (sum(), text.len() as u64);
    assert!(
        (5 * one..6 * one).contains(&all),
        "four of a and one of b: {all}"
    );
    while let Some(copy) = copies.pop() {
        refs.prune(&[PrunePolicy::default()], &[]).unwrap();
        assert_eq!(sum(), found(), "of those before {}", copy.id());
    }
}

/// Uses are counted without a write each, and written down when someone looks.
#[tokio::test(flavor = "multi_thread")]
async fn privileged_uses_are_remembered() {
    let Some(state) = state() else { return };
    let outside = Outside::default();
    let made = step(&state.refs, None, &outside, &[("a", Some("a"))]).await;
    for _ in 0..5 {
        state.refs.get(made.id()).unwrap().unwrap();
    }
    made.set_record_type(RecordType::Frontend).unwrap();
    made.set_description("docker/dockerfile").unwrap();
    let dir = state.dir.unwrap();
    drop((made, state.refs));
    let usage = open(dir.path())
        .usage(&Filter::parse(&["type==frontend"]).unwrap())
        .unwrap();
    assert_eq!(usage[0].usage_count, 6);
    assert!(usage[0].last_used.unwrap() >= usage[0].created);
    assert_eq!(usage[0].description, "docker/dockerfile");
}
