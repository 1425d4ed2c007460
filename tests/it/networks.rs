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

/// A bridge of this run, with addresses of its own. It goes with us, even if the test fails.
struct Bridge {
    name: String,
    /// The first three numbers of its addresses.
    net: String,
}

impl Bridge {
    fn new() -> Bridge {
        let pid = std::process::id();
        let name = format!("kt{}", pid % 100_000);
        // 10.192.0.0 and what follows: 16,384 networks for as many processes.
        let net = format!("10.{}.{}", 192 + pid / 256 % 64, pid % 256);
        Bridge { name, net }
    }

    fn is_there(&self) -> bool {
        Path::new("/sys/class/net").join(&self.name).exists()
    }

    /// The rules of this machine's firewall for its addresses.
    fn rules(&self, path: &Path) -> Vec<String> {
        let ran = Command::new(path.join("iptables"))
            .args(["-t", "nat", "-S"])
            .output();
        let said = String::from_utf8_lossy(&ran.expect("it runs").stdout).into_owned();
        let net = format!("{}.", self.net);
        let ours = said.lines().filter(|rule| rule.contains(&net));
        ours.map(str::to_owned).collect()
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        if self.is_there() {
            let delete = ["link", "delete", &self.name];
            // The test has failed already if it cannot be removed.
            let _ = Command::new("ip").args(delete).status();
        }
    }
}

/// Steps are on a bridge of our own: they reach this machine at its gateway, have a pool of
/// namespaces, and nothing of it stays, also not of a daemon that was killed.
///
/// Rows: X07, X08, D06, D18
#[test]
fn steps_are_on_our_own_bridge_and_it_goes_with_the_daemon() {
    let place = Place::new();
    let Some((plugins, path)) = plugins(&place) else {
        return;
    };
    let base = BaseImage::name();
    let bridge = Bridge::new();
    let (name, net) = (&bridge.name, &bridge.net);
    let settings = format!(
        "[worker.oci]\nnetworkMode = 'bridge'\nbridgeName = '{name}'\n\
         bridgeSubnet = '{net}.0/24'\ncniPoolSize = 2\ncniBinaryPath = {plugins:?}\n"
    );
    let search = std::env::var("PATH").unwrap_or_default();
    let search = format!("{}:{search}", path.display());
    let variables = [("PATH", search.as_str())];
    let before = bridge.rules(&path);
    let daemon = Daemon::start_with(&place, &settings, &variables);
    assert!(!bridge.is_there(), "not before a step needs it");
    place.context(&format!(
        "FROM {base}\nRUN ip -o -4 addr show eth0; ip -o link | wc -l; grep outside /etc/hosts\n\
         RUN --network=none ip -o link | wc -l | sed 's/^/alone:/'\n"
    ));
    let build = daemon.build(&["--add-host", "outside=host-gateway"]).ok();
    let (address, gateway) = (format!("inet {net}."), format!("{net}.1"));
    build.says(&[&address, &format!("{gateway}\toutside"), "alone:1"]);
    assert!(bridge.is_there());
    let listener = TcpListener::bind((&*gateway, 0)).expect("the gateway is this machine");
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
    through_the_proxy(&place, &daemon, &gateway);
    daemon.stop();
    assert!(!bridge.is_there(), "our bridge goes with us");
    let no_rules_stay = || {
        let after = bridge.rules(&path);
        let left: Vec<&String> = after.iter().filter(|rule| !before.contains(rule)).collect();
        assert!(left.is_empty(), "rules of containers go: {left:?}");
    };
    no_rules_stay();

    place.context(&format!("FROM {base}\nRUN echo again; sleep 30\n"));
    // Whatever the plugins are about when it is killed.
    for moment in [0, 15, 30, 60, 120] {
        let daemon = Daemon::start_with(&place, &settings, &variables);
        let mut build = daemon.start_build(&[]);
        build.wait_for_output("again");
        std::thread::sleep(Duration::from_millis(moment));
        daemon.kill();
        build.wait();
        let daemon = Daemon::start_with(&place, &settings, &variables);
        let begun = Instant::now();
        while bridge.is_there() {
            assert!(begun.elapsed().as_secs() < 20, "the next start removes it");
            std::thread::sleep(Duration::from_millis(20));
        }
        daemon.stop();
        no_rules_stay();
    }
    place.assert_nothing_left();
}

/// The proxy of a step reaches out from the bridge: this machine is where the gateway is, and its
/// loopback is out of reach.
fn through_the_proxy(place: &Place, daemon: &Daemon<'_>, gateway: &str) {
    let answering = |address: &str| {
        let listener = TcpListener::bind((address, 0)).expect("it is this machine");
        let port = listener.local_addr().expect("it listens").port();
        std::thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                let mut asked = [0; 4096];
                let _ = std::io::Read::read(&mut client, &mut asked);
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nmet";
                let _ = std::io::Write::write_all(&mut client, answer);
            }
        });
        port
    };
    let (near, hidden) = (answering(gateway), answering("127.0.0.1"));
    place.context(&format!(
        "FROM {}\nRUN ip -o link | wc -l | sed 's/^/links:/'; \
         wget -q -O - http://outside:{near}/ | sed 's/^/we /'; \
         wget -q -O - http://127.0.0.1:{hidden}/ || echo not there\n",
        BaseImage::name()
    ));
    let build = daemon
        .build(&["--proxy-network", "--add-host", "outside=host-gateway"])
        .ok();
    build.says(&[
        "links:1",
        "we met",
        "not there",
        &format!("- GET http://127.0.0.1:{hidden}/ -> 502"),
    ]);
}
