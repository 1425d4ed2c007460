//! What is known below a result, as a remote cache is given it.

use std::sync::Arc;

use oci::Digest;
use progress::Progress;
use solver::{JobOptions, KeyDigest};

use crate::support::{Log, Results, TestOp, build, edge, solver, spec};

/// A base that was made anew leads to what copied the old files and to what copied the new ones.
/// What is exported of the one is not told of the other, loaded or not. Rows: C04, C09
#[tokio::test]
async fn a_result_is_exported_with_its_own_ways_only() {
    let (log, results) = (Log::default(), Arc::new(Results::default()));
    let solver = solver(&results, None);
    let steps = |files: &str, anew: bool| {
        let mut base = spec(TestOp::new("base", 0, &log), &[]);
        base.ignore_cache = anew;
        let mut copy = TestOp::new("copy", 1, &log);
        copy.map.inputs[0].by_content = true;
        copy.content = Some(Digest::of(files));
        // What it gives shows what it saw.
        let vertex = edge("copy").vertex;
        let mut copy = spec(
            TestOp {
                name: format!("copy of {files}"),
                ..copy
            },
            &["base"],
        );
        copy.digest = vertex;
        vec![base, copy, spec(TestOp::new("test", 1, &log), &["copy"])]
    };
    build(&solver, steps("old", false), "test").await.unwrap();
    build(&solver, steps("new", true), "test").await.unwrap();
    for of in ["copy", "test"] {
        let job = solver.job(Progress::default(), JobOptions::default());
        job.load(steps("new", false)).unwrap();
        job.solve(edge(of)).await.unwrap();
        let graph = job.export(edge(of), true).await.unwrap();
        let copy = KeyDigest::Stable(Digest::of("copy")).record(0);
        let mut nodes = graph.nodes.iter().filter(|node| node.digest == copy);
        let node = nodes.find(|node| !node.edges.is_empty()).unwrap();
        let of: Vec<_> = node.records.iter().map(|r| r.result.0.as_str()).collect();
        assert_eq!(of, ["copy of new(base())"]);
        let ways = node.inputs[0]
            .iter()
            .map(|way| graph.nodes[way.node].digest);
        let ways: std::collections::BTreeSet<_> = ways.collect();
        let content = |files: &str| KeyDigest::Stable(Digest::of(files)).record(-1);
        let base = KeyDigest::Stable(Digest::of("base")).record(0);
        assert_eq!(ways, [content("new"), base].into());
    }
}

/// What is known below a result, for a remote cache: every step once, inputs first, with its
/// ways, its output and its records. Rows: C04
#[tokio::test]
async fn what_is_known_below_a_result_can_be_exported() {
    let (log, results) = (Log::default(), Arc::new(Results::default()));
    let solver = solver(&results, None);
    let mut copy = TestOp::new("copy", 2, &log);
    copy.map.inputs[0].by_content = true;
    copy.map.inputs[0].selector = Some(Digest::of("part"));
    copy.content = Some(Digest::of("files"));
    let specs = || {
        vec![
            spec(copy.clone(), &["dir", "base"]),
            spec(TestOp::new("dir", 0, &log), &[]),
            spec(TestOp::new("base", 0, &log), &[]),
        ]
    };
    let record = |name: &str| KeyDigest::Stable(Digest::of(name)).record(0);
    for (round, backlinks) in [false, true, true].into_iter().enumerate() {
        let job = solver.job(Progress::default(), JobOptions::default());
        job.load(specs()).unwrap();
        job.solve(edge("copy")).await.unwrap();
        let graph = job.export(edge("copy"), backlinks).await.unwrap();
        let [target] = graph.targets[..] else {
            panic!("{:?}", graph.targets)
        };
        let node = &graph.nodes[target];
        assert_eq!((node.digest, node.inputs.len()), (record("copy"), 2));
        assert_eq!(node.edges, [edge("copy")]);
        assert_eq!(node.output.as_deref(), Some("copy(dir(),base())"));
        assert!(!node.records.is_empty() || round == 0, "{node:?}");
        let ways = |input: usize| {
            let ways = node.inputs[input].iter();
            ways.map(|way| (graph.nodes[way.node].digest, way.selector))
                .collect::<Vec<_>>()
        };
        let content = KeyDigest::Stable(Digest::of("files")).record(-1);
        assert!(ways(0).contains(&(content, None)), "{round}: {:?}", ways(0));
        let part = Some(Digest::of("part"));
        assert!(ways(0).contains(&(record("dir"), part)), "{:?}", ways(0));
        assert_eq!(ways(1), [(record("base"), None)]);
        for (number, node) in graph.nodes.iter().enumerate() {
            let before = node.inputs.iter().flatten();
            assert!(before.into_iter().all(|way| way.node < number));
        }
    }
}
