//! Networks of steps: a bridge made by real CNI plugins, and none.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::harness::{BaseImage, Daemon, Peers, Place};

/// The folder of real CNI plugins, and a folder with the `iptables` they call.
fn plugins(place: &Place) -> Option<(PathBuf, PathBuf)> {
    let peers = Peers::get()?;
    let dir = peers.folder().join("usr/lib/cni");
    if !dir.join("bridge").exists() {
        return None;
    }
    let script = format!(
        "#!/bin/sh\nexec chroot {} iptables \"$@\"\n",
        peers.folder().display()
    );
    for name in ["iptables", "ip6tables"] {
        let path = place.write(&format!("bin/{name}"), script.replace("iptables", name));
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(path, mode).expect("it is ours");
    }
    Some((dir, place.path("bin")))
}

fn links() -> Vec<String> {
    let entries = std::fs::read_dir("/sys/class/net")
        .expect("interfaces")
        .flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("kt"))
        .collect();
    names.sort();
    names
}

/// The rules of this machine's firewall for addresses of our bridge.
fn rules(path: &Path) -> Vec<String> {
    let ran = Command::new(path.join("iptables"))
        .args(["-t", "nat", "-S"])
        .output();
    let said = String::from_utf8_lossy(&ran.expect("it runs").stdout).into_owned();
    let ours = said.lines().filter(|rule| rule.contains("10.214.0."));
    ours.map(str::to_owned).collect()
}

/// Steps are on a bridge of our own: they reach this machine at its gateway, have a pool of
/// namespaces, and nothing of it stays, also not of a daemon that was killed.
///
/// Rows: X07, D06, D18
#[test]
fn steps_are_on_our_own_bridge_and_it_goes_with_the_daemon() {
    let place = Place::new();
    let Some((plugins, path)) = plugins(&place) else {
        return;
    };
    let base = BaseImage::name();
    let bridge = format!("kt{}", std::process::id() % 100_000);
    let settings = format!(
        "[worker.oci]\nnetworkMode = 'bridge'\nbridgeName = '{bridge}'\n\
         bridgeSubnet = '10.214.0.0/24'\ncniPoolSize = 2\ncniBinaryPath = {plugins:?}\n"
    );
    let search = std::env::var("PATH").unwrap_or_default();
    let search = format!("{}:{search}", path.display());
    let variables = [("PATH", search.as_str())];
    let before = rules(&path);
    let daemon = Daemon::start_with(&place, &settings, &variables);
    assert_eq!(links(), [""; 0], "not before a step needs it");
    place.context(&format!(
        "FROM {base}\nRUN ip -o -4 addr show eth0; ip -o link | wc -l; grep outside /etc/hosts\n\
         RUN --network=none ip -o link | wc -l | sed 's/^/alone:/'\n"
    ));
    let build = daemon.build(&["--add-host", "outside=host-gateway"]).ok();
    build.says(&["inet 10.214.0.", "10.214.0.1\toutside", "alone:1"]);
    assert_eq!(links(), [bridge.as_str()]);
    let listener = TcpListener::bind("10.214.0.1:0").expect("the gateway is this machine");
    let port = listener.local_addr().expect("it listens").port();
    let greeting = std::thread::spawn(move || {
        let (mut connection, _) = listener.accept().expect("the step");
        std::io::Write::write_all(&mut connection, b"met").expect("it listens");
    });
    place.context(&format!(
        "FROM {base}\nRUN nc outside {port} < /dev/null | sed 's/^/we /'\n"
    ));
    let build = daemon.build(&["--add-host", "outside=host-gateway"]).ok();
    build.says(&["we met"]);
    greeting.join().expect("it met the step");
    daemon.stop();
    assert_eq!(links(), [""; 0], "our bridge goes with us");
    let no_rules_stay = || {
        let after = rules(&path);
        let left: Vec<&String> = after.iter().filter(|rule| !before.contains(rule)).collect();
        assert!(left.is_empty(), "rules of containers go: {left:?}");
    };
    no_rules_stay();

    place.context(&format!("FROM {base}\nRUN echo again; sleep 30\n"));
    // Whatever the plugins are about when it is killed.
    for moment in [0, 15, 30, 60, 120] {
        let daemon = Daemon::start_with(&place, &settings, &variables);
        let mut build = daemon.start_build(&[]);
        build.wait_for("again");
        std::thread::sleep(Duration::from_millis(moment));
        daemon.kill();
        build.wait();
        let daemon = Daemon::start_with(&place, &settings, &variables);
        let begun = Instant::now();
        while links() != [""; 0] {
            let left = links();
            assert!(
                begun.elapsed().as_secs() < 20,
                "the next start removes it: {left:?}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        daemon.stop();
        no_rules_stay();
    }
    place.assert_nothing_left();
}
