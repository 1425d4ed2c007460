//! A small web server: files with ETags, in memory, over real TCP. It keeps
//! what it was asked.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;

/// A file to serve.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Its bytes.
    pub bytes: Bytes,
    /// Its ETag, quotes included; none when empty.
    pub etag: String,
    /// Further headers of each answer.
    pub headers: Vec<(String, String)>,
    /// Sent in place of `bytes` to those who take gzip; never when empty.
    pub gzip: Bytes,
    /// Answer with these statuses first, one each.
    pub faults: Vec<u16>,
    /// The `Authorization` that is wanted; anything when empty.
    pub authorization: String,
}

#[derive(Default)]
struct State {
    pages: BTreeMap<String, Page>,
    asked: Vec<String>,
}

/// A running web server; it stops when dropped.
pub struct Web {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    _task: stdx::task::Task<()>,
}

impl Web {
    /// Starts on a free port of this machine.
    pub async fn start() -> Web {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let state: Arc<Mutex<State>> = Arc::default();
        let shared = state.clone();
        let task = stdx::task::spawn("test web server", async move {
            let mut open: Vec<stdx::task::Task<()>> = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                let state = shared.clone();
                open.retain(|task| !task.is_finished());
                open.push(stdx::task::spawn("test web connection", async move {
                    let service = hyper::service::service_fn(move |request| {
                        let response = answer(&state, &request);
                        async move { Ok::<_, std::convert::Infallible>(response) }
                    });
                    let io = hyper_util::rt::TokioIo::new(stream);
                    drop(
                        hyper::server::conn::http1::Builder::new()
                            .serve_connection(io, service)
                            .await,
                    );
                }));
            }
        });
        Web {
            address,
            state,
            _task: task,
        }
    }

    /// The address of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Serves `page` at `path`.
    pub fn put(&self, path: &str, page: Page) {
        self.state
            .lock()
            .expect("not poisoned")
            .pages
            .insert(path.into(), page);
    }

    /// Everything asked so far: method, path, status.
    pub fn asked(&self) -> Vec<String> {
        self.state.lock().expect("not poisoned").asked.clone()
    }
}

fn answer(state: &Mutex<State>, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let mut state = state.lock().expect("not poisoned");
    let header = |name: &str| {
        request
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("")
    };
    let mut response = Response::builder();
    let (mut status, mut body) = (404, Bytes::new());
    if let Some(page) = state.pages.get_mut(request.uri().path()) {
        let same = !page.etag.is_empty()
            && header("if-none-match")
                .split(", ")
                .any(|tag| tag == page.etag);
        status = match page.faults.is_empty() {
            false => page.faults.remove(0),
            true if !page.authorization.is_empty()
                && header("authorization") != page.authorization =>
            {
                401
            }
            true if same => 304,
            true => 200,
        };
        if status == 200 {
            body = page.bytes.clone();
            if !page.gzip.is_empty() && header("accept-encoding") == "gzip" {
                body = page.gzip.clone();
                response = response.header("content-encoding", "gzip");
            }
        }
        if !page.etag.is_empty() {
            response = response.header("etag", &page.etag);
        }
        for (name, value) in &page.headers {
            response = response.header(name, value);
        }
    }
    state.asked.push(format!(
        "{} {} {status}",
        request.method(),
        request.uri().path()
    ));
    response
        .status(status)
        .body(Full::new(body))
        .expect("valid headers")
}
