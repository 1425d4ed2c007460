//! Where a build's files come from.

use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use testkit::web::{Page, Web};

use super::{Stop, Who, both_ok};
use crate::harness::{Running, free_port};

/// A repository on this machine, and who serves it.
fn repository(stop: &Stop) -> (Running, String) {
    let git = |args: &[&str]| {
        let mut command = Command::new("git");
        command.args(args).current_dir(stop.path("repo"));
        for (key, value) in [
            ("GIT_AUTHOR_NAME", "a"),
            ("GIT_AUTHOR_EMAIL", "a@b"),
            ("GIT_COMMITTER_NAME", "a"),
            ("GIT_COMMITTER_EMAIL", "a@b"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ] {
            command.env(key, value);
        }
        let ran = command.output().expect("git is there");
        assert!(
            ran.status.success(),
            "{}",
            String::from_utf8_lossy(&ran.stderr)
        );
    };
    stop.write("repo/Dockerfile", "FROM scratch\nCOPY top /top\n");
    stop.write("repo/top", "top\n");
    stop.write("repo/sub/Dockerfile", "FROM scratch\nCOPY below /below\n");
    stop.write("repo/sub/below", "below\n");
    git(&["init", "--quiet", "--initial-branch=main", "."]);
    git(&["add", "."]);
    git(&["commit", "--quiet", "--message=one"]);
    git(&["tag", "v1"]);
    git(&["clone", "--quiet", "--bare", ".", "../served/r.git"]);
    let port = free_port();
    let served = stop.path("served").display().to_string();
    let args = [
        "/usr/lib/git-core/git-daemon",
        "--export-all",
        "--reuseaddr",
        "--listen=127.0.0.1",
        &format!("--port={port}"),
        &format!("--base-path={served}"),
        &served,
    ];
    let mut daemon = stop.start(stop.rig.peers.command(&args));
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(!daemon.ended(), "git daemon ended:\n{}", daemon.said());
        assert!(Instant::now() < deadline, "no answer:\n{}", daemon.said());
        std::thread::sleep(Duration::from_millis(10));
    }
    (daemon, format!("git://127.0.0.1:{port}/r.git"))
}

/// Serves pages.
struct Serving {
    web: Web,
    _runtime: tokio::runtime::Runtime,
}

impl Serving {
    fn start(pages: &[(&str, Vec<u8>)]) -> Serving {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let web = runtime.block_on(Web::start());
        for (path, bytes) in pages {
            let bytes = bytes.clone().into();
            web.put(
                path,
                Page {
                    bytes,
                    ..Page::default()
                },
            );
        }
        Serving {
            web,
            _runtime: runtime,
        }
    }
}

fn tar(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        builder
            .append_data(&mut header, name, text.as_bytes())
            .expect("memory does not fail");
    }
    builder.into_inner().expect("memory does not fail")
}

/// Rows: S14, S15, S17, S18, F03
#[test]
fn git_http_and_standard_input() {
    let Some(stop) = Stop::at("contexts") else {
        return;
    };
    let (_daemon, repo) = repository(&stop);
    let archive = tar(&[
        ("Dockerfile", "FROM scratch\nCOPY in /in\n"),
        ("in", "in\n"),
    ]);
    let pages = [
        (
            "/Dockerfile",
            b"FROM scratch\nLABEL a=b\nCOPY --from=more there /there\n".to_vec(),
        ),
        ("/context.tar", archive.clone()),
    ];
    let serving = Serving::start(&pages);
    let url = |path: &str| serving.web.url(path);
    stop.write("more/there", "there\n");
    for (context, file, text) in [
        (repo.clone(), "top", "top\n"),
        (format!("{repo}#main"), "top", "top\n"),
        (format!("{repo}#v1:sub"), "below", "below\n"),
    ] {
        // With the git of today the peer says "not a git repository: (null)".
        let out = format!("--output=OUT/{file}");
        stop.build(Who::Kiln, &[&out, &context]).ok();
        let path = stop.path("kiln").join(file).join(file);
        assert_eq!(
            std::fs::read_to_string(path).expect("a file"),
            text,
            "{context}"
        );
    }
    both_ok(stop.builds(&["--output=OUT/in", &url("/context.tar")]));
    assert_eq!(stop.same("in/in"), "in\n");
    let page = url("/Dockerfile");
    both_ok(stop.builds(&["--output=OUT/page", "--build-context=more=more", &page]));
    assert_eq!(stop.same("page/there"), "there\n");
    // A Dockerfile elsewhere, for files here.
    stop.write("ctx/here", "here\n");
    stop.write("stdin", "FROM scratch\nCOPY here /here\n");
    for who in Who::BOTH {
        let build = [
            "build",
            "--progress=plain",
            "--output=OUT/f",
            "-f",
            "-",
            "ctx",
        ];
        stop.feed(who, &build, "stdin").ok();
    }
    assert_eq!(stop.same("f/here"), "here\n");
    stop.write(
        "alone",
        format!("FROM {}\nRUN echo piped > /piped\n", stop.base()),
    );
    stop.write("piped.tar", &archive);
    for who in Who::BOTH {
        let build = [
            "build",
            "--progress=plain",
            "--network=none",
            "--output=OUT/alone",
            "-",
        ];
        stop.feed(who, &build, "alone").ok();
        let build = ["build", "--progress=plain", "--output=OUT/piped", "-"];
        stop.feed(who, &build, "piped.tar").ok();
    }
    assert_eq!(stop.same("alone/piped"), "piped\n");
    assert_eq!(stop.same("piped/in"), "in\n");
}

/// Rows: F06, S12
#[test]
fn contexts_beside_the_context() {
    let Some(stop) = Stop::at("beside") else {
        return;
    };
    let (_daemon, repo) = repository(&stop);
    stop.write("more/o", "o\n");
    let base = stop.base();
    let layout = "--output=type=oci,tar=false,dest=layout,name=x:1";
    stop.dockerfile("FROM BASE\nRUN echo laid > /laid\n");
    stop.build(Who::Kiln, &[layout, "ctx"]).ok();
    stop.dockerfile(
        "FROM based AS x\nRUN echo hi > /hi\nFROM own AS two\nFROM scratch\n\
         COPY --from=dir o /dir\nCOPY --from=lay /laid /laid\nCOPY --from=img /etc/passwd /passwd\n\
         COPY --from=x /hi /\nCOPY --from=two /etc/group /\n",
    );
    let args = [
        "--build-context=dir=more",
        "--build-context=lay=oci-layout://layout:1",
        &format!("--build-context=img=docker-image://{base}"),
        &format!("--build-context=based=docker-image://{base}"),
        &format!("--build-context=own=docker-image://{base}"),
        "--output=OUT/files",
        "ctx",
    ];
    both_ok(stop.builds(&args));
    for (name, text) in [("dir", "o\n"), ("laid", "laid\n"), ("hi", "hi\n")] {
        assert_eq!(stop.same(&format!("files/{name}")), text);
    }
    stop.same("files/passwd");
    // The peer fails with the git of today: "not a git repository: (null)".
    stop.dockerfile("FROM scratch\nCOPY --from=repo /below /\n");
    let repo = format!("--build-context=repo={repo}#v1:sub");
    stop.build(Who::Kiln, &[&repo, "--output=OUT/repo", "ctx"])
        .ok();
    assert!(stop.path("kiln/repo/below").exists());
    // `target:` is bake's.
    stop.write(
        "bake.hcl",
        format!(
            "target \"below\" {{\n dockerfile-inline = \"FROM {base}\\nRUN echo below > /below\"\n network = \"none\"\n}}\n\
             target \"default\" {{\n contexts = {{ under = \"target:below\" }}\n\
             dockerfile-inline = \"FROM scratch\\nCOPY --from=under /below /\"\n}}\n"
        ),
    );
    let args = [
        "--set=default.output=type=local,dest=OUT/baked",
        "--metadata-file=OUT/baked.json",
    ];
    both_ok(stop.both(&bake(&args)));
    assert_eq!(stop.same("baked/below"), "below\n");
    let [theirs, ours] = stop
        .outs("baked.json")
        .map(|bytes| crate::harness::json(&bytes));
    let keys = |value: &serde_json::Value| -> Vec<String> {
        let target = value["default"].as_object().expect("a target");
        target.keys().cloned().collect()
    };
    assert_eq!(keys(&ours), keys(&theirs));
    for more in [&["--print"][..], &["--call=targets"]] {
        let [theirs, ours] = both_ok(stop.both(&bake(more)));
        assert_eq!(ours.text(), theirs.text(), "{more:?}");
    }
}

fn bake<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let fixed = ["bake", "--progress=plain", "--allow=fs=*", "-f", "bake.hcl"];
    [&fixed, more].concat()
}
