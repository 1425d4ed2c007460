//! One step in a container: what it sees, what it makes, how it fails.

use std::sync::Arc;

use bytes::Bytes;
use llb::{ExtraHost, MountKind, Owned, ProxyEnv, SecretEnv};
use oci::Digest;
use ops::Error;
use session::Attachables;
use session::local::{SecretSource, SecretValues};
use solver::{JobId, OpContext};
use stdx::Kind;

use crate::setup::{Echo, World, found, mount, sh};

fn owned(id: &str, optional: bool) -> Owned {
    Owned {
        id: id.into(),
        uid: 33,
        gid: 34,
        mode: 0o440,
        optional,
    }
}

fn secrets(secrets: &[(&str, &[u8])]) -> Attachables {
    let values = secrets
        .iter()
        .fold(SecretValues::new(), |all, (id, value)| {
            all.with(*id, SecretSource::Value(Bytes::copy_from_slice(value)))
        });
    Attachables {
        secrets: Some(Arc::new(values)),
        ..Attachables::new()
    }
}

/// What is written is in the output and not in the input; what is printed is told.
/// Rows: L03, L04, X02, X11, X15
#[tokio::test]
async fn privileged_a_step_makes_files_and_prints() {
    let Some(world) = World::new().await else {
        return;
    };
    let (base, client) = (world.busybox(), world.plain());
    let mut exec = sh(
        "echo out; echo err >&2; pwd > here; id -un > who; hostname > name; cat /etc/hosts > hosts; env > env",
    );
    exec.cwd = "/work/deep".into();
    exec.user = "web".into();
    exec.hostname = "builder".into();
    exec.env = vec!["A=b".into()];
    exec.extra_hosts = [
        ("db", "10.1.2.3"),
        ("six", "[fe80::1]"),
        ("gw", "host-gateway"),
    ]
    .map(|(host, ip)| ExtraHost {
        host: host.into(),
        ip: ip.into(),
    })
    .to_vec();
    exec.proxy = Some(ProxyEnv {
        http: "http://p:1".into(),
        no: "x".into(),
        ..ProxyEnv::default()
    });
    let done = client.run(exec, &[&base]).await;
    assert!(
        done.printed.contains("out\n") && done.printed.contains("err\n"),
        "{done:?}"
    );
    let output = done.output();
    let files = world.listing(&output).await;
    assert_eq!(files["work/deep/here"], "/work/deep\n");
    assert_eq!(files["work/deep/who"], "web\n");
    assert_eq!(files["work/deep/name"], "builder\n");
    let hosts = &files["work/deep/hosts"];
    for line in ["10.1.2.3", "fe80::1", "127.0.0.1"] {
        assert!(hosts.contains(line), "{hosts}");
    }
    let env = &files["work/deep/env"];
    for line in [
        "A=b\n",
        "HTTP_PROXY=http://p:1\n",
        "http_proxy=http://p:1\n",
        "NO_PROXY=x\n",
        "no_proxy=x\n",
        "PATH=/",
    ] {
        assert!(env.contains(line), "{line} {env}");
    }
    assert!(!env.contains("FTP_PROXY"), "{env}");
    assert!(world.read(&base, "work/deep/here").await.is_none());
    assert!(
        found(&output)
            .description()
            .contains("mount / from exec /bin/sh -c")
    );
}

/// Outputs come by their numbers; what is read-only goes through as it is.
/// Rows: L05, X02
#[tokio::test]
async fn privileged_outputs_have_their_numbers() {
    let Some(world) = World::new().await else {
        return;
    };
    let (base, client) = (world.busybox(), world.plain());
    let other = world.tree(&[("keep", "1"), ("sub/file", "2")]);
    let mut exec = sh(
        "echo root > /r; echo one > /one/new; cat /two/file > /copied; ! touch /two/x; echo lost > /three/x",
    );
    exec.mounts[0].output = Some(2);
    for (target, output, selector, readonly) in [
        ("/one", Some(0), "", false),
        ("two", Some(1), "sub", true),
        ("/three", None, "/sub", false),
    ] {
        let mut extra = mount(target, MountKind::Bind);
        extra.input = Some(1);
        extra.output = output;
        extra.selector = selector.into();
        extra.readonly = readonly;
        exec.mounts.push(extra);
    }
    let outputs = client.run(exec, &[&base, &other]).await.outputs();
    assert_eq!(outputs.len(), 3);
    assert_eq!(world.read(&outputs[0], "new").await.unwrap(), "one\n");
    assert_eq!(world.read(&outputs[0], "keep").await.unwrap(), "1");
    assert_eq!(outputs[1], other);
    let root = world.listing(&outputs[2]).await;
    assert_eq!(
        (root["r"].as_str(), root["copied"].as_str()),
        ("root\n", "2")
    );
    assert!(
        !root
            .keys()
            .any(|path| path.starts_with("one") || path.starts_with("two")),
        "mount points stay"
    );
    assert!(world.read(&other, "sub/x").await.is_none());
    assert!(world.read(&other, "new").await.is_none());
}

/// Roots from nothing, read-only roots, parts that are not there, nonsense.
/// Rows: L05, X02
#[tokio::test]
async fn privileged_mounts_that_cannot_be_are_errors() {
    let Some(world) = World::new().await else {
        return;
    };
    let (base, client) = (world.busybox(), world.plain());
    let mut exec = sh("! touch /x");
    exec.mounts[0].readonly = true;
    exec.mounts[0].output = None;
    exec.mounts
        .push(mount("/made/on/the/way", MountKind::Tmpfs { size: 0 }));
    let mut out = mount("/out", MountKind::Bind);
    out.output = Some(0);
    exec.mounts.push(out);
    client.run(exec, &[&base]).await.output();

    let mut exec = sh("true");
    let mut missing = mount("/x", MountKind::Bind);
    (missing.input, missing.selector, missing.readonly) = (Some(0), "../nowhere".into(), true);
    exec.mounts.push(missing);
    let done = client.run(exec, &[&base]).await;
    assert_eq!(done.error().kind(), Kind::NotFound, "{}", done.why());
    assert!(
        done.why().contains("nowhere") && done.why().contains("/x"),
        "{}",
        done.why()
    );

    let mut exec = sh("true");
    exec.mounts[0].input = None;
    let done = client.run(exec, &[]).await;
    assert!(done.why().contains("exec \"/bin/sh\""), "{}", done.why());

    let mut exec = sh("true");
    exec.extra_hosts = vec![ExtraHost {
        host: "db".into(),
        ip: "somewhere".into(),
    }];
    let done = client.run(exec, &[&base]).await;
    assert_eq!(done.error().kind(), Kind::InvalidInput);
    assert!(done.why().contains("somewhere"), "{}", done.why());
}

/// A process that fails is an error with its command and code; some codes may be fine.
/// Rows: L04, X17
#[tokio::test]
async fn privileged_exit_codes_are_judged() {
    let Some(world) = World::new().await else {
        return;
    };
    let (base, client) = (world.busybox(), world.plain());
    let exit = |script: &'static str, valid: &'static [i32]| {
        let mut exec = sh(script);
        exec.valid_exit_codes = valid.to_vec();
        let (client, base) = (&client, &base);
        async move { client.run(exec, &[base]).await }
    };
    let done = exit("exit 3", &[]).await;
    assert_eq!(
        done.why(),
        "process \"/bin/sh -c exit 3\" did not complete successfully: exit code: 3"
    );
    assert!(matches!(done.error(), Error::Exit(exit) if exit.code == 3 && !exit.oom));
    let output = exit("echo kept > /f; exit 3", &[3, 4]).await.output();
    assert_eq!(world.read(&output, "f").await.unwrap(), "kept\n");
    let done = exit("true", &[3]).await;
    assert!(done.why().ends_with("exit code: 0"), "{}", done.why());
    let mut exec = sh("");
    exec.args = vec!["no-such-program".into()];
    let done = client.run(exec, &[&base]).await;
    assert!(
        matches!(done.error(), Error::Exit(exit) if exit.code == 127),
        "{}",
        done.why()
    );
    assert!(done.why().contains("no-such-program"), "{}", done.why());
}

/// Secrets are files and variables, never part of the result.
/// Rows: X05
#[tokio::test]
async fn privileged_secrets_are_seen_and_not_kept() {
    let Some(world) = World::new().await else {
        return;
    };
    let base = world.busybox();
    let client = world.client(
        secrets(&[
            ("token", b"hunter2"),
            ("nul", b"a\0b"),
            ("big", &[b'x'; 600 << 10]),
        ]),
        false,
    );
    let mut exec = sh(
        "test $(cat /run/secrets/token) = hunter2 && test \"$TOKEN\" = hunter2 && test -z \"${NONE-unset}\" && \
         stat -c %a:%u:%g /run/secrets/token && test ! -e /run/secrets/absent && ! touch /run/secrets/token",
    );
    exec.mounts.push(mount(
        "/run/secrets/token",
        MountKind::Secret(owned("token", false)),
    ));
    exec.mounts.push(mount(
        "/run/secrets/absent",
        MountKind::Secret(owned("absent", true)),
    ));
    for (id, name, optional) in [("token", "TOKEN", false), ("absent", "NONE", true)] {
        exec.secret_env.push(SecretEnv {
            id: id.into(),
            name: name.into(),
            optional,
        });
    }
    let done = client.run(exec, &[&base]).await;
    assert!(done.printed.contains("440:33:34\n"), "{done:?}");
    let files = world.listing(&done.output()).await;
    assert!(!files.values().any(|text| text.contains("hunter2")));
    assert!(!files.contains_key("run/secrets/token"));

    for (id, kind, words) in [
        (
            "absent",
            Kind::NotFound,
            "secret absent: not found: give it with --secret id=absent",
        ),
        ("big", Kind::InvalidInput, "512000 is the most"),
        ("", Kind::InvalidInput, "its id is not said"),
    ] {
        let mut exec = sh("true");
        exec.mounts
            .push(mount("/s", MountKind::Secret(owned(id, false))));
        let done = client.run(exec, &[&base]).await;
        assert_eq!(done.error().kind(), kind, "{id}");
        assert!(done.why().contains(words), "{}", done.why());
    }
    let mut exec = sh("true");
    exec.secret_env.push(SecretEnv {
        id: "nul".into(),
        name: "N".into(),
        optional: false,
    });
    assert!(client.run(exec, &[&base]).await.why().contains("NUL"));
    let mut exec = sh("true");
    exec.mounts
        .push(mount("/s", MountKind::Secret(owned("token", false))));
    let nothing = world.plain();
    assert_eq!(
        nothing.run(exec, &[&base]).await.error().kind(),
        Kind::NotFound
    );
}

/// Rows: X06
#[tokio::test]
async fn privileged_a_socket_leads_to_the_agent() {
    let Some(world) = World::new().await else {
        return;
    };
    let base = world.busybox();
    let offers = Attachables {
        ssh: Some(Arc::new(Echo)),
        ..Attachables::new()
    };
    let client = world.client(offers, false);
    let mut exec = sh("test -S /run/agent && stat -c %a:%u:%g /run/agent && test ! -e /run/other");
    exec.mounts
        .push(mount("/run/agent", MountKind::Ssh(owned("", false))));
    exec.mounts
        .push(mount("/run/other", MountKind::Ssh(owned("other", true))));
    let done = client.run(exec, &[&base]).await;
    assert!(done.printed.contains("440:33:34\n"), "{done:?}");
    done.output();

    let mut exec = sh("true");
    exec.mounts
        .push(mount("/run/other", MountKind::Ssh(owned("other", false))));
    for client in [client, world.plain()] {
        let done = client.run(exec.clone(), &[&base]).await;
        assert!(done.why().contains("--ssh other"), "{}", done.why());
    }
}

/// Rows: X04, X12
#[tokio::test]
async fn privileged_memory_and_limits_are_as_asked() {
    let Some(world) = World::new().await else {
        return;
    };
    let (base, client) = (world.busybox(), world.plain());
    let mut exec = sh(
        "ulimit -n; ! head -c 2000000 /dev/zero > /t/f; ! head -c 2000000 /dev/zero > /dev/shm/f; rm /dev/shm/f; \
         head -c 100000 /dev/zero > /dev/shm/g",
    );
    exec.mounts
        .push(mount("/t", MountKind::Tmpfs { size: 1 << 20 }));
    exec.mounts
        .push(mount("/dev/shm", MountKind::Tmpfs { size: 1 << 20 }));
    exec.ulimits.push(llb::Ulimit {
        name: "nofile".into(),
        soft: 77,
        hard: 77,
    });
    let done = client.run(exec, &[&base]).await;
    assert!(done.printed.starts_with("77\n"), "{done:?}");
    let files = world.listing(&done.output()).await;
    assert!(
        !files
            .keys()
            .any(|path| path.starts_with("t/") || path.starts_with("dev/shm/"))
    );
}

/// What a build may not do is refused before anything is looked up.
/// Rows: X07, X09, X13, X14
#[tokio::test]
async fn privileged_what_is_not_allowed_is_refused() {
    let Some(world) = World::new().await else {
        return;
    };
    let (base, client) = (world.busybox(), world.plain());
    let mut host = sh("true");
    host.network = llb::Network::Host;
    let mut insecure = sh("grep -q 'CapEff:.*ffff' /proc/self/status");
    insecure.security = llb::Security::Insecure;
    for (exec, words) in [
        (&host, "network.host is not allowed"),
        (&insecure, "security.insecure is not allowed"),
    ] {
        let error = client.op(exec.clone(), 1).err().unwrap();
        assert_eq!(error.kind(), Kind::Denied);
        assert!(
            error.to_string().contains(words) && error.to_string().contains("--allow"),
            "{error}"
        );
    }
    let allowed = world.client(Attachables::new(), true);
    allowed.run(host, &[&base]).await.output();
    allowed.run(insecure, &[&base]).await.output();

    let mut devices = sh("true");
    devices.devices = vec![llb::CdiDevice {
        name: "vendor.com/gpu=0".into(),
        optional: true,
    }];
    client.run(devices.clone(), &[&base]).await.output();
    devices.devices[0].optional = false;
    let done = client.run(devices, &[&base]).await;
    assert_eq!(done.error().kind(), Kind::Unsupported);
    assert!(done.why().contains("vendor.com/gpu=0"), "{}", done.why());

    let platform = Some("windows/amd64".parse().unwrap());
    let op = client
        .op_with(sh("true"), 1, platform, llb::Meta::default())
        .unwrap();
    let done = client.run_op(&*op, &[&base]).await;
    assert_eq!(done.error().kind(), Kind::Unsupported);
    assert!(done.why().contains("windows/amd64"), "{}", done.why());
}

/// What its process used is known by the step, if anybody wants to know.
/// Rows: X16
#[tokio::test]
async fn privileged_what_a_step_used_is_known() {
    let Some(world) = World::new().await else {
        return;
    };
    let (base, client) = (world.busybox(), world.plain());
    client.run(sh("true"), &[&base]).await.output();
    let used = client.deeds.build.usage.as_ref().unwrap().by_step();
    let [(step, samples)] = &used.into_iter().collect::<Vec<_>>()[..] else {
        panic!("one step")
    };
    assert_eq!((*step, samples.samples.len()), (Digest::of("step"), 1));
    assert!(samples.sys_cpu_stat.is_some(), "{samples:?}");
}

/// Keys: the op, the parts of inputs, and what is in those parts.
/// Rows: L06, L07
#[tokio::test]
async fn privileged_what_is_mounted_counts_by_its_content() {
    let Some(world) = World::new().await else {
        return;
    };
    let client = world.plain();
    let mut exec = sh("true");
    for (target, selector) in [("/a", "app"), ("/b", "/app/lib/"), ("/c", "etc/../docs")] {
        let mut part = mount(target, MountKind::Bind);
        (part.input, part.selector, part.readonly) = (Some(1), selector.into(), true);
        exec.mounts.push(part);
    }
    let op = client.op(exec.clone(), 2).unwrap();
    let cx = OpContext {
        step: progress::StepProgress::none(),
        job: JobId(1),
        vertex: None,
        missed: None,
    };
    let map = op.cache_map(&cx, 0).await.unwrap();
    let text = llb::preimage::exec(&exec, &oci::Platform::host());
    assert_eq!(map.digest, solver::KeyDigest::Stable(Digest::of(text)));
    assert!(map.last && !map.inputs[0].by_content && map.inputs[1].by_content);
    assert_eq!(map.inputs[0].selector, Some(Digest::of("/")));
    assert_eq!(
        map.inputs[1].selector,
        Some(Digest::of("/app\0/app/lib\0/docs"))
    );

    let key = async |files: &[(&str, &str)]| {
        op.content_key(&cx, 1, &world.tree(files))
            .await
            .unwrap()
            .unwrap()
    };
    let first = key(&[
        ("app/x", "1"),
        ("app/lib/y", "2"),
        ("docs", "3"),
        ("else", "4"),
    ])
    .await;
    let same = key(&[
        ("app/x", "1"),
        ("app/lib/y", "2"),
        ("docs", "3"),
        ("else", "changed"),
        ("more", ""),
    ])
    .await;
    let other = key(&[
        ("app/x", "1"),
        ("app/lib/y", "changed"),
        ("docs", "3"),
        ("else", "4"),
    ])
    .await;
    assert_eq!(first, same);
    assert_ne!(first, other);
    let error = op
        .content_key(&cx, 1, &ops::Output(None))
        .await
        .unwrap_err();
    let says = "/app: no such file or directory: there are no files in docker.io/library/input:1";
    assert_eq!(error.to_string(), says);
    let error = op
        .content_key(&cx, 1, &world.tree(&[("app/lib/", "")]))
        .await
        .unwrap_err();
    let says = "\"/docs\": not found in docker.io/library/input:1";
    assert_eq!(error.to_string(), says);
}
