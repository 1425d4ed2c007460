//! BuildKit's own client, `buildctl`, with a daemon of ours.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::harness::{BaseImage, Daemon, Peers, Place, Ran};

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

/// The environment may say where, and who is not there is not waited for without end.
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
    let nobody = buildctl.run(&["--timeout=1", "debug", "workers"]).fails();
    nobody.says(&["connect"]);
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
