//! Requests to the daemon: every call of `Control`, the gateway and the services beside them,
//! with any bytes as its message.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use daemon::Services;
use daemon::builder::{
    Archive, ArchiveError, Builder, Built, Failure, Request, Usage, What, Worker,
};
use daemon::config::file::File;
use daemon::config::flags::Flags;
use daemon::config::gc::GcRule;
use daemon::config::{Config, Name, Surroundings};
use oci::Platform;
use progress::Progress;
use prost::Message as _;
use proto::Raw;
use proto::moby::buildkit::v1 as wire;
use proto::moby::buildkit::v1::control_client::ControlClient;
use proto::moby::buildkit::v1::frontend as gateway;
use session::Sessions;
use testkit::bridge::FakeBridge;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use super::Target;
use crate::mutate::Shape;

pub(super) const TARGET: Target = Target {
    name: "requests",
    run,
    seeds,
    shape: Shape::Message(1),
    words: &[
        "dockerfile.v0",
        "gateway.v0",
        "docker-image://docker.io/library/base:1",
        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "image",
        "oci",
        "local",
        "inline",
        "registry",
        "pull",
        "type==regular",
        "id~=a",
        "0",
        "/",
        "../../etc/passwd",
        "linux",
    ],
    longest: 8 << 10,
    memory: 64 << 20,
};

/// Chosen by the first byte.
const METHODS: [&str; 31] = [
    "/moby.buildkit.v1.frontend.LLBBridge/ResolveImageConfig",
    "/moby.buildkit.v1.frontend.LLBBridge/ResolveSourceMeta",
    "/moby.buildkit.v1.frontend.LLBBridge/Solve",
    "/moby.buildkit.v1.frontend.LLBBridge/ReadFile",
    "/moby.buildkit.v1.frontend.LLBBridge/ReadDir",
    "/moby.buildkit.v1.frontend.LLBBridge/StatFile",
    "/moby.buildkit.v1.frontend.LLBBridge/Evaluate",
    "/moby.buildkit.v1.frontend.LLBBridge/Ping",
    "/moby.buildkit.v1.frontend.LLBBridge/Return",
    "/moby.buildkit.v1.frontend.LLBBridge/Inputs",
    "/moby.buildkit.v1.frontend.LLBBridge/NewContainer",
    "/moby.buildkit.v1.frontend.LLBBridge/ReleaseContainer",
    "/moby.buildkit.v1.frontend.LLBBridge/ExecProcess",
    "/moby.buildkit.v1.frontend.LLBBridge/ReadFileContainer",
    "/moby.buildkit.v1.frontend.LLBBridge/ReadDirContainer",
    "/moby.buildkit.v1.frontend.LLBBridge/StatFileContainer",
    "/moby.buildkit.v1.frontend.LLBBridge/Warn",
    "/moby.buildkit.v1.Control/Solve",
    "/moby.buildkit.v1.Control/DiskUsage",
    "/moby.buildkit.v1.Control/Prune",
    "/moby.buildkit.v1.Control/Status",
    "/moby.buildkit.v1.Control/Session",
    "/moby.buildkit.v1.Control/ListWorkers",
    "/moby.buildkit.v1.Control/Info",
    "/moby.buildkit.v1.Control/ListenBuildHistory",
    "/moby.buildkit.v1.Control/UpdateBuildHistory",
    "/containerd.services.content.v1.Content/Info",
    "/containerd.services.content.v1.Content/Read",
    "/containerd.services.content.v1.Content/List",
    "/containerd.services.content.v1.Content/Status",
    "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
];

fn run(input: &[u8]) {
    let Some((method, message)) = input.split_first() else {
        return;
    };
    let method = METHODS[usize::from(*method) % METHODS.len()];
    let message = Bytes::copy_from_slice(message);
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    let held = held.get_or_insert_with(Held::start);
    let number = held.builds;
    held.builds += 1;
    // A build whose frontend is its client goes on until the client has said what it wants.
    let waits = method.ends_with("Control/Solve")
        && wire::SolveRequest::decode(&message[..])
            .is_ok_and(|build| build.frontend.is_empty() && build.definition.is_none());
    held.runtime.block_on(asked(
        &held.channel,
        method,
        message,
        &format!("build-{number}"),
        waits,
    ));
}

/// Calls within a build that waits for its client.
async fn asked(channel: &Channel, method: &'static str, message: Bytes, build: &str, waits: bool) {
    let mut control = ControlClient::new(channel.clone());
    let request = wire::SolveRequest {
        r#ref: build.into(),
        ..wire::SolveRequest::default()
    };
    let solving = stdx::task::spawn("solve", async move {
        let _either = control.solve(request).await;
    });
    let mut call = tonic::Request::new(tokio_stream::once(message));
    let id = build.parse().expect("a build's id is plain");
    call.metadata_mut()
        .insert("buildkit-controlapi-buildid", id);
    let mut client = tonic::client::Grpc::new(channel.clone());
    let answered = async {
        client.ready().await.expect("the daemon is there");
        match client
            .streaming(call, http::uri::PathAndQuery::from_static(method), Raw)
            .await
        {
            Ok(answer) => {
                let mut answer = answer.into_inner();
                // Some go on until the client leaves, which it does.
                let more = async { while let Ok(Some(_)) = answer.message().await {} };
                let _late = tokio::time::timeout(Duration::from_millis(20), more).await;
            }
            Err(status) => said(&status),
        }
    };
    let patience = match waits {
        true => Duration::from_millis(20),
        false => Duration::from_secs(60),
    };
    let answered = tokio::time::timeout(patience, answered).await;
    assert!(waits || answered.is_ok(), "the daemon does not answer");
    drop(solving);
}

/// An error is a sentence with a code. Only what a build asks for and is not there has none, as
/// with BuildKit: clients in Go would write the code before the sentence.
fn said(status: &Status) {
    let first = status.message().chars().next();
    let first = first.unwrap_or_else(|| panic!("{status:?} says nothing"));
    assert!(first != ':' && first != ' ', "{status:?} lacks its begin");
    if status.code() == tonic::Code::Unknown {
        let of_the_build = status.message().ends_with(": not found: no such image");
        assert!(of_the_build, "{status:?}");
    }
}

/// The daemon is started once; each input is a build of its own in it.
static HELD: Mutex<Option<Held>> = Mutex::new(None);

struct Held {
    runtime: tokio::runtime::Runtime,
    channel: Channel,
    builds: u64,
    _daemon: stdx::task::Task<()>,
    _dir: tempfile::TempDir,
}

impl Held {
    fn start() -> Held {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let dir = tempfile::tempdir().expect("a directory");
        let state = dir.path().to_owned();
        let (channel, daemon) = runtime.block_on(async move { connected(&state).await });
        Held {
            runtime,
            channel,
            builds: 0,
            _daemon: daemon,
            _dir: dir,
        }
    }
}

async fn connected(state: &std::path::Path) -> (Channel, stdx::task::Task<()>) {
    let surroundings = Surroundings {
        home: Some(state.to_owned()),
        ..Surroundings::default()
    };
    let config = Config::resolve(
        File::default(),
        &Flags::default(),
        Name::Kiln,
        &surroundings,
    );
    let config = config.expect("an empty configuration is fine");
    let services = Services::new(Arc::new(Nobody::at(state)), &config).expect("it starts");
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let daemon = stdx::task::spawn("daemon", async move {
        // It ends when the program does.
        let _end = services.answer(theirs).await;
    });
    let mut ours = Some(hyper_util::rt::TokioIo::new(ours));
    let connect = tower::service_fn(move |_: http::Uri| {
        let ours = ours
            .take()
            .ok_or_else(|| std::io::Error::other("one connection only"));
        async move { ours }
    });
    let endpoint = Endpoint::from_static("http://kiln")
        .http2_max_header_list_size(proto::MAX_HEADER_LIST_SIZE);
    let channel = endpoint.connect_with_connector(connect).await;
    (channel.expect("a pipe connects"), daemon)
}

/// Builds nothing, but reads what it is given as a real one would.
struct Nobody {
    sessions: Sessions,
    archive: Archive,
}

impl Nobody {
    fn at(dir: &std::path::Path) -> Nobody {
        let db = Arc::new(db::Db::open(dir.join("kiln.db")).expect("a database"));
        let store = content::Store::open(dir.join("content"), db.clone()).expect("a store");
        let leases = lease::Leases::open(dir.join("leases"), db.clone()).expect("leases");
        let archive = Archive::open(db, store, leases).expect("an archive");
        Nobody {
            sessions: Sessions::default(),
            archive,
        }
    }
}

#[async_trait]
impl Builder for Nobody {
    fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    fn blobs(&self) -> Arc<dyn content::Provider> {
        let blobs = content::Memory::default();
        blobs.add("text/plain", "");
        Arc::new(blobs)
    }

    fn archive(&self) -> Result<Archive, ArchiveError> {
        Ok(self.archive.clone())
    }

    fn worker(&self) -> Worker {
        Worker {
            id: "w".into(),
            labels: BTreeMap::new(),
            platforms: vec![Platform::host()],
        }
    }

    async fn build(&self, request: Request, _: Progress) -> Result<Built, Failure> {
        let invalid = |error: &dyn std::fmt::Display| {
            Failure::new(stdx::Kind::InvalidInput, error.to_string())
        };
        match request.what {
            What::Client { run, .. } => {
                let bridge = FakeBridge::new("FROM base:1\n");
                run(Arc::new(bridge))
                    .await
                    .map_err(|error| invalid(&error))?;
            }
            What::Definition { definition, .. } => {
                llb::Graph::load(&definition).map_err(|error| invalid(&error))?;
            }
            What::Frontend { .. } => {}
        }
        Ok(Built::default())
    }

    async fn usage(&self, _: &[String], _: Duration) -> Result<Vec<Usage>, Failure> {
        Ok(vec![Usage::default()])
    }

    async fn prune(&self, _: &GcRule) -> Result<Vec<Usage>, Failure> {
        Ok(Vec::new())
    }
}

fn seeds() -> Vec<Vec<u8>> {
    // Enough of each to be understood; the others begin empty.
    let definition = proto::pb::Definition::decode(&super::llb::a_definition()[..]).expect("ours");
    let solve = gateway::SolveRequest {
        definition: Some(definition.clone()),
        frontend: String::new(),
        evaluate: true,
        ..gateway::SolveRequest::default()
    };
    let resolve = gateway::ResolveImageConfigRequest {
        r#ref: "docker.io/library/base:1".into(),
        resolve_mode: "default".into(),
        ..gateway::ResolveImageConfigRequest::default()
    };
    let read = gateway::ReadFileRequest {
        file_path: "/etc/passwd".into(),
        r#ref: "0".into(),
        range: Some(gateway::FileRange {
            offset: 1,
            length: 2,
        }),
        ..gateway::ReadFileRequest::default()
    };
    let refs = [(
        "linux/amd64".to_owned(),
        gateway::Ref {
            id: "0".into(),
            def: None,
        },
    )];
    let result = gateway::Result {
        result: Some(gateway::result::Result::Refs(gateway::RefMap {
            refs: refs.into(),
        })),
        ..gateway::Result::default()
    };
    let end = gateway::ReturnRequest {
        result: Some(result),
        error: None,
    };
    let warn = gateway::WarnRequest {
        level: 1,
        short: "s".into(),
        ..gateway::WarnRequest::default()
    };
    let build = wire::SolveRequest {
        r#ref: "x".into(),
        definition: Some(definition),
        exporters: vec![wire::Exporter {
            r#type: "oci".into(),
            ..wire::Exporter::default()
        }],
        cache: Some(wire::CacheOptions::default()),
        ..wire::SolveRequest::default()
    };
    let history = wire::BuildHistoryRequest {
        early_exit: true,
        ..wire::BuildHistoryRequest::default()
    };
    let known = [
        (0, resolve.encode_to_vec()),
        (2, solve.encode_to_vec()),
        (3, read.encode_to_vec()),
        (8, end.encode_to_vec()),
        (16, warn.encode_to_vec()),
        (17, build.encode_to_vec()),
        (24, history.encode_to_vec()),
    ];
    let empty = (0..METHODS.len()).map(|method| vec![method as u8]);
    let known = known
        .into_iter()
        .map(|(method, message)| [&[method][..], &message].concat());
    known.chain(empty).collect()
}
