//! Pushing to a registry in memory.

use std::sync::Arc;

use exporter::image::Written;
use exporter::{Error, ImageOptions, PushOptions, Result, image, push};
use oci::ImageName;
use refs::Ref;
use registry::{Anonymous, Hosts, Registry, Repository};
use testkit::registry::{Fault, Server};

use super::setup::{State, attrs, source, state, tar};

fn repository(server: &Server, path: &str) -> (ImageName, Repository) {
    let name: ImageName = format!("{}/{path}", server.host()).parse().unwrap();
    let hosts = Hosts {
        retry_delays: vec![std::time::Duration::ZERO],
        ..Hosts::default()
    };
    let repository = Registry::new(hosts).insecure_repository(&name, Arc::new(Anonymous));
    (name, repository)
}

fn result(state: &State) -> Ref {
    let below = state.on(None, &tar(&[("a", "below")]));
    state.on(Some(&below), &tar(&[("b", "above")]))
}

async fn write(state: &State, result: Ref) -> Written {
    let options = ImageOptions::parse(&attrs(&[("source-date-epoch", "0")])).unwrap();
    image::write(&source(Some(result), &[]), &options, &state.cx)
        .await
        .unwrap()
}

async fn push_to(server: &Server, path: &str, written: &Written, state: &State) -> Result<()> {
    let (name, repository) = repository(server, path);
    push(
        written,
        &name,
        &repository,
        PushOptions::default(),
        &state.cx,
    )
    .await
}

/// Rows: E03, W59, W60
#[tokio::test]
async fn privileged_an_image_is_pushed_whole_and_not_twice() {
    let Some(state) = state() else { return };
    let server = Server::start().await;
    let written = write(&state, result(&state)).await;
    push_to(&server, "team/app:1", &written, &state)
        .await
        .unwrap();
    let (_, manifest) = server.manifest("team/app", "1").unwrap();
    assert_eq!(oci::Digest::of(&manifest), written.descriptor.digest);
    for (blob, _) in written.blobs() {
        assert!(server.blob("team/app", blob.digest).is_some());
    }
    server.forget();
    push_to(&server, "team/app:2", &written, &state)
        .await
        .unwrap();
    assert_eq!(
        server.count("POST", "/blobs/uploads"),
        0,
        "everything was there"
    );
    assert!(server.manifest("team/app", "2").is_some());
}

/// Rows: E03, W59
#[tokio::test]
async fn privileged_a_failed_blob_leaves_no_tag_and_says_where() {
    let Some(state) = state() else { return };
    let server = Server::start().await;
    server.fault(Fault::status(403).on("/blobs/uploads").times(100));
    let written = write(&state, result(&state)).await;
    let error = push_to(&server, "team/app:1", &written, &state)
        .await
        .unwrap_err();
    assert!(error.to_string().starts_with("failed to push "), "{error}");
    assert_eq!(error.kind(), stdx::Kind::Denied);
    assert!(server.manifest("team/app", "1").is_none());
}

/// Rows: W59
#[tokio::test]
async fn privileged_by_digest_sets_no_tag() {
    let Some(state) = state() else { return };
    let server = Server::start().await;
    let written = write(&state, result(&state)).await;
    let by_digest = PushOptions { by_digest: true };
    let (name, target) = repository(&server, "app");
    push(&written, &name, &target, by_digest, &state.cx)
        .await
        .unwrap();
    assert!(
        server
            .manifest("app", &written.descriptor.digest.to_string())
            .is_some()
    );
    assert!(server.manifest("app", "latest").is_none());
    let (name, target) = repository(&server, "app:tag");
    let refused = push(&written, &name, &target, by_digest, &state.cx).await;
    assert!(
        matches!(refused, Err(Error::Push { source, .. }) if matches!(*source, Error::TagByDigest(_)))
    );
}
