//! BuildKit's own client, `buildctl`, with a daemon of ours.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::harness::{BaseImage, Daemon, Peers, Place, Ran, free_port};

/// It, and the daemon it asks.
struct Buildctl<'a> {
    place: &'a Place,
    program: PathBuf,
    address: String,
}

impl<'a> Buildctl<'a> {
    /// Nothing if it is not there.
    fn with(place: &'a Place, daemon: &Daemon<'_>) -> Option<Buildctl<'a>> {
        let program = Peers::get()?.buildctl()?;
        Some(Buildctl {
            place,
            program,
            address: daemon.address(),
        })
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .current_dir(self.place.root())
            .env("HOME", self.place.root())
            .env("NO_COLOR", "1")
            .args(args);
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        let args = [&["--addr", &*self.address], args].concat();
        self.place.start(self.command(&args)).wait()
    }

    /// What it prints has these words.
    #[track_caller]
    fn prints(&self, args: &[&str], words: &[&str]) {
        let ran = self.run(args).ok();
        for word in words {
            assert!(ran.text().contains(word), "no {word:?} in: {ran}");
        }
    }

    /// `buildctl build` of the Dockerfile in the context.
    fn build(&self, more: &[&str]) -> Ran {
        let build = [
            "build",
            "--progress=plain",
            "--frontend=dockerfile.v0",
            "--local=context=ctx",
            "--local=dockerfile=ctx",
        ];
        self.run(&[&build[..], more].concat())
    }
}

/// Rows: B01, B02, B03, A03, A07, A11
#[test]
fn it_builds_looks_and_prunes() {
    let place = Place::new();
    let daemon = Daemon::start(&place, "");
    let Some(buildctl) = Buildctl::with(&place, &daemon) else {
        return;
    };
    place.context(&format!(
        "FROM {}\nARG word\nRUN --mount=type=secret,id=s echo $word $(cat /run/secrets/s) > /out\n\
         FROM scratch\nCOPY --from=0 /out /\n",
        BaseImage::name()
    ));
    place.write("secret", "hidden");
    let asked = ["--opt=build-arg:word=said", "--secret=id=s,src=secret"];
    let local = ["--output=type=local,dest=out"];
    buildctl
        .build(&[asked, [local[0], "--no-cache"]].concat())
        .ok();
    let out = fs::read_to_string(place.path("out/out")).expect("a file of the image");
    assert_eq!(out, "said hidden\n");
    // The same again is cached, and several things come out of it.
    let several = [
        "--output=type=oci,dest=image.tar",
        "--metadata-file=facts.json",
        "--ref-file=ref",
        "--export-cache=type=local,dest=cache,mode=max",
    ];
    let again = buildctl.build(&[&asked[..], &several[..]].concat()).ok();
    assert_eq!(again.made(), Vec::<String>::new(), "{again}");
    let facts = fs::read_to_string(place.path("facts.json")).expect("its facts");
    assert!(
        facts.contains("\"containerimage.digest\": \"sha256:"),
        "{facts}"
    );
    assert!(place.path("image.tar").exists() && place.path("cache/index.json").exists());
    let reference = fs::read_to_string(place.path("ref")).expect("its name");
    let reference = reference.trim();

    buildctl.prints(&["debug", "histories"], &["COMPLETE", reference]);
    let log = ["debug", "logs", "--progress=plain", reference];
    buildctl.prints(&log, &["CACHED"]);
    let workers = ["Platforms:", "linux/amd64"];
    buildctl.prints(&["debug", "workers", "-v"], &workers);
    buildctl.prints(&["debug", "info"], &["kiln"]);
    buildctl.prints(&["du", "--verbose"], &["Description:", "Total:"]);
    buildctl.prints(&["prune-histories"], &[reference]);
    buildctl.prints(&["prune", "--all"], &["Total:"]);
    buildctl.prints(&["du"], &["Total:\t\t0B"]);

    // Its cache comes back from where it went.
    let from = ["--import-cache=type=local,src=cache", local[0]];
    let ran = buildctl.build(&[asked, from].concat()).ok();
    assert_eq!(ran.made(), Vec::<String>::new(), "{ran}");

    place.write("ctx/Dockerfile", "FROM scratch\nCOPY nothing /\n");
    let missing = buildctl.build(&local).fails();
    missing.says(&[
        "Dockerfile:2",
        ">>> COPY nothing /",
        "\"/nothing\": not found",
    ]);
    let unknown = buildctl.run(&["build", "--frontend=nosuch.v0"]).fails();
    unknown.says(&["nosuch.v0"]);
    daemon.stop();
    place.assert_nothing_left();
}

/// The environment may say where.
///
/// Rows: B01
#[test]
fn it_finds_the_daemon() {
    let place = Place::new();
    let daemon = Daemon::start(&place, "");
    let Some(buildctl) = Buildctl::with(&place, &daemon) else {
        return;
    };
    let mut command = buildctl.command(&["--wait", "debug", "workers"]);
    command.env("BUILDKIT_HOST", &buildctl.address);
    let workers = place.start(command).wait().ok();
    assert!(workers.text().contains("linux/amd64"), "{workers}");
    daemon.stop();
    place.assert_nothing_left();
}

/// A graph from standard input, with a step that builds what is in a file of the client.
///
/// Rows: B02, L15
#[test]
fn it_builds_a_graph_that_finds_another_one() {
    let place = Place::new();
    let daemon = Daemon::start(&place, "");
    let Some(buildctl) = Buildctl::with(&place, &daemon) else {
        return;
    };
    let mut inner = llb::Builder::new();
    let file = llb::Mkfile {
        path: "/hello".to_owned(),
        mode: 0o644,
        data: "from the inner one\n".into(),
        ..llb::Mkfile::default()
    };
    let root = inner.file(llb::FileOps::on(None).mkfile(file), llb::Meta::default());
    place.write("graphs/inner", inner.definition(Some(&root)).encode());
    let outer = |name: &str| {
        let mut outer = llb::Builder::new();
        let meta = llb::Meta::default();
        let files = outer.source("local://graphs", [], None, meta.clone());
        let build = llb::Build {
            builder: -1,
            inputs: [("buildkit.llb.definition".to_owned(), 0)].into(),
            attrs: [("llbbuild.filename".to_owned(), name.to_owned())].into(),
            ..llb::Build::default()
        };
        let op = llb::Op {
            inputs: vec![files],
            kind: llb::OpKind::Build(build),
            platform: None,
            constraints: None,
        };
        let digest = outer.add(&op, meta);
        let root = llb::Edge { digest, index: 0 };
        outer.definition(Some(&root)).encode()
    };
    let build = |name: &str| {
        let graph = place.write("graph", outer(name));
        let mut command = buildctl.command(&["--addr", &buildctl.address]);
        command
            .args(["build", "--progress=plain", "--local=graphs=graphs"])
            .arg("--output=type=local,dest=out")
            .stdin(fs::File::open(graph).expect("it was written"));
        place.start_with_input(command).wait()
    };
    build("inner").ok();
    let hello = fs::read_to_string(place.path("out/hello")).expect("a file of the result");
    assert_eq!(hello, "from the inner one\n");
    build("absent").fails().says(&["absent: no such file"]);
    // This one finds itself.
    place.write("graphs/self", outer("self"));
    build("self").fails().says(&["depends on itself"]);
    daemon.stop();
    place.assert_nothing_left();
}

/// A repository with a commit that was signed with an SSH key: that key and the commit. Nothing where
/// there is no `ssh-keygen`.
fn signed_repository(place: &Place) -> Option<(String, String)> {
    place.write("repo/top", "top\n");
    let key = place.path("key").display().to_string();
    let made = Command::new("ssh-keygen")
        .args([
            "-q", "-t", "ed25519", "-N", "", "-C", "somebody", "-f", &key,
        ])
        .status();
    let Ok(made) = made else {
        let _ = writeln!(std::io::stderr(), "skipped: there is no ssh-keygen");
        return None;
    };
    assert!(made.success());
    let signing = format!("user.signingkey={key}");
    let git = |args: &[&str]| {
        let ran = Command::new("git")
            .args(["-c", "user.name=a", "-c", "user.email=a@b"])
            .args(args)
            .current_dir(place.path("repo"))
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .output()
            .expect("git is there");
        let said = String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success(), "git {args:?}: {said}");
        String::from_utf8_lossy(&ran.stdout).trim().to_owned()
    };
    git(&["init", "--quiet", "--initial-branch=main", "."]);
    git(&["add", "."]);
    let by = ["-c", "gpg.format=ssh", "-c", &signing];
    git(&[&by[..], &["commit", "--quiet", "-S", "--message=one"]].concat());
    git(&["clone", "--quiet", "--bare", ".", "../served/r.git"]);
    let public = fs::read_to_string(place.path("key.pub")).expect("the public key");
    Some((public, git(&["rev-parse", "HEAD"])))
}

/// A commit that must be signed, and a bundle that is written of it and read again where nobody
/// serves the repository.
///
/// Rows: B02, S16
#[test]
fn it_asks_for_signatures_and_bundles() {
    let place = Place::new();
    let daemon = Daemon::start(&place, "");
    let (Some(buildctl), Some(peers)) = (Buildctl::with(&place, &daemon), Peers::get()) else {
        return;
    };
    let Some((key, commit)) = signed_repository(&place) else {
        return;
    };
    let port = free_port();
    let served = place.path("served").display().to_string();
    let serving = [
        "/usr/lib/git-core/git-daemon",
        "--export-all",
        "--reuseaddr",
        "--listen=127.0.0.1",
        &format!("--port={port}"),
        &format!("--base-path={served}"),
        &served,
    ];
    let mut git = place.start(peers.command(&serving));
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(!git.ended(), "git daemon ended:\n{}", git.said());
        assert!(Instant::now() < deadline, "no answer:\n{}", git.said());
        std::thread::sleep(Duration::from_millis(10));
    }
    let build = |url: &str, attrs: &[(&str, &str)], more: &[&str]| {
        let mut graph = llb::Builder::new();
        let identifier = format!("{url}#main");
        let all = [&[("git.fullurl", url)], attrs].concat();
        let all = all.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let root = graph.source(&identifier, all, None, llb::Meta::default());
        let mut graph = graph.definition(Some(&root));
        // The client may be older than these, and looks before it sends.
        graph.metadata.values_mut().for_each(|one| one.caps.clear());
        let graph = place.write("graph", graph.encode());
        let mut command = buildctl.command(&["--addr", &buildctl.address]);
        command
            .args(["build", "--progress=plain", "--output=type=local,dest=out"])
            .args(more)
            .stdin(fs::File::open(graph).expect("it was written"));
        let _ = fs::remove_dir_all(place.path("out"));
        place.start_with_input(command).wait()
    };
    let read = |name: &str| fs::read(place.path("out").join(name)).expect("a file of the result");
    let url = format!("git://127.0.0.1:{port}/r.git");
    build(&url, &[("git.sig.pubkey", &key)], &[]).ok();
    assert_eq!(read("top"), b"top\n");
    // It is in the cache now, which helps nobody whose key is another one.
    let other = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    build(&url, &[("git.sig.pubkey", other)], &[])
        .fails()
        .says(&["signature made by unknown entity"]);

    let signed = ("git.sig.pubkey", key.as_str());
    build(&url, &[signed, ("git.checkoutbundle", "true")], &[]).ok();
    let bundle = read("bundle");
    drop(git);
    let digest = oci::Digest::of(&bundle);
    let hex = digest.hex();
    place.write(&format!("layout/blobs/sha256/{hex}"), bundle);
    place.write("layout/oci-layout", "{\"imageLayoutVersion\":\"1.0.0\"}");
    place.write(
        "layout/index.json",
        "{\"schemaVersion\":2,\"manifests\":[]}",
    );
    let attrs = [
        signed,
        (
            "git.bundle",
            &format!("oci-layout+blob://not/real@{digest}"),
        ),
        ("git.checksum", &commit),
        ("oci.store", "bundles"),
    ];
    let elsewhere = "git://127.0.0.1:1/r.git";
    build(elsewhere, &attrs, &["--oci-layout=bundles=layout"]).ok();
    assert_eq!(read("top"), b"top\n");
    daemon.stop();
    place.assert_nothing_left();
}
