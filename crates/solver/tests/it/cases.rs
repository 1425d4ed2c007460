//! What a build can count on, one promise at a time.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use oci::Digest;
use progress::Progress;
use solver::{DbIndex, Doing, Error, JobOptions, KeyDigest, Miss, OpError};
use tokio::sync::Notify;

use crate::support::{Log, Results, TestOp, build, edge, solver, solver_on, spec, three_steps};

/// Rows: C01, C02
#[tokio::test]
async fn when_the_last_step_hits_nothing_between_is_touched() {
    let (log, results) = (Log::default(), Arc::new(Results::default()));
    let solver = solver(&results, None);
    assert_eq!(
        build(&solver, three_steps(&log), "test").await.unwrap(),
        "test(make(base()))"
    );
    assert_eq!(log.take(), ["run base", "run make", "run test"]);
    assert!(solver.is_idle(), "nothing is held when no build is there");
    assert_eq!(
        build(&solver, three_steps(&log), "test").await.unwrap(),
        "test(make(base()))"
    );
    assert_eq!(log.take(), Vec::<String>::new());
    assert_eq!(
        results.loads.load(Ordering::SeqCst),
        1,
        "only the last one is loaded"
    );
}

/// Rows: C03
#[tokio::test]
async fn a_restart_forgets_nothing() {
    let (log, results) = (Log::default(), Arc::new(Results::default()));
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let db = db::Db::open(dir.path().join("state.db")).unwrap();
        solver_on(
            Arc::new(DbIndex::open(Arc::new(db)).unwrap()),
            &results,
            None,
        )
    };
    build(&open(), three_steps(&log), "test").await.unwrap();
    log.take();
    build(&open(), three_steps(&log), "test").await.unwrap();
    assert_eq!(log.take(), Vec::<String>::new());
}

/// Rows: C05
#[tokio::test]
async fn what_cannot_be_loaded_is_made_again() {
    let (log, results) = (Log::default(), Arc::new(Results::default()));
    let solver = solver(&results, None);
    build(&solver, three_steps(&log), "test").await.unwrap();
    log.take();
    results
        .lost
        .lock()
        .unwrap()
        .insert("test(make(base()))".to_owned());
    let job = solver.job(Progress::default(), JobOptions::default());
    job.load(three_steps(&log)).unwrap();
    job.solve(edge("test")).await.unwrap();
    assert_eq!(log.take(), ["run test"]);
    let misses = job.misses();
    assert!(
        matches!(&misses[..], [(of, Miss::Gone { .. })] if *of == edge("test").vertex),
        "{misses:?}"
    );
}

/// Rows: C01
#[tokio::test]
async fn two_builds_share_one_run() {
    let (log, results) = (Log::default(), Arc::new(Results::default()));
    let solver = solver(&results, None);
    let gate = Arc::new(Notify::new());
    let slow = || {
        let op = TestOp {
            gate: Some(gate.clone()),
            ..TestOp::new("slow", 0, &log)
        };
        vec![spec(op, &[])]
    };
    let one = solver.job(Progress::default(), JobOptions::default());
    let two = solver.job(Progress::default(), JobOptions::default());
    one.load(slow()).unwrap();
    two.load(slow()).unwrap();
    let (asking_one, asking_two) = (one.solve(edge("slow")), two.solve(edge("slow")));
    let open = async {
        while log.take().is_empty() {
            tokio::task::yield_now().await;
        }
        gate.notify_one();
    };
    let (a, b, ()) = tokio::join!(asking_one, asking_two, open);
    assert_eq!(
        (a.unwrap(), b.unwrap()),
        ("slow()".to_owned(), "slow()".to_owned())
    );
    assert_eq!(solver.counters().runs, 1);
}

/// Two sessions copy the same files from their own directories. Rows: C01, C02
#[tokio::test]
async fn the_same_content_is_copied_once() {
    let (log, results) = (Log::default(), Arc::new(Results::default()));
    let solver = solver(&results, None);
    let specs = |session: &str| {
        let mut dir = TestOp::new(&format!("dir of {session}"), 0, &log);
        dir.map.digest = KeyDigest::Random(Digest::of(session));
        let mut copy = TestOp::new("copy", 1, &log);
        copy.map.inputs[0].by_content = true;
        copy.content = Some(Digest::of("the same files"));
        let inputs = [dir.name.clone()];
        let mut copy = spec(copy, &[&inputs[0]]);
        copy.digest = Digest::of(format!("copy of {session}"));
        let of = solver::Edge {
            vertex: copy.digest,
            output: 0,
        };
        (vec![spec(dir, &[]), copy], of)
    };
    for (session, expected) in [
        ("a", &["run dir of a", "run copy"][..]),
        ("b", &["run dir of b"]),
    ] {
        let job = solver.job(Progress::default(), JobOptions::default());
        let (specs, of) = specs(session);
        job.load(specs).unwrap();
        assert_eq!(job.solve(of).await.unwrap(), "copy(dir of a())");
        assert_eq!(log.take(), expected);
    }
}

/// Rows: C10
#[tokio::test]
async fn work_stops_when_the_last_build_that_wants_it_leaves() {
    let (log, results) = (Log::default(), Arc::new(Results::default()));
    let solver = solver(&results, None);
    let gate = Arc::new(Notify::new());
    let slow = || {
        let op = TestOp {
            gate: Some(gate.clone()),
            ..TestOp::new("slow", 0, &log)
        };
        vec![spec(op, &[])]
    };
    let mut asking = Vec::new();
    let mut jobs = Vec::new();
    for _ in 0..2 {
        let job = solver.job(Progress::default(), JobOptions::default());
        job.load(slow()).unwrap();
        let handle = job.handle();
        asking.push(stdx::task::spawn("ask", async move {
            handle.solve(edge("slow")).await
        }));
        jobs.push(job);
    }
    let mut seen = Vec::new();
    while seen.is_empty() {
        tokio::task::yield_now().await;
        seen = log.take();
    }
    jobs.remove(0);
    assert!(matches!(asking.remove(0).await, Err(Error::Canceled)));
    assert_eq!(
        log.take(),
        Vec::<String>::new(),
        "the other build still waits for it"
    );
    drop(jobs);
    assert!(matches!(asking.remove(0).await, Err(Error::Canceled)));
    let mut seen = Vec::new();
    while seen.is_empty() {
        tokio::task::yield_now().await;
        seen = log.take();
    }
    assert_eq!(seen, ["stopped slow"]);
    assert!(solver.is_idle());
}

/// Rows: C11
#[tokio::test]
async fn an_error_says_which_vertex_and_why() {
    let (log, results) = (Log::default(), Arc::new(Results::default()));
    let solver = solver(&results, None);
    let broken = TestOp {
        fails: true,
        ..TestOp::new("make", 1, &log)
    };
    let specs = vec![
        spec(TestOp::new("test", 1, &log), &["make"]),
        spec(broken, &["base"]),
        spec(TestOp::new("base", 0, &log), &[]),
    ];
    let error = build(&solver, specs, "test").await.unwrap_err();
    let vertex = error.vertex().unwrap();
    assert_eq!(
        (vertex.vertex, &*vertex.name),
        (edge("make").vertex, "make")
    );
    assert_eq!(vertex.doing, Doing::Run);
    assert_eq!(vertex.cause.to_string(), "exit code 127");
    let cause: &OpError = &vertex.cause;
    assert!(cause.downcast_ref::<crate::support::Exit>().is_some());
    // Another build with a better op is not told of the old failure.
    build(&solver, three_steps(&log), "test").await.unwrap();
}

/// Rows: C06
#[tokio::test]
async fn no_cache_runs_again_what_rests_on_it_too() {
    let (log, results) = (Log::default(), Arc::new(Results::default()));
    let solver = solver(&results, None);
    build(&solver, three_steps(&log), "test").await.unwrap();
    log.take();
    let mut specs = three_steps(&log);
    specs[1].ignore_cache = true;
    build(&solver, specs, "test").await.unwrap();
    assert_eq!(
        log.take(),
        ["run make", "run test"],
        "base comes from the cache"
    );
    let all = JobOptions { no_cache: true };
    let job = solver.job(Progress::default(), all);
    job.load(three_steps(&log)).unwrap();
    job.solve(edge("test")).await.unwrap();
    let misses: Vec<Miss> = job.misses().into_iter().map(|(_, miss)| miss).collect();
    assert_eq!(misses, [Miss::Ignored, Miss::Ignored, Miss::Ignored]);
    assert_eq!(log.take(), ["run base", "run make", "run test"]);
    build(&solver, three_steps(&log), "test").await.unwrap();
    assert_eq!(
        log.take(),
        Vec::<String>::new(),
        "what was made without looking is kept"
    );
}

/// Rows: D28
#[tokio::test]
async fn builds_take_turns_when_places_are_few() {
    let (log, results) = (Log::default(), Arc::new(Results::default()));
    let solver = solver(&results, Some(1));
    let gate = Arc::new(Notify::new());
    let limited = |name: &str, gate: Option<Arc<Notify>>| {
        let mut spec = spec(
            TestOp {
                gate,
                ..TestOp::new(name, 0, &log)
            },
            &[],
        );
        spec.limited = true;
        spec
    };
    let large = solver.job(Progress::default(), JobOptions::default());
    let small = solver.job(Progress::default(), JobOptions::default());
    let names: Vec<String> = (0..5).map(|n| format!("large {n}")).collect();
    large
        .load(
            names
                .iter()
                .map(|n| limited(n, (n == "large 0").then(|| gate.clone())))
                .collect(),
        )
        .unwrap();
    small.load(vec![limited("small", None)]).unwrap();
    let ask = |handle: solver::JobHandle<String>, name: String| {
        stdx::task::spawn("ask", async move { handle.solve(edge(&name)).await })
    };
    let mut asking = vec![ask(large.handle(), names[0].clone())];
    let mut first = Vec::new();
    while first.is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        first = log.take();
    }
    asking.extend(
        names[1..]
            .iter()
            .map(|name| ask(large.handle(), name.clone())),
    );
    asking.push(ask(small.handle(), "small".to_owned()));
    // Each is asked for its map, looked up twice, and then waits for its place.
    let (of_jobs, asked, of_vertices) = (4, 6, 6 * 3);
    let all_wait = async {
        while solver.counters().events < of_jobs + asked + of_vertices {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    };
    let soon = std::time::Duration::from_secs(30);
    tokio::time::timeout(soon, all_wait)
        .await
        .expect("all wait");
    assert_eq!(log.take(), Vec::<String>::new(), "there is one place");
    gate.notify_one();
    for asked in asking {
        asked.await.unwrap();
    }
    assert_eq!(first, ["run large 0"]);
    assert_eq!(
        log.take()[0],
        "run small",
        "its turn comes after one step of the large build"
    );
}

/// Rows: Q11
#[tokio::test]
async fn graphs_that_make_no_sense_are_refused() {
    let (log, results) = (Log::default(), Arc::new(Results::default()));
    let solver = solver(&results, None);
    let job = solver.job(Progress::default(), JobOptions::default());
    let alone = vec![spec(TestOp::new("test", 1, &log), &["make"])];
    assert!(matches!(job.load(alone), Err(Error::MissingInput { name, .. }) if name == "test"));
    let circle = vec![
        spec(TestOp::new("a", 1, &log), &["b"]),
        spec(TestOp::new("b", 1, &log), &["a"]),
    ];
    assert!(matches!(job.load(circle), Err(Error::Cycle { .. })));
    assert!(matches!(
        job.solve(edge("nobody")).await,
        Err(Error::UnknownVertex(_))
    ));
    let wrong = TestOp {
        map: TestOp::new("x", 2, &log).map,
        ..TestOp::new("wrong", 0, &log)
    };
    job.load(vec![
        spec(wrong, &[]),
        spec(TestOp::new("base", 0, &log), &[]),
    ])
    .unwrap();
    let error = job.solve(edge("wrong")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "`wrong` has 0 inputs but described 2 in its cache map"
    );
    let beyond = solver::Edge {
        output: 5,
        ..edge("base")
    };
    assert_eq!(
        job.solve(beyond).await.unwrap_err().to_string(),
        "`base` has no output 5"
    );
    assert_eq!(job.solve(edge("base")).await.unwrap(), "base()");
}

/// The names of keys are facts of the wire: exported caches carry them. Rows: C02
#[test]
fn keys_are_named_as_caches_name_them() {
    use solver::{Created, KeyId};
    let content = Digest::of("content");
    let stable = KeyDigest::Stable(content);
    assert_eq!(stable.record(2), Digest::of(format!("{content}@2")));
    assert_eq!(
        KeyId::content(content),
        KeyId(Digest::of(format!("{content}@-1")))
    );
    assert_eq!(KeyId::root(&stable, 2), KeyId(stable.record(2)));
    let spring_of_2025 = Created(1_743_000_000_000_000_000);
    assert!(Created::now() > spring_of_2025);
}
