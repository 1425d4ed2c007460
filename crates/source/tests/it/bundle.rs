//! Bundles of git: written in place of files, read in place of the remote.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use content::Memory;
use oci::Digest;
use session::Attachables;
use stdx::Kind;
use testkit::registry::Server;

use crate::git::{Served, commit, git, served};
use crate::setup::{State, files, state};

/// An address nobody answers at: what comes from there came from a bundle.
const NOWHERE: &str = "git://127.0.0.1:1/r";

type Files = BTreeMap<String, String>;

/// A store of the client with this blob, and what says that it is a bundle.
fn offered(bundle: &[u8]) -> (Attachables, String) {
    let store = Memory::default();
    store.add("application/octet-stream", bundle.to_vec());
    let mut offers = Attachables::new();
    offers.content = Some(Arc::new(
        session::local::Stores::new().with("oci:bundles", Arc::new(store)),
    ));
    let locator = format!("oci-layout+blob://not/real@{}", Digest::of(bundle));
    (offers, locator)
}

async fn read(
    state: &State,
    bundle: &[u8],
    reference: &str,
    attrs: &[(&str, &str)],
) -> source::Result<(source::Key, Files)> {
    let (offers, locator) = offered(bundle);
    let build = state.build(offers);
    let mut all = vec![
        ("git.fullurl", NOWHERE),
        ("git.bundle", locator.as_str()),
        ("oci.store", "bundles"),
    ];
    all.extend_from_slice(attrs);
    let source = state.source(&format!("{NOWHERE}#{reference}"), &all)?;
    let key = source.cache_key(&build.cx, 0).await?;
    let fetched = source.fetch(&build.cx).await?.unwrap();
    Ok((key, files(&fetched).await))
}

/// The bundle the source gives of a ref, and its key.
async fn written(state: &State, url: &str, reference: &str) -> (String, Vec<u8>) {
    let build = state.build(Attachables::new());
    let attrs = [("git.fullurl", url), ("git.checkoutbundle", "true")];
    let source = state.source(&format!("{url}#{reference}"), &attrs).unwrap();
    let key = source.cache_key(&build.cx, 0).await.unwrap();
    let fetched = source.fetch(&build.cx).await.unwrap().unwrap();
    let tree = fetched
        .tree(&Memory::default(), &build.cx.step)
        .await
        .unwrap();
    let names: Vec<_> = tree.root().read_dir(".").unwrap();
    assert_eq!(names.len(), 1);
    assert_eq!(tree.root().lstat("bundle").unwrap().mode & 0o777, 0o644);
    let mut bytes = Vec::new();
    let mut file = tree.root().open_file("bundle").unwrap();
    std::io::Read::read_to_end(&mut file, &mut bytes).unwrap();
    (key.text, bytes)
}

/// A bundle as git makes it of `what`.
fn made(served: &Served, what: &[&str]) -> Vec<u8> {
    let file = served.dir.path().join("made.bundle");
    let path = file.display().to_string();
    let args = [&["bundle", "create", "--quiet", &path], what].concat();
    git(&served.dir.path().join("r"), &args);
    std::fs::read(&file).unwrap()
}

/// What an empty repository gets of a bundle.
fn unpacked(dir: &Path, bundle: &[u8]) -> String {
    let repo = dir.join("unpacked");
    let _ = std::fs::remove_dir_all(&repo);
    std::fs::create_dir(&repo).unwrap();
    std::fs::write(dir.join("b"), bundle).unwrap();
    git(&repo, &["init", "-q", "--bare"]);
    let file = dir.join("b").display().to_string();
    git(
        &repo,
        &["fetch", "-q", "--no-tags", &file, "+refs/*:refs/*"],
    );
    git(&repo, &["fsck", "--strict", "--no-progress"]);
    git(
        &repo,
        &["for-each-ref", "--format=%(objectname) %(refname)"],
    )
}

/// Rows: S16
#[tokio::test]
async fn privileged_a_bundle_is_written_whole_and_read_without_the_remote() {
    let Some(state) = state() else { return };
    let Some(served) = served() else { return };
    let (url, r) = (served.url("r"), served.dir.path().join("r"));
    let head = git(&r, &["rev-parse", "main"]);
    // First its files alone, so that the mirror lacks the history.
    let (_, plain) = crate::git::fetch(&state, &url, "main", &[]).await.unwrap();
    let (key, bundle) = written(&state, &url, "main").await;
    assert_eq!(key, format!("{head}(bundle refs/heads/main)"));
    let refs = unpacked(served.dir.path(), &bundle);
    assert_eq!(refs, format!("{head} refs/heads/main"));
    let log = ["--git-dir=unpacked", "rev-list", "--count", "main"];
    assert_eq!(git(served.dir.path(), &log), "2", "with its history");

    let sum = ("git.checksum", head.as_str());
    for reference in ["", "main", "refs/heads/main", &head] {
        let fresh = crate::setup::state().unwrap();
        let (key, files) = read(&fresh, &bundle, reference, &[sum]).await.unwrap();
        assert_eq!((key.text, key.pin), (head.clone(), head.clone()));
        assert_eq!(files, plain, "{reference}");
    }
    let fresh = crate::setup::state().unwrap();
    let kept = [sum, ("git.keepgitdir", "true")];
    let (_, files) = read(&fresh, &bundle, "main", &kept).await.unwrap();
    assert!(files.contains_key(".git/HEAD"));
    assert!(!files.keys().any(|name| name.contains("refs/kiln")));
    let short = [("git.checksum", &head[..12])];
    assert!(read(&fresh, &bundle, "main", &short).await.is_ok());
    // A bundle of a bundle.
    let again = [sum, ("git.checkoutbundle", "true")];
    let (key, files) = read(&fresh, &bundle, "main", &again).await.unwrap();
    assert_eq!(key.text, format!("{head}(bundle refs/heads/main)"));
    assert_eq!(files.keys().collect::<Vec<_>>(), ["bundle"]);
}

/// Rows: S16
#[tokio::test]
async fn privileged_bundles_of_tags_commits_and_from_registries() {
    let Some(state) = state() else { return };
    let Some(served) = served() else { return };
    let (url, r) = (served.url("r"), served.dir.path().join("r"));
    let (tag, first) = (
        git(&r, &["rev-parse", "v1"]),
        git(&r, &["rev-parse", "v1^{commit}"]),
    );
    // A tag stays one, with what it says and who signed it.
    let (key, of_tag) = written(&state, &url, "v1").await;
    assert_eq!(key, format!("{tag}(bundle refs/tags/v1)"));
    let refs = unpacked(served.dir.path(), &of_tag);
    assert_eq!(refs, format!("{tag} refs/tags/v1"));
    let (key, of_commit) = written(&state, &url, &first).await;
    // Of the same commit, and another bundle.
    assert_eq!(key, format!("{first}(bundle refs/heads/main)"));
    let refs = unpacked(served.dir.path(), &of_commit);
    assert_eq!(refs, format!("{first} refs/heads/main"));
    let fresh = crate::setup::state().unwrap();
    let (key, files) = read(&fresh, &of_tag, "v1", &[("git.checksum", &first)])
        .await
        .unwrap();
    assert_eq!((key.text, key.pin), (first.clone(), tag));
    assert_eq!(files["a.txt"], "one");

    let server = Server::start().await;
    let blob = testkit::image::Blob::new("application/octet-stream", of_commit);
    server.add_blob("bundles", &blob);
    let digest = blob.descriptor.digest;
    let locator = format!("docker-image+blob://{}/bundles@{digest}", server.host());
    let build = fresh.build(Attachables::new());
    let attrs = [
        ("git.fullurl", "git://127.0.0.1:1/other"),
        ("git.bundle", locator.as_str()),
        ("git.checksum", first.as_str()),
    ];
    let source = fresh.source("git://127.0.0.1:1/other", &attrs).unwrap();
    source.cache_key(&build.cx, 0).await.unwrap();
    assert_eq!(server.count("GET", "blobs"), 0, "the commit says it all");
    let fetched = source.fetch(&build.cx).await.unwrap().unwrap();
    assert_eq!(crate::setup::files(&fetched).await["a.txt"], "one");
    // A ref is looked up in it, and then it is used. It is got once for both, and then is gone.
    let fresh = crate::setup::state().unwrap();
    let build = fresh.build(Attachables::new());
    let source = fresh
        .source("git://127.0.0.1:1/other#main", &attrs)
        .unwrap();
    server.forget();
    source.cache_key(&build.cx, 0).await.unwrap();
    source.fetch(&build.cx).await.unwrap();
    assert_eq!(server.count("GET", "blobs"), 1);
    let left = std::fs::read_dir(fresh.dir.path()).unwrap().flatten();
    let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
    let is_bundle = |name: &std::ffi::OsString| name.to_string_lossy().starts_with("git-");
    assert!(!left.iter().any(is_bundle), "{left:?}");
}

/// Rows: S16
#[tokio::test]
async fn privileged_hostile_bundles_are_refused() {
    let Some(state) = state() else { return };
    let Some(served) = served() else { return };
    let r = served.dir.path().join("r");
    let head = git(&r, &["rev-parse", "main"]);
    let first = git(&r, &["rev-parse", "main~1"]);
    let whole = made(&served, &["main"]);
    let sum = [("git.checksum", head.as_str())];
    let refused = async |bundle: &[u8], reference: &str, attrs: &[(&str, &str)], why: &str| {
        let error = read(&state, bundle, reference, attrs).await.expect_err(why);
        assert_eq!(error.kind(), Kind::InvalidInput, "{error}");
        let error = error.to_string();
        assert!(
            error.starts_with("git bundle oci-layout+blob://"),
            "{error}"
        );
        assert!(error.contains(why), "{why}: {error}");
    };
    // It needs what an empty repository has not.
    let thin = made(&served, &["main", "^main~1"]);
    refused(&thin, "", &sum, "prerequisite").await;
    refused(b"garbage", "", &sum, "").await;
    refused(b"", "", &sum, "").await;
    refused(&whole[..whole.len() - 30], "", &sum, "").await;
    let mut damaged = whole.clone();
    let middle = whole.len() - 40;
    damaged[middle] ^= 0xff;
    refused(&damaged, "", &sum, "").await;
    let early = made(&served, &["v1"]);
    refused(&early, "", &sum, "not found in it").await;
    refused(&early, "main", &sum, "not found in it").await;
    // The ref leads to another commit than the one that is pinned.
    let other = [("git.checksum", first.as_str())];
    let error = read(&state, &whole, "main", &other).await.unwrap_err();
    assert!(
        error.to_string().starts_with("expected checksum to match"),
        "{error}"
    );
    // A file that would land outside, as in any repository.
    let blob = git(&r, &["hash-object", "-w", "a.txt"]);
    let id: Vec<u8> = (0..40)
        .step_by(2)
        .map(|at| u8::from_str_radix(&blob[at..at + 2], 16).unwrap())
        .collect();
    let tree = [&b"100644 ..\0"[..], &id].concat();
    let file = served.dir.path().join("tree");
    std::fs::write(&file, tree).unwrap();
    let path = file.display().to_string();
    let tree = git(
        &r,
        &["hash-object", "--literally", "-w", "-t", "tree", &path],
    );
    let evil = git(&r, &["commit-tree", &tree, "-m", "evil"]);
    git(&r, &["update-ref", "refs/heads/evil", &evil]);
    let bundle = made(&served, &["evil"]);
    let sum = [("git.checksum", evil.as_str())];
    assert!(read(&state, &bundle, "", &sum).await.is_err());
    // One object in place of another, which git would obey if it were allowed to.
    git(&r, &["update-ref", &format!("refs/replace/{head}"), &first]);
    let replacing = made(&served, &["main", &format!("refs/replace/{head}")]);
    let fresh = crate::setup::state().unwrap();
    let sum = [("git.checksum", head.as_str())];
    let (_, files) = read(&fresh, &replacing, "main", &sum).await.unwrap();
    assert_eq!(files["a.txt"], "two");
    // A blob that the client has not.
    let (offers, _) = offered(&whole);
    let build = fresh.build(offers);
    let absent = format!("oci-layout+blob://not/real@{}", Digest::of("absent"));
    let newer = commit_of(&r);
    let attrs = [
        ("git.fullurl", NOWHERE),
        ("git.bundle", absent.as_str()),
        ("oci.store", "bundles"),
        ("git.checksum", newer.as_str()),
    ];
    let source = fresh.source(NOWHERE, &attrs).unwrap();
    let error = source.fetch(&build.cx).await.err().unwrap();
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
}

/// A commit that is in no bundle yet.
fn commit_of(repo: &Path) -> String {
    std::fs::write(repo.join("a.txt"), "newer").unwrap();
    commit(repo, "newer")
}
