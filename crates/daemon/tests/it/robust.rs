//! Clients that behave badly, and those that must show who they are.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use client::{Address, Client};
use daemon::config::file::File;
use daemon::config::flags::Flags;
use daemon::config::{Config, Name, Surroundings};
use daemon::{Services, listen};
use proto::moby::buildkit::v1 as wire;
use proto::moby::buildkit::v1::control_client::ControlClient;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::Code;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::pretender::Pretender;

struct Running {
    dir: tempfile::TempDir,
    address: String,
    stop: tokio::sync::oneshot::Sender<()>,
    serving: stdx::task::Task<()>,
}

impl Running {
    async fn end(self) {
        self.stop.send(()).unwrap();
        tokio::time::timeout(Duration::from_secs(10), self.serving)
            .await
            .expect("it stops");
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("kiln.sock")
    }

    async fn client(&self) -> Client {
        Client::connect(&Address::parse(&self.address).unwrap())
            .await
            .unwrap()
    }

    async fn control(&self) -> ControlClient<Channel> {
        ControlClient::new(self.client().await.channel())
    }
}

async fn start(change: impl FnOnce(&mut Flags)) -> Running {
    let dir = tempfile::tempdir().unwrap();
    let mut flags = Flags {
        addr: vec![format!("unix://{}/kiln.sock", dir.path().display())],
        root: Some(dir.path().join("state")),
        ..Flags::default()
    };
    change(&mut flags);
    let surroundings = Surroundings {
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        ..Surroundings::default()
    };
    let config = Config::resolve(File::default(), &flags, Name::Kiln, &surroundings).unwrap();
    let listeners = listen::open(&config, 0).unwrap();
    let address = listeners[0].address.clone();
    let services =
        Services::new(Arc::new(Pretender::at(&dir.path().join("state"))), &config).unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = stdx::task::spawn("serve", async move {
        let asked = async {
            let _ = stopped.await;
        };
        services.serve(listeners, &config, asked).await.unwrap();
    });
    Running {
        dir,
        address,
        stop,
        serving,
    }
}

fn solve(id: &str, frontend: &str) -> wire::SolveRequest {
    wire::SolveRequest {
        r#ref: id.into(),
        frontend: frontend.into(),
        ..wire::SolveRequest::default()
    }
}

/// Rows: D24
#[tokio::test(flavor = "multi_thread")]
async fn only_clients_with_our_certificate_are_let_in() {
    let pems = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/tls");
    let file = |name: &str| PathBuf::from(pems).join(name);
    let text = |name: &str| std::fs::read(file(name)).unwrap();
    let running = start(|flags| {
        flags.addr = vec!["tcp://127.0.0.1:0".into()];
        flags.tlscert = Some(file("server.pem"));
        flags.tlskey = Some(file("server.key"));
        flags.tlscacert = Some(file("ca.pem"));
    })
    .await;
    let url = running.address.replace("tcp://", "https://");
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(text("ca.pem")))
        .domain_name("localhost");
    let call = async |tls: ClientTlsConfig| {
        let channel = Endpoint::from_shared(url.clone())
            .unwrap()
            .tls_config(tls)
            .unwrap()
            .connect_lazy();
        ControlClient::new(channel).info(wire::InfoRequest {}).await
    };
    let known = tls
        .clone()
        .identity(Identity::from_pem(text("client.pem"), text("client.key")));
    call(known).await.unwrap();
    assert!(call(tls).await.is_err(), "a client without a certificate");
    running.end().await;
}

/// Rows: A01
#[tokio::test(flavor = "multi_thread")]
async fn two_builds_at_once_cannot_have_one_id() {
    let running = start(|_| ()).await;
    let (mut first, mut second) = (running.control().await, running.control().await);
    let sleeping = stdx::task::spawn(
        "solve",
        async move { first.solve(solve("one", "sleep")).await },
    );
    let mut status = second
        .status(wire::StatusRequest {
            r#ref: "one".into(),
        })
        .await
        .unwrap()
        .into_inner();
    status.message().await.unwrap();
    let error = second.solve(solve("one", "x")).await.unwrap_err();
    assert_eq!(error.code(), Code::AlreadyExists);
    let mut history = second
        .listen_build_history(wire::BuildHistoryRequest {
            early_exit: true,
            ..Default::default()
        })
        .await
        .unwrap()
        .into_inner();
    let event = history.message().await.unwrap().unwrap();
    assert_eq!(
        event.r#type(),
        wire::BuildHistoryEventType::Started,
        "the first goes on"
    );
    drop(sleeping);
    running.end().await;
}

/// Rows: D30
#[tokio::test(flavor = "multi_thread")]
async fn a_message_too_large_is_refused_with_a_sentence() {
    let running = start(|_| ()).await;
    let mut control = running.control().await;
    let mut request = solve("large", "x");
    request
        .frontend_attrs
        .insert("a".into(), "x".repeat(17 << 20));
    let error = control.solve(request).await.unwrap_err();
    assert!(
        matches!(error.code(), Code::OutOfRange | Code::ResourceExhausted),
        "{error:?}"
    );
    assert!(!error.message().is_empty());
    control.solve(solve("small", "x")).await.unwrap();
    running.end().await;
}

/// Rows: D01, N01
#[tokio::test(flavor = "multi_thread")]
async fn half_frames_and_nonsense_leave_nothing_behind() {
    let running = start(|_| ()).await;
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let half_headers = [
        PREFACE,
        &[0, 0, 0, 4, 0, 0, 0, 0, 0],
        &[0, 1, 0, 1, 4, 0, 0, 0, 1, 0x83],
    ]
    .concat();
    let huge_frame = [PREFACE, &[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]].concat();
    let all: [&[u8]; 6] = [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        &PREFACE[..10],
        &half_headers,
        &huge_frame,
        &[0xff; 4096],
    ];
    for _ in 0..20 {
        for bytes in all {
            let mut raw = tokio::net::UnixStream::connect(running.socket())
                .await
                .unwrap();
            raw.write_all(bytes).await.unwrap();
            let mut answer = [0; 64];
            // Whatever it says, it says it at once or waits for the rest.
            let _ = tokio::time::timeout(Duration::from_millis(5), raw.read(&mut answer)).await;
        }
    }
    running
        .control()
        .await
        .solve(solve("after", "x"))
        .await
        .unwrap();
    running.end().await;
}

/// Rows: A05, N01
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_sessions_come_and_go() {
    let running = start(|_| ()).await;
    let client = running.client().await;
    let mut sessions = Vec::new();
    for number in 0..1000 {
        let opened = client
            .session(
                &format!("s{number}"),
                "many",
                "",
                session::Attachables::new(),
            )
            .await;
        sessions.push(opened.unwrap());
    }
    running
        .control()
        .await
        .solve(solve("beside", "x"))
        .await
        .unwrap();
    drop(sessions);
    let again = client
        .session("s1", "again", "", session::Attachables::new())
        .await
        .unwrap();
    drop(again);
    running.end().await;
}

/// Rows: D31, D32
#[tokio::test(flavor = "multi_thread")]
async fn the_debug_address_tells_of_builds() {
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let running = start(|flags| flags.debugaddr = Some(free.to_string())).await;
    running
        .control()
        .await
        .solve(solve("b", "dockerfile.v0"))
        .await
        .unwrap();
    let get = async |path: &str| {
        let mut raw = tokio::net::TcpStream::connect(free).await.unwrap();
        raw.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut text = String::new();
        raw.read_to_string(&mut text).await.unwrap();
        text
    };
    let metrics = get("/metrics").await;
    assert!(metrics.contains("buildkit_build_duration_seconds_count{frontend=\"dockerfile.v0\",status=\"completed\"} 1"), "{metrics}");
    assert!(
        metrics.contains("rpc_method=\"/moby.buildkit.v1.Control/Solve\"} 1"),
        "{metrics}"
    );
    assert!(get("/debug/vars").await.contains("\"cmdline\""));
    assert!(get("/debug/pprof/heap").await.starts_with("HTTP/1.1 501"));
    assert!(get("/other").await.starts_with("HTTP/1.1 404"));
    running.end().await;
}

/// Rows: A13, D29, D33
#[tokio::test(flavor = "multi_thread")]
async fn finalize_writes_the_trace_of_a_build() {
    let running = start(|_| ()).await;
    let mut control = running.control().await;
    control.solve(solve("traced", "x")).await.unwrap();
    let request = wire::UpdateBuildHistoryRequest {
        r#ref: "traced".into(),
        finalize: true,
        ..Default::default()
    };
    control.update_build_history(request).await.unwrap();
    let asked = wire::BuildHistoryRequest {
        r#ref: "traced".into(),
        early_exit: true,
        ..Default::default()
    };
    let mut history = control
        .listen_build_history(asked)
        .await
        .unwrap()
        .into_inner();
    let record = history.message().await.unwrap().unwrap().record.unwrap();
    assert_eq!(
        record.trace.unwrap().media_type,
        "application/vnd.buildkit.otlp.json.v0"
    );
    running.end().await;
}
