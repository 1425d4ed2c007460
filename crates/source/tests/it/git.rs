//! A real git against a real git daemon on this machine.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use session::Attachables;
use stdx::Kind;
use testkit::web::{Page, Web};

use crate::setup::{State, files, state};

/// A served folder of repositories.
pub(crate) struct Served {
    pub(crate) dir: tempfile::TempDir,
    daemon: Child,
    port: u16,
}

impl Drop for Served {
    fn drop(&mut self) {
        // The daemon is the leader of a group of its own, with its helpers in it.
        if let Some(id) = rustix::process::Pid::from_raw(self.daemon.id() as i32) {
            let _ = rustix::process::kill_process_group(id, rustix::process::Signal::KILL);
        }
        let _ = self.daemon.wait();
    }
}

pub(crate) fn git(dir: &Path, args: &[&str]) -> String {
    let out = Command::new("git")
        .args([
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@t",
            "-c",
            "protocol.file.allow=always",
        ])
        .args(args)
        .current_dir(dir)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("HOME", dir)
        .env("GIT_NO_REPLACE_OBJECTS", "1")
        .env("GIT_COMMITTER_DATE", "1700000000 +0000")
        .env("GIT_AUTHOR_DATE", "1700000000 +0000")
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "git {args:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

/// `r` with a few commits, a branch, a tag; `None` without a git daemon here.
pub(crate) fn served() -> Option<Served> {
    use std::os::unix::process::CommandExt;
    let dir = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let daemon = Command::new("git")
        .args([
            "daemon",
            "--export-all",
            "--reuseaddr",
            "--listen=127.0.0.1",
        ])
        .args([
            format!("--port={port}"),
            format!("--base-path={}", dir.path().display()),
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .ok()?;
    let served = Served { dir, daemon, port };
    for _ in 0..200 {
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let r = served.repo("r");
    std::fs::create_dir_all(r.join("sub/deep")).unwrap();
    std::fs::write(r.join("a.txt"), "one").unwrap();
    std::fs::write(r.join("sub/deep/b.txt"), "deep").unwrap();
    std::fs::write(r.join("run.sh"), "x").unwrap();
    std::os::unix::fs::symlink("/etc", r.join("escape")).unwrap();
    commit(&r, "first");
    git(&r, &["tag", "-a", "v1", "-m", "v1"]);
    std::fs::write(r.join("a.txt"), "two").unwrap();
    commit(&r, "second");
    Some(served)
}

pub(crate) fn commit(repo: &Path, message: &str) -> String {
    git(repo, &["add", "-A"]);
    git(repo, &["commit", "-q", "-m", message]);
    git(repo, &["rev-parse", "HEAD"])
}

/// Lets the repository's list of refs say that the annotated `tag` points at `commit`.
pub(crate) fn lie(repo: &Path, tag: &str, commit: &str) {
    let object = git(repo, &["rev-parse", &format!("refs/tags/{tag}")]);
    let main = git(repo, &["rev-parse", "main"]);
    git(repo, &["update-ref", "-d", &format!("refs/tags/{tag}")]);
    let refs = format!(
        "# pack-refs with: peeled fully-peeled sorted \n{main} refs/heads/main\n{object} refs/tags/{tag}\n^{commit}\n"
    );
    std::fs::write(repo.join(".git/packed-refs"), refs).unwrap();
}

impl Served {
    pub(crate) fn repo(&self, name: &str) -> std::path::PathBuf {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        git(&path, &["init", "-q", "-b", "main"]);
        path
    }

    pub(crate) fn url(&self, name: &str) -> String {
        format!("git://127.0.0.1:{}/{name}", self.port)
    }
}

pub(crate) async fn fetch(
    state: &State,
    url: &str,
    fragment: &str,
    attrs: &[(&str, &str)],
) -> source::Result<(source::Key, std::collections::BTreeMap<String, String>)> {
    let build = state.build(Attachables::new());
    let mut all = vec![("git.fullurl", url)];
    all.extend_from_slice(attrs);
    let source = state.source(&format!("git://{url}#{fragment}"), &all)?;
    let key = source.cache_key(&build.cx, 0).await?;
    let fetched = source.fetch(&build.cx).await?.unwrap();
    Ok((key, files(&fetched).await))
}

/// Rows: S14, S15
#[tokio::test]
async fn privileged_branches_tags_commits_and_folders() {
    let Some(state) = state() else { return };
    let Some(served) = served() else { return };
    let (url, r) = (served.url("r"), served.dir.path().join("r"));
    let (key, files) = fetch(&state, &url, "", &[]).await.unwrap();
    assert_eq!(
        (key.text, files["a.txt"].as_str()),
        (git(&r, &["rev-parse", "HEAD"]), "two")
    );
    assert_eq!(files["escape"], "-> /etc");
    assert!(!files.keys().any(|name| name.contains(".git")));
    let first = git(&r, &["rev-parse", "v1^{commit}"]);
    let (key, files) = fetch(&state, &url, "v1", &[]).await.unwrap();
    assert_eq!(
        (key.text.as_str(), files["a.txt"].as_str()),
        (first.as_str(), "one")
    );
    assert_eq!(key.pin, git(&r, &["rev-parse", "v1"]));
    let (key, files) = fetch(&state, &url, &format!("{first}:sub"), &[])
        .await
        .unwrap();
    assert_eq!(key.text, format!("{first}:sub"));
    assert_eq!(
        files.into_iter().collect::<Vec<_>>(),
        [
            ("deep/".to_owned(), String::new()),
            ("deep/b.txt".to_owned(), "deep".to_owned())
        ]
    );
    let third = {
        std::fs::write(r.join("a.txt"), "three").unwrap();
        commit(&r, "third")
    };
    let (key, files) = fetch(&state, &url, "main", &[("git.checksum", &third[..12])])
        .await
        .unwrap();
    assert_eq!((&key.text, files["a.txt"].as_str()), (&third, "three"));
    // A whole commit id says all; a part of one is looked for where the ref is.
    let (_, files) = fetch(&state, &url, "", &[("git.checksum", &first)])
        .await
        .unwrap();
    assert_eq!(files["a.txt"], "one");
    let (key, _) = fetch(&state, &url, "", &[("git.checksum", &third[..8])])
        .await
        .unwrap();
    assert_eq!(key.text, third);
    let other = fetch(&state, &url, "", &[("git.checksum", &first[..8])]).await;
    assert!(other.is_err());
}

/// A server of plain files gives a whole history or none.
///
/// Rows: S14
#[tokio::test]
async fn privileged_a_server_of_plain_files_gives_what_it_has() {
    let Some(state) = state() else { return };
    let Some(served) = served() else { return };
    let r = served.dir.path().join("r");
    git(&r, &["update-server-info"]);
    let web = Web::start().await;
    for file in walk(&r.join(".git")) {
        let bytes = std::fs::read(&file).unwrap().into();
        let name = file.strip_prefix(&r).unwrap().display();
        let page = Page {
            bytes,
            ..Page::default()
        };
        web.put(&format!("/r/{name}"), page);
    }
    let first = git(&r, &["rev-parse", "v1^{commit}"]);
    for (reference, text) in [("main", "two"), ("v1", "one"), (&first, "one")] {
        let got = fetch(&state, &web.url("/r/.git"), reference, &[]).await;
        let (_, files) = got.unwrap();
        assert_eq!(files["a.txt"], text, "{reference}");
    }
}

/// Rows: S14
#[tokio::test]
async fn privileged_a_kept_git_dir_is_a_working_one() {
    let Some(state) = state() else { return };
    let Some(served) = served() else { return };
    let (key, files) = fetch(
        &state,
        &served.url("r"),
        "main",
        &[("git.keepgitdir", "true")],
    )
    .await
    .unwrap();
    assert!(key.text.ends_with(".git#refs/heads/main"), "{}", key.text);
    assert!(files.contains_key(".git/HEAD") && !files.contains_key(".git/FETCH_HEAD"));
    assert!(
        files[".git/config"].contains(&served.url("r")),
        "{}",
        files[".git/config"]
    );
    assert!(!files[".git/config"].contains("file://"));
}

/// Rows: S14
#[tokio::test]
async fn privileged_submodules_come_along_unless_they_shall_not() {
    let Some(state) = state() else { return };
    let Some(served) = served() else { return };
    let outer = served.repo("outer");
    git(
        &outer,
        &["submodule", "--quiet", "add", &served.url("r"), "inner"],
    );
    commit(&outer, "with a submodule");
    let (_, files) = fetch(&state, &served.url("outer"), "", &[]).await.unwrap();
    assert_eq!(files["inner/a.txt"], "two");
    let (key, files) = fetch(
        &state,
        &served.url("outer"),
        "",
        &[("git.skipsubmodules", "true")],
    )
    .await
    .unwrap();
    assert!(key.text.ends_with("(skip-submodules)") && !files.contains_key("inner/a.txt"));
    let hostile = served.repo("hostile");
    let modules = "[submodule \"x\"]\n\tpath = x\n\turl = file:///etc\n";
    std::fs::write(hostile.join(".gitmodules"), modules).unwrap();
    let some = git(&served.dir.path().join("r"), &["rev-parse", "HEAD"]);
    git(&hostile, &["add", "-A"]);
    git(
        &hostile,
        &[
            "update-index",
            "--add",
            "--cacheinfo",
            &format!("160000,{some},x"),
        ],
    );
    git(&hostile, &["commit", "-q", "-m", "x"]);
    let error = fetch(&state, &served.url("hostile"), "", &[])
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("transport 'file' not allowed"), "{error}");
}

/// Rows: S14
#[tokio::test]
async fn privileged_what_is_not_there_and_damage_are_told_apart() {
    let Some(state) = state() else { return };
    let Some(served) = served() else { return };
    let url = served.url("r");
    let error = fetch(&state, &url, "nope", &[]).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(
        error.to_string().contains("does not contain ref nope"),
        "{error}"
    );
    let error = fetch(&state, &url, "main", &[("git.checksum", "deadbeef")])
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("expected checksum to match deadbeef, got "),
        "{error}"
    );
    fetch(&state, &url, "main", &[]).await.unwrap();
    // A mirror that lost its objects is begun anew.
    let mut broken = 0;
    let in_objects = |path: &std::path::PathBuf| path.iter().any(|part| part == "objects");
    for entry in walk(state.dir.path()).into_iter().filter(in_objects) {
        if entry.extension().is_some_and(|e| e == "pack")
            || entry
                .parent()
                .is_some_and(|p| p.file_name().is_some_and(|n| n.len() == 2))
        {
            std::fs::write(&entry, "junk")
                .or_else(|_| std::fs::remove_file(&entry))
                .unwrap();
            broken += 1;
        }
    }
    assert!(broken > 0);
    let (_, files) = fetch(&state, &url, "main", &[]).await.unwrap();
    assert_eq!(files["a.txt"], "two");
}

/// Rows: C14, S14
#[tokio::test]
async fn privileged_an_answer_is_for_those_who_trust_the_same_hosts() {
    let Some(state) = state() else { return };
    let Some(served) = served() else { return };
    let (url, r) = (served.url("r"), served.dir.path().join("r"));
    let build = state.build(Attachables::new());
    let asked = async |hosts: &str| {
        let attrs = [("git.fullurl", url.as_str()), ("git.knownsshhosts", hosts)];
        let source = state.source(&format!("{url}#main"), &attrs).unwrap();
        source.cache_key(&build.cx, 0).await.unwrap().text
    };
    let first = asked("").await;
    std::fs::write(r.join("a.txt"), "three").unwrap();
    let moved = commit(&r, "third");
    assert_eq!(asked("").await, first);
    assert_eq!(asked("h ssh-ed25519 AAAA").await, moved);
}

/// Files that are no programs can be written by all, whichever part is taken; what was there
/// before in the new way is not taken for it, nor the other way round.
///
/// Rows: A17, S14
#[tokio::test]
async fn privileged_files_may_have_the_modes_of_older_releases() {
    let Some(state) = state() else { return };
    let Some(served) = served() else { return };
    let repo = served.dir.path().join("r");
    std::fs::write(repo.join("tool"), "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(repo.join("tool"), PermissionsExt::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink("a.txt", repo.join("link")).unwrap();
    commit(&repo, "a program and a link");
    let modes = async |fragment: &str, old: &str, names: &[&str]| {
        let build = state.build(Attachables::new());
        let url = served.url("r");
        let attrs = [("git.fullurl", url.as_str()), ("kiln.git.oldmodes", old)];
        let name = format!("{url}{fragment}");
        let source = state.source(&name, &attrs).unwrap();
        let key = source.cache_key(&build.cx, 0).await.unwrap().text;
        let fetched = source.fetch(&build.cx).await.unwrap().unwrap();
        let nowhere = content::Memory::default();
        let tree = fetched.tree(&nowhere, &build.cx.step).await.unwrap();
        let mode = |name: &&str| tree.root().lstat(*name).unwrap().mode & 0o777;
        (key, names.iter().map(mode).collect::<Vec<u32>>())
    };
    let names = ["a.txt", "sub/deep/b.txt", "tool", "sub", "link"];
    let (key, now) = modes("", "", &names).await;
    assert_eq!(now, [0o644, 0o644, 0o755, 0o755, 0o777]);
    let (old_key, then) = modes("", "true", &names).await;
    assert_eq!(then, [0o666, 0o666, 0o755, 0o755, 0o777]);
    assert_eq!(old_key, format!("{key}(oldmodes)"));
    let (_, part) = modes("#:sub/deep", "true", &["b.txt"]).await;
    assert_eq!(part, [0o666]);
}

pub(crate) fn walk(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            found.extend(walk(&path));
        } else {
            found.push(path);
        }
    }
    found
}

/// Rows: S16
#[tokio::test]
async fn privileged_files_may_get_the_time_of_the_commit() {
    let Some(state) = state() else { return };
    let Some(served) = served() else { return };
    let build = state.build(Attachables::new());
    let attrs = [
        ("git.fullurl", served.url("r")),
        ("git.mtime", "commit".to_owned()),
    ];
    let attrs: Vec<(&str, &str)> = attrs.iter().map(|(k, v)| (*k, v.as_str())).collect();
    let source = state.source(&served.url("r"), &attrs).unwrap();
    let fetched = source.fetch(&build.cx).await.unwrap().unwrap();
    let tree = fetched
        .tree(&content::Memory::default(), &build.cx.step)
        .await
        .unwrap();
    for name in ["a.txt", "sub", "sub/deep/b.txt"] {
        assert_eq!(
            tree.root().lstat(name).unwrap().mtime.seconds,
            1_700_000_000,
            "{name}"
        );
    }
    assert_eq!(tree.root().lstat("a.txt").unwrap().mode & 0o777, 0o644);
    assert!(state.refs.usage(&refs::Filter::default()).is_ok());
}
