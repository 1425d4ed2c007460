//! Contexts of every kind, platforms, options: what the graph is then.

use frontend::{Refs, metadata_key};
use llb::{MountKind, OpKind};

use testkit::bridge::{BASE_CONFIG, FakeBridge};

async fn built(bridge: &FakeBridge) -> frontend::FrontendResult {
    dockerfile::build(bridge).await.unwrap()
}

fn sources(bridge: &FakeBridge) -> Vec<llb::Source> {
    let source = |op: llb::Op| match op.kind {
        OpKind::Source(source) => Some(source),
        _ => None,
    };
    bridge.ops().into_iter().filter_map(source).collect()
}

fn execs(bridge: &FakeBridge) -> Vec<llb::Exec> {
    let exec = |op: llb::Op| match op.kind {
        OpKind::Exec(exec) => Some(exec),
        _ => None,
    };
    bridge.ops().into_iter().filter_map(exec).collect()
}

fn image(result: &frontend::FrontendResult) -> dockerfile::Image {
    serde_json::from_slice(&result.metadata[metadata_key::IMAGE_CONFIG]).unwrap()
}

/// A base image for another machine says so in the config. What was made is what was asked for,
/// as with BuildKit: an index that says otherwise would hide it from this machine.
///
/// Rows: F31, W5
#[tokio::test]
async fn a_base_image_for_another_machine_is_still_what_was_asked_for() {
    let mut bridge = FakeBridge::new("FROM base:1\nENV a=b\n");
    let arm = BASE_CONFIG.replace("amd64", "arm64");
    let image_there = (oci::Digest::of(b"arm"), arm);
    bridge
        .images
        .insert("docker.io/library/base:1".into(), image_there);
    let result = built(&bridge).await;
    assert_eq!(image(&result).platform.to_string(), "linux/arm64");
    assert_eq!(
        result.metadata["refs.platforms"],
        r#"{"Platforms":[{"ID":"linux/amd64","Platform":{"architecture":"amd64","os":"linux"}}]}"#
    );
}

/// Rows: F31, F08
#[tokio::test]
async fn several_platforms_give_several_results() {
    let arm = BASE_CONFIG.replace("amd64", "arm64");
    let mut bridge = FakeBridge::new("FROM base:1\nRUN x\nCMD y\n")
        .options(&[("platform", "linux/arm64,linux/amd64")]);
    let digest = oci::Digest::of(b"arm");
    bridge
        .images
        .insert("docker.io/library/base:1".into(), (digest, arm));
    let result = built(&bridge).await;
    let Refs::Many(refs) = &result.refs else {
        panic!("{:?}", result.refs)
    };
    assert_eq!(
        refs.keys().collect::<Vec<_>>(),
        ["linux/amd64", "linux/arm64"]
    );
    assert!(
        result
            .metadata
            .contains_key("containerimage.config/linux/arm64")
    );
    let platforms = String::from_utf8(result.metadata["refs.platforms"].to_vec()).unwrap();
    assert_eq!(
        platforms,
        r#"{"Platforms":[{"ID":"linux/arm64","Platform":{"architecture":"arm64","os":"linux"}},{"ID":"linux/amd64","Platform":{"architecture":"amd64","os":"linux"}}]}"#
    );
    let json: Vec<String> = bridge
        .warned()
        .into_iter()
        .filter(|w| w.starts_with("JSON"))
        .collect();
    assert_eq!(json.len(), 1, "only the first platform has warnings");
    assert_eq!(
        bridge.names(),
        [
            "[linux/amd64 1/2] FROM docker.io/library/base:1@".to_owned() + &digest.to_string(),
            "[linux/amd64 2/2] RUN x".into()
        ]
    );
}

/// Rows: F21, F31
#[tokio::test]
async fn a_cross_build_runs_here_for_there() {
    let bridge = FakeBridge::new("FROM --platform=$BUILDPLATFORM base:1 AS b\nARG TARGETARCH\nRUN x\nFROM scratch\nCOPY --from=b / /\n")
        .options(&[("platform", "linux/arm64"), ("multi-platform", "true")]);
    let result = built(&bridge).await;
    assert!(
        bridge
            .names()
            .contains(&"[linux/amd64->arm64 b 2/2] RUN x".to_owned()),
        "{:?}",
        bridge.names()
    );
    let config = &result.metadata["containerimage.config/linux/arm64"];
    let image: dockerfile::Image = serde_json::from_slice(config).unwrap();
    assert_eq!(image.platform.architecture, "arm64");
}

/// Rows: F04, F05
#[tokio::test]
async fn only_what_is_used_is_sent() {
    let mut bridge =
        FakeBridge::new("FROM base:1\nCOPY a/./b c* /x/\nRUN --mount=source=d,target=/d x\n");
    bridge.file("context", ".dockerignore", "z\n").file(
        "dockerfile",
        "Dockerfile.dockerignore",
        "own\n!kept\n",
    );
    built(&bridge).await;
    let local = sources(&bridge)
        .into_iter()
        .find(|s| s.identifier == "local://context")
        .unwrap();
    assert_eq!(local.attrs["local.followpaths"], r#"["a/b","c*","d"]"#);
    assert_eq!(
        local.attrs["local.excludepatterns"], r#"["own","!kept"]"#,
        "the Dockerfile's own comes first"
    );
    assert!(
        !bridge
            .solved
            .lock()
            .unwrap()
            .iter()
            .any(|d| format!("{:?}", d.metadata).contains("load .dockerignore"))
    );
}

/// Rows: F03
#[tokio::test]
async fn the_dockerfile_may_be_in_small_letters() {
    let mut bridge = FakeBridge::new("");
    bridge.files.clear();
    bridge.file("dockerfile", "sub/dockerfile", "FROM scratch\nCOPY a b\n");
    let bridge = bridge.options(&[("filename", "sub/Dockerfile")]);
    built(&bridge).await;
    let first = bridge.solved.lock().unwrap()[0].clone();
    let text = format!("{:?}", llb::Graph::load(&first).unwrap().vertices()[0].op);
    assert!(
        text.contains("sub/Dockerfile.dockerignore") && text.contains("sub/dockerfile"),
        "{text}"
    );
}

/// Rows: F03
#[tokio::test]
async fn a_git_context_has_the_dockerfile_too() {
    let mut bridge = FakeBridge::new("").options(&[("context", "https://host/repo.git#v1:sub")]);
    let place = "git://host/repo.git#v1:sub";
    bridge.file(place, "Dockerfile", "FROM base:1\nCOPY a b\n");
    built(&bridge).await;
    let git = sources(&bridge)
        .into_iter()
        .find(|s| s.identifier == place)
        .unwrap();
    assert_eq!(git.attrs["git.fullurl"], "https://host/repo.git");
    assert!(
        bridge
            .names()
            .contains(&"[internal] load git source https://host/repo.git#v1:sub".to_owned())
    );
}

/// Rows: F03
#[tokio::test]
async fn a_download_is_a_dockerfile_or_an_archive() {
    let url = "https://host/x";
    let mut bridge = FakeBridge::new("").options(&[("context", url)]);
    bridge.file(url, "context", "FROM base:1\nCOPY a b\n");
    built(&bridge).await;
    assert!(
        sources(&bridge)
            .iter()
            .any(|s| s.identifier == url && s.attrs["http.filename"] == "context")
    );

    let mut bridge = FakeBridge::new("").options(&[("context", url)]);
    bridge.file(url, "context", &b"\x1f\x8b\x08"[..]).file(
        url,
        "Dockerfile",
        "FROM base:1\nCOPY a b\n",
    );
    built(&bridge).await;
    let unpacks = |op: &llb::Op| matches!(&op.kind, OpKind::File(f) if format!("{f:?}").contains("attempt_unpack: true"));
    assert!(bridge.ops().iter().any(unpacks));
}

/// Rows: F03, F06
#[tokio::test]
async fn inputs_stand_for_contexts_and_stages() {
    let mut builder = llb::Builder::new();
    let edge = builder.source("local://given", [], None, llb::Meta::default());
    let given = builder.definition(Some(&edge));
    let mut bridge = FakeBridge::new("FROM base:1\nCOPY --from=other a b\nCOPY c d\n")
        .options(&[("context:other", "input:one")]);
    bridge.inputs = [
        ("context".to_owned(), given.clone()),
        ("one".to_owned(), given),
    ]
    .into();
    built(&bridge).await;
    let names: Vec<String> = sources(&bridge).into_iter().map(|s| s.identifier).collect();
    assert_eq!(names.iter().filter(|n| *n == "local://given").count(), 1);
    assert!(!names.contains(&"local://context".to_owned()));
}

/// Rows: F06
#[tokio::test]
async fn an_empty_graph_is_the_empty_tree() {
    let mut bridge =
        FakeBridge::new("FROM other\nCOPY a /a\n").options(&[("context:other", "input:nothing")]);
    let nothing = llb::Definition::default();
    bridge.inputs.insert("nothing".into(), nothing.clone());
    built(&bridge).await;
    let names: Vec<String> = sources(&bridge).into_iter().map(|s| s.identifier).collect();
    assert_eq!(names, ["local://context"], "it stands on nothing");

    // A Dockerfile is not in it, and that is said.
    let mut bridge = FakeBridge::new("FROM scratch\n");
    bridge.inputs.insert("dockerfile".into(), nothing);
    let error = dockerfile::build(&bridge).await.unwrap_err();
    assert_eq!(error.kind(), stdx::Kind::NotFound, "{error}");
}

/// Rows: F06
#[tokio::test]
async fn named_contexts_replace_images_and_stages() {
    let dockerfile = "FROM alpine AS build\nRUN x\nFROM base:1\nCOPY --from=build /a /a\nCOPY --from=dir /b /b\nCOPY --from=web /c /c\nCOPY --from=lay /d /d\n";
    let digest = oci::Digest::of(b"layout");
    let mut bridge = FakeBridge::new(dockerfile).options(&[
        ("context:build", "docker-image://base:1"),
        ("context:dir", "local:mine"),
        ("context:web", "https://host/file"),
        ("context:lay", &format!("oci-layout://store@{digest}")),
        ("sharedkey:localdir:dir", "key"),
    ]);
    bridge.images.insert(
        format!("docker.io/library/lay@{digest}"),
        (digest, BASE_CONFIG.into()),
    );
    bridge.file("mine", ".dockerignore", "skip\n");
    built(&bridge).await;
    let found = sources(&bridge);
    let by = |start: &str| {
        found
            .iter()
            .find(|s| s.identifier.starts_with(start))
            .unwrap()
    };
    assert_eq!(by("local://mine").attrs["local.followpaths"], r#"["b"]"#);
    assert_eq!(
        by("local://mine").attrs["local.excludepatterns"],
        r#"["skip"]"#
    );
    assert_eq!(
        by("local://mine").attrs["local.sharedkeyhint"],
        "context:dir-key"
    );
    assert_eq!(by("https://host/file").attrs["http.filename"], "context");
    assert_eq!(by("oci-layout://").attrs["oci.store"], "store");
    assert!(
        execs(&bridge).is_empty(),
        "the stage's own steps are not run"
    );
    let names = bridge.names();
    assert!(
        names.contains(&"[context dir] load from client".to_owned()),
        "{names:?}"
    );
    assert!(
        bridge
            .resolved
            .lock()
            .unwrap()
            .contains(&"[context build] load metadata for base:1".to_owned())
    );
}

/// A policy that puts something else in the place of an image puts it there for a named context.
///
/// Rows: F06, P05
#[tokio::test]
async fn a_policy_replaces_the_image_of_a_named_context() {
    let dockerfile = "FROM scratch AS dir\nFROM scratch AS web\nFROM scratch\nCOPY --from=dir /b /b\nCOPY --from=web /c /c\n";
    let mut bridge = FakeBridge::new(dockerfile).options(&[
        ("context:dir", "docker-image://one"),
        ("context:web", "docker-image:two:3"),
    ]);
    let attrs = std::collections::BTreeMap::from([("http.uid".to_owned(), "7".to_owned())]);
    for (name, identifier, attrs) in [
        ("docker.io/library/one:latest", "local://mine", None),
        ("docker.io/library/two:3", "https://host/c", Some(attrs)),
    ] {
        let instead = llb::Source {
            identifier: identifier.to_owned(),
            attrs: attrs.unwrap_or_default(),
        };
        bridge.converted.insert(name.to_owned(), instead);
    }
    bridge.file("mine", ".dockerignore", "skip\n");
    built(&bridge).await;
    let found = sources(&bridge);
    let [dir, web] = found.as_slice() else {
        panic!("{found:?}");
    };
    assert_eq!(dir.identifier, "local://mine");
    assert_eq!(dir.attrs["local.excludepatterns"], r#"["skip"]"#);
    assert_eq!(dir.attrs["local.followpaths"], r#"["b"]"#);
    assert_eq!(
        (web.identifier.as_str(), web.attrs["http.uid"].as_str()),
        ("https://host/c", "7")
    );

    // The base of a stage stays an image.
    let mut bridge = FakeBridge::new("FROM one\n");
    let instead = llb::Source {
        identifier: "local://mine".to_owned(),
        attrs: std::collections::BTreeMap::new(),
    };
    let name = "docker.io/library/one:latest".to_owned();
    bridge.converted.insert(name, instead);
    let error = dockerfile::build(&bridge).await.unwrap_err();
    let told = stdx::text::sentence(&error);
    assert!(told.contains("cannot be looked up as an image"), "{told}");
}

/// Rows: F06
#[tokio::test]
async fn a_context_may_be_for_one_platform_only() {
    let options = [
        ("context:base::linux/arm64", "docker-image://scratch"),
        ("platform", "linux/amd64"),
    ];
    let bridge = FakeBridge::new("FROM base:1\nCOPY a b\n").options(&options);
    built(&bridge).await;
    assert!(
        sources(&bridge)
            .iter()
            .any(|s| s.identifier.starts_with("docker-image://"))
    );
    let error = FakeBridge::new("FROM base:1\n").options(&[("context:base:1", "nonsense")]);
    let error = dockerfile::build(&error).await.unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("invalid context base:1=\"nonsense\""),
        "{error}"
    );
}

/// Rows: F11
#[tokio::test]
async fn another_frontend_is_asked_when_the_file_says_so() {
    let bridge =
        FakeBridge::new("# syntax=example/frontend:1 x\nanything\n").options(&[("target", "t")]);
    built(&bridge).await;
    let nested = std::mem::take(&mut *bridge.nested.lock().unwrap());
    assert_eq!(nested[0].frontend, "gateway.v0");
    assert_eq!(nested[0].options["source"], "example/frontend:1");
    assert_eq!(nested[0].options["cmdline"], "example/frontend:1 x");
    assert_eq!(nested[0].options["target"], "t");
    let bridge = FakeBridge::new("# syntax=example/frontend:1\nFROM base:1\n")
        .options(&[("cmdline", "example/frontend:1")]);
    built(&bridge).await;
    assert!(
        bridge.nested.lock().unwrap().is_empty(),
        "we are the one that was asked for"
    );
    let bridge = FakeBridge::new("# syntax=docker/dockerfile:1.7\nFROM base:1\n");
    built(&bridge).await;
    assert!(bridge.nested.lock().unwrap().is_empty(), "it is built in");
    // Unless the client gives another image in its place.
    for (file, argument) in [
        ("# syntax=docker/dockerfile:1\nFROM base:1\n", ""),
        ("FROM base:1\n", "docker/dockerfile:1"),
    ] {
        let fork = ("context:docker/dockerfile:1", "docker-image://my/fork");
        let argument = ("build-arg:BUILDKIT_SYNTAX", argument);
        let options = [fork, argument];
        let given = if argument.1.is_empty() { 1 } else { 2 };
        let bridge = FakeBridge::new(file).options(&options[..given]);
        built(&bridge).await;
        let nested = std::mem::take(&mut *bridge.nested.lock().unwrap());
        assert_eq!(nested[0].frontend, "gateway.v0");
        assert_eq!(nested[0].options["source"], "docker/dockerfile:1");
        assert_eq!(nested[0].options[fork.0], fork.1);
    }
}

/// Rows: F01, F02, F22
#[tokio::test]
async fn options_reach_the_steps() {
    let bridge =
        FakeBridge::new("FROM base:1\nARG X\nRUN --security=insecure a\nRUN --network=none b\n")
            .options(&[
                ("add-hosts", "h=1.2.3.4"),
                ("hostname", "box"),
                ("shm-size", "1024"),
                ("ulimit", "nofile=1:2"),
                ("cgroup-parent", "/p"),
                ("force-network-mode", "host"),
                ("build-arg:HTTP_PROXY", "http://p"),
                ("build-arg:X", "1"),
                ("label:l", "v"),
                ("memory", "5"),
                ("no-cache", ""),
            ]);
    let result = built(&bridge).await;
    let execs = execs(&bridge);
    let first = &execs[0];
    assert_eq!(first.extra_hosts[0].ip, "1.2.3.4");
    assert_eq!(
        (first.hostname.as_str(), first.cgroup_parent.as_str()),
        ("box", "/p")
    );
    assert_eq!(first.ulimits[0].hard, 2);
    assert_eq!(
        (first.network, execs[1].network),
        (llb::Network::Host, llb::Network::None)
    );
    assert_eq!(
        (first.security, execs[1].security),
        (llb::Security::Insecure, llb::Security::Sandbox)
    );
    assert_eq!(first.proxy.as_ref().unwrap().http, "http://p");
    assert!(!first.env.iter().any(|e| e.starts_with("HTTP_PROXY")));
    assert!(
        first
            .mounts
            .iter()
            .any(|m| m.target == "/dev/shm" && m.kind == MountKind::Tmpfs { size: 1024 })
    );
    let definition = bridge.last();
    assert!(
        definition
            .metadata
            .values()
            .any(|m| m.ignore_cache && m.resources.as_ref().is_some_and(|r| r.memory == 5))
    );
    let image = image(&result);
    assert_eq!(image.config.labels["l"], "v");
    assert!(!format!("{:?}", image.history).contains("HTTP_PROXY"));
    assert!(
        image
            .history
            .iter()
            .any(|h| h.created_by == "RUN |1 X=1 /bin/sh -c a # buildkit")
    );
}

/// Rows: F13, F22
#[tokio::test]
async fn a_script_in_a_heredoc_is_a_file() {
    let bridge = FakeBridge::new("FROM base:1\nRUN <<-E\n\t#!/bin/python\n\tprint(1)\nE\n");
    built(&bridge).await;
    let exec = &execs(&bridge)[0];
    assert_eq!(exec.args, ["/bin/sh", "-c", "/dev/pipes/E"]);
    let mount = exec
        .mounts
        .iter()
        .find(|m| m.target == "/dev/pipes/")
        .unwrap();
    assert!(mount.readonly);
    let file = bridge.ops().into_iter().find_map(|op| match op.kind {
        OpKind::File(file) => Some(file.actions[0].kind.clone()),
        _ => None,
    });
    let Some(llb::ActionKind::Mkfile(file)) = file else {
        panic!()
    };
    assert_eq!(
        (file.mode, &file.data[..]),
        (0o755, &b"#!/bin/python\nprint(1)\n"[..])
    );
}

/// Rows: F26
#[tokio::test]
async fn add_downloads_and_clones() {
    let sum = oci::Digest::of(b"x");
    let text = format!(
        "FROM base:1\nADD --checksum={sum} --unpack=true https://h/a.tgz /a\nADD --keep-git-dir=true https://h/r.git#main /r\n"
    );
    let bridge = FakeBridge::new(&text);
    built(&bridge).await;
    let found = sources(&bridge);
    let http = found
        .iter()
        .find(|s| s.identifier == "https://h/a.tgz")
        .unwrap();
    assert_eq!(
        (
            http.attrs["http.checksum"].as_str(),
            http.attrs["http.filename"].as_str()
        ),
        (sum.to_string().as_str(), "a.tgz")
    );
    let git = found
        .iter()
        .find(|s| s.identifier == "git://h/r.git#main")
        .unwrap();
    assert_eq!(git.attrs["git.keepgitdir"], "true");
    assert!(
        !found.iter().any(|s| s.identifier.starts_with("local://")),
        "nothing of the context is needed"
    );
}

/// Rows: F29
#[tokio::test]
async fn triggers_of_images_run_and_are_gone() {
    let config = BASE_CONFIG.replace(
        r#""Cmd":["sh"]"#,
        r#""Cmd":["sh"],"OnBuild":["RUN first","COPY --from=base:1 /x /x"]"#,
    );
    let mut bridge = FakeBridge::new("FROM on:1\nRUN second\n");
    bridge.images.insert(
        "docker.io/library/on:1".into(),
        (oci::Digest::of(b"on"), config),
    );
    let result = built(&bridge).await;
    assert_eq!(image(&result).config.on_build, Vec::<String>::new());
    let names: Vec<String> = bridge
        .names()
        .into_iter()
        .filter(|n| !n.contains("FROM docker"))
        .collect();
    assert_eq!(
        names,
        [
            "[2/4] ONBUILD RUN first",
            "[3/4] ONBUILD COPY --from=base:1 /x /x",
            "[4/4] RUN second"
        ]
    );
}

/// Rows: F25, F21
#[tokio::test]
async fn a_linked_copy_with_a_mode_is_a_plain_one() {
    let bridge = FakeBridge::new("FROM base:1\nARG D=/d\nCOPY --link --chmod=600 a $D\n");
    built(&bridge).await;
    assert!(
        !bridge
            .ops()
            .iter()
            .any(|op| matches!(op.kind, OpKind::Merge(_)))
    );
    assert!(
        bridge
            .names()
            .contains(&"[2/2] COPY --link --chmod=600 a /d".to_owned())
    );
}

/// A build is one task among others: it moves between threads, and dropping it is fine.
#[tokio::test]
async fn a_build_can_be_spawned_and_dropped() {
    fn is_send<T: Send>(build: T) -> T {
        build
    }
    let bridge = FakeBridge::new("FROM base:1\n");
    drop(is_send(dockerfile::build(&bridge)));
    is_send(dockerfile::build(&bridge)).await.unwrap();
}
