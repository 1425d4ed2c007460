//! Pushing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use content::{ByteStream, Memory, Provider, copy, lazy, once};
use oci::Descriptor;
use registry::{Anonymous, Error, Pushed, Registry, add_source};
use stdx::Kind;
use testkit::image::{Blob, Image};
use testkit::registry::{Effect, Fault, Login as Asks, Server};

use crate::{at, quick, user};

/// How often a blob was opened.
struct Counted(Memory, Arc<AtomicUsize>);

#[async_trait::async_trait]
impl Provider for Counted {
    async fn size(&self, blob: &Descriptor) -> content::Result<u64> {
        self.0.size(blob).await
    }

    async fn read(&self, blob: &Descriptor, offset: u64) -> content::Result<ByteStream> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.read(blob, offset).await
    }
}

fn paths(server: &Server) -> Vec<String> {
    server
        .asked()
        .iter()
        .map(|asked| format!("{} {}", asked.method, asked.status))
        .collect()
}

#[tokio::test]
async fn an_image_arrives_whole_and_a_second_push_sends_nothing() {
    let server = Server::start().await;
    let image = Image::seeded(1, 3, 5, 5000);
    let app = at(&server, "app");
    for round in 0..2 {
        for blob in image.layers.iter().chain([&image.config]) {
            let pushed = app
                .push(&blob.descriptor, once(blob.bytes.clone()))
                .await
                .unwrap();
            assert_eq!(
                pushed,
                if round == 0 {
                    Pushed::Uploaded
                } else {
                    Pushed::Existed
                }
            );
        }
    }
    let media_type = &image.manifest.descriptor.media_type;
    let pushed = app
        .push_manifest("1", media_type, image.manifest.bytes.clone())
        .await
        .unwrap();
    assert_eq!(pushed, image.manifest.descriptor);
    assert_eq!(server.manifest("app", "1").unwrap().1, image.manifest.bytes);
    assert_eq!(server.count("PUT", "/blobs/uploads/"), 4);
    let lengths: Vec<_> = server
        .asked()
        .iter()
        .filter(|a| a.method == "PUT")
        .map(|a| a.length.unwrap())
        .collect();
    assert_eq!(
        lengths[0], image.layers[0].descriptor.size,
        "one streamed request with its length"
    );
}

/// An image and its cache have the same layers, and are pushed at the same time.
///
/// Rows: E03, X34, W59
#[tokio::test]
async fn what_is_pushed_twice_at_once_is_sent_once() {
    let server = Server::start().await;
    let blob = Blob::new("x", "shared");
    let app = at(&server, "app");
    let memory = Memory::default();
    let opened = Arc::new(AtomicUsize::new(0));
    let counted = Counted(memory.clone(), Arc::clone(&opened));
    memory.add("x", blob.bytes.clone());
    let pushes = (0..3).map(|_| {
        let (opened, bytes) = (Arc::clone(&opened), blob.bytes.clone());
        let bytes = lazy(async move {
            opened.fetch_add(1, Ordering::Relaxed);
            Ok(once(bytes))
        });
        app.push(&blob.descriptor, bytes)
    });
    let copies = (0..3).map(|_| copy(&counted, &app, &blob.descriptor));
    let (copied, pushed) = futures::join!(
        futures::future::try_join_all(copies),
        futures::future::try_join_all(pushes)
    );
    let (copied, pushed) = (copied.unwrap(), pushed.unwrap());
    assert_eq!(
        server.count("PUT", "/blobs/uploads/"),
        1,
        "{copied:?} {pushed:?}"
    );
    assert_eq!(server.count("POST", "/blobs/uploads/"), 1);
    // Who only waits has nothing open meanwhile: there are but few turns to read.
    assert_eq!(opened.load(Ordering::Relaxed), 1);
    let sent = pushed.iter().filter(|pushed| **pushed == Pushed::Uploaded);
    assert!(sent.count() <= 1, "{pushed:?}");
    // One that is given up leaves it to the next.
    let other = Blob::new("x", "other");
    let never = Box::pin(futures::stream::pending());
    let stuck = app.push(&other.descriptor, never);
    let stuck = tokio::time::timeout(Duration::from_millis(100), stuck).await;
    assert!(stuck.is_err());
    let again = app.push(&other.descriptor, once(other.bytes.clone()));
    assert_eq!(again.await.unwrap(), Pushed::Uploaded);
}

#[tokio::test]
async fn a_neighbour_repository_lends_its_blob() {
    let server = Server::start().await;
    server.require(Asks::private_token());
    let mut blob = Blob::new("x", "shared");
    server.add_blob("base", &blob);
    add_source(&mut blob.descriptor, &server.host(), "base");
    let app = Registry::new(quick()).at(&server.host(), "app", user(), false);
    let unwanted = lazy(async { panic!("the registry has them") });
    assert_eq!(
        app.push(&blob.descriptor, unwanted).await.unwrap(),
        Pushed::Mounted
    );
    assert!(server.blob("app", blob.descriptor.digest).is_some());
    let scopes = server
        .asked()
        .iter()
        .rfind(|asked| asked.path == "/token")
        .unwrap()
        .query
        .clone();
    assert!(
        scopes.contains("base%3Apull") && scopes.contains("app%3Apull%2Cpush"),
        "{scopes}"
    );
    assert_eq!(server.count("PUT", ""), 0);
}

#[tokio::test]
async fn a_mount_that_is_not_done_becomes_the_upload() {
    let server = Server::start().await;
    server.fault(Fault::new(Effect::NoMount));
    let mut blob = Blob::new("x", "shared");
    server.add_blob("base", &blob);
    add_source(&mut blob.descriptor, &server.host(), "base");
    let app = at(&server, "app");
    assert_eq!(
        app.push(&blob.descriptor, once(blob.bytes.clone()))
            .await
            .unwrap(),
        Pushed::Uploaded
    );
    assert_eq!(
        paths(&server),
        ["HEAD 404", "POST 202", "PUT 201"],
        "the mount's own session is used"
    );
    server.behave();
    server.fault(Fault::status(405).method("POST").times(1));
    blob.descriptor.annotations.clear();
    add_source(&mut blob.descriptor, &server.host(), "elsewhere");
    add_source(&mut blob.descriptor, &server.host(), "base");
    let other = at(&server, "other");
    assert_eq!(
        other
            .push(&blob.descriptor, once(blob.bytes.clone()))
            .await
            .unwrap(),
        Pushed::Mounted
    );
}

#[tokio::test]
async fn wrong_or_missing_bytes_are_never_pushed() {
    let server = Server::start().await;
    let app = at(&server, "app");
    let blob = Blob::new("x", vec![b'a'; 1000]);
    let error = app
        .push(&blob.descriptor, once(vec![b'b'; 1000]))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    let error = app
        .push(&blob.descriptor, once(vec![b'a'; 10]))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Reading { .. }), "{error}");
    assert!(server.blob("app", blob.descriptor.digest).is_none());
    let manifest = Blob::new(oci::media_type::OCI_MANIFEST, "{}");
    let other = Blob::new(oci::media_type::OCI_MANIFEST, "{ }")
        .descriptor
        .digest
        .to_string();
    let error = app
        .push_manifest(&other, &manifest.descriptor.media_type, manifest.bytes)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
}

/// Rows: S08
#[tokio::test]
async fn a_copy_survives_a_stumbling_registry() {
    let server = Server::start().await;
    let app = at(&server, "app");
    let memory = Memory::default();
    let bytes = Bytes::from(testkit::dice::Dice::new(3).bytes(500_000));
    let blob = memory.add("x", bytes.clone());
    server.fault(Fault::status(503).method("HEAD").times(2));
    server.fault(Fault::status(500).method("POST").times(2));
    server.fault(Fault::new(Effect::Drop).method("PUT").times(1));
    copy(&memory, &app, &blob).await.unwrap();
    assert_eq!(server.blob("app", blob.digest), Some(bytes));
}

/// A request is repeated by whoever sends it, not by the copy around it once more.
///
/// Rows: S08, core:X10
#[tokio::test]
async fn a_registry_that_stays_broken_is_not_asked_without_end() {
    let server = Server::start().await;
    let app = at(&server, "app");
    let memory = Memory::default();
    let blob = memory.add("x", "blob");
    server.fault(Fault::status(500).method("POST"));
    copy(&memory, &app, &blob).await.unwrap_err();
    assert_eq!(server.count("POST", "/blobs/uploads/"), 4);
}

#[tokio::test]
async fn a_host_that_refuses_large_bodies_gets_chunks() {
    let server = Server::start().await;
    let app = at(&server, "app");
    let memory = Memory::default();
    let bytes = Bytes::from(testkit::dice::Dice::new(3).bytes(20 << 20));
    let blob = memory.add("x", bytes.clone());
    server.fault(Fault::status(413).method("PUT").times(1));
    server.fault(Fault::status(502).method("PATCH").times(1));
    copy(&memory, &app, &blob).await.unwrap();
    assert_eq!(
        server.blob("app", blob.digest).map(|b| b.len()),
        Some(bytes.len())
    );
    assert_eq!(
        server.count("PATCH", ""),
        4,
        "three chunks, one of them twice"
    );
}

#[tokio::test]
async fn a_push_without_the_right_to_says_so() {
    let server = Server::start().await;
    server.require(Asks::token());
    let blob = Blob::new("x", "mine");
    let app = Registry::new(quick()).at(&server.host(), "app", Anonymous::shared(), false);
    let error = app
        .push(&blob.descriptor, once(blob.bytes.clone()))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
    assert!(
        error
            .to_string()
            .contains(&format!("push {}/app", server.host())),
        "{error}"
    );
}

#[tokio::test]
async fn referrers_are_found_with_and_without_the_api() {
    for api in [true, false] {
        let server = Server::start().await;
        if !api {
            server.without_referrers_api();
        }
        let image = Image::seeded(1, 1, 1, 10);
        let subject = server.add_image("app", "1", &image);
        let app = at(&server, "app");
        let config = Blob::new(oci::media_type::OCI_EMPTY, "{}");
        server.add_blob("app", &config);
        for (kind, note) in [("application/sbom", "a"), ("application/signature", "b")] {
            let manifest = serde_json::json!({
                "schemaVersion": 2, "mediaType": oci::media_type::OCI_MANIFEST, "artifactType": kind,
                "config": config.descriptor, "layers": [], "subject": subject, "annotations": {"note": note},
            });
            let notes = BTreeMap::from([("note".to_owned(), note.to_owned())]);
            let bytes = Bytes::from(manifest.to_string());
            for _ in 0..2 {
                let pushed = app.push_referrer(
                    subject.digest,
                    oci::media_type::OCI_MANIFEST,
                    Some(kind),
                    &notes,
                    bytes.clone(),
                );
                pushed.await.unwrap();
            }
        }
        assert_eq!(
            app.referrers(subject.digest, None).await.unwrap().len(),
            2,
            "api {api}"
        );
        let sboms = app
            .referrers(subject.digest, Some("application/sbom"))
            .await
            .unwrap();
        assert_eq!(sboms.len(), 1, "api {api}");
        let none = app.referrers(oci::Digest::of("other"), None).await.unwrap();
        assert!(none.is_empty(), "api {api}");
    }
}

#[tokio::test]
async fn giving_up_the_wait_stops_the_work() {
    let server = Server::start().await;
    server.fault(Fault::status(500));
    let mut hosts = quick();
    hosts.retry_delays = vec![Duration::from_secs(3600)];
    let app = Registry::new(hosts).at(&server.host(), "app", Anonymous::shared(), false);
    let waited = tokio::time::timeout(Duration::from_millis(200), app.resolve_reference("1")).await;
    assert!(waited.is_err());
    assert_eq!(server.asked().len(), 1);
}
