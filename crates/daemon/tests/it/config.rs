//! Flags and TOML.

use std::path::{Path, PathBuf};
use std::time::Duration;

use daemon::config::file::File;
use daemon::config::flags::Flags;
use daemon::config::{Config, Name, Surroundings};
use executor::{CniNetwork, SandboxNetwork};
use expect_test::{Expect, expect};

fn flags(line: &str) -> Flags {
    let words = std::iter::once("buildkitd").chain(line.split_whitespace());
    Flags::parse_from_args(words.map(Into::into)).unwrap()
}

fn root_user() -> Surroundings {
    Surroundings::default()
}

#[track_caller]
fn resolve(toml: &str, line: &str) -> Result<Config, daemon::Error> {
    let file = File::parse(toml, Path::new("buildkitd.toml"))?;
    Config::resolve(file, &flags(line), Name::Buildkitd, &root_user())
}

#[track_caller]
fn check_refused(toml: &str, line: &str, expected: Expect) {
    expected.assert_eq(&resolve(toml, line).unwrap_err().to_string());
}

/// The example of BuildKit's documentation, as far as kiln has what it sets.
const FILE: &str = r#"
debug = true
root = "/var/lib/buildkit"
insecure-entitlements = [ "network.host", "security.insecure" ]
provenanceEnvDir = "/etc/buildkit/provenance.d"
[log]
  format = "text"
[dns]
  nameservers=["1.1.1.1","8.8.8.8"]
  options=["edns0"]
  searchDomains=["example.com"]
[grpc]
  address = [ "tcp://0.0.0.0:1234", "unix:///run/b.sock" ]
  uid = 0
  gid = 7
  [grpc.tls]
    cert = "/etc/buildkit/tls.crt"
    key = "/etc/buildkit/tls.key"
    ca = "/etc/buildkit/tlsca.crt"
[history]
  maxAge = 172800
  maxEntries = 50
[worker.oci]
  enabled = true
  platforms = [ "linux/amd64", "linux/arm64" ]
  snapshotter = "auto"
  gc = true
  reservedSpace = "30%"
  maxUsedSpace = "60%"
  minFreeSpace = "20GB"
  max-parallelism = 4
  [worker.oci.labels]
    "foo" = "bar"
  [[worker.oci.gcpolicy]]
    reservedSpace = "512MB"
    keepDuration = "48h"
    filters = [ "type==source.local", "type==exec.cachemount", "type==source.git.checkout"]
  [[worker.oci.gcpolicy]]
    all = true
    keepBytes = 1024000000
[registry."docker.io"]
  mirrors = ["yourmirror.local:5000", "core.harbor.domain/proxy.docker.io"]
  http = true
  insecure = true
  ca=["/etc/config/myca.pem"]
  [[registry."docker.io".keypair]]
    key="/etc/config/key.pem"
    cert="/etc/config/cert.pem"
[frontend."dockerfile.v0"]
  enabled = true
[frontend."gateway.v0"]
  enabled = true
[system]
  maxRegistryConcurrency = 8
"#;

/// Rows: D03, D04, D05, D06, D08, D09, D10, D11, D12, D13
#[test]
fn a_file_of_buildkit_is_understood() {
    let config = resolve(FILE, "").unwrap();
    assert_eq!(config.root, PathBuf::from("/var/lib/buildkit"));
    assert_eq!(
        config.addresses,
        ["tcp://0.0.0.0:1234", "unix:///run/b.sock"]
    );
    assert_eq!(config.local_address(), Some("unix:///run/b.sock"));
    assert_eq!((config.uid, config.gid), (0, 7));
    assert_eq!(config.log_level, "debug");
    assert_eq!(config.max_parallelism, Some(4));
    assert_eq!(config.labels["foo"], "bar");
    assert_eq!(config.registries["docker.io"].keypair.len(), 1);
    assert_eq!(config.registry_concurrency, Some(8));
    assert_eq!(config.history_age, Duration::from_secs(172_800));
    assert_eq!(config.gc.len(), 2);
    assert_eq!(config.gc[0].reserved, 512 << 20);
    assert_eq!(config.gc[0].keep_duration, Duration::from_secs(48 * 3600));
    assert_eq!(
        (config.gc[1].all, config.gc[1].reserved),
        (true, 1_024_000_000)
    );
    assert!(config.tls.is_some());
}

/// Rows: D01, D02, D03, D15
#[test]
fn flags_win_over_the_file() {
    let config = resolve(
        FILE,
        "-debug=false --root /x --addr unix:///a --addr unix:///b --oci-worker-gc=false --oci-max-parallelism 0 \
         --allow-insecure-entitlement network.host --oci-worker-labels a=b --oci-worker-net none --group 12 --log-format json",
    )
    .unwrap();
    assert_eq!(config.root, PathBuf::from("/x"));
    assert_eq!(config.addresses, ["unix:///a", "unix:///b"]);
    assert_eq!(config.gc, []);
    // Where there are devices the client says which.
    assert_eq!(config.entitlements, ["network.host", "device"]);
    let without = resolve(FILE, "--cdi-disabled").unwrap();
    assert!(!without.entitlements.contains(&"device".to_owned()));
    assert_eq!(config.trace_socket, None);
    let traces = resolve("[otel]\nsocketPath = '/run/t.sock'\n", "").unwrap();
    assert_eq!(traces.trace_socket, Some(PathBuf::from("/run/t.sock")));
    assert_eq!(config.max_parallelism, None);
    assert_eq!(
        (config.labels["a"].as_str(), config.labels["foo"].as_str()),
        ("b", "bar")
    );
    assert_eq!((config.network, config.gid), (SandboxNetwork::None, 12));
}

/// Rows: D01, D04
#[test]
fn each_name_and_user_has_its_places() {
    let config = resolve("", "").unwrap();
    assert_eq!(config.addresses, ["unix:///run/buildkit/buildkitd.sock"]);
    assert_eq!(config.root, PathBuf::from("/var/lib/kiln"));
    let environment = |config: &Config| config.provenance_env_dir.display().to_string();
    assert_eq!(environment(&config), "/etc/buildkit/provenance.d");
    let elsewhere = resolve("provenanceEnvDir = '/p'", "").unwrap();
    assert_eq!(environment(&elsewhere), "/p");
    let user = Surroundings {
        uid: 1000,
        home: Some("/home/u".into()),
        runtime_dir: Some("/run/user/1000".into()),
        ..Surroundings::default()
    };
    let config = Config::resolve(File::default(), &Flags::default(), Name::Kiln, &user).unwrap();
    assert_eq!(config.addresses, ["unix:///run/user/1000/kiln/kiln.sock"]);
    assert_eq!(config.root, PathBuf::from("/home/u/.local/share/kiln"));
    assert_eq!(environment(&config), "/home/u/.config/kiln/provenance.d");
}

/// Rows: D34
#[test]
fn the_default_rules_keep_the_cache_small() {
    let config = resolve("", "--oci-worker-gc-keepstorage 1000,2000,3000").unwrap();
    let [cheap, old, unshared, all] = config.gc.as_slice() else {
        panic!("{:?}", config.gc)
    };
    assert_eq!(cheap.max_used, 512_000_000);
    assert_eq!(old.keep_duration, Duration::from_secs(60 * 24 * 3600));
    assert_eq!(
        (unshared.reserved, unshared.min_free, unshared.max_used),
        (1_000_000_000, 2_000_000_000, 3_000_000_000)
    );
    assert!(all.all && !unshared.all);
}

/// Rows: D03
#[test]
fn mistakes_are_named_with_their_line() {
    check_refused(
        "debug = true\n\n[worker.oci]\nsnapshoter = \"x\"\n",
        "",
        expect![
            "buildkitd.toml:4: unknown field `snapshoter`, expected one of `enabled`, `labels`, `platforms`, `snapshotter`, `rootless`, `noProcessSandbox`, `gc`, `gckeepstorage`, `reservedSpace`, `maxUsedSpace`, `minFreeSpace`, `gcpolicy`, `networkMode`, `cniConfigPath`, `cniBinaryPath`, `cniPoolSize`, `bridgeName`, `bridgeSubnet`, `binary`, `proxySnapshotterPath`, `defaultCgroupParent`, `isolateCgroups`, `stargzSnapshotter`, `apparmor-profile`, `selinux`, `max-parallelism`"
        ],
    );
    check_refused(
        "[history]\nmaxAge = \"2 days\"\n",
        "",
        expect![[
            r#"buildkitd.toml:2: "2 days" is not a time like 48h, 1h30m or a number of seconds"#
        ]],
    );
    check_refused(
        "root = \n",
        "",
        expect!["buildkitd.toml:1: string values must be quoted, expected literal string"],
    );
    check_refused(
        "insecure-entitlements = [\"root\"]",
        "",
        expect![[r#"entitlement "root" is not one of security.insecure, network.host, device"#]],
    );
    check_refused(
        "insecure-entitlements = [\"device=v.com/c,alias=x\"]",
        "",
        expect![[r#"entitlement "device=v.com/c,alias=x" is not like device=NAME"#]],
    );
    check_refused(
        "[worker.oci]\nsnapshotter = \"btrfs\"",
        "",
        expect![[r#"snapshotter "btrfs" is not one of auto, overlayfs, native"#]],
    );
}

/// Rows: D17, D15
#[test]
fn the_one_worker_is_there_unless_it_is_switched_off() {
    for line in [
        "--oci-worker auto",
        "--oci-worker=true",
        "--containerd-worker=auto",
        "",
    ] {
        resolve("", line).unwrap();
    }
    resolve("[worker.oci]\nenabled = true", "").unwrap();
    check_refused(
        "[worker.oci]\nenabled = false",
        "",
        expect!["not supported yet: running without the OCI worker (worker.oci.enabled = false)"],
    );
    check_refused(
        "",
        "--oci-worker maybe",
        expect![[r#"--oci-worker "maybe" is not one of true, false, auto"#]],
    );
}

/// Rows: D20, D06
#[test]
fn snapshotters_kiln_does_not_have_are_refused() {
    for name in ["auto", "overlayfs", "native"] {
        let config = resolve("", &format!("--oci-worker-snapshotter {name}")).unwrap();
        assert_eq!(config.snapshotter, name);
    }
    for name in ["fuse-overlayfs", "stargz", "overlaybd"] {
        let error = resolve("", &format!("--oci-worker-snapshotter {name}")).unwrap_err();
        assert!(error.to_string().contains("is not one of auto"), "{error}");
    }
    check_refused(
        "[worker.oci]\nproxySnapshotterPath = '/x.sock'",
        "",
        expect!["not supported yet: proxySnapshotterPath"],
    );
}

/// Rows: D13
#[test]
fn emulated_platforms_are_believed_as_long_as_configured() {
    let age = |toml: &str| resolve(toml, "").unwrap().platforms_max_age;
    assert_eq!(age(""), Some(Duration::from_secs(20)));
    assert_eq!(
        age("[system]\nplatformsCacheMaxAge = '1h'"),
        Some(Duration::from_secs(3600))
    );
    assert_eq!(age("[system]\nplatformsCacheMaxAge = '-1s'"), None);
}

/// Rows: D07, D15, D24
#[test]
fn what_is_not_there_is_refused_instead_of_ignored() {
    check_refused(
        "[worker.containerd]\nenabled = true\nnamespace = \"x\"",
        "",
        expect!["not supported yet: the containerd worker (worker.containerd.enabled)"],
    );
    check_refused(
        "",
        "--oci-worker=false",
        expect!["not supported yet: running without the OCI worker (--oci-worker=false)"],
    );
    check_refused(
        "",
        "--oci-worker-selinux",
        expect!["not supported yet: SELinux labels (selinux)"],
    );
    check_refused(
        "",
        "--tlscert x",
        expect!["--tlscert and --tlskey belong together (and --tlscacert needs both)"],
    );
    check_refused(
        "",
        "--log-level loud",
        expect![[r#"log level "loud" is not one of trace, debug, info, warn, error"#]],
    );
    let error = Flags::parse_from_args(["buildkitd", "--rooot", "x"].map(Into::into)).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("a similar argument exists: '--root'"),
        "{error}"
    );
}

/// Rows: D06, D15, X07
#[test]
fn the_network_is_as_configured_and_what_it_needs_must_be_there() {
    let network = |toml: &str, line: &str| {
        let toml = format!("[worker.oci]\n{toml}\n");
        resolve(&toml, line)
            .map(|config| config.network)
            .map_err(|error| {
                let why = std::error::Error::source(&error).map(ToString::to_string);
                format!("{error}: {}", why.unwrap_or_default())
            })
    };
    assert_eq!(
        network("networkMode = 'host'", ""),
        Ok(SandboxNetwork::Host)
    );
    assert_eq!(
        network("networkMode = 'none'", ""),
        Ok(SandboxNetwork::None)
    );
    let nothing = "cniConfigPath = '/nonexistent.json'";
    assert_eq!(network(nothing, ""), Ok(SandboxNetwork::Host));
    let dir = tempfile::tempdir().unwrap();
    for plugin in ["bridge", "host-local", "firewall"] {
        std::fs::write(dir.path().join(plugin), "").unwrap();
    }
    let list = dir.path().join("net.conflist");
    std::fs::write(&list, r#"{"name": "n", "plugins": [{"type": "bridge"}]}"#).unwrap();
    let there = format!(
        "cniConfigPath = {list:?}\ncniBinaryPath = {:?}\ncniPoolSize = 7",
        dir.path()
    );
    let Ok(SandboxNetwork::Cni(cni)) = network(&there, "--root /x") else {
        panic!("auto finds the configuration")
    };
    assert_eq!((cni.network, cni.pool), (CniNetwork::File(list.clone()), 7));
    assert_eq!(
        (cni.plugins, cni.state),
        (dir.path().into(), "/x/networks".into())
    );
    // BuildKit's own flag for the file has no effect; ours has.
    let flags = format!(
        "--oci-worker-net cni --oci-cni-config-path {} --oci-cni-binary-dir {} --oci-cni-pool-size 3",
        list.display(),
        dir.path().display()
    );
    let Ok(SandboxNetwork::Cni(cni)) = network("", &flags) else {
        panic!("as flags say")
    };
    assert_eq!(cni.pool, 3);
    let own = format!("bridgeName = 'b7'\nbridgeSubnet = '10.7.0.0/16'\n{there}");
    let Ok(SandboxNetwork::Cni(cni)) = network(&own, "--oci-worker-net bridge") else {
        panic!("a bridge of our own")
    };
    let (name, subnet) = ("b7".to_owned(), "10.7.0.0/16".to_owned());
    assert_eq!(cni.network, CniNetwork::Bridge { name, subnet });
    let missing = network(&format!("networkMode = 'cni'\n{nothing}"), "").unwrap_err();
    assert!(
        missing.starts_with("networkMode cni: network: reading the CNI"),
        "{missing}"
    );
    std::fs::remove_file(dir.path().join("host-local")).unwrap();
    let missing = network(
        &there.replace("cniConfigPath", "networkMode = 'bridge'\n#"),
        "",
    );
    assert!(
        missing
            .unwrap_err()
            .contains("there is no plugin host-local")
    );
    check_refused(
        "[worker.oci]\nnetworkMode = 'vlan'",
        "",
        expect![[r#"networkMode "vlan" is not one of auto, host, cni, bridge, none"#]],
    );
}

/// Rows: D05, D02, X13
#[test]
fn devices_are_looked_for_where_the_settings_say() {
    let config = resolve("", "").unwrap();
    let usual = ["/etc/cdi", "/var/run/cdi", "/etc/buildkit/cdi"].map(PathBuf::from);
    assert_eq!(config.cdi.dirs, usual);
    let file = "[cdi]\nspecDirs = ['/a']\nautoAllowed = ['v.com/c', 'v.com/d=e']";
    let config = resolve(file, "").unwrap();
    assert_eq!(config.cdi.dirs, [PathBuf::from("/a")]);
    assert!(config.cdi.auto_allowed.contains("v.com/d=e"));
    let config = resolve(file, "--cdi-spec-dir /b --cdi-spec-dir /c").unwrap();
    assert_eq!(config.cdi.dirs, ["/b", "/c"].map(PathBuf::from));
    for (toml, line) in [("[cdi]\ndisabled = true", ""), (file, "--cdi-disabled")] {
        assert_eq!(resolve(toml, line).unwrap().cdi.dirs, Vec::<PathBuf>::new());
    }
    let config = resolve("insecure-entitlements = ['device', 'device=v.com/c']", "").unwrap();
    assert_eq!(config.entitlements, ["device", "device=v.com/c"]);
}

/// Rows: D06, D15, X10
#[test]
fn an_apparmor_profile_can_be_set() {
    let file = "[worker.oci]\napparmor-profile = 'a'";
    assert_eq!(resolve(file, "").unwrap().apparmor.as_deref(), Some("a"));
    let config = resolve(file, "--oci-worker-apparmor-profile b").unwrap();
    assert_eq!(config.apparmor.as_deref(), Some("b"));
}

/// Rows: D16, D07
#[test]
fn flags_of_the_worker_kiln_does_not_have_are_answered() {
    for flag in [
        "--containerd-worker-addr /run/c.sock",
        "--containerd-worker-labels a=b",
        "--containerd-worker-platform linux/arm64",
        "--containerd-worker-namespace n",
        "--containerd-worker-runtime r",
        "--containerd-worker-snapshotter s",
        "--containerd-worker-net host",
        "--containerd-worker-apparmor-profile p",
        "--containerd-worker-selinux",
        "--containerd-worker-rootless",
        "--containerd-worker-gc=false",
        "--containerd-worker-gc-keepstorage 5",
        "--containerd-cni-config-path p",
        "--containerd-cni-binary-dir p",
        "--containerd-cni-pool-size 5",
        "--containerd-max-parallelism 5",
    ] {
        let error = resolve("", flag).unwrap_err().to_string();
        assert!(
            error.contains("the containerd worker, which flags set up here"),
            "{flag}"
        );
        // Switched off, it is set up to no effect in BuildKit as well.
        resolve("", &format!("--containerd-worker=false {flag}")).unwrap();
    }
}

/// Rows: D03
#[test]
fn only_a_file_that_was_named_must_be_there() {
    let error = Config::load(
        &flags("--config /nonexistent.toml"),
        Name::Buildkitd,
        &root_user(),
    )
    .unwrap_err();
    assert_eq!(error.kind(), stdx::Kind::NotFound);
    let nowhere = Surroundings {
        uid: 1,
        config_home: Some("/nonexistent".into()),
        ..Surroundings::default()
    };
    Config::load(&Flags::default(), Name::Kiln, &nowhere).unwrap();
}

/// Rows: D37
#[test]
fn the_environment_asks_for_what_the_solver_decides_and_for_room_in_cgroups() {
    let plain = resolve("", "").unwrap();
    assert_eq!(
        (plain.log_level.as_str(), plain.free_cgroup_top),
        ("info", false)
    );
    let surroundings = Surroundings {
        scheduler_debug: true,
        free_cgroup_top: true,
        ..root_user()
    };
    let asked = |line: &str| {
        Config::resolve(
            File::default(),
            &flags(line),
            Name::Buildkitd,
            &surroundings,
        )
        .unwrap()
    };
    assert_eq!(asked("").log_level, "info,solver=debug");
    assert_eq!(asked("--log-level warn").log_level, "warn,solver=debug");
    assert!(asked("").free_cgroup_top);
}
