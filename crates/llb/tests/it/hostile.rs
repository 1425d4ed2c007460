//! Graphs nobody sends in good faith.

use std::time::{Duration, Instant};

use llb::*;
use oci::Digest;
use stdx::Kind;

fn definition(ops: &[&Op], result: Edge) -> Definition {
    let mut builder = Builder::new();
    let root = builder.source("docker-image://x", [], None, Meta::default());
    let last = builder.definition(Some(&root)).def.pop().unwrap();
    // The last op with another name in it: both names have the same length.
    let last = String::from_utf8(last.to_vec()).unwrap();
    let last = last.replace(&root.digest.to_string(), &result.digest.to_string());
    let mut def: Vec<bytes::Bytes> = ops.iter().map(|op| op.encode()).collect();
    def.push(last.into());
    Definition {
        def,
        ..Definition::default()
    }
}

fn op(kind: OpKind, inputs: Vec<Edge>) -> Op {
    Op {
        inputs,
        kind,
        platform: None,
        constraints: Some(vec![]),
    }
}

#[track_caller]
fn refused(op: Op, because: &str) {
    let edge = Edge {
        digest: Digest::of(op.encode()),
        index: 0,
    };
    let error = Graph::load(&definition(&[&op], edge)).unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidInput);
    assert!(error.to_string().contains(because), "{error}");
}

/// Rows: L19
#[test]
fn an_op_that_makes_no_sense_is_refused() {
    let exec = || Exec {
        mounts: vec![Mount {
            input: None,
            selector: String::new(),
            target: "/".into(),
            output: Some(0),
            readonly: false,
            kind: MountKind::Bind,
            result_id: String::new(),
            content_cache: ContentCache::Default,
        }],
        ..Exec::new(["true"])
    };
    let with = |change: fn(&mut Exec)| {
        let mut exec = exec();
        change(&mut exec);
        op(OpKind::Exec(exec), vec![])
    };
    refused(with(|e| e.args.clear()), "no args");
    refused(with(|e| e.cwd = "work".into()), "not absolute");
    refused(with(|e| e.mounts.clear()), "no root mount");
    refused(with(|e| e.mounts[0].input = Some(0)), "input 0 of 0");
    refused(with(|e| e.mounts[0].output = Some(4)), "leaves a gap");
    refused(with(|e| e.mounts.push(e.mounts[0].clone())), "made twice");

    refused(
        op(OpKind::Source(Source::default()), vec![]),
        "no identifier",
    );
    refused(op(OpKind::File(File::default()), vec![]), "no actions");
    refused(op(OpKind::Merge(Merge::default()), vec![]), "no inputs");
    refused(
        op(
            OpKind::Diff(Diff {
                lower: Some(0),
                upper: None,
            }),
            vec![],
        ),
        "input 0 of 0",
    );
    let mkdir = |input, output| Action {
        input,
        secondary: None,
        output,
        kind: ActionKind::Mkdir(Mkdir::default()),
    };
    refused(
        op(
            OpKind::File(File {
                actions: vec![mkdir(Some(0), Some(0))],
            }),
            vec![],
        ),
        "input 0 of 0",
    );
    refused(
        op(
            OpKind::File(File {
                actions: vec![mkdir(None, None)],
            }),
            vec![],
        ),
        "becomes an output",
    );
}

/// Rows: L01, L19
#[test]
fn what_is_not_there_is_named() {
    let missing = Edge {
        digest: Digest::of("nothing"),
        index: 0,
    };
    let lone = op(
        OpKind::Merge(Merge {
            inputs: vec![Some(0)],
        }),
        vec![missing],
    );
    let edge = Edge {
        digest: Digest::of(lone.encode()),
        index: 0,
    };
    let error = Graph::load(&definition(&[&lone], edge)).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("invalid missing input digest {}", missing.digest)
    );

    let source = op(
        OpKind::Source(Source {
            identifier: "local://x".into(),
            ..Source::default()
        }),
        vec![],
    );
    let second = Edge {
        digest: Digest::of(source.encode()),
        index: 1,
    };
    let uses = op(
        OpKind::Merge(Merge {
            inputs: vec![Some(0)],
        }),
        vec![second],
    );
    let edge = Edge {
        digest: Digest::of(uses.encode()),
        index: 0,
    };
    assert!(
        Graph::load(&definition(&[&source, &uses], edge)).is_err(),
        "a source has one output"
    );

    assert!(matches!(
        Graph::load(&definition(&[], missing)),
        Err(Error::Definition(_))
    ));
    let garbage = Definition {
        def: vec!["\u{7}".into(), "x".into()],
        ..Definition::default()
    };
    assert_eq!(
        Graph::load(&garbage).unwrap_err().kind(),
        Kind::InvalidInput
    );
}

/// Rows: L18
#[test]
fn an_unknown_capability_is_refused() {
    let mut graph = Builder::new();
    let mut meta = Meta::default();
    meta.metadata.caps.insert("source.teleport".into(), true);
    let edge = graph.source("docker-image://x", [], None, meta);
    let error = Graph::load(&graph.definition(Some(&edge))).unwrap_err();
    assert_eq!(error, Error::UnknownCap("source.teleport".into()));
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(caps::has("soruce.http.uidgid") && !caps::has("source.http.uidgid"));
}

/// Rows: L19
#[test]
fn a_graph_of_a_hundred_thousand_steps_is_no_trouble() {
    let mut graph = Builder::new();
    let mut edge = graph.source("docker-image://x", [], None, Meta::default());
    for step in 0..100_000 {
        // A diamond each: as a tree it would have 2^100000 leaves.
        let inputs = vec![edge, edge];
        let id = step.to_string();
        let kind = OpKind::Passthrough(Passthrough {
            id,
            outputs: vec![Some(0), Some(1)],
        });
        edge = Edge {
            digest: graph.add(&op(kind, inputs), Meta::default()),
            index: 0,
        };
    }
    let definition = graph.definition(Some(&edge));
    let begin = Instant::now();
    let loaded = Graph::load(&definition).unwrap();
    assert_eq!(loaded.vertices().len(), 100_001);
    assert!(
        begin.elapsed() < Duration::from_secs(20),
        "{:?}",
        begin.elapsed()
    );
}

/// Rows: L19
#[test]
fn damaged_bytes_never_panic() {
    let mut graph = Builder::new();
    let edge = graph.source("docker-image://x", [], None, Meta::named("x"));
    let run = graph.run(
        Exec::new(["true"]),
        vec![MountSpec::root(Some(edge))],
        None,
        Meta::default(),
    );
    let good = graph.definition(run.root.as_ref()).encode();
    for at in 0..good.len() {
        for bit in [1, 0x80] {
            let mut bad = good.to_vec();
            bad[at] ^= bit;
            if let Ok(definition) = Definition::decode(bad.into()) {
                let _ = Graph::load(&definition);
            }
        }
        let _ = Definition::decode(good.slice(..at)).map(|d| Graph::load(&d));
    }
}
