//! The same against a real registry, if one is named: start one, for instance
//! with `peers run docker-registry serve config.yml`, and give its address in
//! `KILN_TEST_REGISTRY`.

use content::{Provider, collect, once};
use registry::{Anonymous, Pushed, Registry, Repository, add_source};
use testkit::image::{Blob, Image};

use crate::quick;

fn repository(path: &str) -> Option<Repository> {
    let Ok(host) = std::env::var("KILN_TEST_REGISTRY") else {
        tracing::warn!("skipped: KILN_TEST_REGISTRY names no registry");
        return None;
    };
    Some(Registry::new(quick()).at(&host, path, Anonymous::shared(), false))
}

#[tokio::test]
async fn a_real_registry_takes_mounts_and_gives_back() {
    let (Some(base), Some(app)) = (repository("kiln-test/base"), repository("kiln-test/app"))
    else {
        return;
    };
    // Other bytes each time, so that a registry that is kept running has not seen them.
    let seed = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let image = Image::seeded(seed, 3, 3, 300_000);
    for blob in image.layers.iter().chain([&image.config]) {
        assert_eq!(
            base.push(&blob.descriptor, once(blob.bytes.clone()))
                .await
                .unwrap(),
            Pushed::Uploaded
        );
        assert_eq!(
            base.push(&blob.descriptor, once(blob.bytes.clone()))
                .await
                .unwrap(),
            Pushed::Existed
        );
        let mut seen = blob.descriptor.clone();
        add_source(&mut seen, base.registry(), base.path());
        assert_eq!(
            app.push(&seen, once("not these")).await.unwrap(),
            Pushed::Mounted
        );
    }
    let kind = &image.manifest.descriptor.media_type;
    let pushed = app
        .push_manifest("1", kind, image.manifest.bytes.clone())
        .await
        .unwrap();
    assert_eq!(app.resolve_reference("1").await.unwrap(), pushed);
    assert_eq!(
        app.resolve_reference(&pushed.digest.to_string())
            .await
            .unwrap()
            .size,
        pushed.size
    );
    assert_eq!(app.manifest(&pushed).await.unwrap(), image.manifest.bytes);
    for Blob { descriptor, bytes } in &image.layers {
        assert_eq!(
            collect(app.read(descriptor, 0).await.unwrap(), descriptor, 1 << 30)
                .await
                .unwrap(),
            bytes
        );
        assert_eq!(app.size(descriptor).await.unwrap(), descriptor.size);
    }
    let layer = &image.layers[0];
    let mut rest = app.read(&layer.descriptor, 1000).await.unwrap();
    let first = futures::StreamExt::next(&mut rest).await.unwrap().unwrap();
    assert_eq!(first, layer.bytes.slice(1000..1000 + first.len()));
    assert_eq!(
        app.resolve_reference("none").await.unwrap_err().kind(),
        stdx::Kind::NotFound
    );
    let wrong = Blob::new("application/octet-stream", vec![1; 5000]);
    assert!(
        app.push(&wrong.descriptor, once(vec![2; 5000]))
            .await
            .is_err()
    );
    assert!(!app.exists(&wrong.descriptor).await.unwrap());
}
