//! Images from a registry that may be gone, and from a layout.

use std::sync::Arc;

use content::Memory;
use session::Attachables;
use source::{Error, Source};
use stdx::Kind;
use testkit::image::{Blob, Image};
use testkit::registry::{Fault, Server};

use crate::setup::state;

fn image(source: Source) -> source::Image {
    match source {
        Source::Image(image) => image,
        _ => panic!("an image"),
    }
}

/// Rows: S01, S02, P13, P3, P4, P19
#[tokio::test]
async fn privileged_no_layer_is_fetched_before_it_is_read() {
    let Some(state) = state() else { return };
    let server = Server::start().await;
    let (amd64, arm) = (Image::seeded(1, 3, 2, 100), Image::seeded(2, 3, 2, 100));
    server.add_image("app", "", &amd64);
    server.add_image("app", "", &arm);
    let index = Image::index(&[("linux/arm64", &arm), ("linux/amd64", &amd64)]);
    server.add_manifest("app", "1", &index);
    let build = state.build(Attachables::new());
    let name = format!("docker-image://{}/app:1", server.host());
    let app = state.source(&name, &[]).unwrap();
    let first = app.cache_key(&build.cx, 0).await.unwrap();
    let second = app.cache_key(&build.cx, 1).await.unwrap();
    assert_eq!((first.last, second.last), (false, true));
    assert_eq!(first.pin, index.descriptor.digest.to_string());
    assert_eq!(
        second.text,
        oci::chain_id(&amd64.diff_ids).unwrap().to_string()
    );
    let fetched = app.fetch(&build.cx).await.unwrap().unwrap();
    assert_eq!(server.count("GET", "/blobs/"), 1, "the config");
    assert_eq!(
        server.count("HEAD", "/manifests/1"),
        1,
        "the name is asked for once per build"
    );
    assert_eq!(
        fetched.description(),
        format!("pulled from {}/app:1", server.host())
    );
    let provider = image(app).provider(&build.cx).await.unwrap();
    fetched.tree(&provider, &build.cx.step).await.unwrap();
    assert_eq!(server.count("GET", "/blobs/"), 4);
}

/// Rows: S03, S04, P2, P12, P27, P28
#[tokio::test]
async fn privileged_what_is_here_serves_when_the_registry_is_gone() {
    let Some(state) = state() else { return };
    let server = Server::start().await;
    let manifest = server.add_image("app", "1", &Image::seeded(1, 1, 1, 10));
    let by_tag = format!("docker-image://{}/app:1", server.host());
    let by_digest = format!("docker-image://{}/app@{}", server.host(), manifest.digest);
    let key = async |name: &str, mode: &str| {
        let build = state.build(Attachables::new());
        let app = state.source(name, &[("image.resolvemode", mode)]).unwrap();
        app.cache_key(&build.cx, 1).await
    };
    let first = key(&by_tag, "default").await.unwrap();
    server.forget();
    assert_eq!(key(&by_digest, "pull").await.unwrap().text, first.text);
    assert_eq!(key(&by_tag, "local").await.unwrap().text, first.text);
    assert_eq!(
        server.asked().len(),
        0,
        "a digest and a local name ask nobody"
    );
    server.fault(Fault::status(503));
    assert_eq!(key(&by_tag, "default").await.unwrap().text, first.text);
    assert_eq!(
        key(&by_tag, "pull").await.unwrap_err().kind(),
        Kind::Unavailable
    );
}

/// A digest counts only where its name has it, whatever is here already: the registry of a
/// name that did not bring it is asked once, for the manifest alone, and then never again.
///
/// Rows: S03, S04, P2, P12, P27, P28
#[tokio::test]
async fn privileged_a_digest_is_no_answer_for_another_name() {
    let Some(mut state) = state() else { return };
    let (first, second) = (Server::start().await, Server::start().await);
    let image = Image::seeded(1, 2, 1, 10);
    let digest = first.add_image("app", "1", &image).digest;
    let at = |host: &str, path: &str| format!("docker-image://{host}/{path}@{digest}");
    async fn key(state: &crate::setup::State, name: &str, mode: &str) -> Result<String, Error> {
        let build = state.build(Attachables::new());
        let app = state.source(name, &[("image.resolvemode", mode)]).unwrap();
        let key = app.cache_key(&build.cx, 1).await?.text;
        app.fetch(&build.cx).await?;
        Ok(key)
    }
    let known = key(&state, &at(&first.host(), "app"), "default")
        .await
        .unwrap();
    let nobody = at("127.0.0.1:1", "app");
    let others = [at(&second.host(), "app"), at(&first.host(), "other")];
    for mode in ["default", "local", "pull"] {
        for name in &others {
            let error = key(&state, name, mode).await.unwrap_err();
            assert_eq!(error.kind(), Kind::NotFound, "{mode} {name}");
        }
        let error = key(&state, &nobody, mode).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable, "{mode}");
    }
    // Once the other registry has it, that is all that is asked.
    second.add_image("app", "1", &image);
    second.forget();
    assert_eq!(key(&state, &others[0], "default").await.unwrap(), known);
    let path = format!("/manifests/{digest}");
    assert_eq!((second.count("HEAD", &path), second.asked().len()), (1, 1));
    // Now both are known, to the next process as well.
    state = state.restarted();
    first.forget();
    second.forget();
    for name in [at(&first.host(), "app"), others[0].clone()] {
        assert_eq!(key(&state, &name, "pull").await.unwrap(), known);
    }
    assert_eq!(first.asked().len() + second.asked().len(), 0);
}

/// Rows: S05, S06, S07, P14, P16, P17
#[tokio::test]
async fn privileged_limits_checksums_and_old_formats() {
    let Some(state) = state() else { return };
    let server = Server::start().await;
    let image = Image::seeded(1, 3, 1, 10);
    let manifest = server.add_image("app", "1", &image);
    let old = Blob::new(
        oci::media_type::DOCKER_SCHEMA1_SIGNED,
        r#"{"schemaVersion":1,"fsLayers":[]}"#,
    );
    server.add_manifest("app", "old", &old);
    let key = async |name: &str, attrs: &[(&str, &str)]| {
        let build = state.build(Attachables::new());
        let app = state
            .source(
                &format!("docker-image://{}/app:{name}", server.host()),
                attrs,
            )
            .unwrap();
        app.cache_key(&build.cx, 1).await
    };
    let limited = key("1", &[("image.layerlimit", "2")]).await.unwrap();
    assert_eq!(
        limited.text,
        oci::chain_id(&image.diff_ids[..2]).unwrap().to_string()
    );
    assert!(matches!(
        key("1", &[("image.layerlimit", "4")]).await,
        Err(Error::LayerLimit {
            limit: 4,
            layers: 3
        })
    ));
    let right = manifest.digest.to_string();
    key("1", &[("image.checksum", &right)]).await.unwrap();
    let other = oci::Digest::of("other").to_string();
    let error = key("1", &[("image.checksum", &other)])
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.ends_with(&format!("does not match expected checksum {other}")),
        "{error}"
    );
    assert!(matches!(key("old", &[]).await, Err(Error::Schema1 { .. })));
    assert_eq!(key("none", &[]).await.unwrap_err().kind(), Kind::NotFound);
}

/// Rows: C14
#[tokio::test]
async fn privileged_a_tag_means_the_same_all_through_a_build() {
    let Some(state) = state() else { return };
    let server = Server::start().await;
    server.add_image("app", "1", &Image::seeded(1, 1, 1, 10));
    let name = format!("docker-image://{}/app:1", server.host());
    let build = state.build(Attachables::new());
    let before = state
        .source(&name, &[])
        .unwrap()
        .cache_key(&build.cx, 0)
        .await
        .unwrap();
    server.add_image("app", "1", &Image::seeded(2, 1, 1, 10));
    let after = state
        .source(&name, &[])
        .unwrap()
        .cache_key(&build.cx, 0)
        .await
        .unwrap();
    assert_eq!(before.pin, after.pin);
    let limited = state.source(&name, &[("image.layerlimit", "1")]).unwrap();
    assert_eq!(
        limited.cache_key(&build.cx, 0).await.unwrap().pin,
        before.pin
    );
    let next = state.build(Attachables::new());
    let later = state
        .source(&name, &[])
        .unwrap()
        .cache_key(&next.cx, 0)
        .await
        .unwrap();
    assert_ne!(later.pin, before.pin);
}

/// Rows: S12, P34
#[tokio::test]
async fn privileged_a_layout_comes_from_the_clients_store() {
    let Some(state) = state() else { return };
    let image = Image::seeded(1, 2, 1, 10);
    let store = Memory::default();
    for blob in image.layers.iter().chain([&image.config, &image.manifest]) {
        store.add(&blob.descriptor.media_type, blob.bytes.clone());
    }
    let mut offers = Attachables::new();
    offers.content = Some(Arc::new(
        session::local::Stores::new().with("oci:lay", Arc::new(store)),
    ));
    let build = state.build(offers);
    let digest = image.manifest.descriptor.digest;
    let layout = state
        .source(&format!("oci-layout://lay@{digest}"), &[])
        .unwrap();
    let key = layout.cache_key(&build.cx, 1).await.unwrap();
    assert_eq!(
        key.text,
        oci::chain_id(&image.diff_ids).unwrap().to_string()
    );
    let fetched = layout.fetch(&build.cx).await.unwrap().unwrap();
    let provider = self::image(layout).provider(&build.cx).await.unwrap();
    fetched.tree(&provider, &build.cx.step).await.unwrap();
    let absent = state
        .source(
            &format!("oci-layout://lay@{}", oci::Digest::of("absent")),
            &[],
        )
        .unwrap();
    assert_eq!(
        absent.cache_key(&build.cx, 0).await.unwrap_err().kind(),
        Kind::NotFound
    );
}

/// Rows: S13
#[tokio::test]
async fn privileged_one_blob_becomes_a_file() {
    let Some(state) = state() else { return };
    let server = Server::start().await;
    let blob = Blob::new("x", "policy text");
    server.add_blob("app", &blob);
    let build = state.build(Attachables::new());
    let name = format!(
        "docker-image+blob://{}/app@{}",
        server.host(),
        blob.descriptor.digest
    );
    let source = state
        .source(
            &name,
            &[("http.filename", "../p.rego"), ("http.perm", "0640")],
        )
        .unwrap();
    let fetched = source.fetch(&build.cx).await.unwrap().unwrap();
    assert_eq!(
        crate::setup::files(&fetched).await,
        [("p.rego".to_owned(), "policy text".to_owned())].into()
    );
    server.fault(Fault::new(testkit::registry::Effect::Flip));
    let again = state.source(&name, &[]).unwrap();
    assert_eq!(
        again.fetch(&build.cx).await.err().unwrap().kind(),
        Kind::Internal
    );
}

/// Many who ask at once get one answer, from one question; an error is nobody's answer for long.
///
/// Rows: P2, P7, core:P10, core:P11, P28
#[tokio::test(flavor = "multi_thread")]
async fn privileged_a_name_is_asked_for_once_however_many_ask() {
    let Some(state) = state() else { return };
    let server = Server::start().await;
    server.add_image("app", "1", &Image::seeded(1, 2, 1, 10));
    let mut build = state.build(Attachables::new());
    let progress = progress::Progress::new(progress::Options::default());
    build.cx.step = progress.internal_step("load metadata");
    let name = format!("docker-image://{}/app:1", server.host());
    server.fault(Fault::status(401).times(1));
    let app = state.source(&name, &[]).unwrap();
    app.cache_key(&build.cx, 0).await.unwrap_err();
    server.forget();
    let asked = (0..20).map(|_| {
        let (app, cx) = (state.source(&name, &[]).unwrap(), build.cx.clone());
        async move {
            let key = app.cache_key(&cx, 1).await.unwrap();
            app.fetch(&cx).await.unwrap();
            key.text
        }
    });
    let keys = futures::future::join_all(asked).await;
    assert!(keys.iter().all(|key| *key == keys[0]));
    assert_eq!(server.count("HEAD", "/manifests/"), 1);
    assert_eq!(server.count("GET", "/manifests/"), 1);
    assert_eq!(server.count("GET", "/blobs/"), 1, "the config");
    progress.close();
    let mut follower = progress.follow();
    let told: Vec<String> = follower
        .ready(1000)
        .into_iter()
        .filter_map(|event| match event {
            progress::Event::Status(status) if status.completed.is_some() => Some(status.id),
            _ => None,
        })
        .collect();
    assert_eq!(told, [format!("resolve {}/app:1", server.host())]);
}

/// The documents of an image are kept by the build that looks at it, then by the result; they
/// are fetched again when they are gone.
///
/// Rows: core:P10, P20, P22, P24
#[tokio::test]
async fn privileged_documents_stay_with_the_build_then_with_the_result() {
    let Some(state) = state() else { return };
    let server = Server::start().await;
    let image = Image::seeded(1, 2, 1, 10);
    server.add_image("team/app", "1", &image);
    let name = format!("docker-image://{}/team/app:1", server.host());
    let documents = [
        image.manifest.descriptor.digest,
        image.config.descriptor.digest,
    ];
    let there = || {
        state.refs.sweep(&[]).unwrap();
        let here = |digest| state.refs.store().contains(digest).unwrap();
        documents.iter().all(here)
    };
    // Looked at, but not used: they go with the build.
    let build = state.build(Attachables::new());
    let app = state.source(&name, &[]).unwrap();
    app.cache_key(&build.cx, 1).await.unwrap();
    assert!(there());
    drop((app, build));
    assert!(!there());
    // Used: they stay with what was made of them.
    let build = state.build(Attachables::new());
    let app = state.source(&name, &[]).unwrap();
    let fetched = app.fetch(&build.cx).await.unwrap().unwrap();
    drop((app, build));
    assert!(there());
    let key = format!("containerd.io/distribution.source.{}", server.host());
    for (layer, given) in fetched.known_blobs().unwrap().iter().zip(&image.layers) {
        assert_eq!(layer[0].annotations[&key], "team/app");
        assert_eq!(layer[0].digest, given.descriptor.digest);
    }
    for digest in &documents {
        state.refs.store().remove(digest).unwrap();
    }
    let build = state.build(Attachables::new());
    let app = state.source(&name, &[]).unwrap();
    assert_eq!(app.fetch(&build.cx).await.unwrap().unwrap(), fetched);
    assert!(there());
    drop((app, build, fetched));
    let everything = refs::PrunePolicy {
        all: true,
        ..refs::PrunePolicy::default()
    };
    state.refs.prune(&[everything], &[]).unwrap();
    assert!(!there());
}

/// Rows: P9, P23
#[tokio::test]
async fn privileged_the_first_to_say_what_an_image_is_for_is_right() {
    let Some(state) = state() else { return };
    let server = Server::start().await;
    server.add_image("app", "1", &Image::seeded(1, 1, 1, 10));
    let name = format!("docker-image://{}/app:1", server.host());
    let build = state.build(Attachables::new());
    for kind in ["frontend", "internal", "regular"] {
        let app = state.source(&name, &[("image.recordtype", kind)]).unwrap();
        let fetched = app.fetch(&build.cx).await.unwrap().unwrap();
        let usage = state.refs.usage(&refs::Filter::default()).unwrap();
        let record = usage.iter().find(|record| record.id == fetched.id());
        assert_eq!(record.unwrap().record_type, refs::RecordType::Frontend);
    }
    let wrong = state.source(&name, &[("image.recordtype", "dream")]);
    assert!(
        wrong
            .err()
            .unwrap()
            .to_string()
            .contains("invalid record type")
    );
    let bare = state.source(&format!("docker-image://{}/app", server.host()), &[]);
    assert!(
        bare.err()
            .unwrap()
            .to_string()
            .contains("neither tag nor digest")
    );
}

/// Credentials of somebody the registry knows.
struct Known;

#[async_trait::async_trait]
impl registry::Credentials for Known {
    async fn login(&self, _: &str) -> Result<registry::Login, registry::CredentialsError> {
        Ok(registry::Login::Password {
            username: "u".into(),
            secret: "p".into(),
        })
    }
}

/// What one build saw, another fetches with its own logins, long after the first has gone.
///
/// Rows: P25
#[tokio::test]
async fn privileged_a_layer_is_fetched_with_the_logins_of_who_reads_it() {
    let Some(state) = state() else { return };
    let server = Server::start().await;
    server.add_image("app", "1", &Image::seeded(1, 1, 2, 10));
    let name = format!("docker-image://{}/app:1", server.host());
    let first = state.build(Attachables::new());
    let app = state.source(&name, &[]).unwrap();
    let fetched = app.fetch(&first.cx).await.unwrap().unwrap();
    drop((app, first));
    server.require(testkit::registry::Login::Basic {
        username: "u".into(),
        password: "p".into(),
    });
    let mut second = state.build(Attachables::new());
    let app = image(state.source(&name, &[]).unwrap());
    let nobody = app.provider(&second.cx).await.unwrap();
    fetched.tree(&nobody, &second.cx.step).await.unwrap_err();
    second.cx.credentials = Arc::new(Known);
    let known = app.provider(&second.cx).await.unwrap();
    fetched.tree(&known, &second.cx.step).await.unwrap();
}
