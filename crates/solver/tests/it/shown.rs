//! What is shown of the steps of a build.

use std::sync::Arc;

use oci::Digest;
use progress::{Event, Progress};
use solver::{JobOptions, Miss};

use crate::support::{Log, Results, TestOp, build, edge, solver, spec, three_steps};

/// Rows: K4
#[tokio::test]
async fn a_miss_is_explained() {
    let (log, results) = (Log::default(), Arc::new(Results::default()));
    let solver = solver(&results, None);
    build(&solver, three_steps(&log), "test").await.unwrap();
    let job = solver.job(Progress::default(), JobOptions::default());
    let mut specs = three_steps(&log);
    let changed = TestOp {
        map: TestOp::new("make with more", 1, &log).map,
        ..TestOp::new("make", 1, &log)
    };
    specs[1] = spec(changed, &["base"]);
    specs[1].digest = Digest::of("vertex make");
    job.load(specs).unwrap();
    job.solve(edge("test")).await.unwrap();
    let misses = job.misses();
    let (vertex, miss) = &misses[0];
    assert_eq!(*vertex, edge("make").vertex);
    let Miss::Inputs { unknown, known, .. } = miss else {
        panic!("{miss:?}")
    };
    assert_eq!((unknown[0].input, *known), (0, 0));
    assert_eq!(misses.len(), 2, "and `test`, because of it: {misses:?}");
}

/// Rows: C10
#[tokio::test]
async fn what_a_hit_rests_on_is_shown_as_cached() {
    let (log, results) = (Log::default(), Arc::new(Results::default()));
    let solver = solver(&results, None);
    build(&solver, three_steps(&log), "test").await.unwrap();
    let progress = Progress::default();
    let job = solver.job(progress.clone(), JobOptions::default());
    job.load(three_steps(&log)).unwrap();
    job.solve(edge("test")).await.unwrap();
    progress.close();
    let mut told = progress.follow();
    let mut cached = std::collections::BTreeSet::new();
    while let Some(event) = told.next().await {
        if let Event::Step(step) = event
            && step.cached
            && step.completed.is_some()
        {
            cached.insert(step.name);
        }
    }
    assert_eq!(cached.into_iter().collect::<Vec<_>>(), ["make", "test"]);
}

/// Steps of a group are told as such to every build that has them. Rows: C10
#[tokio::test]
async fn a_group_is_shown_to_every_build() {
    let (log, results) = (Log::default(), Arc::new(Results::default()));
    let solver = solver(&results, None);
    let group = progress::Group {
        id: "stage".to_owned(),
        name: "[stage]".to_owned(),
        weak: false,
    };
    let mut jobs = Vec::new();
    for _ in 0..2 {
        let progress = Progress::default();
        let job = solver.job(progress.clone(), JobOptions::default());
        let mut specs = three_steps(&log);
        specs[1].group = Some(group.clone());
        job.load(specs).unwrap();
        jobs.push((job, progress));
    }
    jobs[0].0.solve(edge("test")).await.unwrap();
    for (_, progress) in &jobs {
        progress.close();
        let mut told = progress.follow();
        let mut groups = std::collections::BTreeMap::new();
        while let Some(event) = told.next().await {
            if let Event::Step(step) = event
                && step.completed.is_some()
            {
                groups.insert(step.name, step.group);
            }
        }
        let expected = [
            ("base", None),
            ("make", Some(group.clone())),
            ("test", None),
        ];
        assert_eq!(
            groups,
            expected.map(|(name, of)| (name.to_owned(), of)).into()
        );
    }
}
