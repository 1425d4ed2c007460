//! Sending spans on to a collector (row D33): those of clients and those of our builds, by
//! OTLP over gRPC or over HTTP, as the environment of every OpenTelemetry program says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Uri};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use prost::Message as _;
use proto::opentelemetry::proto::collector::trace::v1 as collector;
use proto::opentelemetry::proto::collector::trace::v1::trace_service_client::TraceServiceClient;
use stdx::task::Task;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tonic::metadata::MetadataMap;

use crate::Error;

/// Batches waiting, and their bytes ([`super::MAX_ALL`]); when the collector is slower than that, spans are lost, not builds.
const WAITING: usize = 256;
/// How long one batch may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the last ones may take when the daemon stops.
const GOODBYE: Duration = Duration::from_secs(2);

/// A collector, as the environment names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector {
    protocol: Protocol,
    uri: Uri,
    headers: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Grpc,
    Http,
}

impl Collector {
    /// From variables whose names begin with `OTEL_`; `None` when they name no collector.
    /// Those for traces win over those for everything.
    pub fn of(variables: &BTreeMap<String, String>) -> Result<Option<Collector>, Error> {
        let get = |name: &str| {
            variables
                .get(name)
                .map(String::as_str)
                .filter(|v| !v.is_empty())
        };
        let exporter = get("OTEL_TRACES_EXPORTER");
        if exporter == Some("none") || get("OTEL_SDK_DISABLED") == Some("true") {
            return Ok(None);
        }
        let own = get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
        let shared = get("OTEL_EXPORTER_OTLP_ENDPOINT");
        if own.or(shared).is_none() && exporter != Some("otlp") {
            return match exporter {
                None => Ok(None),
                Some(other) => Err(Error::NotYet(format!("OTEL_TRACES_EXPORTER={other}"))),
            };
        }
        let protocol = get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL");
        let protocol = match protocol.or_else(|| get("OTEL_EXPORTER_OTLP_PROTOCOL")) {
            None | Some("grpc") => Protocol::Grpc,
            Some("http/protobuf") => Protocol::Http,
            Some(other) => {
                return Err(Error::BadSetting {
                    setting: "OTEL_EXPORTER_OTLP_PROTOCOL",
                    value: other.to_owned(),
                    problem: "is not one of grpc, http/protobuf".to_owned(),
                });
            }
        };
        let address = match (own, shared, protocol) {
            (Some(own), ..) => own.to_owned(),
            (None, Some(shared), Protocol::Grpc) => shared.to_owned(),
            (None, Some(shared), Protocol::Http) => {
                format!("{}/v1/traces", shared.trim_end_matches('/'))
            }
            (None, None, Protocol::Grpc) => "http://localhost:4317".to_owned(),
            (None, None, Protocol::Http) => "http://localhost:4318/v1/traces".to_owned(),
        };
        let headers = get("OTEL_EXPORTER_OTLP_TRACES_HEADERS");
        let headers = headers.or_else(|| get("OTEL_EXPORTER_OTLP_HEADERS"));
        Ok(Some(Collector {
            protocol,
            uri: uri(&address)?,
            headers: pairs(headers.unwrap_or_default())?,
        }))
    }
}

fn uri(address: &str) -> Result<Uri, Error> {
    let bad = |problem: &str| Error::BadSetting {
        setting: "OTEL_EXPORTER_OTLP_ENDPOINT",
        value: address.to_owned(),
        problem: problem.to_owned(),
    };
    let whole = match address.contains("://") {
        true => address.to_owned(),
        false => format!("http://{address}"),
    };
    let uri: Uri = whole
        .parse()
        .map_err(|_| bad("is not like http://host:port"))?;
    match uri.scheme_str() {
        Some("http") if uri.host().is_some() => Ok(uri),
        Some("https") => Err(Error::NotYet(format!(
            "a collector at {address}: use http://"
        ))),
        _ => Err(bad("is not like http://host:port")),
    }
}

/// `key=value,…`, with what is special written as `%20`.
fn pairs(text: &str) -> Result<Vec<(String, String)>, Error> {
    let bad = |one: &str| Error::BadSetting {
        setting: "OTEL_EXPORTER_OTLP_HEADERS",
        value: one.to_owned(),
        problem: "is not like key=value".to_owned(),
    };
    let list = text.split(',').map(str::trim).filter(|one| !one.is_empty());
    let pairs = list.map(|one| {
        let (key, value) = one.split_once('=').ok_or_else(|| bad(one))?;
        let (key, value) = (key.trim().to_ascii_lowercase(), plain(value.trim()));
        let fine = HeaderName::try_from(key.as_str()).is_ok()
            && HeaderValue::try_from(value.as_str()).is_ok();
        if fine {
            Ok((key, value))
        } else {
            Err(bad(one))
        }
    });
    pairs.collect()
}

fn plain(text: &str) -> String {
    String::from_utf8_lossy(&stdx::text::percent_decoded(text)).into_owned()
}

/// Where spans are handed in. Dropped, what waits is given up.
pub(super) struct Sender {
    to: mpsc::Sender<Order>,
    /// One permit for each byte that may wait.
    room: Arc<Semaphore>,
    _task: Task<()>,
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sender")
    }
}

enum Order {
    /// With the room it takes until it is sent.
    Spans(collector::ExportTraceServiceRequest, OwnedSemaphorePermit),
    /// Answered when all before it has been sent.
    Tell(oneshot::Sender<()>),
}

impl Sender {
    pub(super) fn start(collector: Collector) -> Sender {
        let (to, from) = mpsc::channel(WAITING);
        let task = stdx::task::spawn("spans", send_all(collector, from));
        Sender {
            to,
            room: Arc::new(Semaphore::new(super::MAX_ALL)),
            _task: task,
        }
    }

    /// Hands spans in, if there is room for them; says whether there was.
    pub(super) fn send(&self, spans: collector::ExportTraceServiceRequest) -> bool {
        let size = u32::try_from(spans.encoded_len()).unwrap_or(u32::MAX);
        let room = self.room.clone().try_acquire_many_owned(size).ok();
        let waits = room.is_some_and(|room| self.to.try_send(Order::Spans(spans, room)).is_ok());
        if !waits {
            tracing::debug!("the collector is too slow: spans are not sent");
        }
        waits
    }

    /// Waits a moment for what was handed in so far.
    pub(super) async fn finish(&self) {
        let (done, told) = oneshot::channel();
        let sent = async {
            if self.to.send(Order::Tell(done)).await.is_ok() {
                // Not told means that nobody sends any more.
                let _ = told.await;
            }
        };
        if tokio::time::timeout(GOODBYE, sent).await.is_err() {
            tracing::warn!("the collector does not answer: the last spans are lost");
        }
    }
}

async fn send_all(collector: Collector, mut from: mpsc::Receiver<Order>) {
    let channel = tonic::transport::Endpoint::from(collector.uri.clone())
        .connect_timeout(PATIENCE)
        .timeout(PATIENCE)
        .connect_lazy();
    let mut client = TraceServiceClient::new(channel);
    while let Some(order) = from.recv().await {
        let (spans, _room) = match order {
            Order::Spans(spans, room) => (spans, room),
            Order::Tell(done) => {
                let _ = done.send(());
                continue;
            }
        };
        let sent = match collector.protocol {
            Protocol::Grpc => by_grpc(&mut client, &collector, spans).await,
            Protocol::Http => {
                let sending = by_http(&collector, spans);
                let late = |_| "no answer in time".to_owned();
                tokio::time::timeout(PATIENCE, sending)
                    .await
                    .map_err(late)
                    .flatten()
            }
        };
        if let Err(reason) = sent {
            tracing::warn!(reason, uri = %collector.uri, "spans could not be sent");
        }
    }
}

async fn by_grpc(
    client: &mut TraceServiceClient<tonic::transport::Channel>,
    collector: &Collector,
    spans: collector::ExportTraceServiceRequest,
) -> Result<(), String> {
    let mut headers = http::HeaderMap::new();
    fill(&mut headers, collector);
    let mut request = tonic::Request::new(spans);
    *request.metadata_mut() = MetadataMap::from_headers(headers);
    match client.export(request).await {
        Ok(_) => Ok(()),
        Err(status) => Err(status.to_string()),
    }
}

fn fill(headers: &mut http::HeaderMap, collector: &Collector) {
    for (key, value) in &collector.headers {
        // Both were tried when the environment was read.
        if let (Ok(key), Ok(value)) = (HeaderName::try_from(key), HeaderValue::try_from(value)) {
            headers.insert(key, value);
        }
    }
}

async fn by_http(
    collector: &Collector,
    spans: collector::ExportTraceServiceRequest,
) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| error.to_string();
    let (uri, host) = (&collector.uri, collector.uri.host().unwrap_or_default());
    let port = uri.port_u16().unwrap_or(80);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let connection = tokio::net::TcpStream::connect((host, port));
    let connection = connection.await.map_err(|error| failed(&error))?;
    let (mut client, driving) = hyper::client::conn::http1::handshake(TokioIo::new(connection))
        .await
        .map_err(|error| failed(&error))?;
    let _driving = stdx::task::spawn("collector", async move {
        // What breaks it shows in the answer.
        let _ = driving.await;
    });
    let path = uri
        .path_and_query()
        .map_or("/", http::uri::PathAndQuery::as_str);
    let authority = uri.authority().map_or("", http::uri::Authority::as_str);
    let mut request = http::Request::post(path)
        .header(http::header::HOST, authority)
        .header(http::header::CONTENT_TYPE, "application/x-protobuf")
        .body(Full::new(Bytes::from(spans.encode_to_vec())))
        .map_err(|error| failed(&error))?;
    fill(request.headers_mut(), collector);
    let answer = client
        .send_request(request)
        .await
        .map_err(|error| failed(&error))?;
    match answer.status().is_success() {
        true => Ok(()),
        false => Err(format!("it answers {}", answer.status())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<Option<String>, String> {
        let pairs = variables
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let found = Collector::of(&pairs.collect()).map_err(|error| error.to_string())?;
        Ok(found.map(|it| format!("{:?} {} {:?}", it.protocol, it.uri, it.headers)))
    }

    /// Rows: D33
    #[test]
    fn the_environment_names_a_collector_as_for_every_program() {
        let endpoint = "OTEL_EXPORTER_OTLP_ENDPOINT";
        let protocol = "OTEL_EXPORTER_OTLP_PROTOCOL";
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(
            of(&[(endpoint, "http://c:1"), ("OTEL_TRACES_EXPORTER", "none")]),
            Ok(None)
        );
        assert_eq!(
            of(&[(endpoint, "http://c:1"), ("OTEL_SDK_DISABLED", "true")]),
            Ok(None)
        );
        let some = |text: &str| Ok(Some(text.to_owned()));
        assert_eq!(of(&[(endpoint, "c:4317")]), some("Grpc http://c:4317/ []"));
        assert_eq!(
            of(&[("OTEL_TRACES_EXPORTER", "otlp")]),
            some("Grpc http://localhost:4317/ []")
        );
        let http = (protocol, "http/protobuf");
        assert_eq!(
            of(&[(endpoint, "http://c/x/"), http]),
            some("Http http://c/x/v1/traces []")
        );
        let own = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t/y");
        let headers = ("OTEL_EXPORTER_OTLP_HEADERS", "Key=a%20b, x=1");
        assert_eq!(
            of(&[(endpoint, "http://c"), own, http, headers]),
            some(r#"Http http://t/y [("key", "a b"), ("x", "1")]"#)
        );
        for (variables, wrong) in [
            (
                [(endpoint, "https://c"), http],
                "not supported yet: a collector at https://c",
            ),
            (
                [(endpoint, "http://c"), (protocol, "http/json")],
                "is not one of grpc",
            ),
            (
                [(endpoint, "unix:///c"), http],
                "is not like http://host:port",
            ),
            (
                [(endpoint, "http://c"), (headers.0, "x")],
                "is not like key=value",
            ),
            (
                [("OTEL_TRACES_EXPORTER", "zipkin"), http],
                "OTEL_TRACES_EXPORTER=zipkin",
            ),
        ] {
            let error = of(&variables).unwrap_err();
            assert!(error.contains(wrong), "{error}");
        }
    }

    /// Rows: D33
    #[tokio::test]
    async fn a_collector_that_does_not_answer_holds_a_bounded_number_of_bytes() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", silent.local_addr().unwrap());
        let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), address)];
        let collector = Collector::of(&variables.into()).unwrap().unwrap();
        let sender = Sender::start(collector);
        let large = super::super::ours(vec![proto::opentelemetry::proto::trace::v1::Span {
            name: "x".repeat(super::super::MAX_ALL / 3),
            ..Default::default()
        }]);
        let small = super::super::ours(Vec::new());
        assert!(sender.send(large.clone()) && sender.send(large.clone()));
        // The one that is on its way counts too.
        tokio::task::yield_now().await;
        assert!(!sender.send(large), "there is no room for a third");
        assert!(sender.send(small), "but for a small one");
    }
}
