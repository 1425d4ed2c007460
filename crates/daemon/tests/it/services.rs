//! The gRPC services over a pipe, with a builder that has no containers.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use oci::{Digest, Platform};
use proto::details::Detail;
use proto::google::rpc;
use proto::moby::buildkit::v1 as wire;
use proto::moby::buildkit::v1::control_client::ControlClient;
use proto::moby::buildkit::v1::frontend as gateway;
use proto::moby::buildkit::v1::frontend::llb_bridge_client::LlbBridgeClient;
use proto::pb;
use tonic::Code;

use crate::pretender::{EXPORTED, daemon, for_build, solve};

/// Rows: A01, A02, A03, A04, C10
#[tokio::test]
async fn a_build_is_asked_for_watched_and_replayed() {
    let (channel, _daemon) = daemon("").await;
    let mut control = ControlClient::new(channel.clone());
    let mut early = control.clone();
    let mut status = early
        .status(wire::StatusRequest { r#ref: "b1".into() })
        .await
        .unwrap();
    assert!(
        status
            .metadata()
            .get("buildkit-current-timestamp")
            .is_some()
    );
    let mut request = solve("b1", "dockerfile.v0");
    request.exporter_deprecated = "oci".into();
    request.frontend_attrs = [("target".to_owned(), "t".to_owned())].into();
    let response = control
        .solve(request)
        .await
        .unwrap()
        .into_inner()
        .exporter_response;
    assert_eq!(
        (
            response["frontend"].as_str(),
            response["target"].as_str(),
            response["exporter"].as_str()
        ),
        ("dockerfile.v0", "t", "oci")
    );
    let mut logs = Vec::new();
    while let Some(message) = status.get_mut().message().await.unwrap() {
        logs.extend(message.logs.into_iter().map(|log| log.msg));
    }
    assert_eq!(logs, [Bytes::from_static(b"pretending\n")]);
    let mut again = control
        .status(wire::StatusRequest { r#ref: "b1".into() })
        .await
        .unwrap()
        .into_inner();
    assert!(!again.message().await.unwrap().unwrap().vertexes.is_empty());
    // An id may be used again once its build has ended.
    control.solve(solve("b1", "x")).await.unwrap();
}

/// Rows: A16
#[tokio::test]
async fn a_failure_carries_its_details() {
    let (channel, _daemon) = daemon("").await;
    let error = ControlClient::new(channel)
        .solve(solve("b1", "fail"))
        .await
        .unwrap_err();
    assert!(error.message().ends_with("exit code: 7"));
    let status = <rpc::Status as prost::Message>::decode(error.details()).unwrap();
    let details: Vec<Detail> = status.details.iter().map(Detail::from_any).collect();
    assert!(
        matches!(&details[0], Detail::Vertex(vertex) if vertex.digest == Digest::of("v").to_string())
    );
    assert!(matches!(&details[1], Detail::Source(source) if source.ranges[0].start.line == 1));
    assert!(matches!(&details[2], Detail::Exit(exit) if exit.code == 7));
    assert!(matches!(&details[3], Detail::CompatibilityFeature(lacking)
            if *lacking == serde_json::json!({"version": 10, "feature": "a feature"})));
}

/// Rows: A01, A17
#[tokio::test]
async fn a_compatibility_version_is_known_or_refused() {
    let (channel, _daemon) = daemon("").await;
    let mut control = ControlClient::new(channel);
    let info = control.info(wire::InfoRequest {}).await.unwrap();
    let worker = info.into_inner().buildkit_version.unwrap();
    assert_eq!(worker.compatibility_version, 30);
    for (asked, used) in [(0, "30"), (10, "10"), (20, "20"), (30, "30")] {
        let mut request = solve("b1", "x");
        request.compatibility_version = asked;
        let answer = control.solve(request).await.unwrap().into_inner();
        assert_eq!(answer.exporter_response["compatibility"], used);
    }
    for (asked, reason) in [(15, "(supported: 10, 20, 30)"), (40, "upgrade kiln")] {
        let mut request = solve("b1", "x");
        request.compatibility_version = asked;
        let error = control.solve(request).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        let message = error.message();
        let begin = format!("unsupported compatibility-version {asked}");
        assert!(
            message.starts_with(&begin) && message.contains(reason),
            "{message}"
        );
    }
}

/// Rows: A15, G02, G04, G05, G06, G08, G11
#[tokio::test]
async fn a_frontend_in_the_client_drives_a_build() {
    let (channel, _daemon) = daemon("").await;
    let mut bridge = LlbBridgeClient::new(channel.clone());
    let mut control = ControlClient::new(channel);
    let building = stdx::task::spawn("solve", async move { control.solve(solve("b1", "")).await });
    let pong = bridge
        .ping(for_build("b1", gateway::PingRequest {}))
        .await
        .unwrap()
        .into_inner();
    assert!(
        pong.frontend_api_caps
            .iter()
            .any(|cap| cap.id == "returnmap" && cap.enabled)
    );
    assert!(
        pong.llb_caps
            .iter()
            .any(|cap| cap.id == "soruce.http.uidgid")
    );
    assert_eq!(pong.workers[0].id, "w1");
    // Emulators may have come since the daemon started: the build knows.
    let platforms = pong.workers[0].platforms.iter();
    let machines: Vec<&str> = platforms.map(|one| one.architecture.as_str()).collect();
    assert_eq!(
        machines,
        [Platform::host().architecture.as_str(), "riscv64"]
    );
    let nested = gateway::SolveRequest {
        frontend: "dockerfile.v0".into(),
        allow_result_return: true,
        allow_result_array_ref: true,
        ..gateway::SolveRequest::default()
    };
    let result = bridge
        .solve(for_build("b1", nested))
        .await
        .unwrap()
        .into_inner()
        .result
        .unwrap();
    let Some(gateway::result::Result::Ref(one)) = &result.result else {
        panic!("{result:?}")
    };
    assert_eq!(one.id, "r1");
    let read = gateway::ReadFileRequest {
        r#ref: "r1".into(),
        file_path: "/etc/os".into(),
        ..Default::default()
    };
    assert_eq!(
        bridge
            .read_file(for_build("b1", read))
            .await
            .unwrap()
            .into_inner()
            .data,
        "kiln"
    );
    let read = gateway::ReadFileRequest {
        r#ref: "r1".into(),
        file_path: "/nope".into(),
        ..Default::default()
    };
    assert_eq!(
        bridge
            .read_file(for_build("b1", read))
            .await
            .unwrap_err()
            .code(),
        Code::NotFound
    );
    bridge
        .evaluate(for_build(
            "b1",
            gateway::EvaluateRequest { r#ref: "r1".into() },
        ))
        .await
        .unwrap();
    let unknown = gateway::SolveRequest {
        frontend: "x".into(),
        ..Default::default()
    };
    assert_eq!(
        bridge
            .solve(for_build("b1", unknown))
            .await
            .unwrap_err()
            .code(),
        Code::InvalidArgument
    );
    let mut result = result;
    result
        .metadata
        .insert("done".into(), Bytes::from_static(b"yes"));
    bridge
        .r#return(for_build(
            "b1",
            gateway::ReturnRequest {
                result: Some(result),
                error: None,
            },
        ))
        .await
        .unwrap();
    assert_eq!(
        building.await.unwrap().into_inner().exporter_response["done"],
        "yes"
    );
}

/// It reaches those who watch, and those who look into the history, as the frontend said it.
/// Rows: A04, A14, G10
#[tokio::test]
async fn a_warning_of_a_frontend_comes_whole() {
    let (channel, _daemon) = daemon("").await;
    let mut bridge = LlbBridgeClient::new(channel.clone());
    let mut control = ControlClient::new(channel);
    let mut solving = control.clone();
    let building = stdx::task::spawn("solve", async move { solving.solve(solve("b1", "")).await });
    let position = |line, character| Some(pb::Position { line, character });
    let range = pb::Range {
        start: position(2, 1),
        end: position(3, 0),
    };
    let loads = pb::Definition {
        def: vec![Bytes::from_static(b"op")],
        ..pb::Definition::default()
    };
    let info = pb::SourceInfo {
        filename: "Dockerfile".into(),
        data: Bytes::from_static(b"FROM a\nRUN b\nRUN c\n"),
        definition: Some(loads),
        language: "Dockerfile".into(),
    };
    let warning = gateway::WarnRequest {
        digest: Digest::of("vertex").to_string(),
        level: 1,
        short: Bytes::from_static(b"short"),
        detail: vec![Bytes::from_static(b"one"), Bytes::from_static(b"two")],
        url: "https://h.example/".into(),
        info: Some(info.clone()),
        ranges: vec![range],
    };
    bridge.warn(for_build("b1", warning.clone())).await.unwrap();
    let nobody = bridge.warn(warning.clone()).await.unwrap_err();
    assert_eq!(nobody.code(), Code::InvalidArgument, "{nobody}");
    for digest in ["vertex", "sha256:123"] {
        let of_none = gateway::WarnRequest {
            digest: digest.into(),
            ..warning.clone()
        };
        let refused = bridge.warn(for_build("b1", of_none)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(refused.message().contains(digest), "{refused}");
    }
    let no_graph = pb::Definition {
        metadata: [("none".to_owned(), pb::OpMetadata::default())].into(),
        ..pb::Definition::default()
    };
    let about_none = gateway::WarnRequest {
        info: Some(pb::SourceInfo {
            definition: Some(no_graph),
            ..info.clone()
        }),
        ..warning.clone()
    };
    let refused = bridge.warn(for_build("b1", about_none)).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    let returned = gateway::ReturnRequest {
        result: Some(gateway::Result::default()),
        error: None,
    };
    bridge.r#return(for_build("b1", returned)).await.unwrap();
    building.await.unwrap();

    let told = wire::VertexWarning {
        vertex: warning.digest,
        level: 1,
        short: warning.short,
        detail: warning.detail,
        url: warning.url,
        info: Some(info),
        ranges: warning.ranges,
    };
    let asked = wire::BuildHistoryRequest {
        r#ref: "b1".into(),
        early_exit: true,
        ..Default::default()
    };
    let mut history = control
        .listen_build_history(asked)
        .await
        .unwrap()
        .into_inner();
    let record = history.message().await.unwrap().unwrap().record.unwrap();
    assert_eq!((record.num_warnings, record.logs.is_some()), (1, true));
    // First from memory, then, others having ended since, from the history.
    for _ in 0..2 {
        let of = wire::StatusRequest { r#ref: "b1".into() };
        let mut status = control.status(of).await.unwrap().into_inner();
        let mut warnings = Vec::new();
        while let Some(message) = status.message().await.unwrap() {
            warnings.extend(message.warnings);
        }
        assert_eq!(warnings, std::slice::from_ref(&told));
        for other in 0..20 {
            let other = solve(&format!("other{other}"), "x");
            control.solve(other).await.unwrap();
        }
    }
}

/// Who is to choose the exporters looks at the result first.
/// Rows: A15, E10
#[tokio::test]
async fn a_client_may_ask_until_its_build_has_ended() {
    let (channel, _daemon) = daemon("").await;
    let mut bridge = LlbBridgeClient::new(channel.clone());
    let mut control = ControlClient::new(channel);
    let building = stdx::task::spawn("solve", async move { control.solve(solve("b1", "")).await });
    let mut result = gateway::Result::default();
    let metadata = &mut result.metadata;
    metadata.insert("linger".into(), Bytes::from_static(b"yes"));
    let returned = gateway::ReturnRequest {
        result: Some(result),
        error: None,
    };
    bridge.r#return(for_build("b1", returned)).await.unwrap();
    let ping = || for_build("b1", gateway::PingRequest {});
    bridge.ping(ping()).await.unwrap();
    EXPORTED.notify_one();
    building.await.unwrap();
    let ended = bridge.ping(ping()).await.unwrap_err();
    assert_eq!(ended.code(), Code::NotFound);
    let nobody = bridge.ping(gateway::PingRequest {}).await.unwrap_err();
    let said = nobody.message();
    assert!(said.contains("no buildid found in context"), "{said}");
}

/// Options may come without a frontend, such as the epoch.
/// Rows: A03
#[tokio::test]
async fn a_graph_is_built_with_options() {
    let (channel, _daemon) = daemon("").await;
    let mut request = solve("b1", "");
    let options = &mut request.frontend_attrs;
    options.insert("build-arg:SOURCE_DATE_EPOCH".into(), "1".into());
    request.definition = Some(pb::Definition {
        def: vec![Bytes::new()],
        ..pb::Definition::default()
    });
    let answer = ControlClient::new(channel).solve(request).await.unwrap();
    let said = answer.into_inner().exporter_response;
    assert_eq!(said["build-arg:SOURCE_DATE_EPOCH"], "1");
}

/// Rows: A15, A16, G08
#[tokio::test]
async fn an_error_the_client_returns_comes_back_as_it_was() {
    let (channel, _daemon) = daemon("").await;
    let mut bridge = LlbBridgeClient::new(channel.clone());
    let mut control = ControlClient::new(channel);
    let building = stdx::task::spawn("solve", async move { control.solve(solve("b1", "")).await });
    let error = rpc::Status {
        code: Code::Unknown as i32,
        message: "mine".into(),
        details: vec![Detail::Exit(proto::details::Exit { code: 9 }).to_any()],
    };
    bridge
        .r#return(for_build(
            "b1",
            gateway::ReturnRequest {
                result: None,
                error: Some(error.clone()),
            },
        ))
        .await
        .unwrap();
    let status = building.await.unwrap_err();
    assert_eq!(
        <rpc::Status as prost::Message>::decode(status.details()).unwrap(),
        error
    );
}

/// Rows: A15
#[tokio::test(start_paused = true)]
async fn calls_without_a_build_are_refused() {
    let (channel, _daemon) = daemon("").await;
    let mut bridge = LlbBridgeClient::new(channel.clone());
    let error = bridge.ping(gateway::PingRequest {}).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    let error = bridge
        .ping(for_build("nobody", gateway::PingRequest {}))
        .await
        .unwrap_err();
    assert_eq!(error.message(), "no such job nobody");
    let mut status = ControlClient::new(channel)
        .status(wire::StatusRequest {
            r#ref: "nobody".into(),
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(status.message().await.unwrap_err().code(), Code::NotFound);
}

/// Rows: A12, A13, A14
#[tokio::test]
async fn finished_and_abandoned_builds_are_remembered() {
    let (channel, _daemon) = daemon("").await;
    let mut control = ControlClient::new(channel);
    control.solve(solve("good", "dockerfile.v0")).await.unwrap();
    control.solve(solve("bad", "fail")).await.unwrap_err();
    let mut left = control.clone();
    let abandoned = stdx::task::spawn(
        "solve",
        async move { left.solve(solve("left", "sleep")).await },
    );
    let mut status = control
        .status(wire::StatusRequest {
            r#ref: "left".into(),
        })
        .await
        .unwrap()
        .into_inner();
    status.message().await.unwrap();
    drop(abandoned);
    // The story ends when the build is dropped.
    while status.message().await.unwrap().is_some() {}
    let request = wire::BuildHistoryRequest {
        early_exit: true,
        ..Default::default()
    };
    // It is remembered a moment later.
    let active = wire::BuildHistoryRequest {
        active_only: true,
        ..request.clone()
    };
    while let Some(running) = {
        let mut running = control
            .listen_build_history(active.clone())
            .await
            .unwrap()
            .into_inner();
        running.message().await.unwrap()
    } {
        assert_eq!(running.record.unwrap().r#ref, "left");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut history = control
        .listen_build_history(request)
        .await
        .unwrap()
        .into_inner();
    let mut told = Vec::new();
    while let Some(event) = history.message().await.unwrap() {
        let record = event.record.unwrap();
        told.push((
            record.r#ref,
            record.error.map(|error| error.code),
            record.num_completed_steps,
        ));
    }
    assert_eq!(
        told,
        [
            ("good".into(), None, 1),
            ("bad".into(), Some(2), 0),
            ("left".to_owned(), Some(1), 0)
        ]
    );
}

/// Rows: A06, A07, A08, A09, A10, P11, D29
#[tokio::test]
async fn the_rest_of_control() {
    let (channel, _daemon) = daemon(
        "--allow-insecure-entitlement network.host --allow-insecure-entitlement device=v.com/c=one",
    )
    .await;
    let mut control = ControlClient::new(channel.clone());
    let workers = |filter: &str| wire::ListWorkersRequest {
        filter: vec![filter.to_owned()],
    };
    assert_eq!(
        control
            .list_workers(workers("labels.a==b"))
            .await
            .unwrap()
            .into_inner()
            .record[0]
            .gc_policy
            .len(),
        4
    );
    assert!(
        control
            .list_workers(workers("id==other"))
            .await
            .unwrap()
            .into_inner()
            .record
            .is_empty()
    );
    assert!(
        control
            .info(wire::InfoRequest {})
            .await
            .unwrap()
            .into_inner()
            .buildkit_version
            .is_some()
    );
    let usage = control
        .disk_usage(wire::DiskUsageRequest::default())
        .await
        .unwrap()
        .into_inner()
        .record;
    assert_eq!(
        (usage[0].size, usage[0].parents.as_slice()),
        (7, &["p".to_owned()][..])
    );
    let mut freed = control
        .prune(wire::PruneRequest {
            all: true,
            ..Default::default()
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(freed.message().await.unwrap().unwrap().id, "u1");
    let bad = wire::PruneRequest {
        filter: vec!["bad".into()],
        ..Default::default()
    };
    assert_eq!(
        control.prune(bad).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    let negative = wire::PruneRequest {
        keep_duration: -1,
        ..Default::default()
    };
    assert_eq!(
        control.prune(negative).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    let mut allowed = solve("a", "dockerfile.v0");
    allowed.entitlements = vec!["network.host".into()];
    control.solve(allowed.clone()).await.unwrap();
    allowed.r#ref = "b".into();
    allowed.entitlements.push("security.insecure".into());
    assert_eq!(
        control.solve(allowed.clone()).await.unwrap_err().code(),
        Code::PermissionDenied
    );
    // One device is that one, under whatever name, and not all.
    for (wanted, may) in [
        ("device=v.com/c=one", true),
        ("device=v.com/c=one,alias=v.com/c=other", true),
        ("device=v.com/c=other,alias=v.com/c=one", false),
        ("device=v.com/c", false),
        ("device=", false),
        ("device", false),
    ] {
        allowed.r#ref = wanted.into();
        allowed.entitlements = vec![wanted.into()];
        let built = control.solve(allowed.clone()).await;
        let expected = if may {
            Ok(())
        } else {
            Err(Code::PermissionDenied)
        };
        assert_eq!(
            built.map(drop).map_err(|status| status.code()),
            expected,
            "{wanted}"
        );
    }
    assert_eq!(
        control.solve(solve("", "x")).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    let mut health = proto::grpc::health::v1::health_client::HealthClient::new(channel);
    health
        .check(proto::grpc::health::v1::HealthCheckRequest::default())
        .await
        .unwrap();
}

/// Rows: D29
#[tokio::test]
async fn blobs_can_be_read_and_not_written() {
    use proto::containerd::services::content::v1 as blobs;
    let (channel, _daemon) = daemon("").await;
    let mut content = blobs::content_client::ContentClient::new(channel);
    let digest = Digest::of("a blob").to_string();
    let read = blobs::ReadContentRequest {
        digest: digest.clone(),
        offset: 2,
        size: 3,
    };
    let mut pieces = content.read(read).await.unwrap().into_inner();
    let piece = pieces.message().await.unwrap().unwrap();
    assert_eq!((piece.offset, piece.data.as_ref()), (2, &b"blo"[..]));
    assert!(pieces.message().await.unwrap().is_none());
    let info = content
        .info(blobs::InfoRequest {
            digest: digest.clone(),
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(info.info.unwrap().size, 6);
    let all = blobs::ListContentRequest::default();
    let mut list = content.list(all).await.unwrap().into_inner();
    let mut listed = BTreeSet::new();
    let mut messages = 0;
    while let Some(message) = list.message().await.unwrap() {
        messages += 1;
        assert!(message.info.iter().all(|info| info.size == 6));
        let digests = message.info.into_iter().map(|info| info.digest);
        listed.extend(digests);
    }
    assert!(messages > 1, "a long list comes in parts");
    assert_eq!(listed.len(), crate::pretender::BLOBS);
    let some = blobs::ListContentRequest {
        filters: vec!["size==6".into()],
    };
    let refused = content.list(some).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    let absent = blobs::InfoRequest {
        digest: Digest::of("absent").to_string(),
    };
    assert_eq!(
        content.info(absent).await.unwrap_err().code(),
        Code::NotFound
    );
    let beyond = blobs::ReadContentRequest {
        digest: digest.clone(),
        offset: 7,
        size: 0,
    };
    assert_eq!(
        content.read(beyond).await.unwrap_err().code(),
        Code::OutOfRange
    );
    assert_eq!(
        content
            .delete(blobs::DeleteContentRequest { digest })
            .await
            .unwrap_err()
            .code(),
        Code::PermissionDenied
    );
}
