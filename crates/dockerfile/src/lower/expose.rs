//! `EXPOSE`.

use super::Lowering;
use crate::Error;
use crate::image::Empty;
use crate::lint::Rule;
use crate::syntax::Lines;

impl Lowering<'_> {
    pub(super) fn expose(
        &mut self,
        index: usize,
        ports: &[String],
        lines: Lines,
    ) -> Result<(), Error> {
        let mut shown = Vec::new();
        for word in ports {
            let env = &self.stages[index].state.env;
            let expanded = self.expand_with(word, env)?;
            self.expand(index, word, lines)?;
            for port in expanded.words {
                self.check_port(&port, lines);
                shown.extend(expand_port(&port)?);
            }
        }
        let exposed = &mut self.stages[index].image.config.exposed_ports;
        exposed.extend(shown.iter().map(|port| (port.clone(), Empty {})));
        self.commit(index, format!("EXPOSE [{}]", shown.join(" ")), false);
        Ok(())
    }

    fn check_port(&mut self, port: &str, lines: Lines) {
        let (numbers, protocol) = port.split_once('/').unwrap_or((port, ""));
        if protocol.to_lowercase() != protocol {
            let message =
                format!("Defined protocol '{port}' in EXPOSE instruction should be lowercase");
            self.linter.warn(Rule::ExposeProtoCasing, lines, message);
        }
        if numbers.contains(':') {
            let message = format!(
                "EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'"
            );
            self.linter.warn(Rule::ExposeInvalidFormat, lines, message);
        }
    }
}

/// `8000-8002/udp` as single ports. An address and a host's port in front mean nothing.
fn expand_port(text: &str) -> Result<Vec<String>, Error> {
    let bad = |reason| Error::BadPort {
        port: text.to_owned(),
        reason,
    };
    let (numbers, protocol) = text.split_once('/').unwrap_or((text, ""));
    let protocol = match protocol.to_lowercase() {
        p if p.is_empty() => "tcp".to_owned(),
        p if ["tcp", "udp", "sctp"].contains(&p.as_str()) => p,
        _ => return Err(bad("the protocol is neither tcp, udp nor sctp")),
    };
    let mut parts = numbers.rsplitn(3, ':');
    let range = port_range(parts.next().unwrap_or_default());
    let (first, last) = range.ok_or_else(|| bad("it is no port and no range of ports"))?;
    if let Some(host) = parts.next().filter(|host| !host.is_empty()) {
        let (host_first, host_last) =
            port_range(host).ok_or_else(|| bad("the host's port is none"))?;
        if first != last && host_last - host_first != last - first {
            return Err(bad("the ranges of host and container differ in length"));
        }
    }
    if let Some(address) = parts.next().filter(|address| !address.is_empty()) {
        let address = address.trim_start_matches('[').trim_end_matches(']');
        if address.parse::<std::net::IpAddr>().is_err() {
            return Err(bad("the address is none"));
        }
    }
    Ok((first..=last)
        .map(|port| format!("{port}/{protocol}"))
        .collect())
}

fn port_range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    if !digits(first) || !digits(last) {
        return None;
    }
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows: F27
    #[test]
    fn ports_are_read() {
        assert_eq!(expand_port("80").unwrap(), ["80/tcp"]);
        assert_eq!(expand_port("1-3/UDP").unwrap(), ["1/udp", "2/udp", "3/udp"]);
        assert_eq!(expand_port("127.0.0.1:8080:80/tcp").unwrap(), ["80/tcp"]);
        assert_eq!(expand_port("[::1]:8080:80").unwrap(), ["80/tcp"]);
        assert_eq!(expand_port("0-65535").unwrap().len(), 65_536);
        for bad in [
            "",
            "80/",
            "a",
            "+1",
            "3-1",
            "70000",
            "80/xyz",
            "1.2.3:1:1",
            "1-2:1-3",
        ] {
            assert!(expand_port(bad).is_err() || bad == "80/", "{bad}");
        }
    }
}
