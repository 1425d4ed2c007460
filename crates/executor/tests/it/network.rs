//! Networks that CNI plugins make: what plugins are told, what containers reach, and what
//! stays afterwards.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use executor::testing::{self, Rootfs, run, succeeds};
use executor::{
    CniNetwork, CniOptions, Executor, HostIp, Native, NativeOptions, Network, SandboxNetwork,
};
use serde_json::{Value, json};

/// A plugin that writes down what it is told, and answers with an address.
const RECORDER: &str = r#"#!/bin/sh
config=$(cat)
{ echo "$CNI_COMMAND ${0##*/} $CNI_CONTAINERID $CNI_IFNAME ns=${CNI_NETNS:+given} args=$CNI_ARGS"
  echo "$config"; } >> "${0%/*}/log"
[ -e "${0%/*}/fail-$CNI_COMMAND" ] && { echo '{"code": 7, "msg": "no luck", "details": "today"}'; exit 1; }
echo '{"cniVersion": "1.0.0", "ips": [{"address": "10.99.0.7/16", "gateway": "10.99.0.1"}]}'
"#;

struct Plugins(tempfile::TempDir);

impl Plugins {
    fn new() -> Plugins {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        for name in ["first", "second"] {
            let path = dir.path().join(name);
            std::fs::write(&path, RECORDER).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        }
        let list = r#"{"cniVersion": "1.0.0", "name": "test",
            "plugins": [{"type": "first", "colour": "red"}, {"type": "second"}]}"#;
        std::fs::write(dir.path().join("net.conflist"), list).unwrap();
        Plugins(dir)
    }

    fn options(&self, pool: usize) -> CniOptions {
        CniOptions {
            network: CniNetwork::File(self.0.path().join("net.conflist")),
            plugins: self.0.path().to_owned(),
            pool,
            state: self.0.path().join("state"),
            init_lock: None,
        }
    }

    /// The calls so far: the line and the configuration.
    fn calls(&self) -> Vec<(String, Value)> {
        let text = std::fs::read_to_string(self.0.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let calls = lines.chunks(2);
        calls
            .map(|call| (call[0].to_string(), serde_json::from_str(call[1]).unwrap()))
            .collect()
    }

    /// How many calls there were of this kind so far.
    fn count(&self, what: &str) -> usize {
        let calls = self.calls();
        calls
            .iter()
            .filter(|(line, _)| line.starts_with(what))
            .count()
    }

    fn notes(&self) -> usize {
        std::fs::read_dir(self.0.path().join("state")).map_or(0, Iterator::count)
    }
}

async fn start(options: CniOptions) -> executor::Result<Native> {
    let options = NativeOptions {
        network: SandboxNetwork::Cni(options),
        ..NativeOptions::default()
    };
    Native::start(options).await
}

/// A name for the machine a container is on.
fn outside() -> Vec<HostIp> {
    let host = "outside".into();
    vec![HostIp { host, ip: None }]
}

/// Rows: X07
#[tokio::test(flavor = "multi_thread")]
async fn privileged_plugins_are_called_in_order_and_asked_to_undo_it() {
    if !testing::is_root() {
        return;
    }
    let plugins = Plugins::new();
    let native = start(plugins.options(0)).await.unwrap();
    // One namespace is made at the start, to see that it works, and undone at once.
    let rootfs = Rootfs::busybox();
    let mut process = rootfs.sh("ip -o link | wc -l; cat /etc/hosts");
    process.hostname = "box".into();
    process.extra_hosts = outside();
    let ran = run(&native, process).await.unwrap();
    assert!(
        ran.out.starts_with("1\n"),
        "a namespace of its own: {ran:?}"
    );
    assert!(ran.out.contains("10.99.0.1\toutside"), "{ran:?}");
    native.close().await;
    let calls = plugins.calls();
    let told: Vec<String> = calls
        .iter()
        .map(|(line, _)| line.split(' ').take(2).collect::<Vec<_>>().join(" "))
        .collect();
    let once = ["ADD first", "ADD second", "DEL second", "DEL first"];
    assert_eq!(told, [once, once].concat());
    let (line, config) = &calls[4];
    assert!(
        line.ends_with("eth0 ns=given args=K8S_POD_NAME=box;IgnoreUnknown=1"),
        "{line}"
    );
    assert_eq!(
        *config,
        json!({"type": "first", "colour": "red", "name": "test", "cniVersion": "1.0.0"})
    );
    let address = &calls[5].1["prevResult"]["ips"][0]["address"];
    assert_eq!(
        address, "10.99.0.7/16",
        "the second hears what the first made"
    );
    assert_eq!(
        calls[7].1["prevResult"]["ips"][0]["address"],
        "10.99.0.7/16"
    );
    assert_eq!(plugins.notes(), 0);
}

/// Rows: X07
#[tokio::test(flavor = "multi_thread")]
async fn privileged_namespaces_of_the_pool_are_used_again_and_undone_at_the_end() {
    if !testing::is_root() {
        return;
    }
    let plugins = Plugins::new();
    let native = start(plugins.options(2)).await.unwrap();
    let rootfs = Rootfs::busybox();
    while plugins.count("ADD first") < 2 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    for _ in 0..5 {
        succeeds(&native, rootfs.sh("true")).await;
    }
    assert_eq!(plugins.count("ADD first"), 2, "two were ready");
    let mut process = rootfs.sh("true");
    process.network = Network::None;
    succeeds(&native, process).await;
    let mut process = rootfs.sh("true");
    process.security = executor::Security::Insecure;
    succeeds(&native, process).await;
    assert_eq!(plugins.count("ADD first"), 2);
    succeeds(&native, rootfs.sh("true")).await;
    native.close().await;
    assert_eq!(plugins.count("ADD first"), plugins.count("DEL first"));
    assert_eq!(plugins.notes(), 0);
}

/// Rows: X07
#[tokio::test(flavor = "multi_thread")]
async fn privileged_a_plugin_that_fails_says_why_and_what_was_done_is_undone() {
    if !testing::is_root() {
        return;
    }
    let plugins = Plugins::new();
    std::fs::write(plugins.0.path().join("fail-ADD"), "").unwrap();
    let Err(error) = start(plugins.options(0)).await else {
        panic!("it must not start")
    };
    let text = error.to_string();
    assert!(text.contains("first (ADD): no luck: today"), "{text}");
    assert_eq!(plugins.count("DEL second"), 1);
    assert_eq!(plugins.notes(), 0);
}

/// What a killed executor did is undone by the next, without a namespace: that is gone.
/// Rows: X07
#[tokio::test(flavor = "multi_thread")]
async fn privileged_a_note_left_behind_is_undone_at_the_next_start() {
    if !testing::is_root() {
        return;
    }
    let plugins = Plugins::new();
    let options = plugins.options(0);
    std::fs::create_dir(&options.state).unwrap();
    // A plugin of the dead one that has not come to its end.
    let mut late = std::process::Command::new("sleep")
        .arg("0.5")
        .env("CNI_CONTAINERID", "kiln-instance-dead")
        .spawn()
        .unwrap();
    let note = json!({"hostname": "buildkitsandbox", "result": {"ips": []}}).to_string();
    std::fs::write(options.state.join("kiln-instance-dead.json"), note).unwrap();
    SandboxNetwork::Cni(options).sweep().await;
    let ended = late.try_wait().unwrap();
    assert!(ended.is_some_and(|status| status.success()), "{ended:?}");
    let lines: Vec<String> = plugins.calls().into_iter().map(|(line, _)| line).collect();
    assert_eq!(
        lines,
        [
            "DEL second kiln-instance-dead eth0 ns= args=",
            "DEL first kiln-instance-dead eth0 ns= args="
        ]
    );
    assert_eq!(plugins.notes(), 0);
}

/// The folder of real plugins, and `PATH` with what they call, if they are installed.
fn real_plugins() -> Option<PathBuf> {
    let peers = std::env::var_os("KILN_PEERS").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache/kiln-peers"));
    let peers = peers.or(home).unwrap_or_default().join("usr/lib/cni");
    let mut dirs = [peers, "/opt/cni/bin".into(), "/usr/lib/cni".into()].into_iter();
    let found = dirs.find(|dir| dir.join("bridge").exists() && dir.join("host-local").exists());
    if found.is_none() {
        testing::skip("no CNI plugins are installed");
    }
    found
}

/// The bridge of a configuration file is its owner's: gone when the test ends, even if it fails.
struct Gone(String);

impl Drop for Gone {
    fn drop(&mut self) {
        let delete = ["link", "delete", &self.0];
        // It has said why if it could not.
        let _ = std::process::Command::new("ip").args(delete).output();
    }
}

/// A container on a real bridge reaches the host and nothing of it stays.
/// Rows: X07, X16
#[tokio::test(flavor = "multi_thread")]
async fn privileged_a_real_bridge_carries_and_leaves_nothing() {
    if !testing::is_root() {
        return;
    }
    let Some(plugins) = real_plugins() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let pid = std::process::id();
    let bridge = format!("kt{pid}");
    let _gone = Gone(bridge.clone());
    // Addresses of this run: those of another one may be taken.
    let net = format!("10.{}.{}", 128 + pid / 256 % 64, pid % 256);
    let list = json!({
        "cniVersion": "1.0.0", "name": format!("kiln-test-{}", std::process::id()),
        "plugins": [{"type": "bridge", "bridge": bridge, "isDefaultGateway": true,
            "ipam": {"type": "host-local", "dataDir": dir.path().join("leases"),
                "ranges": [[{"subnet": format!("{net}.0/24")}]]}}],
    });
    let config = dir.path().join("net.conflist");
    std::fs::write(&config, list.to_string()).unwrap();
    let options = CniOptions {
        network: CniNetwork::File(config),
        plugins,
        pool: 1,
        state: dir.path().join("state"),
        init_lock: Some(dir.path().join("lock")),
    };
    let native = start(options).await.unwrap();
    let listener = TcpListener::bind(format!("{net}.1:0")).unwrap();
    let port = listener.local_addr().unwrap().port();
    let answering = std::thread::spawn(move || {
        let (mut connection, from) = listener.accept().unwrap();
        let mut asked = [0; 5];
        connection.read_exact(&mut asked).unwrap();
        connection.write_all(b"world").unwrap();
        (asked, from.ip().to_string())
    });
    let rootfs = Rootfs::busybox();
    let mut process = rootfs.sh(&format!("printf hello | nc outside {port}"));
    process.extra_hosts = outside();
    let recorder = executor::usage::Recorder::default();
    process.usage = Some(recorder.clone());
    let ran = run(&native, process).await.unwrap();
    assert_eq!(ran.out, "world", "{ran:?}");
    let used = recorder.samples().samples;
    let network = used.last().and_then(|last| last.net_stat.clone());
    let network = network.expect("a network of its own");
    assert!(
        network.rx_bytes > Some(5) && network.tx_packets > Some(1),
        "{network:?}"
    );
    let (asked, from) = answering.join().unwrap();
    assert_eq!(&asked, b"hello");
    assert!(from.starts_with(&format!("{net}.")), "{from}");
    native.close().await;
    let leases = std::fs::read_dir(
        dir.path()
            .join("leases")
            .join(list["name"].as_str().unwrap()),
    );
    let names = leases
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().into_string().unwrap());
    let addresses: Vec<String> = names.filter(|name| name.starts_with("10.")).collect();
    assert_eq!(addresses, [""; 0], "addresses are given back");
}
