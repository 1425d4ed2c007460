//! Servers for the proxy to ask.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use stdx::task::{Task, spawn};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::authority::Authority;

/// A server that answers by what is asked, on connections that stay open.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) connections: Arc<AtomicUsize>,
    _serving: Task<()>,
}

impl Server {
    pub(super) async fn start() -> Server {
        Server::with(None).await
    }

    /// One that speaks TLS, with a certificate of `authority` for `127.0.0.1` and `localhost`.
    pub(super) async fn secure(authority: &Authority, name: &str) -> Server {
        Server::with(Some(TlsAcceptor::from(authority.server(name).unwrap()))).await
    }

    async fn with(tls: Option<TlsAcceptor>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = connections.clone();
        let serving = spawn("server", async move {
            let mut all = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let tls = tls.clone();
                all.push(spawn("connection", async move {
                    // The other side may end as it likes.
                    let _ = match tls {
                        None => serve(stream).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => serve(stream).await,
                            Err(error) => Err(error),
                        },
                    };
                }));
            }
        });
        Server {
            address,
            connections,
            _serving: serving,
        }
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let lower = head.to_lowercase();
        let length = lower.split("content-length: ").nth(1);
        let length = length.and_then(|rest| rest.lines().next()?.parse::<u64>().ok());
        let mut body = Vec::new();
        if lower.contains("transfer-encoding: chunked") {
            while !body.ends_with(b"0\r\n\r\n") {
                body.push(stream.read_u8().await?);
            }
        } else {
            (&mut stream)
                .take(length.unwrap_or_default())
                .read_to_end(&mut body)
                .await?;
        }
        let path = head.split(' ').nth(1).unwrap_or_default();
        let answer = match path {
            "/hello" => "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n".into(),
            "/chunks" => {
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n3\r\nlo\n\r\n0\r\n\r\n"
                    .into()
            }
            "/close" => "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello\n".into(),
            "/sends-on" => "HTTP/1.1 302 Found\r\nLocation: /hello\r\nContent-Length: 0\r\n\r\n".into(),
            "/part" => "HTTP/1.1 206 Partial Content\r\nContent-Length: 1\r\n\r\nh".into(),
            "/short" => "HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\nhello".into(),
            "/missing" => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".into(),
            "/switch" => "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n".into(),
            "/hangs" => std::future::pending().await,
            // What was asked, and the length of the body.
            _ => {
                let text = format!("{head}{}", body.len());
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len())
            }
        };
        stream.write_all(answer.as_bytes()).await?;
        stream.flush().await?;
        if matches!(path, "/close" | "/short") {
            return stream.shutdown().await;
        }
        if path == "/then-closes" {
            return Ok(());
        }
    }
}
