//! The `/etc/hosts` and `/etc/resolv.conf` a container sees.

use std::fmt::Write;
use std::net::IpAddr;

use crate::process::{Dns, HostIp, Network};

/// `/etc/hosts`: this machine under its name, then what was asked for. `host` is how the
/// container reaches the machine it runs on.
pub(crate) fn hosts(hostname: &str, extra: &[HostIp], host: IpAddr) -> String {
    let mut text =
        format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for HostIp { host: name, ip } in extra {
        let _infallible = writeln!(text, "{}\t{name}", ip.unwrap_or(host));
    }
    text
}

/// Which of the host's files to start from: systemd-resolved keeps the real servers
/// elsewhere when `/etc/resolv.conf` names only itself.
pub(crate) fn host_resolv_conf() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let text = read("/etc/resolv.conf");
    if nameservers(&text) == ["127.0.0.53"] {
        let real = read("/run/systemd/resolve/resolv.conf");
        if !real.is_empty() {
            return real;
        }
    }
    text
}

/// `/etc/resolv.conf` from the host's, with the settings asked for. A container with a
/// network of its own cannot reach the host's loopback, so such servers are left out,
/// and public ones take their place when none remain.
pub(crate) fn resolv_conf(host: &str, dns: Option<&Dns>, network: Network) -> String {
    let mut text = host.to_string();
    if let Some(dns) = dns {
        text = with_settings(host, dns);
    }
    if network == Network::Host && !nameservers(&text).is_empty() {
        return text;
    }
    let kept: Vec<&str> = text
        .lines()
        .filter(|line| !is_loopback_server(line))
        .collect();
    let mut filtered = kept
        .iter()
        .fold(String::new(), |text, line| text + line + "\n");
    if nameservers(&filtered).is_empty() {
        filtered.push_str("nameserver 8.8.8.8\nnameserver 8.8.4.4\n");
    }
    filtered
}

fn with_settings(host: &str, dns: &Dns) -> String {
    let or_host = |asked: &[String], key: &str| -> Vec<String> {
        if asked.is_empty() {
            words(host, key)
        } else {
            asked.to_vec()
        }
    };
    let mut text = String::new();
    let search = or_host(&dns.search, "search");
    if !search.is_empty() && search != ["."] {
        let _infallible = writeln!(text, "search {}", search.join(" "));
    }
    for server in or_host(&dns.nameservers, "nameserver") {
        let _infallible = writeln!(text, "nameserver {server}");
    }
    let options = or_host(&dns.options, "options");
    if !options.is_empty() {
        let _infallible = writeln!(text, "options {}", options.join(" "));
    }
    text
}

fn nameservers(text: &str) -> Vec<String> {
    words(text, "nameserver")
}

fn words(text: &str, key: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix(key)?.strip_prefix([' ', '\t']))
        .flat_map(str::split_whitespace)
        .map(str::to_string)
        .collect()
}

fn is_loopback_server(line: &str) -> bool {
    words(line, "nameserver").iter().any(|server| {
        let address = server.split('%').next().unwrap_or(server);
        address
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows: X11
    #[test]
    fn hosts_has_the_name_and_the_extra_lines() {
        let extra = [("db", Some("10.0.0.2")), ("outside", None)].map(|(host, ip)| HostIp {
            host: host.into(),
            ip: ip.map(|ip| ip.parse().unwrap()),
        });
        assert_eq!(
            hosts("box", &extra, "10.1.0.1".parse().unwrap()),
            "127.0.0.1\tlocalhost box\n::1\tlocalhost ip6-localhost ip6-loopback\n\
             10.0.0.2\tdb\n10.1.0.1\toutside\n"
        );
    }

    /// Rows: X11
    #[test]
    fn loopback_servers_are_left_out_and_replaced() {
        let host = "nameserver 127.0.0.53\nnameserver ::1\nsearch lan\n";
        assert_eq!(
            resolv_conf(host, None, Network::Sandbox),
            "search lan\nnameserver 8.8.8.8\nnameserver 8.8.4.4\n"
        );
        assert_eq!(resolv_conf(host, None, Network::Host), host);
        assert_eq!(
            resolv_conf(
                "nameserver 10.1.1.1\nnameserver 127.0.0.1\n",
                None,
                Network::Sandbox
            ),
            "nameserver 10.1.1.1\n"
        );
        assert!(resolv_conf("", None, Network::Host).contains("8.8.8.8"));
    }

    /// Rows: X11
    #[test]
    fn settings_asked_for_win_over_the_host() {
        let dns = Dns {
            nameservers: vec!["9.9.9.9".into()],
            ..Dns::default()
        };
        let host = "nameserver 10.1.1.1\nsearch lan\noptions ndots:1\n";
        assert_eq!(
            resolv_conf(host, Some(&dns), Network::Sandbox),
            "search lan\nnameserver 9.9.9.9\noptions ndots:1\n"
        );
    }
}
