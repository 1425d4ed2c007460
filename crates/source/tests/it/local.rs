//! Directories of the client.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use contenthash::{Contents, Selector};
use session::local::Dirs;
use session::{Attachables, DirRequest, FileSync, Observer, Summary, Target};

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

/// What is shown of a transfer is what went over the line: also when no file had to come.
///
/// Rows: S19, N04
#[tokio::test]
async fn privileged_a_transfer_shows_what_went_over_the_line() {
    let Some(state) = state() else { return };
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a"), vec![0; 5000]).unwrap();
    let transferred = async || {
        let dirs = Dirs::new().with("context", dir.path());
        let mut build = state.build(Attachables::new().with_dirs(dirs));
        let progress = progress::Progress::new(progress::Options::default());
        build.cx.step = progress.internal_step("load build context");
        let source = state.source("local://context", &[]).unwrap();
        source.fetch(&build.cx).await.unwrap().unwrap();
        progress.close();
        let mut follower = progress.follow();
        let last = |event| match event {
            progress::Event::Status(status) if status.completed.is_some() => Some(status),
            _ => None,
        };
        let told: Vec<_> = follower.ready(1000).into_iter().filter_map(last).collect();
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].id, "transferring context:");
        told[0].current
    };
    let first = transferred().await;
    assert!((5001..6000).contains(&first), "{first}");
    let second = transferred().await;
    assert!((1..1000).contains(&second), "{second}");
}

#[tokio::test]
async fn privileged_a_client_without_the_directory_is_an_error() {
    let Some(state) = state() else { return };
    let build = state.build(Attachables::new());
    let source = state.source("local://context", &[]).unwrap();
    assert!(source.fetch(&build.cx).await.is_err());
}

/// What is noted of a directory answers without looking at a file, and answers what
/// one who looks would find.
///
/// Rows: S19, C07
#[tokio::test]
async fn privileged_hashes_stay_in_step_with_a_directory() {
    let Some(state) = state() else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::create_dir_all(path("sub/deep")).unwrap();
    std::fs::write(path("sub/deep/b"), "1").unwrap();
    std::fs::write(path("a"), "1").unwrap();
    std::fs::hard_link(path("a"), path("sub/another-a")).unwrap();
    std::os::unix::fs::symlink("../a", path("sub/link")).unwrap();
    let fetch = async || {
        let build =
            state.build(Attachables::new().with_dirs(Dirs::new().with("context", dir.path())));
        let source = state.source("local://context", &[]).unwrap();
        source.fetch(&build.cx).await.unwrap().unwrap()
    };
    let mut seen = Vec::new();
    let mut next = async |what: &str| {
        let digests = digests(&fetch().await).await;
        assert!(!seen.contains(&digests), "{what}: {digests:?}");
        seen.push(digests);
    };
    next("new").await;
    std::fs::write(path("sub/deep/b"), "2").unwrap();
    next("a change that keeps the size").await;
    std::fs::write(path("sub/deep/new"), "").unwrap();
    next("a new file").await;
    std::fs::write(path("a"), "changed").unwrap();
    next("a file with two names").await;
    std::fs::remove_file(path("sub/deep/b")).unwrap();
    next("a file is gone").await;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(path("sub/deep"), mode).unwrap();
    next("a mode").await;
    std::fs::remove_dir_all(path("sub/deep")).unwrap();
    std::fs::write(path("sub/deep"), "").unwrap();
    next("a file where a directory was").await;
    std::fs::remove_file(path("sub/deep")).unwrap();
    std::fs::create_dir(path("sub/deep")).unwrap();
    std::fs::write(path("sub/deep/x"), "").unwrap();
    next("and the other way round").await;
    let last = seen.last().unwrap().clone();
    let file = std::fs::File::options()
        .write(true)
        .open(path("a"))
        .unwrap();
    file.set_modified(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(digests(&fetch().await).await, last, "times do not count");
}

/// Digests from the note alone, checked against those of the files.
async fn digests(of: &refs::Ref) -> Vec<String> {
    let note = of.note(source::CONTENTS_NOTE).unwrap().unwrap();
    let mut noted = Contents::decode(&note).unwrap();
    let step = progress::StepProgress::none();
    let tree = of.tree(&content::Memory::default(), &step).await.unwrap();
    let empty = tempfile::tempdir().unwrap();
    let nothing = stdx::sys::Root::open(empty.path()).unwrap();
    let mut read = Contents::of_sent_files();
    read.refresh(tree.root(), Path::new("")).unwrap();
    let digest = |contents: &mut Contents, root, path: &str| {
        let digest = contents.digest(root, &Selector::path(path)).unwrap();
        digest.to_string()
    };
    let paths = ["/", "sub", "a", "sub/link"];
    let found = paths.map(|path| digest(&mut noted, &nothing, path));
    assert_eq!(
        found,
        paths.map(|path| digest(&mut read, tree.root(), path))
    );
    found.into()
}

/// A client that changes a file and is then never heard of again.
struct Stuck;

#[async_trait::async_trait]
impl FileSync for Stuck {
    async fn sync_hashed(
        &self,
        _: &DirRequest,
        target: Target,
        _: Option<Observer>,
    ) -> session::Result<(Summary, Option<Contents>)> {
        use std::io::Write;
        let target = target.root;
        target.unlink("a").unwrap();
        let mut file = target.create_file("a", 0o644).unwrap();
        file.write_all(b"half").unwrap();
        target.set_times("a", NEW_TIME, NEW_TIME).unwrap();
        std::future::pending().await
    }
}

const NEW_TIME: stdx::sys::Time = stdx::sys::Time {
    seconds: 1_000_000_000,
    nanos: 0,
};

/// Rows: S19, C07
#[tokio::test]
async fn privileged_a_build_cut_off_leaves_no_hashes_of_files_that_are_gone() {
    let Some(state) = state() else { return };
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a"), "1").unwrap();
    std::fs::create_dir(dir.path().join("sub")).unwrap();
    std::os::unix::fs::symlink("../a", dir.path().join("sub/link")).unwrap();
    let source = state.source("local://context", &[]).unwrap();
    let offers = || Attachables::new().with_dirs(Dirs::new().with("context", dir.path()));
    let build = state.build(offers());
    let first = source.fetch(&build.cx).await.unwrap().unwrap();
    let before = digests(&first).await;
    drop((first, build));

    let stuck = Attachables {
        file_sync: Some(Arc::new(Stuck)),
        ..Attachables::new()
    };
    let build = state.build(stuck);
    let wait = Duration::from_millis(300);
    let cut_off = tokio::time::timeout(wait, source.fetch(&build.cx)).await;
    assert!(cut_off.is_err());
    drop(build);

    // The same size and time as what was left, so it is taken for that and not sent.
    let path = dir.path().join("a");
    std::fs::write(&path, "full").unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    let time = std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    file.set_modified(time).unwrap();
    let build = state.build(offers());
    let fetched = source.fetch(&build.cx).await.unwrap().unwrap();
    let step = progress::StepProgress::none();
    let tree = fetched
        .tree(&content::Memory::default(), &step)
        .await
        .unwrap();
    let note = fetched.note(source::CONTENTS_NOTE).unwrap().unwrap();
    let mut noted = Contents::decode(&note).unwrap();
    let all = Selector::path("/");
    let digest = noted.digest(tree.root(), &all).unwrap().to_string();
    assert_ne!(digest, before[0]);
    let mut read = Contents::of_sent_files();
    read.refresh(tree.root(), Path::new("")).unwrap();
    assert_eq!(digest, read.digest(tree.root(), &all).unwrap().to_string());
}
