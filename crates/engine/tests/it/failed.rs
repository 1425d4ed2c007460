//! What a frontend can look at when a step failed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use engine::{ClientFrontend, Compatibility, Config, Engine, Policy, Request, What};
use frontend::{FailedStep, SolveRequest};
use llb::{Builder, Exec, FileOps, Meta, Mkdir, MountSpec};
use progress::Progress;

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
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(Config::new(dir.path())).await.unwrap();
    let seen = Arc::new(Mutex::default());
    let request = Request {
        id: "build".to_owned(),
        session: String::new(),
        what: What::Client {
            options: BTreeMap::new(),
            inputs: BTreeMap::new(),
            run: looks_twice(seen.clone()),
        },
        exporters: Vec::new(),
        session_exporter: false,
        cache_imports: Vec::new(),
        cache_exports: Vec::new(),
        entitlements: Vec::new(),
        policy: Policy::default(),
        compatibility: Compatibility::default(),
        remembered: false,
    };
    let progress = Progress::new(progress::Options::default());
    let failure = engine.build(request, progress).await.unwrap_err();
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
