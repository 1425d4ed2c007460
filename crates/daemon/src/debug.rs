//! The debug address (rows D31, D32): metrics for Prometheus, a few facts as JSON, and a
//! sentence where BuildKit's Go runtime would show what we do not have.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

use crate::Error;
use crate::builder::Builder;
use crate::history::History;

/// Connections answered at one time.
const MAX_CONNECTIONS: usize = 32;
/// How long a client may take to ask.
const PATIENCE: Duration = Duration::from_secs(30);
/// Upper bounds of the histogram of build times, in seconds.
const BOUNDS: [f64; 14] = [
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0,
];
/// Different methods counted; more can only be made up.
const MAX_METHODS: usize = 128;

/// Numbers of this process's life. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics(Arc<Mutex<Numbers>>);

#[derive(Debug, Default)]
struct Numbers {
    /// By frontend and how they ended.
    builds: BTreeMap<(&'static str, &'static str), Histogram>,
    calls: BTreeMap<String, u64>,
}

#[derive(Debug, Default)]
struct Histogram {
    counts: [u64; BOUNDS.len()],
    sum: f64,
    count: u64,
}

impl Metrics {
    fn lock(&self) -> MutexGuard<'_, Numbers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A build ended: `completed`, `error` or `canceled`.
    pub(crate) fn build(&self, frontend: &str, status: &'static str, took: Duration) {
        let frontend = match frontend {
            "" => "client",
            "dockerfile.v0" => "dockerfile.v0",
            "gateway.v0" => "gateway.v0",
            _ => "other",
        };
        let mut numbers = self.lock();
        let histogram = numbers.builds.entry((frontend, status)).or_default();
        let seconds = took.as_secs_f64();
        histogram.sum += seconds;
        histogram.count += 1;
        for (count, bound) in histogram.counts.iter_mut().zip(BOUNDS) {
            *count += u64::from(seconds <= bound);
        }
    }

    fn call(&self, method: &str) {
        let mut numbers = self.lock();
        if let Some(count) = numbers.calls.get_mut(method) {
            *count += 1;
            return;
        }
        let room = numbers.calls.len() < MAX_METHODS && method.len() < 128;
        let safe = method
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"/._".contains(&b));
        let name = if room && safe { method } else { "other" };
        *numbers.calls.entry(name.to_owned()).or_default() += 1;
    }

    fn text(&self, out: &mut String) {
        let numbers = self.lock();
        heading(
            out,
            "buildkit_build_duration_seconds",
            "histogram",
            "How long builds took.",
        );
        for ((frontend, status), histogram) in &numbers.builds {
            let labels = format!("frontend=\"{frontend}\",status=\"{status}\"");
            let name = "buildkit_build_duration_seconds";
            for (count, bound) in histogram.counts.iter().zip(BOUNDS) {
                let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {count}");
            }
            let _ = writeln!(
                out,
                "{name}_bucket{{{labels},le=\"+Inf\"}} {}",
                histogram.count
            );
            let _ = writeln!(out, "{name}_sum{{{labels}}} {}", histogram.sum);
            let _ = writeln!(out, "{name}_count{{{labels}}} {}", histogram.count);
        }
        heading(
            out,
            "rpc_server_requests_total",
            "counter",
            "Calls that came in.",
        );
        for (method, count) in &numbers.calls {
            let _ = writeln!(
                out,
                "rpc_server_requests_total{{rpc_method=\"{method}\"}} {count}"
            );
        }
    }
}

fn heading(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// Counts calls by method on their way to a service.
#[derive(Clone)]
pub(crate) struct Counting<S> {
    metrics: Metrics,
    inner: S,
}

impl<S> tower::Layer<S> for Metrics {
    type Service = Counting<S>;

    fn layer(&self, inner: S) -> Counting<S> {
        Counting {
            metrics: self.clone(),
            inner,
        }
    }
}

impl<S: tower::Service<Request<B>>, B> tower::Service<Request<B>> for Counting<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> S::Future {
        self.metrics.call(request.uri().path());
        self.inner.call(request)
    }
}

/// What the debug address shows.
#[derive(Clone)]
pub(crate) struct Shown {
    pub(crate) metrics: Metrics,
    pub(crate) history: History,
    pub(crate) builder: Arc<dyn Builder>,
}

impl Shown {
    /// Named numbers that go up and down, or only up if they end in `_total`.
    fn numbers(&self) -> BTreeMap<String, f64> {
        let (running, remembered) = self.history.counts();
        let mut numbers = BTreeMap::from([
            ("kiln_builds_running".to_owned(), running as f64),
            ("kiln_history_records".to_owned(), remembered as f64),
        ]);
        for (name, count) in self.builder.counters() {
            numbers.insert(format!("kiln_solver_{name}_total"), count as f64);
        }
        numbers.extend(process());
        numbers
    }

    fn prometheus(&self) -> String {
        let mut text = String::new();
        self.metrics.text(&mut text);
        for (name, number) in self.numbers() {
            let kind = if name.ends_with("_total") {
                "counter"
            } else {
                "gauge"
            };
            let _ = writeln!(text, "# TYPE {name} {kind}\n{name} {number}");
        }
        text
    }

    fn vars(&self) -> String {
        let line: Vec<String> = std::env::args().collect();
        serde_json::json!({ "cmdline": line, "kiln": self.numbers() }).to_string()
    }

    fn answer(&self, path: &str) -> (StatusCode, &'static str, String) {
        const TEXT: &str = "text/plain; charset=utf-8";
        match path {
            "/metrics" => (
                StatusCode::OK,
                "text/plain; version=0.0.4; charset=utf-8",
                self.prometheus(),
            ),
            "/debug/vars" => (
                StatusCode::OK,
                "application/json; charset=utf-8",
                self.vars(),
            ),
            "/debug/gc" => (
                StatusCode::OK,
                TEXT,
                "memory is freed as soon as it is not used: nothing to collect\n".into(),
            ),
            "/debug/requests" => {
                let (running, _) = self.history.counts();
                (StatusCode::OK, TEXT, format!("{running} builds run\n"))
            }
            _ if path.starts_with("/debug/pprof") => {
                let text = "not available: this is no Go program. Profile it with `perf record -g -p <pid>`.\n";
                (StatusCode::NOT_IMPLEMENTED, TEXT, text.into())
            }
            _ if path.starts_with("/debug/cache") => {
                let text = "not available: cache keys can be looked up in kiln.db, in the state directory.\n";
                (StatusCode::NOT_IMPLEMENTED, TEXT, text.into())
            }
            _ => {
                let text = "here are /metrics, /debug/vars, /debug/requests and /debug/gc\n";
                (StatusCode::NOT_FOUND, TEXT, text.into())
            }
        }
    }
}

/// What the system knows of this process.
fn process() -> Vec<(String, f64)> {
    let mut found = Vec::new();
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The program's name, in brackets, may hold anything.
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .map_or("", |(_, rest)| rest)
        .split_whitespace()
        .collect();
    let field = |number: usize| {
        fields
            .get(number - 3)
            .and_then(|text| text.parse::<f64>().ok())
    };
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    if let (Some(user), Some(system)) = (field(14), field(15)) {
        found.push((
            "process_cpu_seconds_total".to_owned(),
            (user + system) / ticks,
        ));
    }
    if let Some(threads) = field(20) {
        found.push(("process_threads".to_owned(), threads));
    }
    if let Some(pages) = field(24) {
        found.push((
            "process_resident_memory_bytes".to_owned(),
            pages * rustix::param::page_size() as f64,
        ));
    }
    if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
        found.push(("process_open_fds".to_owned(), entries.count() as f64));
    }
    found
}

/// Listens at `host:port`.
pub(crate) async fn listen(address: &str) -> Result<TcpListener, Error> {
    let place = address.strip_prefix("tcp://").unwrap_or(address);
    let place = match place.strip_prefix(':') {
        Some(port) => format!("0.0.0.0:{port}"),
        None => place.to_owned(),
    };
    let failed = |source| Error::Listen {
        address: address.to_owned(),
        source,
    };
    TcpListener::bind(place).await.map_err(failed)
}

/// Answers until dropped.
pub(crate) async fn serve(listener: TcpListener, shown: Shown) {
    let mut answering = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some(()) = answering.next() => {}
            accepted = listener.accept(), if answering.len() < MAX_CONNECTIONS => match accepted {
                Ok((connection, _)) => answering.push(answer(connection, shown.clone())),
                Err(error) => {
                    tracing::debug!(%error, "a connection to the debug address");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
}

async fn answer(connection: TcpStream, shown: Shown) {
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let shown = shown.clone();
        async move {
            let path = request.uri().path().to_owned();
            let (status, kind, text) = stdx::task::blocking(move || shown.answer(&path)).await;
            let mut response = Response::new(Full::new(Bytes::from(text)));
            *response.status_mut() = status;
            response
                .headers_mut()
                .insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
            Ok::<_, Infallible>(response)
        }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    let connection = http
        .keep_alive(false)
        .serve_connection(TokioIo::new(connection), service);
    // Whatever ends it, the next client gets a new one.
    let _ = tokio::time::timeout(PATIENCE, connection).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows: D32
    #[test]
    fn builds_are_counted_by_how_long_they_took() {
        let metrics = Metrics::default();
        metrics.build("dockerfile.v0", "completed", Duration::from_millis(300));
        metrics.build("dockerfile.v0", "completed", Duration::from_secs(7200));
        metrics.build("made\"up", "error", Duration::ZERO);
        for number in 0..1000 {
            metrics.call(&format!("/made/up{number}"));
        }
        metrics.call("/a\"} 1");
        let mut text = String::new();
        metrics.text(&mut text);
        let line = "buildkit_build_duration_seconds_bucket{frontend=\"dockerfile.v0\",status=\"completed\",le=";
        assert!(text.contains(&format!("{line}\"0.25\"}} 0\n")), "{text}");
        assert!(text.contains(&format!("{line}\"0.5\"}} 1\n")), "{text}");
        assert!(text.contains(&format!("{line}\"+Inf\"}} 2\n")), "{text}");
        assert!(
            text.contains("frontend=\"other\",status=\"error\""),
            "{text}"
        );
        assert!(
            text.lines().count() < 200 && text.contains("rpc_method=\"other\"} 873"),
            "{text}"
        );
    }

    /// Rows: D31
    #[test]
    fn the_system_tells_of_this_process() {
        let numbers: BTreeMap<_, _> = process().into_iter().collect();
        assert!(
            numbers["process_resident_memory_bytes"] > 1e6,
            "{numbers:?}"
        );
        assert!(numbers["process_open_fds"] >= 3.0, "{numbers:?}");
    }
}
