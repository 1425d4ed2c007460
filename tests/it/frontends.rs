//! Frontends that are images: BuildKit's own Dockerfile frontend, and some that misbehave.

use std::fs::{self, File};
use std::io::Write as _;
use std::process::Stdio;

use testkit::image::Image;
use testkit::tar::Entry;

use crate::harness::{BaseImage, Buildx, Daemon, Layout, Memory, Peers, Place};

/// What the upstream frontend's image says it understands.
const CAPS: &str = "moby.buildkit.frontend.inputs,moby.buildkit.frontend.subrequests,\
                    moby.buildkit.frontend.contexts,moby.buildkit.frontend.gitquerystring";

/// A registry with the upstream frontend as `dockerfile:1`; nothing if it could not be built here.
fn upstream(peers: Peers) -> Option<(Memory, String)> {
    let program = peers.folder().join("opt/dockerfile-frontend");
    let Ok(program) = fs::read(&program) else {
        let name = std::thread::current().name().unwrap_or("?").to_owned();
        let _ = writeln!(
            std::io::stderr(),
            "{name}: skipped, {} is not there: `tests/peers frontend` makes it",
            program.display()
        );
        return None;
    };
    let layer = vec![
        Entry::folder("bin/"),
        Entry::file("bin/dockerfile-frontend", program).mode(0o755),
    ];
    let config = serde_json::json!({
        "Entrypoint": ["/bin/dockerfile-frontend"],
        "Labels": {
            "moby.buildkit.frontend.network.none": "true",
            "moby.buildkit.frontend.caps": CAPS,
        },
    });
    let memory = Memory::start();
    let image = Image::with_config(vec![layer], "amd64", config);
    memory.add_image("dockerfile", "1", &image);
    let name = format!("{}/dockerfile:1", memory.host());
    Some((memory, name))
}

/// The manifest of `ctx` as an OCI archive of fixed date.
fn built(place: &Place, args: &[&str]) -> (Vec<u8>, crate::harness::Ran) {
    let dest = place.path("image.tar");
    let output = format!("type=oci,dest={}", dest.display());
    let fixed = [
        "--build-arg=SOURCE_DATE_EPOCH=1700000000",
        "--output",
        &output,
    ];
    let ran = place.build(&[&fixed, args].concat()).ok();
    let image = Layout::of_tar(&fs::read(&dest).expect("the image"));
    (image.manifest().to_vec(), ran)
}

/// Rows: G01, G02, G03, G04, G05, G07, G08, G12, F11
#[test]
fn the_upstream_frontend_makes_what_ours_makes() {
    let Some((_registry, name)) = Peers::get().and_then(upstream) else {
        return;
    };
    let place = Place::new();
    let base = BaseImage::name();
    place.write("ctx/a/one.txt", "one\n");
    place.write("ctx/a/two.txt", "two\n");
    place.write("ctx/.dockerignore", "a/two.txt\n");
    for dockerfile in [
        format!(
            "FROM {base}\nRUN echo run > /run1\nCOPY a /a/\nENV K=V\nWORKDIR /w\nCMD [\"x\"]\n"
        ),
        format!(
            "ARG V=1\nFROM {base} AS one\nARG V\nRUN --mount=type=cache,target=/c echo $V > /v\n\
             FROM scratch\nLABEL a=b\nCOPY --from=one --chown=3:4 /v /v\nADD a/one.txt /\n"
        ),
        format!("FROM {base}\nCOPY <<end /here\nhello\nend\nUSER 7\n"),
    ] {
        place.context(&dockerfile);
        let (ours, _) = built(&place, &[]);
        place.context(&format!("# syntax={name}\n{dockerfile}"));
        let (theirs, ran) = built(&place, &[]);
        let ran = ran.says(&["resolve image config for docker-image://"]);
        assert_eq!(
            String::from_utf8_lossy(&theirs),
            String::from_utf8_lossy(&ours),
            "{dockerfile}"
        );
        assert_eq!(
            ran.made(),
            Vec::<String>::new(),
            "the same graph is cached: {ran}"
        );
    }
    // The same by an argument, and in place of what the file says.
    place.context(&format!(
        "# syntax=example.invalid/none\nFROM {base}\nRUN echo arg > /arg\n"
    ));
    let syntax = format!("--build-arg=BUILDKIT_SYNTAX={name}");
    place.build(&[&syntax]).ok();
    // A frontend's image can be given by the client, like every image.
    let context = format!("--build-context=example.invalid/none=docker-image://{name}");
    place.build(&[&context]).ok();
    place.assert_nothing_left();
}

/// Rows: A16, G08
#[test]
fn errors_of_the_upstream_frontend_show_their_lines() {
    let Some((_registry, name)) = Peers::get().and_then(upstream) else {
        return;
    };
    let place = Place::new();
    let base = BaseImage::name();
    place.context(&format!("# syntax={name}\nFROM {base}\nRUM echo\n"));
    place
        .build(&[])
        .fails()
        .says(&["Dockerfile:3", "unknown instruction: RUM"]);
    place.context(&format!("# syntax={name}\nFROM {base}\nRUN exit 6\n"));
    place
        .build(&[])
        .fails()
        .says(&["Dockerfile:3", "exit code: 6"]);
    place.context(&format!("# syntax={name}\nFROM {base}\nMAINTAINER me\n"));
    place.build(&[]).ok().says(&["MaintainerDeprecated"]);
    place.assert_nothing_left();
}

/// A registry with a frontend whose program is this script.
fn scripted(script: &str) -> (Memory, String) {
    let program = fs::read("/bin/busybox").expect("busybox-static");
    let layer = vec![
        Entry::folder("bin/"),
        Entry::file("bin/busybox", program).mode(0o755),
        Entry::symlink("bin/sh", "busybox"),
    ];
    let config = serde_json::json!({"Entrypoint": ["/bin/sh", "-c", script]});
    let memory = Memory::start();
    memory.add_image(
        "frontend",
        "1",
        &Image::with_config(vec![layer], "amd64", config),
    );
    let name = format!("{}/frontend:1", memory.host());
    (memory, name)
}

/// Rows: G01
#[test]
fn frontends_that_misbehave_end_with_a_sentence() {
    let place = Place::new();
    for (script, says) in [
        ("exit 0", "the frontend ended without a result"),
        (
            "echo oh no >&2; exit 3",
            "ended with exit code 3; it last said: oh no",
        ),
        (
            "exec 1>&- 0<&-; busybox sleep 1000",
            "frontend grpc server closed unexpectedly",
        ),
        ("while echo this is no HTTP; do :; done", "frontend"),
    ] {
        let (_registry, name) = scripted(script);
        place.context(&format!(
            "# syntax={name}\nFROM scratch\nCOPY Dockerfile /\n"
        ));
        let ran = place.build(&[]).fails();
        ran.says(&["Dockerfile:1", "running frontend", says]);
    }
    place.context("# syntax=UPPER/Case\nFROM scratch\n");
    place
        .build(&[])
        .fails()
        .says(&["Dockerfile:1", "UPPER/Case"]);
    place.assert_nothing_left();
}

/// Rows: G01, G12
#[test]
fn a_frontend_gets_its_environment_and_what_it_complains_of_is_shown() {
    let place = Place::new();
    let script = "env >&2; cat /proc/self/net/dev >&2; busybox ls -l /run/config/buildkit/metadata >&2; exit 5";
    let script = script
        .replace("env", "busybox env")
        .replace("cat ", "busybox cat ");
    let (_registry, name) = scripted(&script);
    place.context(&format!("# syntax={name} more words\nFROM scratch\n"));
    let source = format!("=source={name}");
    let command_line = format!("=cmdline={name} more words");
    place.build(&["--build-arg=A=b c"]).fails().says(&[
        "=build-arg:A=b c",
        &source,
        &command_line,
        "BUILDKIT_FRONTEND_OPT_0=",
        "BUILDKIT_SESSION_ID=",
        "BUILDKIT_WORKERS=[{",
        "BUILDKIT_EXPORTEDPRODUCT=kiln",
        "frontend.bin",
        "exit code 5",
    ]);
    // What is built in is asked no more when the client gives another image in its place.
    place.context("# syntax=docker/dockerfile:1\nFROM scratch\n");
    let context = format!("--build-context=docker/dockerfile:1=docker-image://{name}");
    place.build(&[&context]).fails().says(&["exit code 5"]);
    place.assert_nothing_left();
}

/// Rows: D12, P05
#[test]
fn a_daemon_says_which_frontends_may_be_used() {
    let (_registry, name) = scripted("exit 0");
    let place = Place::new();
    place.context(&format!(
        "# syntax={name}\nFROM scratch\nCOPY Dockerfile /\n"
    ));
    let settings =
        "[frontend.\"gateway.v0\"]\nallowedRepositories = [\"docker.io/docker/dockerfile\"]\n";
    let daemon = Daemon::start(&place, settings);
    daemon
        .build(&[])
        .fails()
        .says(&["is not an allowed gateway source"]);
    daemon.stop();
    let daemon = Daemon::start(&place, "[frontend.\"gateway.v0\"]\nenabled = false\n");
    daemon
        .build(&[])
        .fails()
        .says(&["frontend gateway.v0 is turned off"]);
    daemon.stop();
    let daemon = Daemon::start(&place, "[frontend.\"dockerfile.v0\"]\nenabled = false\n");
    daemon
        .build(&[])
        .fails()
        .says(&["frontend dockerfile.v0 is turned off"]);
    daemon.stop();
    place.assert_nothing_left();
}

/// Rows: P05, G03, A15
#[test]
fn source_policies_hold_for_frontends_and_for_what_they_resolve() {
    let Some(peers) = Peers::get() else { return };
    let Some((_registry, name)) = upstream(peers) else {
        return;
    };
    let place = Place::new();
    let daemon = Daemon::start(&place, "");
    place.context(&format!(
        "# syntax={name}\nFROM {}\nRUN true\n",
        BaseImage::name()
    ));
    let Some(buildx) = Buildx::with(&place, &daemon.address()) else {
        return;
    };
    let run = |policy: Option<&str>| {
        let mut command = buildx.command(&["build", "--progress=plain", "ctx"]);
        if let Some(denied) = policy {
            let rule = serde_json::json!({"rules": [{
                "action": "DENY",
                "selector": {"identifier": format!("docker-image://{denied}*")},
            }]});
            let policy = place.write("policy.json", rule.to_string());
            command.env("EXPERIMENTAL_BUILDKIT_SOURCE_POLICY", policy);
        }
        place.start(command).wait()
    };
    run(None).ok();
    for denied in [
        name.trim_end_matches(":1"),
        BaseImage::name().trim_end_matches(":1"),
    ] {
        run(Some(denied))
            .fails()
            .says(&["denied by policy", denied]);
    }
    daemon.stop();
    place.assert_nothing_left();
}

/// Rows: G09, A16, V2
#[test]
fn buildx_opens_a_shell_where_a_step_failed() {
    let place = Place::new();
    let daemon = Daemon::start(&place, "");
    let Some(buildx) = Buildx::with(&place, &daemon.address()) else {
        return;
    };
    place.context(&format!(
        "FROM {}\nENV X=1\nRUN echo made > /made && exit 4\n",
        BaseImage::name()
    ));
    // It wants a terminal.
    let debug = "docker buildx debug --invoke /bin/sh --on=error build --progress=plain ctx";
    let mut command = buildx.program(&["script", "-qefc", debug, "typed"]);
    command.env("BUILDX_EXPERIMENTAL", "1");
    let (read, write) = rustix::pipe::pipe().expect("a pipe");
    command.stdin(Stdio::from(read));
    let running = place.start_with_input(command);
    let typed = place.path("typed");
    let mut keys = File::from(write);
    let wait_for = |words: &str| {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        loop {
            let said = fs::read(&typed).unwrap_or_default();
            let said = String::from_utf8_lossy(&said).into_owned();
            if said.contains(words) {
                return;
            }
            assert!(
                std::time::Instant::now() < deadline,
                "no {words:?} in {said}"
            );
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    };
    wait_for("/ # ");
    keys.write_all(b"echo it is $(cat /made) and $X$X\n")
        .expect("it listens");
    wait_for("it is made and 11");
    keys.write_all(b"exit 3\n").expect("it listens");
    wait_for("exit code: 3");
    keys.write_all(b"exit\n").expect("it listens");
    running.wait().fails();
    daemon.stop();
    place.assert_nothing_left();
}
