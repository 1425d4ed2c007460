//! A run that was written down goes the same way when it is played again.

use std::io::Write;
use std::sync::{Arc, Mutex};

use progress::Progress;
use solver::JobOptions;

use crate::support::{Log, Results, TestOp, edge, solver, spec};

#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_trace_plays_again() {
    let (log, results) = (Log::default(), Arc::new(Results::default()));
    let solver = solver(&results, Some(2));
    let paper = Paper::default();
    solver.record(Box::new(paper.clone()));
    for round in 0..3 {
        let job = solver.job(
            Progress::default(),
            JobOptions {
                no_cache: round == 2,
            },
        );
        let mut last = spec(TestOp::new("last", 2, &log), &["left", "right"]);
        last.limited = true;
        job.load(vec![
            last,
            spec(
                TestOp {
                    fails: round == 2,
                    ..TestOp::new("left", 1, &log)
                },
                &["base"],
            ),
            spec(TestOp::new("right", 1, &log), &["base"]),
            spec(TestOp::new("base", 0, &log), &[]),
        ])
        .unwrap();
        assert_eq!(job.solve(edge("last")).await.is_ok(), round != 2);
    }
    let trace = paper.0.lock().unwrap().clone();
    let events = solver::trace::play(&trace[..], Some(2)).unwrap();
    assert!(events > 30, "{events}");
    let text = String::from_utf8(trace)
        .unwrap()
        .replace("\"run ", "\"ran ");
    let error = solver::trace::play(text.as_bytes(), Some(2)).unwrap_err();
    assert!(matches!(error, solver::trace::PlayError::Differs { .. }));
}
