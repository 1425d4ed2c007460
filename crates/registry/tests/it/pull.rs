//! Resolving and fetching.

use std::time::{Duration, Instant};

use content::{Provider, collect};
use registry::{Anonymous, Error, Origins, Registry, add_source};
use stdx::Kind;
use testkit::image::{Blob, Image};
use testkit::registry::{Effect, Fault, Server};

use crate::{at, mirrored, quick};

async fn whole(repository: &dyn Provider, blob: &Blob) -> content::Result<bytes::Bytes> {
    collect(
        repository.read(&blob.descriptor, 0).await?,
        &blob.descriptor,
        u64::MAX,
    )
    .await
}

fn shown(server: &Server) -> Vec<String> {
    server
        .asked()
        .iter()
        .map(|asked| format!("{} {}", asked.method, asked.status))
        .collect()
}

/// Rows: S01
#[tokio::test]
async fn a_tag_becomes_a_digest_without_moving_the_manifest() {
    let server = Server::start().await;
    let image = Image::seeded(1, 2, 3, 100);
    server.add_image("app", "1", &image);
    let app = at(&server, "app");
    let found = app.resolve_reference("1").await.unwrap();
    assert_eq!(found, image.manifest.descriptor);
    assert_eq!(shown(&server), ["HEAD 200"]);
    assert_eq!(app.manifest(&found).await.unwrap(), image.manifest.bytes);
    for layer in image.layers.iter().chain([&image.config]) {
        assert_eq!(whole(&app, layer).await.unwrap(), layer.bytes);
    }
}

/// Rows: S01
#[tokio::test]
async fn a_proxy_that_hides_the_digest_is_asked_for_the_bytes() {
    let server = Server::start().await;
    let image = Image::seeded(1, 1, 1, 10);
    server.add_image("app", "1", &image);
    server.fault(Fault::new(Effect::NoDigest));
    assert_eq!(
        at(&server, "app").resolve_reference("1").await.unwrap(),
        image.manifest.descriptor
    );
    assert_eq!(shown(&server), ["HEAD 200", "GET 200"]);
}

#[tokio::test]
async fn a_digest_that_resolves_to_another_is_refused() {
    let server = Server::start().await;
    let image = Image::seeded(1, 1, 1, 10);
    let manifest = server.add_image("app", "1", &image);
    server.fault(Fault::new(Effect::WrongDigest));
    let error = at(&server, "app")
        .resolve_reference(&manifest.digest.to_string())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    server.behave();
    server.fault(Fault::new(Effect::Flip));
    let error = at(&server, "app").manifest(&manifest).await.unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
}

/// Rows: S08, P31
#[tokio::test]
async fn server_faults_are_waited_out_and_others_are_not() {
    let server = Server::start().await;
    let image = Image::seeded(1, 1, 1, 10);
    server.add_image("app", "1", &image);
    let app = at(&server, "app");
    for fault in [
        Fault::status(500).times(3),
        Fault::too_many(0).times(2),
        Fault::new(Effect::Drop).times(3),
    ] {
        server.behave();
        server.fault(fault);
        assert_eq!(
            app.resolve_reference("1").await.unwrap(),
            image.manifest.descriptor
        );
    }
    for (status, times, kind) in [
        (500, 4, Kind::Unavailable),
        (404, 1, Kind::NotFound),
        (403, 1, Kind::Denied),
        (429, 4, Kind::Unavailable),
    ] {
        server.behave();
        server.forget();
        server.fault(Fault::status(status));
        let error = app.resolve_reference("1").await.unwrap_err();
        assert_eq!(
            (error.kind(), server.asked().len()),
            (kind, times),
            "{error}"
        );
        assert!(error.to_string().contains(&status.to_string()), "{error}");
        assert!(error.hint().is_some());
    }
}

/// Rows: S08
#[tokio::test]
async fn a_registry_that_asks_for_a_pause_gets_it() {
    let server = Server::start().await;
    server.add_image("app", "1", &Image::seeded(1, 1, 1, 10));
    server.fault(Fault::too_many(1).times(1));
    let start = Instant::now();
    at(&server, "app").resolve_reference("1").await.unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1));
}

/// Rows: S08, Z9
#[tokio::test]
async fn a_broken_blob_is_taken_up_where_it_broke() {
    let server = Server::start().await;
    let blob = Blob::new(
        "application/octet-stream",
        testkit::dice::Dice::new(1).bytes(200_000),
    );
    server.add_blob("app", &blob);
    let app = at(&server, "app");
    for fault in [
        Fault::new(Effect::Truncate(70_000)).times(3),
        Fault::new(Effect::Short(50_000)).times(1),
        Fault::new(Effect::StallAfter(150_000)).times(1),
    ] {
        server.behave();
        server.forget();
        server.fault(fault);
        assert_eq!(whole(&app, &blob).await.unwrap(), blob.bytes);
        let asked = server.asked();
        assert!(
            asked[1].range.is_some() && asked[1].status == 206,
            "{}",
            asked[1]
        );
    }
    server.behave();
    server.fault(Fault::new(Effect::NoRange));
    server.fault(Fault::new(Effect::Truncate(70_000)).times(1));
    assert_eq!(whole(&app, &blob).await.unwrap(), blob.bytes);
}

/// Rows: S08, P31
#[tokio::test]
async fn a_blob_that_never_comes_whole_ends_in_an_error() {
    let server = Server::start().await;
    let blob = Blob::new(
        "application/octet-stream",
        testkit::dice::Dice::new(1).bytes(10_000),
    );
    server.add_blob("app", &blob);
    let app = at(&server, "app");
    server.fault(Fault::new(Effect::Stall));
    let error = whole(&app, &blob).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    server.behave();
    server.fault(Fault::new(Effect::Truncate(0)));
    let error = whole(&app, &blob).await.unwrap_err();
    assert!(error.to_string().contains("broke"), "{error}");
    // A little progress each time is none: it would take a hundred answers.
    server.behave();
    server.forget();
    server.fault(Fault::new(Effect::Short(100)));
    let error = whole(&app, &blob).await.unwrap_err();
    assert!(error.to_string().contains("ended after"), "{error}");
    assert!(
        server.asked().len() <= 5,
        "{} answers",
        server.asked().len()
    );
    server.behave();
    server.fault(Fault::new(Effect::Flip));
    assert!(matches!(
        whole(&app, &blob).await,
        Err(content::Error::Corrupt { .. })
    ));
    server.behave();
    let absent = Blob::new("x", "absent");
    assert_eq!(
        whole(&app, &absent).await.unwrap_err().kind(),
        Kind::NotFound
    );
}

#[tokio::test]
async fn nobody_there_is_said_at_once_and_clearly() {
    let dead = format!("127.0.0.1:{}", free_port());
    let error = Registry::new(quick())
        .at(&dead, "a", Anonymous::shared(), false)
        .resolve_reference("1")
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    let text = error.to_string();
    assert!(
        text.starts_with(&format!("cannot reach registry {dead}: ")) && text.contains("refused"),
        "{text}"
    );
    assert!(error.hint().unwrap().contains("is running"));
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// Rows: S10, P32
#[tokio::test]
async fn mirrors_are_asked_first_and_their_failures_passed_over() {
    let (main, mirror) = (Server::start().await, Server::start().await);
    let image = Image::seeded(1, 1, 1, 10);
    main.add_image("app", "1", &image);
    let dead = format!("127.0.0.1:{}", free_port());
    let hosts = mirrored(
        &main.host(),
        &[dead, format!("http://{}/hub", mirror.host())],
    );
    let app = Registry::new(hosts).at(&main.host(), "app", Anonymous::shared(), false);
    assert_eq!(
        app.resolve_reference("1").await.unwrap(),
        image.manifest.descriptor
    );
    let asked = mirror.asked();
    assert_eq!(asked[0].path, "/v2/hub/app/manifests/1");
    assert_eq!(
        asked[0].query,
        format!("ns={}", main.host().replace(':', "%3A"))
    );
    main.forget();
    mirror.add_image("hub/app", "1", &image);
    app.resolve_reference("1").await.unwrap();
    assert_eq!(
        whole(&app, &image.layers[0]).await.unwrap(),
        image.layers[0].bytes
    );
    assert_eq!(main.asked().len(), 0, "the mirror had it all");
    app.exists(&image.layers[0].descriptor).await.unwrap();
    assert_eq!(main.asked().len(), 1, "writing never asks a mirror");
}

/// Rows: S09, P33
#[tokio::test]
async fn no_more_than_four_transfers_at_once() {
    let server = Server::start().await;
    let image = Image::seeded(1, 12, 1, 10_000);
    server.add_image("app", "1", &image);
    server.fault(Fault::new(Effect::Slow(2000, Duration::from_millis(5))));
    let app = at(&server, "app");
    let all = futures::future::join_all(image.layers.iter().map(|layer| whole(&app, layer))).await;
    assert!(all.iter().all(Result::is_ok));
    let most = server.most_at_once();
    assert!((3..=5).contains(&most), "{most}");
}

#[tokio::test]
async fn a_lazy_blob_is_found_where_it_was_seen() {
    let server = Server::start().await;
    let blob = Blob::new("x", "lazy");
    server.add_blob("two", &blob);
    let mut seen = blob.clone();
    add_source(&mut seen.descriptor, &server.host(), "one");
    add_source(&mut seen.descriptor, &server.host(), "two");
    let origins = Origins::new(Registry::new(quick()), Anonymous::shared());
    assert_eq!(whole(&origins, &seen).await.unwrap(), blob.bytes);
    assert_eq!(
        whole(&origins, &blob).await.unwrap_err().kind(),
        Kind::NotFound
    );
}
