//! Ops that find out only while they run what they need.

use std::sync::Arc;

use progress::Progress;
use solver::action::Action;
use solver::event::{Declared, Event, JobId, RequestId, VertexId};
use solver::state::{Fault, State};
use solver::{CacheMap, Error, JobHandle, JobOptions, KeyDigest, VertexSpec};

use crate::support::{Log, Results, TestOp, edge, solver, spec};

/// A vertex that asks for `wants` while it runs.
fn nesting(
    name: &str,
    inputs: &[&str],
    (job, wants): (&JobHandle<String>, &str),
    log: &Log,
) -> VertexSpec<String> {
    let op = TestOp {
        nested: Some((job.clone(), edge(wants))),
        ..TestOp::new(name, inputs.len(), log)
    };
    spec(op, inputs)
}

/// The innermost error.
fn root_cause(error: &Error) -> String {
    let mut at: &dyn std::error::Error = error;
    while let Some(cause) = at.source() {
        at = cause;
    }
    at.to_string()
}

/// Rows: L15
#[tokio::test]
async fn what_a_run_asks_for_is_made_once_and_found_again() {
    let (log, results) = (Log::default(), Arc::new(Results::default()));
    let solver = solver(&results, Some(1));
    for expected in [&["run base", "run outer", "run inner"][..], &[]] {
        let job = solver.job(Progress::default(), JobOptions::default());
        let handle = job.handle();
        let mut inner = spec(TestOp::new("inner", 1, &log), &["base"]);
        inner.limited = true;
        let outer = nesting("outer", &["base"], (&handle, "inner"), &log);
        let base = spec(TestOp::new("base", 0, &log), &[]);
        job.load(vec![base, outer, inner]).unwrap();
        let result = job.solve(edge("outer")).await.unwrap();
        assert_eq!(result, "outer(base(),inner(base()))");
        assert_eq!(log.take(), expected);
    }
}

/// Rows: L15
#[tokio::test]
async fn a_run_that_asks_for_what_waits_for_it_fails() {
    let (log, results) = (Log::default(), Arc::new(Results::default()));
    let solver = solver(&results, None);
    // Itself; what rests on it; and one more run in between.
    for wants in ["outer", "above", "between"] {
        let job = solver.job(Progress::default(), JobOptions::default());
        let handle = job.handle();
        let outer = nesting("outer", &[], (&handle, wants), &log);
        let above = spec(TestOp::new("above", 1, &log), &["outer"]);
        let between = nesting("between", &[], (&handle, "above"), &log);
        job.load(vec![outer, above, between]).unwrap();
        let error = job.solve(edge("above")).await.unwrap_err();
        let name = if wants == "between" {
            "between"
        } else {
            "outer"
        };
        assert_eq!(
            root_cause(&error),
            format!("vertex `{name}` depends on itself"),
            "{wants}"
        );
    }
}

/// Two builds whose runs ask for each other's vertices do not wait for ever.
///
/// Rows: L15
#[tokio::test]
async fn runs_of_two_builds_that_ask_for_each_other_end() {
    let (log, results) = (Log::default(), Arc::new(Results::default()));
    let solver = solver(&results, None);
    let jobs = [(), ()].map(|()| solver.job(Progress::default(), JobOptions::default()));
    for job in &jobs {
        let handle = job.handle();
        job.load(vec![
            nesting("left", &[], (&handle, "right"), &log),
            nesting("right", &[], (&handle, "left"), &log),
        ])
        .unwrap();
    }
    let (left, right) = tokio::join!(jobs[0].solve(edge("left")), jobs[1].solve(edge("right")));
    for result in [left, right] {
        let said = root_cause(&result.unwrap_err());
        assert!(said.ends_with("depends on itself"), "{said}");
    }
}

/// A run may ask for another vertex with its own key, which then runs by itself: what the
/// first one found out is not known yet.
///
/// Rows: L15
#[tokio::test]
async fn a_run_does_not_wait_for_the_one_that_asked_for_it() {
    let (log, results) = (Log::default(), Arc::new(Results::default()));
    let solver = solver(&results, None);
    let job = solver.job(Progress::default(), JobOptions::default());
    let base = spec(TestOp::new("base", 0, &log), &[]);
    let outer = nesting("same", &["base"], (&job.handle(), "other"), &log);
    let mut inner = spec(TestOp::new("same", 1, &log), &["base"]);
    inner.digest = edge("other").vertex;
    job.load(vec![base, outer, inner]).unwrap();
    let result = job.solve(edge("same")).await.unwrap();
    assert_eq!(result, "same(base(),same(base()))");
    assert_eq!(log.take(), ["run base", "run same", "run same"]);
}

/// The build whose run asked leaves; another one that waits for that run does it again.
///
/// Rows: C10, L15
#[tokio::test]
async fn a_run_that_asked_is_done_again_for_who_stays() {
    let (log, results) = (Log::default(), Arc::new(Results::default()));
    let solver = solver(&results, None);
    let gate = Arc::new(tokio::sync::Notify::new());
    let mut jobs: Vec<_> = (0..2)
        .map(|_| solver.job(Progress::default(), JobOptions::default()))
        .collect();
    let mut asking = Vec::new();
    for job in &jobs {
        let handle = job.handle();
        let slow = TestOp {
            gate: Some(gate.clone()),
            ..TestOp::new("slow", 0, &log)
        };
        let outer = nesting("outer", &[], (&handle, "slow"), &log);
        job.load(vec![outer, spec(slow, &[])]).unwrap();
        asking.push(stdx::task::spawn("ask", async move {
            handle.solve(edge("outer")).await
        }));
    }
    let mut seen = Vec::new();
    while !seen.contains(&"run slow".to_owned()) {
        tokio::task::yield_now().await;
        seen.extend(log.take());
    }
    drop(jobs.remove(0));
    while seen.iter().filter(|line| *line == "run slow").count() < 2 {
        tokio::task::yield_now().await;
        seen.extend(log.take());
    }
    gate.notify_one();
    assert!(matches!(asking.remove(0).await, Err(Error::Canceled)));
    assert_eq!(asking.remove(0).await.unwrap(), "outer(slow())");
}

/// What rests on the run that asks and was found elsewhere is there: nobody waits for it.
///
/// Rows: L15
#[tokio::test]
async fn a_run_may_ask_for_what_rests_on_a_result_that_is_there() {
    let (log, results) = (Log::default(), Arc::new(Results::default()));
    let solver = solver(&results, None);
    let above = || spec(TestOp::new("above", 1, &log), &["asker"]);
    let job = solver.job(Progress::default(), JobOptions::default());
    let plain = spec(TestOp::new("asker", 0, &log), &[]);
    job.load(vec![plain, above()]).unwrap();
    job.solve(edge("above")).await.unwrap();
    drop(job);
    results.lost.lock().unwrap().insert("asker()".to_owned());
    let job = solver.job(Progress::default(), JobOptions::default());
    let asker = nesting("asker", &[], (&job.handle(), "wanted"), &log);
    let wanted = spec(TestOp::new("wanted", 1, &log), &["above"]);
    job.load(vec![asker, above(), wanted]).unwrap();
    job.solve(edge("above")).await.unwrap();
    let result = job.solve(edge("asker")).await.unwrap();
    assert_eq!(result, "asker(wanted(above(asker())))");
}

/// Two vertices with one key, in a state whose caches are empty.
struct Twins {
    state: State<u64, Fault>,
    /// Vertices that run.
    running: Vec<VertexId>,
    answers: Vec<(RequestId, Result<u64, Fault>)>,
}

impl Twins {
    fn new() -> Twins {
        let mut twins = Twins {
            state: State::new(None),
            running: Vec::new(),
            answers: Vec::new(),
        };
        twins.tell(Event::JobCame { job: JobId(1) });
        let twin = |name: &str| Declared {
            digest: edge(name).vertex,
            inputs: Vec::new(),
            ignore_cache: false,
            limited: false,
        };
        twins.tell(Event::Declared {
            job: JobId(1),
            vertices: vec![twin("first"), twin("second")],
        });
        twins
    }

    fn vertex(&self, name: &str) -> VertexId {
        let digest = edge(name).vertex;
        self.state.vertex_of(JobId(1), &digest).unwrap()
    }

    fn want(&mut self, request: u64, name: &str, within: Option<VertexId>) {
        self.tell(Event::Wanted {
            job: JobId(1),
            request: RequestId(request),
            vertex: edge(name).vertex,
            output: 0,
            within,
        });
    }

    /// Tells an event, and does everything but runs.
    fn tell(&mut self, event: Event<u64, Fault>) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for action in self.state.apply(event) {
                match action {
                    Action::AskMap { task, .. } => {
                        let same = KeyDigest::Stable(oci::Digest::of("same"));
                        let result = Ok(CacheMap::new(same, 0));
                        events.push(Event::MapFound { task, result });
                    }
                    Action::FindRecords { task, .. } => {
                        let records = Vec::new();
                        events.push(Event::RecordsFound { task, records });
                    }
                    Action::Run { vertex, .. } => self.running.push(vertex),
                    Action::Reply { request, result } => self.answers.push((request, result)),
                    Action::Explain { .. } => {}
                    other => panic!("{other:?}"),
                }
            }
        }
    }
}

/// Who shares a run waits for it, too: that run cannot ask for it.
///
/// Rows: L15
#[test]
fn a_run_cannot_ask_for_what_shares_it() {
    let mut twins = Twins::new();
    let first = twins.vertex("first");
    twins.want(1, "first", None);
    twins.want(2, "second", None);
    assert_eq!(twins.running, [first], "the second follows");
    twins.want(3, "second", Some(first));
    assert_eq!(twins.answers, [(RequestId(3), Err(Fault::Cycle(first)))]);
}

/// The same the other way round: it is asked for before it could follow.
///
/// Rows: L15
#[test]
fn what_a_run_asks_for_does_not_share_it() {
    let mut twins = Twins::new();
    let (first, second) = (twins.vertex("first"), twins.vertex("second"));
    twins.want(1, "first", None);
    twins.want(2, "second", Some(first));
    assert_eq!(twins.running, [first, second]);
    assert_eq!(twins.answers, []);
}
