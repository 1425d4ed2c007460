//! The proxy between real clients and real servers.

mod hostile;
mod passing;
mod servers;
mod tls;

use std::net::SocketAddr;
use std::sync::Mutex;

use rustls::RootCertStore;
use stdx::task::{Task, spawn};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;

/// A proxy at work.
struct Served {
    proxy: Proxy,
    address: SocketAddr,
    serving: Task<()>,
}

impl Served {
    async fn with(upstreams: Upstreams, gate: Option<Arc<dyn Gate>>) -> Served {
        let proxy = Proxy::new(Arc::new(upstreams), gate).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = spawn("proxy", proxy.serve(listener, Outside::here()));
        Served {
            proxy,
            address,
            serving,
        }
    }

    async fn start() -> Served {
        Served::with(direct(), None).await
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Everything it answers to this, until it closes the connection.
    async fn say(&self, text: &str) -> String {
        let mut stream = self.connect().await;
        // It may have closed before it read all of it.
        let _ = stream.write_all(text.as_bytes()).await;
        rest(&mut stream).await
    }

    /// Status and body of one request.
    async fn ask(&self, method: &str, url: &str) -> (u16, String) {
        let request = format!("{method} {url} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        parted(&self.say(&request).await)
    }

    async fn get(&self, url: &str) -> (u16, String) {
        self.ask("GET", url).await
    }

    /// The lines of what it tells, ports and addresses replaced.
    fn told(&self, server: SocketAddr) -> Vec<String> {
        let text = self.proxy.seen().summary();
        let text = text.replace(&server.to_string(), "SERVER");
        text.lines().skip(1).map(str::to_owned).collect()
    }

    fn incomplete(&self) -> Vec<&'static str> {
        let seen = self.proxy.seen().incomplete.into_iter();
        seen.map(|one| one.reason).collect()
    }
}

fn direct() -> Upstreams {
    Upstreams::new(RootCertStore::empty(), Matcher::builder().build())
}

async fn rest(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    // What a reset cut off is told by what is missing.
    let _ = stream.read_to_end(&mut bytes).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Status and body of an answer; chunks are put together.
fn parted(answer: &str) -> (u16, String) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    if !head.to_lowercase().contains("transfer-encoding: chunked") {
        return (status.unwrap_or_default(), body.to_owned());
    }
    let (mut whole, mut left) = (String::new(), body);
    while let Some((length, more)) = left.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap();
        whole.push_str(&more[..length]);
        left = more[length..].trim_start_matches("\r\n");
    }
    (status.unwrap_or_default(), whole)
}

/// Denies what has `denied` in it, sends `old` to another address, and takes down what it is
/// asked.
#[derive(Default)]
struct Rules {
    asked: Mutex<Vec<String>>,
    other: String,
}

#[async_trait]
impl Gate for Rules {
    async fn decide(&self, method: &str, url: &str) -> Result<Option<String>, String> {
        self.asked.lock().unwrap().push(format!("{method} {url}"));
        if url.contains("denied") {
            return Err("not that".into());
        }
        Ok(url.contains("old").then(|| self.other.clone()))
    }
}
