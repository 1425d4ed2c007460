//! What `kiln build` asks for, flag by flag.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Parser;
use cli::build::flags::BuildFlags;
use cli::build::output::Dest;
use cli::build::plan::{Environment, Plan, Secret, Stdin};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    flags: BuildFlags,
}

fn environment() -> Environment {
    let variables = [
        ("VERSION", "7"),
        ("TOKEN", "x"),
        ("SSH_AUTH_SOCK", "/run/agent"),
        ("ACTIONS_RUNTIME_TOKEN", "t"),
    ];
    Environment {
        variables: variables
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        stdout_is_terminal: false,
    }
}

fn try_plan(words: &[&str]) -> Result<Plan, cli::Error> {
    let line = Line::try_parse_from(std::iter::once(&"build").chain(words)).unwrap();
    Plan::new(&line.flags, &environment())
}

#[track_caller]
fn plan(words: &[&str]) -> Plan {
    try_plan(words).unwrap()
}

#[track_caller]
fn check_refused(words: &[&str], problem: &str) {
    let error = try_plan(words).unwrap_err();
    assert!(error.to_string().contains(problem), "{error}");
}

fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// Rows: F03
#[test]
fn a_context_is_a_directory_a_url_or_standard_input() {
    let here = plan(&["."]);
    assert_eq!(here.local_dirs["context"], PathBuf::from("."));
    assert_eq!(here.local_dirs["dockerfile"], PathBuf::from("."));
    assert_eq!(here.options, options(&[("filename", "Dockerfile")]));
    let elsewhere = plan(&["-f", "deploy/app.Dockerfile", "src"]);
    assert_eq!(elsewhere.local_dirs["dockerfile"], PathBuf::from("deploy"));
    assert_eq!(elsewhere.options["filename"], "app.Dockerfile");
    for url in [
        "https://github.com/a/b.git#main:sub",
        "git@github.com:a/b.git",
        "github.com/a/b",
        "http://x/y.tar.gz",
    ] {
        let remote = plan(&[url, "-f", "sub/Dockerfile"]);
        assert_eq!(remote.options["context"], url);
        assert_eq!(remote.options["filename"], "sub/Dockerfile");
        assert!(remote.local_dirs.is_empty());
    }
    assert_eq!(plan(&["-"]).stdin, Stdin::Context);
    let piped = plan(&["-f", "-", "."]);
    assert_eq!(piped.stdin, Stdin::Dockerfile);
    assert!(!piped.local_dirs.contains_key("dockerfile"));
    check_refused(&["-f", "-", "-"], "cannot be used together");
}

/// Rows: F01, F02, F21, X07, X11, X12
#[test]
fn flags_become_options_of_the_frontend() {
    let asked = plan(&[
        "--build-arg",
        "A=1=2",
        "--build-arg",
        "VERSION",
        "--build-arg",
        "UNSET",
        "--label",
        "k=v",
        "--target",
        "t",
        "--platform",
        "linux/amd64,linux/arm64",
        "--pull",
        "--no-cache-filter",
        "a,b",
        "--add-host",
        "db:10.0.0.1",
        "--add-host",
        "v6=::1",
        "--add-host",
        "gw:host-gateway",
        "--network",
        "host",
        "--shm-size",
        "64m",
        "--ulimit",
        "nofile=1024:2048",
        "--cgroup-parent",
        "/x",
        ".",
    ]);
    assert_eq!(
        asked.options,
        options(&[
            ("add-hosts", "db=10.0.0.1,v6=::1,gw=host-gateway"),
            ("build-arg:A", "1=2"),
            ("build-arg:VERSION", "7"),
            ("cgroup-parent", "/x"),
            ("filename", "Dockerfile"),
            ("force-network-mode", "host"),
            ("image-resolve-mode", "pull"),
            ("label:k", "v"),
            ("no-cache", "a,b"),
            ("platform", "linux/amd64,linux/arm64"),
            ("shm-size", "67108864"),
            ("target", "t"),
            ("ulimit", "nofile=1024:2048"),
        ])
    );
    assert_eq!(asked.entitlements, ["network.host"]);
    assert_eq!(plan(&["--no-cache", "."]).options["no-cache"], "");
    check_refused(&["--add-host", "x", "."], "HOST=IP");
    check_refused(&["--network", "bridge", "."], "default, none, host");
    check_refused(&["--shm-size", "lots", "."], "64m");
    check_refused(&["--ulimit", "nofile", "."], "nofile=1024:2048");
}

/// Rows: F06, S12
#[test]
fn named_contexts_of_every_kind() {
    let asked = plan(&[
        "--build-context",
        "dir=../lib",
        "--build-context",
        "img=docker-image://alpine:3",
        "--build-context",
        "repo=https://github.com/a/b.git",
        "--build-context",
        "lay=oci-layout:///tmp/l:v1",
        "--build-context",
        "pin=oci-layout:///tmp/l@sha256:00",
        ".",
    ]);
    assert_eq!(asked.local_dirs["dir"], PathBuf::from("../lib"));
    assert_eq!(asked.options["context:dir"], "local:dir");
    assert_eq!(asked.options["context:img"], "docker-image://alpine:3");
    assert_eq!(asked.options["context:repo"], "https://github.com/a/b.git");
    assert_eq!(
        asked.options["context:lay"],
        "oci-layout://kiln-layout-0:v1"
    );
    assert_eq!(
        asked.options["context:pin"],
        "oci-layout://kiln-layout-1@sha256:00"
    );
    assert_eq!(asked.layouts["kiln-layout-0"], PathBuf::from("/tmp/l"));
    check_refused(&["--build-context", "x", "."], "NAME=VALUE");
}

/// Rows: X05, X06
#[test]
fn secrets_and_agents() {
    let asked = plan(&[
        "--secret",
        "id=a,src=/a",
        "--secret",
        "id=b,env=B",
        "--secret",
        "id=TOKEN",
        "--secret",
        "id=file",
        "--secret",
        "type=env,id=e,src=E",
        "--ssh",
        "default",
        "--ssh",
        "k=/key1,/key2",
        ".",
    ]);
    assert_eq!(asked.secrets["a"], Secret::File("/a".into()));
    assert_eq!(asked.secrets["b"], Secret::Env("B".into()));
    assert_eq!(asked.secrets["TOKEN"], Secret::Env("TOKEN".into()));
    assert_eq!(asked.secrets["file"], Secret::File("file".into()));
    assert_eq!(asked.secrets["e"], Secret::Env("E".into()));
    assert_eq!(asked.ssh["default"], [PathBuf::from("/run/agent")]);
    assert_eq!(
        asked.ssh["k"],
        [PathBuf::from("/key1"), PathBuf::from("/key2")]
    );
    check_refused(&["--secret", "src=/a", "."], "it has no id");
    check_refused(&["--secret", "id=a,src=/a,env=B", "."], "both src and env");
    check_refused(
        &["--secret", "id=a,file=/a", "."],
        "is not one of id, src, env, type",
    );
}

/// Rows: R01, R02, R03, R04, B05
#[test]
fn caches() {
    let asked = plan(&[
        "--cache-from",
        "a/b:cache",
        "--cache-from",
        "type=local,src=/c",
        "--cache-to",
        "type=inline",
        "--cache-to",
        "type=gha,scope=s",
        ".",
    ]);
    assert_eq!(asked.cache_from[0].attrs, options(&[("ref", "a/b:cache")]));
    assert_eq!(asked.cache_from[1].kind, "local");
    assert_eq!(asked.cache_to[0].kind, "inline");
    assert_eq!(
        asked.cache_to[1].attrs,
        options(&[("scope", "s"), ("token", "t")])
    );
    check_refused(&["--cache-to", "type=local,src=/c", "."], "needs dest=");
}

/// Rows: E02, E04, E05, E07
#[test]
fn outputs() {
    assert_eq!(plan(&["."]).exports, []);
    let one = |words: &[&str]| plan(words).exports.remove(0);
    assert_eq!(one(&["-o", "out", "."]).dest, Dest::Dir("out".into()));
    assert_eq!(
        (
            one(&["-o", "-", "."]).kind.as_str(),
            one(&["-o", "-", "."]).dest
        ),
        ("tar", Dest::Stdout)
    );
    let oci = one(&[
        "-o",
        "type=oci,dest=a.tar,compression=zstd",
        "-t",
        "a/b",
        ".",
    ]);
    assert_eq!(oci.dest, Dest::File("a.tar".into()));
    assert_eq!(
        oci.attrs,
        options(&[("compression", "zstd"), ("name", "docker.io/a/b:latest")])
    );
    let pushed = one(&["--push", "-t", "localhost:5000/x:1", "-t", "y", "."]);
    assert_eq!(
        pushed.attrs,
        options(&[
            ("name", "localhost:5000/x:1,docker.io/library/y:latest"),
            ("push", "true")
        ])
    );
    assert_eq!(
        one(&["-o", "type=registry,name=a/b", "."]).attrs,
        options(&[("name", "a/b"), ("push", "true")])
    );
    assert_eq!(one(&["--load", "-t", "x", "."]).dest, Dest::Docker);
    assert_eq!(one(&["-q", "."]).kind, "image");
    let noted = one(&[
        "-t",
        "x",
        "--annotation",
        "index,manifest[linux/amd64]:k=v",
        "--annotation",
        "p=q",
        ".",
    ]);
    assert_eq!(noted.attrs["annotation-index.k"], "v");
    assert_eq!(noted.attrs["annotation-manifest[linux/amd64].k"], "v");
    assert_eq!(noted.attrs["annotation-manifest.p"], "q");
    let unpacked = one(&["-o", "type=oci,tar=false,dest=dir", "."]);
    assert_eq!(unpacked.dest, Dest::Layout("dir".into()));
    check_refused(
        &["-o", "type=docker,tar=false", "."],
        "needs dest=DIRECTORY",
    );
    check_refused(&["-o", "type=oci,tar=maybe,dest=x", "."], "true or false");
    check_refused(&["-o", "type=tar,tar=false,dest=x", "."], "type=oci");
    let (one_dir, other) = ("type=oci,tar=false,dest=a", "type=oci,tar=false,dest=b");
    check_refused(&["-o", one_dir, "-o", other, "."], "only one image");
    check_refused(&["--push", "."], "add --tag");
    check_refused(&["-o", "type=local", "."], "needs dest=");
    check_refused(&["-o", "type=zip,dest=x", "."], "is not one of image");
    check_refused(&["-t", "A B", "."], "--tag");
    check_refused(
        &["--push", "--load", "-t", "x", "."],
        "cannot be used together",
    );
    let line = Line::try_parse_from(["build", "-o", "type=oci", "."]).unwrap();
    let terminal = Environment {
        stdout_is_terminal: true,
        ..environment()
    };
    assert!(
        Plan::new(&line.flags, &terminal)
            .unwrap_err()
            .to_string()
            .contains("is a terminal")
    );
}

/// Rows: F07, P01, P02
#[test]
fn questions_and_statements() {
    let asked = plan(&["--call", "targets,format=json", "."]);
    assert_eq!(asked.options["requestid"], "frontend.targets");
    assert!(asked.call.unwrap().json && asked.exports.is_empty());
    assert_eq!(
        plan(&["--check", "."]).options["requestid"],
        "frontend.lint"
    );
    check_refused(&["--call", "dance", "."], "is not one of build, check");
    plan(&[
        "--provenance=false",
        "--sbom=false",
        "--attest",
        "type=sbom,disabled=true",
        ".",
    ]);
    for words in [
        &["--provenance", "."][..],
        &["--attest", "type=provenance,mode=max", "."],
    ] {
        assert_eq!(plan(words).options["attest:provenance"], "mode=max");
    }
    let scanner = "generator=localhost:5000/scanner";
    for (words, value) in [
        (&["--sbom", "."][..], ""),
        (&["--sbom=true", "."], ""),
        (&["--sbom=generator=localhost:5000/scanner", "."], scanner),
        (&["--attest", "type=sbom", "."], ""),
        (
            &[
                "--attest",
                "type=sbom,generator=localhost:5000/scanner",
                ".",
            ],
            scanner,
        ),
    ] {
        assert_eq!(plan(words).options["attest:sbom"], value, "{words:?}");
    }
    check_refused(&["--attest", "type=dream", "."], "provenance or sbom");
}

#[test]
fn an_unknown_flag_names_its_neighbour() {
    let error = Line::try_parse_from(["build", "--no-cach", "."])
        .err()
        .unwrap();
    assert!(error.to_string().contains("'--no-cache'"), "{error}");
}
