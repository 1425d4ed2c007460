//! The library against a daemon made for the purpose, over a pipe in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use client::{BuildOptions, CacheEntry, Client, Export, HistoryKind, PruneOptions};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use progress::Event;
use proto::details::{self, Detail};
use proto::moby::buildkit::v1 as wire;
use proto::moby::buildkit::v1::control_server::{Control, ControlServer};
use session::local::{Dirs, SecretSource, SecretValues};
use session::{Attachables, DirRequest, Sessions};
use stdx::Kind;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

const STEP: &str = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

/// A daemon that does one thing: it reads the context and a secret over the session.
#[derive(Clone, Default)]
struct Daemon {
    sessions: Sessions,
    asked: Arc<Mutex<Option<wire::SolveRequest>>>,
    fail: bool,
}

#[tonic::async_trait]
impl Control for Daemon {
    async fn solve(
        &self,
        call: Request<wire::SolveRequest>,
    ) -> Result<Response<wire::SolveResponse>, Status> {
        let request = call.into_inner();
        *self.asked.lock().unwrap() = Some(request.clone());
        if self.fail {
            let range = details::Range {
                start: details::Position {
                    line: 2,
                    character: 0,
                },
                end: details::Position {
                    line: 2,
                    character: 0,
                },
            };
            let told = [
                Detail::Vertex(details::Vertex {
                    digest: STEP.into(),
                }),
                Detail::Exit(details::Exit { code: 7 }),
                Detail::Source(details::Source {
                    info: Some(details::SourceInfo {
                        filename: "Dockerfile".into(),
                        // More than a list of headers usually may have.
                        data: "RUN false\n".repeat(20_000).into(),
                        language: "Dockerfile".into(),
                        definition: None,
                    }),
                    ranges: vec![range],
                }),
            ];
            return Err(details::status(
                tonic::Code::Unknown,
                "process did not complete",
                &told,
            ));
        }
        let session = self
            .sessions
            .get(&request.session, Duration::from_secs(5))
            .await;
        let session = session.map_err(|e| Status::not_found(e.to_string()))?;
        let dir = tempfile::tempdir().unwrap();
        let want = DirRequest {
            name: "context".into(),
            ..DirRequest::default()
        };
        let root = stdx::sys::Root::open(dir.path()).unwrap();
        session
            .file_sync()
            .unwrap()
            .sync_into(&want, root, None)
            .await
            .unwrap();
        let text = std::fs::read_to_string(dir.path().join("Dockerfile")).unwrap();
        let secret = session.secrets().unwrap().get("tok").await.unwrap();
        let secret = String::from_utf8(secret.to_vec()).unwrap();
        let exporter_response =
            BTreeMap::from([("text".to_owned(), text), ("secret".to_owned(), secret)]);
        Ok(Response::new(wire::SolveResponse { exporter_response }))
    }

    type StatusStream = BoxStream<'static, Result<wire::StatusResponse, Status>>;

    async fn status(
        &self,
        _: Request<wire::StatusRequest>,
    ) -> Result<Response<Self::StatusStream>, Status> {
        let vertex = wire::Vertex {
            digest: STEP.into(),
            name: "RUN true".into(),
            ..wire::Vertex::default()
        };
        let log = wire::VertexLog {
            vertex: STEP.into(),
            stream: 2,
            msg: "hello".into(),
            timestamp: None,
        };
        let odd = wire::Vertex {
            digest: "nonsense".into(),
            ..wire::Vertex::default()
        };
        let message = wire::StatusResponse {
            vertexes: vec![odd, vertex],
            logs: vec![log],
            ..wire::StatusResponse::default()
        };
        Ok(Response::new(futures::stream::iter([Ok(message)]).boxed()))
    }

    type SessionStream = BoxStream<'static, Result<wire::BytesMessage, Status>>;

    async fn session(
        &self,
        call: Request<Streaming<wire::BytesMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let hello = session::tunnel::Hello::from_metadata(call.metadata()).unwrap();
        let health = session::tunnel::Health::default();
        let outgoing = session::tunnel::accept(&self.sessions, hello, health, call.into_inner())
            .await
            .unwrap();
        Ok(Response::new(ReceiverStream::new(outgoing).map(Ok).boxed()))
    }

    type PruneStream = BoxStream<'static, Result<wire::UsageRecord, Status>>;

    async fn prune(
        &self,
        call: Request<wire::PruneRequest>,
    ) -> Result<Response<Self::PruneStream>, Status> {
        let size = call.into_inner().keep_duration;
        let record = wire::UsageRecord {
            id: "gone".into(),
            size,
            ..wire::UsageRecord::default()
        };
        Ok(Response::new(futures::stream::iter([Ok(record)]).boxed()))
    }

    #[expect(deprecated, reason = "an old daemon fills only this")]
    async fn disk_usage(
        &self,
        _: Request<wire::DiskUsageRequest>,
    ) -> Result<Response<wire::DiskUsageResponse>, Status> {
        let record = wire::UsageRecord {
            id: "a".into(),
            parent: "p".into(),
            ..wire::UsageRecord::default()
        };
        Ok(Response::new(wire::DiskUsageResponse {
            record: vec![record],
        }))
    }

    async fn list_workers(
        &self,
        _: Request<wire::ListWorkersRequest>,
    ) -> Result<Response<wire::ListWorkersResponse>, Status> {
        let platform = proto::pb::Platform {
            os: "linux".into(),
            architecture: "amd64".into(),
            ..Default::default()
        };
        let record = wire::types::WorkerRecord {
            id: "w".into(),
            platforms: vec![platform],
            ..Default::default()
        };
        Ok(Response::new(wire::ListWorkersResponse {
            record: vec![record],
        }))
    }

    async fn info(
        &self,
        _: Request<wire::InfoRequest>,
    ) -> Result<Response<wire::InfoResponse>, Status> {
        let version = wire::types::BuildkitVersion {
            version: "v9".into(),
            ..Default::default()
        };
        Ok(Response::new(wire::InfoResponse {
            buildkit_version: Some(version),
        }))
    }

    type ListenBuildHistoryStream = BoxStream<'static, Result<wire::BuildHistoryEvent, Status>>;

    async fn listen_build_history(
        &self,
        _: Request<wire::BuildHistoryRequest>,
    ) -> Result<Response<Self::ListenBuildHistoryStream>, Status> {
        let event = wire::BuildHistoryEvent {
            r#type: 1,
            record: None,
        };
        Ok(Response::new(futures::stream::iter([Ok(event)]).boxed()))
    }

    async fn update_build_history(
        &self,
        call: Request<wire::UpdateBuildHistoryRequest>,
    ) -> Result<Response<wire::UpdateBuildHistoryResponse>, Status> {
        match call.into_inner().r#ref.as_str() {
            "known" => Ok(Response::new(wire::UpdateBuildHistoryResponse {})),
            _ => Err(Status::not_found("no such build")),
        }
    }
}

async fn connect(daemon: Daemon) -> (Client, stdx::task::Task<()>) {
    let (here, there) = tokio::io::duplex(1 << 20);
    let serving = stdx::task::spawn("daemon", async move {
        let connections = futures::stream::iter([Ok::<_, std::io::Error>(there)])
            .chain(futures::stream::pending());
        tonic::transport::Server::builder()
            .http2_max_header_list_size(proto::MAX_HEADER_LIST_SIZE)
            .add_service(ControlServer::new(daemon))
            .serve_with_incoming(connections)
            .await
            .unwrap();
    });
    (Client::over(here).await.unwrap(), serving)
}

fn options(dir: &std::path::Path) -> BuildOptions {
    let secrets = SecretValues::new().with("tok", SecretSource::Value("sesame".into()));
    BuildOptions {
        frontend: "dockerfile.v0".into(),
        options: BTreeMap::from([("target".into(), "x".into())]),
        exports: vec![Export {
            kind: "image".into(),
            attrs: BTreeMap::from([("name".into(), "a".into())]),
        }],
        cache_from: vec![CacheEntry {
            kind: "registry".into(),
            attrs: BTreeMap::new(),
        }],
        entitlements: vec!["network.host".into()],
        offers: Attachables {
            secrets: Some(Arc::new(secrets)),
            ..Attachables::new().with_dirs(Dirs::new().with("context", dir))
        },
        ..BuildOptions::default()
    }
}

/// Rows: A01, A02, A03, A04, A05
#[tokio::test]
async fn a_build_reads_the_context_over_its_session() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("Dockerfile"), "FROM scratch\n").unwrap();
    let daemon = Daemon::default();
    let (client, _serving) = connect(daemon.clone()).await;
    let mut build = client.build(options(dir.path()));
    let id = build.id().to_owned();
    let mut events = Vec::new();
    while let Some(event) = build.next().await {
        events.push(event);
    }
    let answer = build.finish().await.unwrap();
    assert_eq!(answer["text"], "FROM scratch\n");
    assert_eq!(answer["secret"], "sesame");
    let [Event::Step(step), Event::Log(log)] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(
        (step.name.as_str(), &log.data[..]),
        ("RUN true", &b"hello"[..])
    );

    let asked = daemon.asked.lock().unwrap().clone().unwrap();
    assert_eq!(
        (asked.r#ref, asked.frontend.as_str()),
        (id, "dockerfile.v0")
    );
    assert_eq!(asked.exporters[0].r#type, "image");
    assert_eq!(
        (
            asked.exporter_deprecated.as_str(),
            &asked.exporter_attrs_deprecated["name"][..]
        ),
        ("image", "a")
    );
    assert_eq!(asked.cache.unwrap().imports[0].r#type, "registry");
    assert_eq!(asked.entitlements, ["network.host"]);
    let gone = daemon
        .sessions
        .get(&asked.session, Duration::from_millis(1))
        .await;
    assert!(
        gone.is_err() || daemon.sessions.is_empty(),
        "the session ends with the build"
    );
}

/// Rows: A16
#[tokio::test]
async fn a_failed_build_tells_the_step_the_lines_and_the_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let (client, _serving) = connect(Daemon {
        fail: true,
        ..Daemon::default()
    })
    .await;
    let error = client
        .build(options(dir.path()))
        .finish()
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "process did not complete");
    let failure = error.failure().unwrap();
    assert_eq!(failure.step.as_deref(), Some(STEP));
    assert_eq!(failure.exit_code, Some(7));
    let excerpt = &failure.excerpts[0];
    assert_eq!(
        (excerpt.source.data.len(), excerpt.ranges[0].start.line),
        (200_000, 2)
    );
}

/// Rows: A06, A07, A08, A09, A12, A13
#[tokio::test]
async fn the_other_calls() {
    let (client, _serving) = connect(Daemon::default()).await;
    assert_eq!(client.info().await.unwrap().version, "v9");
    let workers = client.list_workers(&[]).await.unwrap();
    assert_eq!(workers[0].platforms[0].to_string(), "linux/amd64");
    let usage = client.disk_usage(&[], Duration::ZERO).await.unwrap();
    assert_eq!(
        (usage[0].id.as_str(), &usage[0].parents[..]),
        ("a", &["p".to_owned()][..])
    );
    let options = PruneOptions {
        keep_for: Duration::from_nanos(5),
        ..PruneOptions::default()
    };
    let gone: Vec<_> = client.prune(options).await.unwrap().collect().await;
    assert_eq!(gone[0].as_ref().unwrap().size, 5);
    let history: Vec<_> = client
        .history(false, "", true, &[], 0)
        .await
        .unwrap()
        .collect()
        .await;
    assert_eq!(history[0].as_ref().unwrap().kind, HistoryKind::Complete);
    client.pin("known", true).await.unwrap();
    assert_eq!(
        client.forget("other").await.unwrap_err().kind(),
        Kind::NotFound
    );
}

/// Rows: A18
#[tokio::test]
async fn nobody_there() {
    let dir = tempfile::tempdir().unwrap();
    let address = client::Address::Unix(dir.path().join("none.sock"));
    let error = Client::connect(&address).await.err().unwrap();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.to_string().contains("none.sock"), "{error}");
}

/// Rows: A05
#[tokio::test]
async fn a_daemon_that_goes_away_ends_the_build() {
    let dir = tempfile::tempdir().unwrap();
    let (client, serving) = connect(Daemon::default()).await;
    drop(serving);
    let build = client.build(options(dir.path()));
    let ended = tokio::time::timeout(Duration::from_secs(15), build.finish())
        .await
        .expect("it ends");
    assert!(ended.is_err());
}
