//! What a frontend can look at when a step failed.

use std::sync::{Arc, Mutex};

use engine::ClientFrontend;
use frontend::{FailedStep, SolveRequest};
use llb::{Builder, Exec, FileOps, Meta, Mkdir, MountSpec};

use crate::setup;

/// Fails in a step, and asks again and again what is left of it.
fn looks_twice(seen: Arc<Mutex<Vec<FailedStep>>>) -> ClientFrontend {
    Box::new(move |bridge| {
        Box::pin(async move {
            let mut builder = Builder::new();
            let dir = Mkdir {
                path: "/before".into(),
                mode: 0o755,
                ..Mkdir::default()
            };
            let root = builder.file(FileOps::on(None).mkdir(dir), Meta::default());
            let exec = Exec::new(["/absent"]);
            let mounts = vec![MountSpec::root(Some(root))];
            let run = builder.run(exec, mounts, None, Meta::default());
            let request = SolveRequest {
                definition: builder.definition(run.outputs.get("/")),
                evaluate: true,
                ..SolveRequest::default()
            };
            let error = bridge.solve(request).await.expect_err("no such program");
            for _ in 0..2 {
                let step = bridge.failed_step(&error).expect("something is left");
                let root = step.mounts[0].clone().expect("it was written");
                bridge.stat_file(&root, "/before").await?;
                seen.lock().unwrap().push(step);
            }
            Err(error)
        })
    })
}

/// Asking again about one failure names nothing anew.
///
/// Rows: A16
#[tokio::test(flavor = "multi_thread")]
async fn privileged_what_is_left_of_a_failed_step_has_one_name() {
    let Some((engine, _dir)) = setup::engine().await else {
        return;
    };
    let seen = Arc::new(Mutex::default());
    let request = setup::by(looks_twice(seen.clone()));
    let failure = setup::build(&engine, request).await.unwrap_err();
    assert_eq!(failure.exit_code, Some(127), "{failure:?}");
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    let [first, again] = &seen[..] else {
        panic!("{failure:?}")
    };
    assert_eq!(first.inputs, again.inputs);
    assert_eq!(first.mounts, again.mounts);
    assert_ne!(
        first.inputs, first.mounts,
        "what it began with and what is left"
    );
    engine.close().await;
}
