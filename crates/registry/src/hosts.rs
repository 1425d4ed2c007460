//! What is configured about registry hosts: rows D09, D13, P32.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::error::{Error, Result};

/// Everything configured about registries.
#[derive(Clone, Debug)]
pub struct Hosts {
    /// `[registry."host"]`, by host name with its port.
    pub by_name: BTreeMap<String, HostConfig>,
    /// How many transfers one host gets at the same time (`maxRegistryConcurrency`).
    pub max_concurrency: usize,
    /// Waits between attempts.
    pub retry_delays: Vec<Duration>,
    /// How long a connection may stay silent before we give it up.
    pub stall: Duration,
}

impl Default for Hosts {
    fn default() -> Hosts {
        Hosts {
            by_name: BTreeMap::new(),
            max_concurrency: 4,
            retry_delays: [1, 2, 4].map(Duration::from_secs).to_vec(),
            stall: Duration::from_secs(60),
        }
    }
}

/// One table `[registry."host"]` of the configuration file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostConfig {
    /// Hosts asked first when pulling and resolving; each may carry a path.
    #[serde(default)]
    pub mirrors: Vec<String>,
    /// Speak plain HTTP. Unset means: only with this machine itself.
    #[serde(default)]
    pub http: Option<bool>,
    /// Accept any certificate, and plain HTTP when TLS fails.
    #[serde(default)]
    pub insecure: Option<bool>,
    /// PEM files of certificate authorities to trust besides the system's.
    #[serde(default)]
    pub ca: Vec<PathBuf>,
    /// The certificate to show.
    #[serde(default)]
    pub keypair: Vec<KeyPair>,
    /// Folders with `*.crt` (authorities) and `*.cert` beside `*.key` (ours).
    #[serde(default)]
    pub tlsconfigdir: Vec<PathBuf>,
}

/// A certificate of ours and its key, PEM files.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyPair {
    /// The private key.
    pub key: PathBuf,
    /// The certificate chain.
    pub cert: PathBuf,
}

impl Hosts {
    /// The configuration of `host`, with `http` and `insecure` as an image
    /// name's own option (`registry.insecure=true`) may set them.
    pub(crate) fn config(&self, host: &str, insecure: bool) -> HostConfig {
        let mut config = self.by_name.get(host).cloned().unwrap_or_default();
        if insecure {
            config.insecure = Some(true);
        }
        config
    }
}

/// One place a repository may be reached at: scheme, host and path prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Host with port, as it goes into URLs.
    pub host: String,
    /// `/v2` and what a mirror adds to it.
    pub prefix: String,
    /// The schemes to try, in order.
    pub schemes: Vec<&'static str>,
    /// Whether certificates are looked at.
    pub verify: bool,
    /// Whether this stands in for another host.
    pub mirror: bool,
}

/// The places to try for `registry`, mirrors first when pulling.
pub(crate) fn places(hosts: &Hosts, registry: &str, insecure: bool, mirrors: bool) -> Vec<Place> {
    let own = hosts.config(registry, insecure);
    let mut places = Vec::new();
    if mirrors {
        for mirror in &own.mirrors {
            let bare = mirror.trim_end_matches('/');
            let bare = bare
                .strip_prefix("https://")
                .or_else(|| bare.strip_prefix("http://"))
                .unwrap_or(bare);
            let (host, path) = bare.split_once('/').unwrap_or((bare, ""));
            let mut config = hosts.config(host, false);
            if mirror.starts_with("http://") && config.http.is_none() {
                config.http = Some(true);
            }
            places.push(place(
                host,
                path.strip_prefix("v2/").unwrap_or(path),
                &config,
                true,
            ));
        }
    }
    places.push(place(endpoint(registry), "", &own, false));
    places
}

fn place(host: &str, path: &str, config: &HostConfig, mirror: bool) -> Place {
    let insecure = config.insecure == Some(true);
    let schemes = match config.http {
        Some(true) => vec!["http"],
        Some(false) => vec!["https"],
        None if insecure || is_loopback(host) => vec!["https", "http"],
        None => vec!["https"],
    };
    let prefix = if path.is_empty() {
        "/v2".to_owned()
    } else {
        format!("/v2/{path}")
    };
    Place {
        host: host.to_owned(),
        prefix,
        schemes,
        verify: !insecure,
        mirror,
    }
}

/// The host that serves a registry's images: Docker Hub's has another name.
pub(crate) fn endpoint(registry: &str) -> &str {
    match registry {
        "docker.io" | "index.docker.io" => "registry-1.docker.io",
        other => other,
    }
}

/// Whether `host` (with or without port) is this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(""),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name == "localhost"
        || name
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

/// PEM files read for one host.
#[derive(Default)]
pub(crate) struct TlsFiles {
    /// Authorities to trust besides the system's.
    pub ca: Vec<Vec<u8>>,
    /// Our certificate chain and key in one PEM.
    pub identity: Option<Vec<u8>>,
}

impl TlsFiles {
    /// Reads what `config` names. Blocking.
    pub(crate) fn read(host: &str, config: &HostConfig) -> Result<TlsFiles> {
        let mut ca = config.ca.clone();
        let mut pairs = config.keypair.clone();
        for dir in &config.tlsconfigdir {
            look_into(host, dir, &mut ca, &mut pairs)?;
        }
        if pairs.len() > 1 {
            let reason = format!(
                "{} client certificates are named, one can be shown",
                pairs.len()
            );
            return Err(Error::Config {
                host: host.into(),
                reason,
            });
        }
        let read = |path: &Path| {
            std::fs::read(path).map_err(|error| Error::Config {
                host: host.into(),
                reason: format!("{}: {error}", path.display()),
            })
        };
        let identity = match pairs.first() {
            None => None,
            Some(pair) => {
                let mut pem = read(&pair.cert)?;
                pem.push(b'\n');
                pem.extend(read(&pair.key)?);
                Some(pem)
            }
        };
        Ok(TlsFiles {
            ca: ca.iter().map(|path| read(path)).collect::<Result<_>>()?,
            identity,
        })
    }
}

fn look_into(
    host: &str,
    dir: &Path,
    ca: &mut Vec<PathBuf>,
    pairs: &mut Vec<KeyPair>,
) -> Result<()> {
    let failed = |error: std::io::Error| Error::Config {
        host: host.into(),
        reason: format!("tlsconfigdir {}: {error}", dir.display()),
    };
    let mut names = match std::fs::read_dir(dir) {
        Ok(entries) => entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<std::io::Result<Vec<_>>>()
            .map_err(failed)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    names.sort();
    for path in names {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => ca.push(path),
            Some("cert") => pairs.push(KeyPair {
                key: path.with_extension("key"),
                cert: path,
            }),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(hosts: &Hosts, registry: &str, insecure: bool, mirrors: bool) -> Vec<String> {
        places(hosts, registry, insecure, mirrors)
            .into_iter()
            .map(|p| {
                format!(
                    "{} {}{}{}",
                    p.schemes.join("+"),
                    p.host,
                    p.prefix,
                    if p.verify { "" } else { " any" }
                )
            })
            .collect()
    }

    /// Rows: D09, S10, P32
    #[test]
    fn mirrors_come_first_with_their_path_and_only_when_pulling() {
        let mut hosts = Hosts::default();
        let mirrors = vec![
            "mirror.example/hub".into(),
            "http://plain.example:5000".into(),
        ];
        hosts.by_name.insert(
            "docker.io".into(),
            HostConfig {
                mirrors,
                ..HostConfig::default()
            },
        );
        hosts.by_name.insert(
            "lab:5000".into(),
            HostConfig {
                http: Some(true),
                ..HostConfig::default()
            },
        );
        assert_eq!(
            shown(&hosts, "docker.io", false, true),
            [
                "https mirror.example/v2/hub",
                "http plain.example:5000/v2",
                "https registry-1.docker.io/v2"
            ]
        );
        assert_eq!(
            shown(&hosts, "docker.io", false, false),
            ["https registry-1.docker.io/v2"]
        );
        assert_eq!(shown(&hosts, "lab:5000", false, true), ["http lab:5000/v2"]);
        assert_eq!(
            shown(&hosts, "localhost:5000", false, true),
            ["https+http localhost:5000/v2"]
        );
        assert_eq!(
            shown(&hosts, "[::1]:5000", false, true),
            ["https+http [::1]:5000/v2"]
        );
        assert_eq!(
            shown(&hosts, "r.example", true, true),
            ["https+http r.example/v2 any"]
        );
    }

    /// Rows: D09
    #[test]
    fn a_folder_of_certificates_is_read_by_its_endings() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["ca.crt", "me.cert", "me.key", "readme.txt"] {
            std::fs::write(dir.path().join(name), name).unwrap();
        }
        let config = HostConfig {
            tlsconfigdir: vec![dir.path().into(), "/nowhere".into()],
            ..HostConfig::default()
        };
        let files = TlsFiles::read("r.example", &config).unwrap();
        assert_eq!(files.ca, [b"ca.crt"]);
        assert_eq!(files.identity.unwrap(), b"me.cert\nme.key");
    }
}
