//! Directories of the client.

use session::Attachables;
use session::local::Dirs;

use crate::setup::{files, state};

/// Rows: S19
#[tokio::test]
async fn privileged_a_directory_comes_as_it_is_now() {
    let Some(state) = state() else { return };
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("sub")).unwrap();
    std::fs::write(dir.path().join("sub/a"), "1").unwrap();
    std::fs::write(dir.path().join("skip.log"), "x").unwrap();
    let attrs = [
        ("local.excludepatterns", r#"["*.log"]"#),
        ("local.sharedkeyhint", "context"),
    ];
    let fetch = async || {
        let build =
            state.build(Attachables::new().with_dirs(Dirs::new().with("context", dir.path())));
        let source = state.source("local://context", &attrs).unwrap();
        let key = source.cache_key(&build.cx, 0).await.unwrap();
        assert!(key.text.starts_with("session:context:sha256:") && key.last);
        files(&source.fetch(&build.cx).await.unwrap().unwrap()).await
    };
    let names = |found: &std::collections::BTreeMap<String, String>| {
        found.keys().cloned().collect::<Vec<_>>()
    };
    let first = fetch().await;
    assert_eq!(names(&first), ["sub/", "sub/a"]);
    std::fs::write(dir.path().join("sub/a"), "22").unwrap();
    std::fs::write(dir.path().join("b"), "3").unwrap();
    let second = fetch().await;
    assert_eq!(
        (second["sub/a"].as_str(), second["b"].as_str()),
        ("22", "3")
    );
    std::fs::remove_file(dir.path().join("b")).unwrap();
    assert_eq!(names(&fetch().await), ["sub/", "sub/a"]);
}

#[tokio::test]
async fn privileged_a_client_without_the_directory_is_an_error() {
    let Some(state) = state() else { return };
    let build = state.build(Attachables::new());
    let source = state.source("local://context", &[]).unwrap();
    assert!(source.fetch(&build.cx).await.is_err());
}

/// Rows: S19
#[tokio::test]
async fn privileged_hashes_stay_with_a_directory_only_while_nothing_changes() {
    let Some(state) = state() else { return };
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("sub")).unwrap();
    std::fs::write(dir.path().join("sub/b"), "1").unwrap();
    std::fs::write(dir.path().join("a"), "1").unwrap();
    let fetch = async || {
        let build =
            state.build(Attachables::new().with_dirs(Dirs::new().with("context", dir.path())));
        let source = state.source("local://context", &[]).unwrap();
        source.fetch(&build.cx).await.unwrap().unwrap()
    };
    let note = |of: &refs::Ref| of.note(source::CONTENTS_NOTE).unwrap().unwrap_or_default();
    fetch()
        .await
        .set_note(source::CONTENTS_NOTE, b"hashes")
        .unwrap();
    assert_eq!(note(&fetch().await), b"hashes", "nothing changed");
    std::fs::write(dir.path().join("a"), "22").unwrap();
    assert_eq!(note(&fetch().await), b"", "a file changed");
}
