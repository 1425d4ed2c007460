//! Listening, stopping, and what becomes of builds then.

use std::sync::Arc;
use std::time::Duration;

use client::{Address, BuildOptions, Client};
use daemon::config::file::File;
use daemon::config::flags::Flags;
use daemon::config::{Config, Name, Surroundings};
use daemon::{Services, listen};
use stdx::Kind;

use crate::pretender::Pretender;

struct Running {
    dir: tempfile::TempDir,
    stop: tokio::sync::oneshot::Sender<()>,
    serving: stdx::task::Task<()>,
}

async fn start() -> (Running, Client) {
    let dir = tempfile::tempdir().unwrap();
    let address = format!("unix://{}/kiln.sock", dir.path().display());
    let flags = Flags {
        addr: vec![address.clone()],
        root: Some(dir.path().join("state")),
        ..Flags::default()
    };
    let surroundings = Surroundings {
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        ..Surroundings::default()
    };
    let config = Config::resolve(File::default(), &flags, Name::Kiln, &surroundings).unwrap();
    let listeners = listen::open(&config, 0).unwrap();
    let services = Services::new(Arc::new(Pretender::default()), &config).unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let serving = stdx::task::spawn("serve", async move {
        let asked = async {
            let _ = stopped.await;
        };
        services.serve(listeners, &config, asked).await.unwrap();
    });
    let client = Client::connect(&Address::parse(&address).unwrap())
        .await
        .unwrap();
    (Running { dir, stop, serving }, client)
}

fn options(frontend: &str) -> BuildOptions {
    BuildOptions {
        frontend: frontend.to_owned(),
        ..BuildOptions::default()
    }
}

/// Rows: D01, A01, A04, A05, N01
#[tokio::test(flavor = "multi_thread")]
async fn a_client_builds_over_a_socket_with_a_session() {
    let (running, client) = start().await;
    let mut build = client.build(options("dockerfile.v0"));
    let mut logs = Vec::new();
    while let Some(event) = build.next().await {
        if let progress::Event::Log(log) = event {
            logs.extend_from_slice(&log.data);
        }
    }
    assert_eq!(logs, b"pretending\n");
    assert_eq!(build.finish().await.unwrap()["frontend"], "dockerfile.v0");
    drop(client);
    running.stop.send(()).unwrap();
    running.serving.await;
    assert!(
        !running.dir.path().join("kiln.sock").exists(),
        "the socket is removed"
    );
}

/// Rows: D25
#[tokio::test(flavor = "multi_thread")]
async fn stopping_cancels_builds_and_refuses_new_ones() {
    let (running, client) = start().await;
    let mut build = client.build(options("sleep"));
    // It runs once it tells of itself.
    build.next().await.unwrap();
    running.stop.send(()).unwrap();
    let error = build.finish().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Canceled, "{error}");
    tokio::time::timeout(Duration::from_secs(10), running.serving)
        .await
        .expect("it stops");
}

/// Rows: C10
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_takes_its_build_along() {
    let (running, client) = start().await;
    let mut build = client.build(options("sleep"));
    build.next().await.unwrap();
    let id = build.id().to_owned();
    drop(build);
    let over = async {
        loop {
            let active = client.history(true, &id, true, &[], 0).await.unwrap();
            if futures::StreamExt::count(active).await == 0 {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), over)
        .await
        .expect("the build ends");
    running.stop.send(()).unwrap();
    running.serving.await;
}

/// A daemon that cannot go on lets go of what it keeps all the same.
/// Rows: D01
#[tokio::test]
async fn a_listener_that_fails_ends_the_daemon_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let missing = Some(dir.path().join("missing.pem"));
    let flags = Flags {
        addr: vec!["tcp://127.0.0.1:0".to_owned()],
        root: Some(dir.path().join("state")),
        tlscert: missing.clone(),
        tlskey: missing,
        ..Flags::default()
    };
    let surroundings = Surroundings::default();
    let config = Config::resolve(File::default(), &flags, Name::Kiln, &surroundings).unwrap();
    let builder = Arc::new(Pretender::default());
    let services = Services::new(builder.clone(), &config).unwrap();
    let listeners = listen::open(&config, 0).unwrap();
    let served = services.serve(listeners, &config, std::future::pending());
    let error = served.await.unwrap_err();
    assert!(error.to_string().contains("missing.pem"), "{error}");
    assert!(builder.is_closed());
}
