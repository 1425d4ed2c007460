//! Downloads.

use std::sync::Arc;

use oci::Digest;
use session::Attachables;
use session::local::{SecretSource, SecretValues};
use stdx::Kind;
use testkit::web::{Page, Web};

use crate::setup::{files, state};

fn page(text: &str, etag: &str) -> Page {
    Page {
        bytes: text.to_owned().into(),
        etag: etag.into(),
        ..Page::default()
    }
}

/// Rows: S17
#[tokio::test]
async fn privileged_an_unchanged_file_is_not_downloaded_again() {
    let Some(state) = state() else { return };
    let web = Web::start().await;
    web.put("/d/f.txt", page("one", "\"1\""));
    let url = web.url("/d/f.txt");
    let get = async || {
        let build = state.build(Attachables::new());
        let source = state.source(&url, &[]).unwrap();
        let key = source.cache_key(&build.cx, 0).await.unwrap();
        let fetched = source.fetch(&build.cx).await.unwrap().unwrap();
        (key, fetched)
    };
    let (first, kept) = get().await;
    assert_eq!(first.pin, Digest::of("one").to_string());
    assert_eq!(
        files(&kept).await,
        [("f.txt".to_owned(), "one".to_owned())].into()
    );
    let (second, again) = get().await;
    assert_eq!((&second, again.id()), (&first, kept.id()));
    assert_eq!(web.asked(), ["GET /d/f.txt 200", "HEAD /d/f.txt 304"]);
    web.put("/d/f.txt", page("two", "W/\"2\""));
    let (third, changed) = get().await;
    assert_ne!(third.text, first.text);
    assert_eq!(files(&changed).await["f.txt"], "two");
}

/// Rows: S17
#[tokio::test]
async fn privileged_name_mode_time_and_checksum() {
    let Some(state) = state() else { return };
    let web = Web::start().await;
    let mut served = page("bytes", "");
    served.headers = vec![
        (
            "content-disposition".into(),
            "attachment; filename=\"../../evil\"".into(),
        ),
        (
            "last-modified".into(),
            "Sun, 06 Nov 1994 08:49:37 GMT".into(),
        ),
    ];
    web.put("/x", served);
    let build = state.build(Attachables::new());
    let source = state
        .source(&web.url("/x"), &[("http.perm", "0755"), ("http.uid", "7")])
        .unwrap();
    let fetched = source.fetch(&build.cx).await.unwrap().unwrap();
    let tree = fetched
        .tree(&content::Memory::default(), &build.cx.step)
        .await
        .unwrap();
    let stat = tree.root().lstat("evil").unwrap();
    assert_eq!(
        (stat.mode & 0o7777, stat.uid, stat.mtime.seconds),
        (0o755, 7, 784_111_777)
    );
    let right = Digest::of("bytes").to_string();
    let pinned = state
        .source(&web.url("/x"), &[("http.checksum", &right)])
        .unwrap();
    let before = web.asked().len();
    let fresh = state.build(Attachables::new());
    assert_eq!(pinned.cache_key(&fresh.cx, 0).await.unwrap().pin, right);
    assert_eq!(web.asked().len(), before, "a checksum says it all");
    let wrong = Digest::of("other").to_string();
    let other = state
        .source(&web.url("/x"), &[("http.checksum", &wrong)])
        .unwrap();
    let error = other.fetch(&fresh.cx).await.err().unwrap().to_string();
    assert!(
        error.contains("digest mismatch") && error.contains(&wrong),
        "{error}"
    );
}

/// Rows: S17
#[tokio::test]
async fn privileged_logins_come_from_secrets_and_refusals_are_clear() {
    let Some(state) = state() else { return };
    let web = Web::start().await;
    web.put(
        "/t",
        Page {
            authorization: "Bearer T0".into(),
            ..page("private", "")
        },
    );
    web.put(
        "/flaky",
        Page {
            faults: vec![503],
            ..page("ok", "")
        },
    );
    let secrets = SecretValues::new().with(
        "HTTP_AUTH_TOKEN_127.0.0.1",
        SecretSource::Value("T0".into()),
    );
    let mut offers = Attachables::new();
    offers.secrets = Some(Arc::new(secrets));
    let build = state.build(offers);
    state
        .source(&web.url("/t"), &[])
        .unwrap()
        .fetch(&build.cx)
        .await
        .unwrap();
    state
        .source(&web.url("/flaky"), &[])
        .unwrap()
        .fetch(&build.cx)
        .await
        .unwrap();
    drop(build);
    let nobody = state.build(Attachables::new());
    for (path, status, kind) in [
        ("/t", "401", Kind::Denied),
        ("/none", "404", Kind::NotFound),
    ] {
        let error = state
            .source(&web.url(path), &[])
            .unwrap()
            .fetch(&nobody.cx)
            .await
            .err()
            .unwrap();
        assert_eq!(error.kind(), kind);
        assert!(error.to_string().contains(status), "{error}");
    }
    let named = state
        .source(&web.url("/t"), &[("http.authheadersecret", "mine")])
        .unwrap();
    let error = named.fetch(&nobody.cx).await.err().unwrap().to_string();
    assert!(
        error.contains("failed to retrieve HTTP auth secret mine"),
        "{error}"
    );
}

/// A server may send the file packed; the file is what is inside.
///
/// Rows: S17
#[tokio::test]
async fn privileged_what_comes_packed_is_unpacked() {
    let Some(state) = state() else { return };
    let web = Web::start().await;
    let gzip = flate2::Compression::fast();
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), gzip);
    std::io::Write::write_all(&mut packed, b"inside").unwrap();
    let packed = packed.finish().unwrap();
    let served = |gzip: &[u8]| Page {
        gzip: gzip.to_vec().into(),
        ..page("plain", "\"1\"")
    };
    web.put("/f", served(&packed));
    let fetch = async |path: &str| {
        let build = state.build(Attachables::new());
        let source = state.source(&web.url(path), &[]).unwrap();
        let key = source.cache_key(&build.cx, 0).await?;
        let fetched = source.fetch(&build.cx).await?.unwrap();
        Ok::<_, source::Error>((key.pin, files(&fetched).await))
    };
    let inside = Digest::of("inside").to_string();
    for _ in 0..2 {
        let (pin, found) = fetch("/f").await.unwrap();
        assert_eq!((pin.as_str(), found["f"].as_str()), (&*inside, "inside"));
    }
    assert_eq!(web.asked(), ["GET /f 200", "HEAD /f 304"]);
}
