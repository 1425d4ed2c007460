//! Large graphs take time linear in their size, and no stack.

use std::sync::Arc;
use std::time::Instant;

use progress::Progress;
use solver::JobOptions;

use crate::support::{Log, Results, TestOp, edge, solver, spec};

/// Events for a fresh and a cached build of a graph.
async fn events(specs: impl Fn(&Log) -> Vec<solver::VertexSpec<String>>, last: &str) -> (u64, u64) {
    let (log, results) = (Log::default(), Arc::new(Results::default()));
    let solver = solver(&results, None);
    let mut counts = Vec::new();
    for _ in 0..2 {
        let before = solver.counters().events;
        let job = solver.job(Progress::default(), JobOptions::default());
        let specs = specs(&log);
        let (vertices, begin) = (specs.len() as u128, Instant::now());
        job.load(specs).unwrap();
        job.solve(edge(last)).await.unwrap();
        drop(job);
        tracing::info!(
            ns_per_vertex = begin.elapsed().as_nanos() / vertices,
            vertices
        );
        if std::env::var("SHOW").is_ok() {
            let mut out = std::io::stdout();
            use std::io::Write as _;
            let each = begin.elapsed().as_nanos() / vertices;
            writeln!(out, "{vertices} vertices: {each} ns each").unwrap();
        }
        counts.push(solver.counters().events - before);
    }
    (counts[0], counts[1])
}

fn short(log: &Log, name: &str, inputs: &[&str]) -> solver::VertexSpec<String> {
    let mut op = TestOp::new(name, inputs.len(), log);
    op.name = name.to_owned();
    spec(op, inputs)
}

fn size() -> usize {
    std::env::var("VERTICES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(2_000)
}

/// Rows: Q11, C01
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deep_graph() {
    let deep = |count: usize| {
        move |log: &Log| {
            let name = |n: usize| format!("{n}");
            let step = |n: usize| match n {
                0 => short(log, "0", &[]),
                n => short(log, &name(n), &[&name(n - 1)]),
            };
            (0..count).map(step).collect::<Vec<_>>()
        }
    };
    let size = size();
    let (fresh, cached) = events(deep(size), &format!("{}", size - 1)).await;
    let (size, per_vertex) = (size as u64, 7);
    assert!(
        fresh <= size * per_vertex + 20,
        "{fresh} events for {size} vertices"
    );
    assert!(
        cached <= size * per_vertex + 20,
        "{cached} events for {size} vertices"
    );
}

/// Rows: Q11, C01
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wide_graph() {
    let wide = |count: usize| {
        move |log: &Log| {
            let names: Vec<String> = (0..count).map(|n| format!("{n}")).collect();
            let mut specs = vec![short(log, "base", &[])];
            specs.extend(names.iter().map(|name| short(log, name, &["base"])));
            let all: Vec<&str> = names.iter().map(String::as_str).collect();
            specs.push(short(log, "all", &all));
            specs
        }
    };
    let size = size();
    let (fresh, cached) = events(wide(size), "all").await;
    let (size, per_vertex) = (size as u64, 8);
    assert!(
        fresh <= size * per_vertex + 20,
        "{fresh} events for {size} vertices"
    );
    assert!(
        cached <= size * per_vertex + 20,
        "{cached} events for {size} vertices"
    );
}
