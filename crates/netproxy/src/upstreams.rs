//! How servers are reached: in the clear or by TLS that is checked against this machine's roots,
//! directly or through the proxies this machine's environment names.

use std::sync::Arc;
use std::time::Duration;

use executor::Outside;
use http::{HeaderValue, Uri};
use hyper_util::client::proxy::matcher::Matcher;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use url::{Host, Url};

/// So long a server may take to shake hands.
const PATIENCE: Duration = Duration::from_secs(30);
/// A proxy's answer to a `CONNECT` may be so long.
const MOST_ANSWER: usize = 16 << 10;

/// A connection of some kind.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection to a server, or to a proxy that asks it for us.
pub(crate) struct Reached {
    pub(crate) stream: Box<dyn Stream>,
    /// The proxy wants whole addresses, and perhaps a login.
    pub(crate) through: Option<Through>,
}

pub(crate) struct Through {
    pub(crate) login: Option<HeaderValue>,
}

/// How servers are reached.
pub struct Upstreams {
    proxies: Matcher,
    tls: OnceCell<Arc<ClientConfig>>,
}

impl Upstreams {
    /// As this machine and the environment of this process say. Roots are read when they are
    /// first needed.
    pub fn of_system() -> Upstreams {
        Upstreams {
            proxies: Matcher::from_env(),
            tls: OnceCell::new(),
        }
    }

    /// As said here.
    pub fn new(roots: RootCertStore, proxies: Matcher) -> Upstreams {
        Upstreams {
            proxies,
            tls: OnceCell::new_with(Some(config(roots))),
        }
    }

    /// A connection to the server of `url`, checked to be it.
    pub(crate) async fn reach(&self, outside: &Outside, url: &Url) -> Result<Reached, String> {
        let (host, port) = place(url).ok_or("the address has no host")?;
        let tls = url.scheme() == "https";
        let uri: Uri = url.as_str().parse().map_err(|_| "no such address")?;
        // What is near, and what only the container knows, no proxy elsewhere can reach.
        let near = is_near(&host) || outside.names(&host);
        let proxy = (!near).then(|| self.proxies.intercept(&uri)).flatten();
        let Some(proxy) = proxy else {
            let stream = open(outside, &host, port).await?;
            let stream = match tls {
                true => self.secure(stream, &host).await?,
                false => stream,
            };
            return Ok(Reached {
                stream,
                through: None,
            });
        };
        let stream = self.reach_proxy(outside, proxy.uri()).await?;
        let login = proxy.basic_auth().cloned();
        if !tls {
            return Ok(Reached {
                stream,
                through: Some(Through { login }),
            });
        }
        let stream = tunnel(stream, &host, port, login.as_ref()).await?;
        Ok(Reached {
            stream: self.secure(stream, &host).await?,
            through: None,
        })
    }

    async fn reach_proxy(&self, outside: &Outside, proxy: &Uri) -> Result<Box<dyn Stream>, String> {
        let host = proxy.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let failed = |why: String| format!("the proxy {host}: {why}");
        let stream = match proxy.scheme_str() {
            Some("http") => open(outside, host, proxy.port_u16().unwrap_or(80)).await,
            Some("https") => {
                let port = proxy.port_u16().unwrap_or(443);
                let stream = open(outside, host, port).await.map_err(failed)?;
                self.secure(stream, host).await
            }
            other => Err(format!(
                "proxies of the kind {} are not supported, only http and https",
                other.unwrap_or_default()
            )),
        };
        stream.map_err(failed)
    }

    async fn secure(&self, stream: Box<dyn Stream>, host: &str) -> Result<Box<dyn Stream>, String> {
        let config = self.tls.get_or_try_init(system_roots).await?.clone();
        let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
        let shaking = TlsConnector::from(config).connect(name, stream);
        match tokio::time::timeout(PATIENCE, shaking).await {
            Ok(Ok(stream)) => Ok(Box::new(stream)),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("TLS: it did not answer in time".into()),
        }
    }
}

/// Names and addresses of the machine itself.
fn is_near(host: &str) -> bool {
    let ip = host.parse::<std::net::IpAddr>();
    ip.is_ok_and(|ip| ip.is_loopback() || ip.is_unspecified())
        || host == "localhost"
        || host.ends_with(".localhost")
}

/// Host and port, as one connects to them.
pub(crate) fn place(url: &Url) -> Option<(String, u16)> {
    let host = match url.host()? {
        Host::Domain(name) => name.to_owned(),
        Host::Ipv4(address) => address.to_string(),
        Host::Ipv6(address) => address.to_string(),
    };
    Some((host, url.port_or_known_default()?))
}

async fn open(outside: &Outside, host: &str, port: u16) -> Result<Box<dyn Stream>, String> {
    let stream = outside.connect(host, port).await;
    let stream = stream.map_err(|error| error.to_string())?;
    // What it costs when it cannot be said is some speed.
    let _ = stream.set_nodelay(true);
    Ok(Box::new(stream))
}

/// Asks a proxy for a connection to the server.
async fn tunnel(
    mut stream: Box<dyn Stream>,
    host: &str,
    port: u16,
    login: Option<&HeaderValue>,
) -> Result<Box<dyn Stream>, String> {
    let bracketed = match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    };
    let mut request = format!("CONNECT {bracketed} HTTP/1.1\r\nHost: {bracketed}\r\n").into_bytes();
    if let Some(login) = login {
        request.extend_from_slice(b"Proxy-Authorization: ");
        request.extend_from_slice(login.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    let asking = async {
        stream.write_all(&request).await?;
        stream.flush().await?;
        let mut answer = Vec::new();
        // Byte by byte: what follows is the server's.
        while !answer.ends_with(b"\r\n\r\n") && answer.len() < MOST_ANSWER {
            answer.push(stream.read_u8().await?);
        }
        Ok::<_, std::io::Error>(answer)
    };
    let answer = match tokio::time::timeout(PATIENCE, asking).await {
        Ok(answer) => answer.map_err(|error| format!("the upstream proxy: {error}"))?,
        Err(_) => return Err("the upstream proxy did not answer in time".into()),
    };
    let line = String::from_utf8_lossy(&answer);
    let line = line.lines().next().unwrap_or_default();
    match line.split(' ').nth(1) {
        Some(status) if line.starts_with("HTTP/1.") && status.starts_with('2') => Ok(stream),
        _ => Err(format!(
            "the upstream proxy refuses: {}",
            line.escape_default()
        )),
    }
}

fn config(roots: RootCertStore) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring knows the default versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

async fn system_roots() -> Result<Arc<ClientConfig>, String> {
    stdx::task::blocking(|| {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        let (added, _) = roots.add_parsable_certificates(found.certs);
        if added == 0 {
            let why = found.errors.first().map(|error| format!(": {error}"));
            let why = why.unwrap_or_default();
            return Err(format!(
                "this machine has no certificates to check servers by{why}"
            ));
        }
        Ok(config(roots))
    })
    .await
}
