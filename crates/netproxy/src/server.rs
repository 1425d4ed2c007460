//! The connections of one container.

use std::sync::Arc;
use std::time::Duration;

use executor::Outside;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::{TokioIo, TokioTimer};
use stdx::task::spawn;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::Inner;
use crate::passing::Passing;
use crate::seen::Request;

/// Connections at a time; others wait to be accepted.
const MOST_CLIENTS: usize = 256;
/// A request's headers may be so long, and so many.
const MOST_HEADERS: usize = 64 << 10;
const MOST_FIELDS: usize = 200;
/// A connection may say nothing for so long.
const IDLE: Duration = Duration::from_secs(120);
/// A handshake may take so long.
const PATIENCE: Duration = Duration::from_secs(30);
/// What to wait for before accepting again, when it failed.
const PAUSE: Duration = Duration::from_millis(50);
/// What a client is told of that speaks something else, or does not believe us.
const ONLY: &str = "only HTTPS goes through the proxy, from programs that trust its certificate";

/// Serves the container's connections; dropped, all of them end.
pub(crate) async fn serve(proxy: Arc<Inner>, listener: TcpListener, outside: Outside) {
    let mut clients = FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if clients.len() < MOST_CLIENTS => match accepted {
                Ok((stream, _)) => {
                    let client = client(proxy.clone(), stream, outside.clone());
                    clients.push(spawn("proxied", client));
                }
                Err(error) => {
                    tracing::debug!(%error, "a proxied connection was not accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            },
            Some(()) = clients.next() => {}
        }
    }
}

async fn client(proxy: Arc<Inner>, stream: TcpStream, outside: Outside) {
    // What it costs when it cannot be said is some speed.
    let _ = stream.set_nodelay(true);
    let passing = Arc::new(Passing::new(proxy.clone(), outside.clone(), None));
    let answering = passing.clone();
    let service = service_fn(move |request| {
        let passing = answering.clone();
        async move { passing.answer(request).await }
    });
    let serving = builder().serve_connection(TokioIo::new(stream), service);
    if let Err(error) = serving.with_upgrades().await {
        tracing::debug!(%error, "a proxied connection ended");
    }
    if let Some((server, upgrade)) = passing.take_wanted() {
        drop(passing);
        Box::pin(stand_in(proxy, outside, server, upgrade)).await;
    }
}

/// Is the server for a client that thinks it speaks to it by itself.
async fn stand_in(proxy: Arc<Inner>, outside: Outside, server: String, upgrade: OnUpgrade) {
    let Ok(stream) = upgrade.await else {
        return;
    };
    let connect = Request {
        method: "CONNECT".into(),
        url: server.clone(),
        status: 502,
        redirect: None,
        why: Some(format!("{ONLY}, and nothing was asked for")),
    };
    let number = proxy.record.begun(connect, None);
    let stream = match shake_hands(&proxy, &server, stream).await {
        Ok(stream) => stream,
        Err(why) => return proxy.record.settled(number, Some(why)),
    };
    let server = Some((server, number));
    let passing = Arc::new(Passing::new(proxy.clone(), outside, server));
    let service = service_fn(move |request| {
        let passing = passing.clone();
        async move { passing.answer(request).await }
    });
    let serving = builder().serve_connection(TokioIo::new(stream), service);
    if let Err(error) = serving.await {
        tracing::debug!(%error, "a proxied connection ended");
    }
    // Some programs only look at the certificate when the handshake is over.
    let why = format!("{ONLY}, and nothing was asked for");
    proxy.record.settled(number, Some(why));
}

async fn shake_hands(
    proxy: &Inner,
    server: &str,
    stream: Upgraded,
) -> Result<TlsStream<TokioIo<Upgraded>>, String> {
    let config = proxy.authority.server(host(server))?;
    let shaking = TlsAcceptor::from(config).accept(TokioIo::new(stream));
    match tokio::time::timeout(PATIENCE, shaking).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(format!("{ONLY}: {error}")),
        Err(_) => Err(format!("{ONLY}, and nothing was said")),
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .max_buf_size(MOST_HEADERS)
        .max_headers(MOST_FIELDS)
        .auto_date_header(false);
    builder
}

/// The host of `host:port`.
fn host(server: &str) -> &str {
    let host = match server.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => server,
    };
    host.trim_start_matches('[').trim_end_matches(']')
}
