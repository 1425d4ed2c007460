//! Sending spans on to a collector (row D33): those of clients and those of our builds.

use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use prost::Message as _;
use proto::opentelemetry::proto::collector::trace::v1 as collector;
use proto::opentelemetry::proto::collector::trace::v1::trace_service_client::TraceServiceClient;
use stdx::task::Task;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tonic::metadata::MetadataMap;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::endpoint::{Collector, Protocol};

/// Batches waiting, and their bytes ([`super::MAX_ALL`]); when the collector is slower than that, spans are lost, not builds.
const WAITING: usize = 256;
/// How long the last ones may take when the daemon stops.
const GOODBYE: Duration = Duration::from_secs(2);

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
    let collector = Arc::new(collector);
    let mut client = None;
    while let Some(order) = from.recv().await {
        let (spans, _room) = match order {
            Order::Spans(spans, room) => (spans, room),
            Order::Tell(done) => {
                let _ = done.send(());
                continue;
            }
        };
        let sent = async {
            // One that cannot be made now, for want of the system's authorities, may be later.
            let client = match &mut client {
                Some(client) => client,
                none => none.insert(Client::new(collector.clone()).await?),
            };
            client.send(&collector, spans).await
        };
        let late = |_| "no answer in time".to_owned();
        let sent = tokio::time::timeout(collector.patience, sent).await;
        if let Err(reason) = sent.map_err(late).flatten() {
            tracing::warn!(reason, to = %collector.address, "spans could not be sent");
        }
    }
}

/// What speaks to the collector. It connects when it has something to say.
enum Client {
    Grpc(TraceServiceClient<Channel>),
    Http(reqwest::Client),
}

impl Client {
    async fn new(collector: Arc<Collector>) -> Result<Client, String> {
        // The system's authorities are many files.
        stdx::task::blocking(move || {
            registry::use_ring();
            match collector.protocol {
                Protocol::Grpc => by_grpc(&collector).map_err(|error| causes(&error)),
                Protocol::Http => by_http(&collector).map_err(|error| causes(&error)),
            }
        })
        .await
    }

    async fn send(
        &mut self,
        collector: &Collector,
        spans: collector::ExportTraceServiceRequest,
    ) -> Result<(), String> {
        let headers = collector.headers.clone();
        match self {
            Client::Grpc(client) => {
                let mut request = tonic::Request::new(spans);
                *request.metadata_mut() = MetadataMap::from_headers(headers);
                let answer = client.export(request).await;
                answer.map(drop).map_err(|status| status.to_string())
            }
            Client::Http(client) => {
                let answer = client
                    .post(collector.address.to_string())
                    .header(CONTENT_TYPE, "application/x-protobuf")
                    .headers(headers)
                    .body(spans.encode_to_vec())
                    .send()
                    .await
                    .map_err(|error| causes(&error))?;
                match answer.status().is_success() {
                    true => Ok(()),
                    false => Err(format!("it answers {}", answer.status())),
                }
            }
        }
    }
}

fn by_grpc(collector: &Collector) -> Result<Client, tonic::transport::Error> {
    let mut endpoint = Endpoint::from_shared(collector.address.to_string())?
        .connect_timeout(collector.patience)
        .timeout(collector.patience);
    if collector.address.is_https() {
        let mut tls = ClientTlsConfig::new();
        tls = match &collector.tls.authorities {
            Some(pem) => tls.ca_certificate(Certificate::from_pem(pem)),
            None => tls.with_native_roots(),
        };
        if let Some((certificate, key)) = &collector.tls.identity {
            tls = tls.identity(Identity::from_pem(certificate, key));
        }
        endpoint = endpoint.tls_config(tls)?;
    }
    let client = TraceServiceClient::new(endpoint.connect_lazy());
    Ok(Client::Grpc(client))
}

fn by_http(collector: &Collector) -> Result<Client, reqwest::Error> {
    let mut client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(collector.patience);
    if collector.address.is_local() {
        client = client.no_proxy();
    }
    client = match &collector.tls.authorities {
        Some(pem) => client.tls_certs_only(reqwest::Certificate::from_pem_bundle(pem)?),
        None if collector.address.is_https() => client,
        // Without TLS the system's authorities need not be there at all.
        None => client.tls_certs_only([]),
    };
    if let Some((certificate, key)) = &collector.tls.identity {
        let pem = [&certificate[..], b"\n", key].concat();
        client = client.identity(reqwest::Identity::from_pem(&pem)?);
    }
    Ok(Client::Http(client.build()?))
}

/// An error with what is behind it, which says more.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::path::PathBuf;

    use collector::trace_service_server::{TraceService, TraceServiceServer};
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use tonic::transport::{Server, ServerTlsConfig};

    use super::*;

    fn pem(name: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("tests/it/tls")
            .join(name)
    }

    fn read(name: &str) -> Vec<u8> {
        std::fs::read(pem(name)).unwrap()
    }

    fn sender(variables: &[(&str, &str)]) -> Sender {
        let pairs = variables
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Sender::start(Collector::of(&pairs.collect()).unwrap().unwrap())
    }

    /// Hears spans, and what the header `who` says.
    struct Ear(mpsc::Sender<String>);

    #[tonic::async_trait]
    impl TraceService for Ear {
        async fn export(
            &self,
            request: tonic::Request<collector::ExportTraceServiceRequest>,
        ) -> Result<tonic::Response<collector::ExportTraceServiceResponse>, tonic::Status> {
            let who = request.metadata().get("who").unwrap().to_str().unwrap();
            self.0.send(who.to_owned()).await.unwrap();
            Ok(tonic::Response::new(
                collector::ExportTraceServiceResponse::default(),
            ))
        }
    }

    /// It knows whom it speaks to, and is known.
    ///
    /// Rows: D33
    #[tokio::test]
    async fn spans_go_to_a_collector_behind_tls() {
        let (heard, mut hears) = mpsc::channel(1);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(read("server.pem"), read("server.key")))
            .client_ca_root(Certificate::from_pem(read("ca.pem")));
        registry::use_ring();
        let server = Server::builder().tls_config(tls).unwrap();
        let _serving = stdx::task::spawn("collector", async move {
            let connections = tokio_stream::wrappers::TcpListenerStream::new(listener);
            let mut server = server;
            let server = server.add_service(TraceServiceServer::new(Ear(heard)));
            server.serve_with_incoming(connections).await.unwrap();
        });
        let address = format!("https://localhost:{port}");
        let (ca, certificate, key) = (pem("ca.pem"), pem("client.pem"), pem("client.key"));
        let known = sender(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &address),
            ("OTEL_EXPORTER_OTLP_HEADERS", "who=one"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", ca.to_str().unwrap()),
            (
                "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
                certificate.to_str().unwrap(),
            ),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", key.to_str().unwrap()),
        ]);
        // Nobody we know vouches for it.
        let stranger = sender(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &address),
            ("OTEL_EXPORTER_OTLP_HEADERS", "who=another"),
        ]);
        assert!(stranger.send(super::super::ours(Vec::new())));
        stranger.finish().await;
        assert!(known.send(super::super::ours(Vec::new())));
        assert_eq!(hears.recv().await.unwrap(), "one");
    }

    /// The same by HTTP/1.1, on a connection of a server that is as plain as can be.
    ///
    /// Rows: D33
    #[tokio::test]
    async fn spans_are_posted_behind_tls() {
        registry::use_ring();
        let chain = CertificateDer::pem_file_iter(pem("server.pem"))
            .unwrap()
            .map(Result::unwrap);
        let key = PrivateKeyDer::from_pem_file(pem("server.key")).unwrap();
        let config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(chain.collect(), key)
            .unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!(
            "https://localhost:{}/x",
            listener.local_addr().unwrap().port()
        );
        let serving = std::thread::spawn(move || {
            let mut tls = rustls::ServerConnection::new(Arc::new(config)).unwrap();
            let (mut tcp, _) = listener.accept().unwrap();
            let mut stream = rustls::Stream::new(&mut tls, &mut tcp);
            let mut heard = Vec::new();
            while !heard.windows(4).any(|four| four == b"\r\n\r\n") {
                let mut some = [0; 1024];
                let length = stream.read(&mut some).unwrap();
                assert!(length > 0, "it ended early");
                heard.extend_from_slice(&some[..length]);
            }
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                .unwrap();
            String::from_utf8_lossy(&heard).into_owned()
        });
        let sender = sender(&[
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &address),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "who=one"),
            (
                "OTEL_EXPORTER_OTLP_CERTIFICATE",
                pem("ca.pem").to_str().unwrap(),
            ),
        ]);
        assert!(sender.send(super::super::ours(Vec::new())));
        sender.finish().await;
        let heard = serving.join().unwrap();
        assert!(heard.starts_with("POST /x HTTP/1.1\r\n"), "{heard}");
        assert!(heard.contains("\r\nwho: one\r\n"), "{heard}");
        assert!(heard.contains("application/x-protobuf"), "{heard}");
    }

    /// As a step's: what it speaks to is a socket of its file system.
    ///
    /// Rows: D33
    #[tokio::test]
    async fn spans_go_to_a_socket() {
        let (heard, mut hears) = mpsc::channel(1);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("otel.sock");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let _serving = stdx::task::spawn("collector", async move {
            let connections = tokio_stream::wrappers::UnixListenerStream::new(listener);
            let server = Server::builder().add_service(TraceServiceServer::new(Ear(heard)));
            server.serve_with_incoming(connections).await.unwrap();
        });
        let address = format!("unix://{}", path.display());
        let sender = sender(&[
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &address),
            ("OTEL_EXPORTER_OTLP_HEADERS", "who=step"),
        ]);
        assert!(sender.send(super::super::ours(Vec::new())));
        assert_eq!(hears.recv().await.unwrap(), "step");
    }

    /// Rows: D33
    #[tokio::test]
    async fn a_collector_that_does_not_answer_holds_a_bounded_number_of_bytes() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", silent.local_addr().unwrap());
        let sender = sender(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &address)]);
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
