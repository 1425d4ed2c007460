//! Commits, tags and downloads that must be signed, with signatures of GnuPG and OpenSSH.

use std::path::{Path, PathBuf};

use session::Attachables;
use stdx::Kind;
use testkit::web::{Page, Web};

use crate::git::{Served, fetch, git, lie, served, walk};
use crate::setup::{State, state, state_that_notes_git};
use crate::signing::{Gpg, ssh_key};

/// Whether `fragment` of repository `r` is taken with these attributes.
async fn taken(
    state: &State,
    served: &Served,
    fragment: &str,
    attrs: &[(&str, &str)],
) -> Result<String, String> {
    let taken = fetch(state, &served.url("r"), fragment, attrs).await;
    match taken {
        Ok((key, _)) => Ok(key.text),
        Err(error) => {
            assert_eq!(error.kind(), Kind::InvalidInput, "{error}");
            Err(error.to_string())
        }
    }
}

#[track_caller]
fn refused(taken: Result<String, String>, reason: &str) {
    let error = taken.expect_err(reason);
    assert!(error.contains(reason), "{reason}: {error}");
}

/// Commits and tags with gpg in `program` and the key of `name`.
fn signed_by(repo: &Path, program: &Path, name: &str, args: &[&str]) {
    let program = format!("gpg.program={}", program.display());
    let key = format!("user.signingkey={name}");
    git(repo, &[&["-c", &program, "-c", &key], args].concat());
}

const KEYS: &str = "git.sig.pubkey";

/// Rows: S16
#[tokio::test]
async fn privileged_commits_and_tags_signed_with_gnupg() {
    let Some(state) = state() else { return };
    let (Some(served), Some(gpg)) = (served(), Gpg::new()) else {
        return;
    };
    let r = served.dir.path().join("r");
    let alice = gpg.key("alice", "ed25519", "never", &[]);
    let bob = gpg.key("bob", "rsa2048", "never", &[]);
    let program = gpg.program("");
    refused(
        taken(&state, &served, "main", &[(KEYS, &alice)]).await,
        "git object is not signed",
    );
    std::fs::write(r.join("a.txt"), "signed").unwrap();
    git(&r, &["add", "-A"]);
    signed_by(
        &r,
        &program,
        "alice",
        &["commit", "-q", "-S", "-m", "by alice"],
    );
    signed_by(&r, &program, "bob", &["tag", "-s", "v2", "-m", "by bob"]);
    let head = git(&r, &["rev-parse", "HEAD"]);
    let tag = git(&r, &["rev-parse", "v2"]);
    let plain = taken(&state, &served, "main", &[]).await.unwrap();
    assert_eq!(plain, head);
    // The key is that without signatures, so that files are shared.
    for fragment in ["main", "v2", &head, &tag] {
        let key = taken(&state, &served, fragment, &[(KEYS, &alice)]).await;
        assert_eq!(
            key.unwrap()[..],
            if fragment == tag { &tag } else { &head }[..]
        );
    }
    let both = format!("{bob}{alice}");
    for (fragment, keys, rule, reason) in [
        ("main", &bob, None, "signature made by unknown entity"),
        ("v2", &bob, None, ""),
        ("refs/tags/v2", &bob, None, ""),
        (&tag, &bob, None, ""),
        ("main", &both, None, ""),
        ("v2", &bob, Some("git.sig.requiresignedtag"), ""),
        (
            "v2",
            &alice,
            Some("git.sig.requiresignedtag"),
            "unknown entity",
        ),
        (
            "main",
            &alice,
            Some("git.sig.requiresignedtag"),
            "no signed tag found",
        ),
        ("v1", &alice, Some("git.sig.requiresignedtag"), "not signed"),
        (
            "v2",
            &bob,
            Some("git.sig.ignoresignedtag"),
            "unknown entity",
        ),
        ("v2", &alice, Some("git.sig.ignoresignedtag"), ""),
        ("v1", &alice, None, "not signed"),
        ("v2", &"garbage".to_owned(), None, "malformed public key"),
    ] {
        let mut attrs = vec![(KEYS, keys.as_str())];
        attrs.extend(rule.map(|rule| (rule, "true")));
        let taken = taken(&state, &served, fragment, &attrs).await;
        match reason {
            "" => assert!(taken.is_ok(), "{fragment} {rule:?}: {taken:?}"),
            reason => refused(taken, reason),
        }
    }
    // A signed tag by the name of another one.
    git(&r, &["update-ref", "refs/tags/v3", &tag]);
    refused(
        taken(&state, &served, "v3", &[(KEYS, &bob)]).await,
        "unknown entity",
    );
    let rules = [(KEYS, bob.as_str()), ("git.sig.requiresignedtag", "true")];
    refused(
        taken(&state, &served, "v3", &rules).await,
        "tag v3 was signed as tag v2",
    );
    // The commit's own signature counts by any name.
    assert!(
        taken(&state, &served, "v3", &[(KEYS, &alice)])
            .await
            .is_ok()
    );
    let kept = [(KEYS, alice.as_str()), ("git.keepgitdir", "true")];
    assert!(taken(&state, &served, "main", &kept).await.is_ok());
    // Files that are here already are of no use to whom the signature is missing.
    let error = fetch(&state, &served.url("r"), &head, &[(KEYS, &bob)]).await;
    assert!(error.is_err());
}

/// Rows: S16
#[tokio::test]
async fn privileged_expired_keys_and_weak_signatures_of_gnupg() {
    let Some(state) = state() else { return };
    let (Some(served), Some(gpg)) = (served(), Gpg::new()) else {
        return;
    };
    let r = served.dir.path().join("r");
    let then = ["--faked-system-time", "20200101T000000"];
    let old = gpg.key("old", "nistp256", "2021-01-01", &then);
    let now = gpg.key("now", "nistp384", "never", &[]);
    let rsa = gpg.key("rsa", "rsa2048", "never", &[]);
    let sign = |options: &str, name: &str, file: &str| {
        std::fs::write(r.join("a.txt"), file).unwrap();
        git(&r, &["add", "-A"]);
        let program = gpg.program(options);
        signed_by(&r, &program, name, &["commit", "-q", "-S", "-m", file]);
    };
    sign("--faked-system-time 20200601T000000", "old", "in time");
    assert!(
        taken(&state, &served, "main", &[(KEYS, &old)])
            .await
            .is_ok()
    );
    let strict = [(KEYS, old.as_str()), ("git.sig.rejectexpired", "true")];
    refused(
        taken(&state, &served, "main", &strict).await,
        "key expired at",
    );
    sign("", "now", "not expired");
    let strict = [(KEYS, now.as_str()), ("git.sig.rejectexpired", "true")];
    assert!(taken(&state, &served, "main", &strict).await.is_ok());
    sign("--digest-algo SHA1", "rsa", "weak");
    refused(
        taken(&state, &served, "main", &[(KEYS, &rsa)]).await,
        "rejecting weak/unknown hash: SHA-1",
    );
    // A signature that is moved to another commit.
    sign("", "now", "good");
    let good = git(&r, &["cat-file", "commit", "HEAD"]);
    let file = served.dir.path().join("forged");
    std::fs::write(&file, good.replace("\n\ngood", "\n\nevil")).unwrap();
    let name = file.display().to_string();
    let forged = git(&r, &["hash-object", "-w", "-t", "commit", &name]);
    git(&r, &["update-ref", "refs/heads/forged", &forged]);
    refused(
        taken(&state, &served, "forged", &[(KEYS, &now)]).await,
        "does not match what is signed",
    );
    assert!(
        taken(&state, &served, "main", &[(KEYS, &now)])
            .await
            .is_ok()
    );
}

/// Rows: S16
#[tokio::test]
async fn privileged_commits_and_tags_signed_with_ssh() {
    let Some(state) = state() else { return };
    let Some(served) = served() else { return };
    let r = served.dir.path().join("r");
    let all: [(&str, &[&str]); 4] = [
        ("ed25519", &["-t", "ed25519"]),
        ("rsa", &["-t", "rsa", "-b", "2048"]),
        ("p256", &["-t", "ecdsa", "-b", "256"]),
        ("p521", &["-t", "ecdsa", "-b", "521"]),
    ];
    let mut others = String::new();
    for (name, args) in all {
        let Some((private, public)) = ssh_key(served.dir.path(), name, args) else {
            return;
        };
        std::fs::write(r.join("a.txt"), name).unwrap();
        git(&r, &["add", "-A"]);
        let key = format!("user.signingkey={}", private.display());
        let by = ["-c", "gpg.format=ssh", "-c", &key];
        git(&r, &[&by[..], &["commit", "-q", "-S", "-m", name]].concat());
        git(&r, &[&by[..], &["tag", "-s", name, "-m", name]].concat());
        for fragment in ["main", name] {
            let own = taken(&state, &served, fragment, &[(KEYS, &public)]).await;
            assert!(own.is_ok(), "{name} {fragment}: {own:?}");
            if !others.is_empty() {
                let other = taken(&state, &served, fragment, &[(KEYS, &others)]).await;
                refused(other, "signature made by unknown entity");
            }
        }
        others.push_str(&public);
    }
    refused(
        taken(&state, &served, "v1", &[(KEYS, &others)]).await,
        "git object is not signed",
    );
}

/// The mirror is opened once for the key and once for the files, not again for each signature.
///
/// Rows: S16
#[tokio::test]
async fn privileged_a_signature_is_looked_at_where_the_files_come_from() {
    let Some((state, notes)) = state_that_notes_git() else {
        return;
    };
    let Some(served) = served() else { return };
    let r = served.dir.path().join("r");
    let Some((private, public)) = ssh_key(served.dir.path(), "key", &["-t", "ed25519"]) else {
        return;
    };
    let key = format!("user.signingkey={}", private.display());
    let by = ["-c", "gpg.format=ssh", "-c", &key];
    let commit = ["commit", "-q", "-S", "--allow-empty", "-m", "signed"];
    git(&r, &[&by[..], &commit].concat());
    let build = state.build(Attachables::new());
    let url = served.url("r");
    let source = state.source(&format!("git://{url}#main"), &[(KEYS, &public)]);
    let source = source.unwrap();
    let asked = |what: &str| {
        let text = std::fs::read_to_string(&notes).unwrap();
        text.lines().filter(|line| line.contains(what)).count()
    };
    source.cache_key(&build.cx, 0).await.unwrap();
    assert_eq!((asked("cat-file commit"), asked("ls-remote")), (1, 1));
    std::fs::write(&notes, "").unwrap();
    source.fetch(&build.cx).await.unwrap();
    let opened = asked("cat-file -e");
    assert_eq!(
        (opened, asked("cat-file commit"), asked("ls-remote")),
        (1, 1, 0)
    );
}

/// Rows: S16
#[tokio::test]
async fn privileged_a_remote_that_lies_about_a_signed_tag() {
    let Some(state) = state() else { return };
    let (Some(served), Some(gpg)) = (served(), Gpg::new()) else {
        return;
    };
    let r = served.dir.path().join("r");
    let alice = gpg.key("alice", "ed25519", "never", &[]);
    let program = gpg.program("");
    signed_by(
        &r,
        &program,
        "alice",
        &["tag", "-s", "good", "-m", "x", "v1^{}"],
    );
    let rules = [(KEYS, alice.as_str()), ("git.sig.requiresignedtag", "true")];
    assert!(taken(&state, &served, "good", &rules).await.is_ok());
    let evil = git(&r, &["rev-parse", "main"]);
    lie(&r, "good", &evil);
    let taken = taken(&state, &served, "good", &rules).await;
    refused(taken, "does not point at the commit it says");
}

/// Rows: S16
#[tokio::test]
async fn privileged_a_remote_that_lies_about_a_tag_nobody_signed() {
    let Some(state) = state() else { return };
    let Some(served) = served() else { return };
    let r = served.dir.path().join("r");
    let told = git(&r, &["rev-parse", "main"]);
    lie(&r, "v1", &told);
    // A bundle holds the tag, and with it a commit that nobody was told of.
    let pinned = ("git.checksum", told.as_str());
    for attrs in [
        &[pinned, ("git.checkoutbundle", "true")][..],
        &[("git.checkoutbundle", "true")],
        &[pinned],
    ] {
        let taken = taken(&state, &served, "v1", attrs).await;
        refused(taken, "does not point at the commit it says");
    }
}

/// Rows: S17
#[tokio::test]
async fn privileged_downloads_signed_with_gnupg() {
    let Some(state) = state() else { return };
    let Some(gpg) = Gpg::new() else { return };
    let web = Web::start().await;
    let put = |text: &str, etag: &str| {
        let page = Page {
            bytes: text.to_owned().into(),
            etag: etag.into(),
            ..Page::default()
        };
        web.put("/f", page);
    };
    put("content", "\"1\"");
    let alice = gpg.key("alice", "nistp521", "never", &[]);
    let bob = gpg.key("bob", "rsa3072", "never", &[]);
    let get = async |keys: &str, signature: &str, more: &[(&str, &str)]| {
        let build = state.build(Attachables::new());
        let mut attrs = vec![("http.sig.pubkey", keys), ("http.sig.signature", signature)];
        attrs.extend_from_slice(more);
        let source = state.source(&web.url("/f"), &attrs).unwrap();
        let key = source.cache_key(&build.cx, 0).await.map(|key| key.text);
        let fetched = source.fetch(&build.cx).await;
        assert_eq!(key.is_err(), fetched.is_err());
        key.map_err(|error| error.to_string())
    };
    let build = state.build(Attachables::new());
    let plain = state.source(&web.url("/f"), &[]).unwrap();
    let plain = plain.cache_key(&build.cx, 0).await.unwrap().text;
    let both = format!("{alice}\n{bob}");
    for name in ["alice", "bob"] {
        let signature = gpg.sign(name, &[], b"content");
        assert_eq!(get(&both, &signature, &[]).await.as_ref(), Ok(&plain));
        let text = gpg.sign(name, &["--textmode"], b"content");
        assert_eq!(get(&both, &text, &[]).await.as_ref(), Ok(&plain));
        // Its own line ends are another matter than another content.
        refused(
            get(&both, &gpg.sign(name, &[], b"contents"), &[]).await,
            "failed to verify pgp signature",
        );
    }
    let signature = gpg.sign("alice", &[], b"content");
    refused(
        get(&bob, &signature, &[]).await,
        "signature made by unknown entity",
    );
    let sha1 = gpg.sign("bob", &["--digest-algo", "SHA1"], b"content");
    refused(get(&both, &sha1, &[]).await, "weak/unknown hash");
    refused(get(&both, "garbage", &[]).await, "malformed signature");
    // A checksum says what it is, and not who made it.
    let checksum = oci::Digest::of("content").to_string();
    let pinned = [("http.checksum", checksum.as_str())];
    assert!(get(&alice, &signature, &pinned).await.is_ok());
    refused(get(&bob, &signature, &pinned).await, "unknown entity");
    // It is looked at once in a build: reading all of it again would cost as much as getting it.
    let build = state.build(Attachables::new());
    let attrs = [
        ("http.sig.pubkey", alice.as_str()),
        ("http.sig.signature", signature.as_str()),
    ];
    let source = state.source(&web.url("/f"), &attrs).unwrap();
    source.cache_key(&build.cx, 0).await.unwrap();
    for kept in kept(state.dir.path(), "f") {
        std::fs::write(kept, "CONTENT").unwrap();
    }
    source.fetch(&build.cx).await.unwrap();
    let error = get(&alice, &signature, &[]).await;
    refused(error, "does not match what is signed");
    put("changed", "\"2\"");
    refused(
        get(&alice, &signature, &[]).await,
        "does not match what is signed",
    );
}

/// Every file of this name.
fn kept(dir: &Path, name: &str) -> Vec<PathBuf> {
    let all = walk(dir).into_iter();
    all.filter(|path| path.file_name().is_some_and(|own| own == name))
        .collect()
}
