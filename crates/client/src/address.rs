//! Where a daemon listens.

use std::path::PathBuf;

use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use crate::{Error, Result};

/// Where a daemon listens (features A18).
#[derive(Clone, Debug, PartialEq)]
pub enum Address {
    /// A socket file.
    Unix(PathBuf),
    /// `host:port`, with or without TLS.
    Tcp {
        /// `host:port`
        authority: String,
        /// Certificates; `None` is plain text.
        tls: Option<Tls>,
    },
    /// A program that speaks for the daemon on its standard streams.
    Command(Vec<String>),
}

/// Certificates, PEM.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// The name the daemon's certificate has to have, if not the host's.
    pub server_name: Option<String>,
    /// Who vouches for the daemon.
    pub ca: Option<Vec<u8>>,
    /// Who we are: certificate and key.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls")
            .field("server_name", &self.server_name)
            .finish_non_exhaustive()
    }
}

impl Tls {
    pub(crate) fn config(&self) -> ClientTlsConfig {
        let mut config = ClientTlsConfig::new();
        if let Some(name) = &self.server_name {
            config = config.domain_name(name);
        }
        if let Some(ca) = &self.ca {
            config = config.ca_certificate(Certificate::from_pem(ca));
        }
        if let Some((certificate, key)) = &self.identity {
            config = config.identity(Identity::from_pem(certificate, key));
        }
        config
    }
}

impl Address {
    /// Reads `unix://PATH`, `tcp://HOST:PORT`, `ssh://[USER@]HOST[:PORT]`,
    /// `docker-container://NAME`, `podman-container://NAME`, `nerdctl-container://NAME`
    /// or `kube-pod://POD`.
    pub fn parse(text: &str) -> Result<Address> {
        let bad = |reason| Error::Address {
            address: text.to_owned(),
            reason,
        };
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| bad("it begins with no scheme"))?;
        if rest.is_empty() || rest.starts_with('-') {
            return Err(bad("nothing follows the scheme"));
        }
        let (host, query) = rest.split_once('?').unwrap_or((rest, ""));
        let within = |program: &str| {
            let mut words = vec![program.to_owned()];
            words.extend(["exec", "-i", host, "buildctl", "dial-stdio"].map(str::to_owned));
            Address::Command(words)
        };
        match scheme {
            "unix" => Ok(Address::Unix(PathBuf::from(rest))),
            "tcp" => match host.rsplit_once(':') {
                Some((_, port)) if port.parse::<u16>().is_ok() => Ok(Address::Tcp {
                    authority: host.to_owned(),
                    tls: None,
                }),
                _ => Err(bad("a port has to follow the host")),
            },
            "docker-container" => Ok(within("docker")),
            "podman-container" => Ok(within("podman")),
            "nerdctl-container" => Ok(within("nerdctl")),
            "kube-pod" => Ok(kube_pod(host, query)),
            "ssh" => Ok(ssh(host)),
            _ => Err(bad("the scheme is not one we know")),
        }
    }

    /// The same with certificates; only TCP has them.
    pub fn with_tls(self, with: Tls) -> Address {
        match self {
            Address::Tcp { authority, .. } => Address::Tcp {
                authority,
                tls: Some(with),
            },
            other => other,
        }
    }
}

fn kube_pod(pod: &str, query: &str) -> Address {
    let mut words = vec!["kubectl".to_owned()];
    let mut container = None;
    for pair in query.split('&') {
        match pair.split_once('=') {
            Some(("context", value)) => words.push(format!("--context={value}")),
            Some(("namespace", value)) => words.push(format!("--namespace={value}")),
            Some(("container", value)) => container = Some(value),
            _ => {}
        }
    }
    words.extend(["exec", "-i"].map(str::to_owned));
    words.extend(container.map(|name| format!("--container={name}")));
    words.extend([pod, "--", "buildctl", "dial-stdio"].map(str::to_owned));
    Address::Command(words)
}

fn ssh(host: &str) -> Address {
    let (host, socket) = match host.split_once('/') {
        Some((host, socket)) if !socket.is_empty() => (host, Some(format!("unix:///{socket}"))),
        Some((host, _)) => (host, None),
        None => (host, None),
    };
    let mut words = vec!["ssh".to_owned()];
    let host = match host.rsplit_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() => {
            words.extend(["-p".to_owned(), port.to_owned()]);
            name
        }
        _ => host,
    };
    words.extend(["--".to_owned(), host.to_owned(), "buildctl".to_owned()]);
    if let Some(socket) = socket {
        words.extend(["--addr".to_owned(), socket]);
    }
    words.push("dial-stdio".to_owned());
    Address::Command(words)
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Address::Unix(path) => write!(f, "unix://{}", path.display()),
            Address::Tcp { authority, .. } => write!(f, "tcp://{authority}"),
            Address::Command(words) => write!(f, "`{}`", words.join(" ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows: A18
    #[test]
    fn addresses_are_read() {
        let command = |text: &str| match Address::parse(text).unwrap() {
            Address::Command(words) => words.join(" "),
            other => panic!("{other:?}"),
        };
        assert_eq!(
            Address::parse("unix:///a/b").unwrap(),
            Address::Unix("/a/b".into())
        );
        assert!(matches!(
            Address::parse("tcp://h:1").unwrap(),
            Address::Tcp { tls: None, .. }
        ));
        assert_eq!(
            command("docker-container://b0"),
            "docker exec -i b0 buildctl dial-stdio"
        );
        assert_eq!(
            command("ssh://me@box:22"),
            "ssh -p 22 -- me@box buildctl dial-stdio"
        );
        assert_eq!(
            command("ssh://box/run/b.sock"),
            "ssh -- box buildctl --addr unix:///run/b.sock dial-stdio"
        );
        assert_eq!(
            command("kube-pod://p?namespace=n&container=c"),
            "kubectl --namespace=n exec -i --container=c p -- buildctl dial-stdio"
        );
        for bad in [
            "",
            "x",
            "unix://",
            "tcp://host",
            "gopher://x:1",
            "ssh://-oProxyCommand=x",
        ] {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
    }
}
