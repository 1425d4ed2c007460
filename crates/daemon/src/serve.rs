//! Putting the services together, and starting and stopping them.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::StreamExt as _;
use proto::containerd::services::content::v1::content_server::ContentServer;
use proto::moby::buildkit::v1::control_server::ControlServer;
use proto::moby::buildkit::v1::frontend::llb_bridge_server::LlbBridgeServer;
use proto::opentelemetry::proto::collector::trace::v1::trace_service_server::TraceServiceServer;
use tokio::io::DuplexStream;
use tokio::sync::watch;
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tonic::service::Routes;
use tonic::transport::Server;

use crate::Error;
use crate::blobs::Blobs;
use crate::builder::Builder;
use crate::builds::Builds;
use crate::config::Config;
use crate::control::Control;
use crate::debug::{self, Metrics, Shown};
use crate::gateway::{Gateways, OpenBuilds};
use crate::gc::Pruner;
use crate::history::{Finalizers, History};
use crate::listen::{self, Listener, Socket};
use crate::traces::{self, Traces};

/// How long sessions may take to end once the last build has.
const GOODBYE: Duration = Duration::from_secs(2);

/// The services, ready to answer over any number of connections.
pub struct Services {
    routes: Routes,
    builds: Builds,
    finalizers: Finalizers,
    shown: Shown,
    traces: Traces,
    builder: Arc<dyn Builder>,
    stop: watch::Sender<bool>,
}

impl Services {
    /// Services that build with `builder`.
    pub fn new(builder: Arc<dyn Builder>, config: &Config) -> Result<Services, Error> {
        let (stop, stopping) = watch::channel(false);
        let builds = Builds::default();
        let worker = crate::to_proto::worker(&builder.worker(), &config.gc);
        let open = OpenBuilds::default();
        let blobs = ContentServer::new(Blobs::new(builder.clone()));
        let history = History::new(
            builder.archive()?,
            config.history_age,
            config.history_entries,
        );
        if let Err(error) = history.forget_old(SystemTime::now()) {
            tracing::warn!(
                error = crate::to_proto::sentence(&error),
                "old builds stay remembered"
            );
        }
        let metrics = Metrics::default();
        let shown = Shown {
            metrics: metrics.clone(),
            history: history.clone(),
            builder: builder.clone(),
        };
        let traces = Traces::new(config.collector.clone());
        let finalizers = Finalizers::default();
        let control = Control {
            builds: builds.clone(),
            open: open.clone(),
            history,
            finalizers: finalizers.clone(),
            traces: traces.clone(),
            metrics: metrics.clone(),
            pruner: Pruner::new(builder.clone(), config.gc.clone()),
            gc: config.gc.clone(),
            entitlements: config.entitlements.clone(),
            progress: progress::Options {
                limits: config.log_limits,
                spool_dir: None,
                trace: None,
            },
            stopping,
            builder: builder.clone(),
        };
        let limit = proto::MAX_MESSAGE_SIZE;
        let control = ControlServer::new(control)
            .max_decoding_message_size(limit)
            .max_encoding_message_size(limit);
        let bridge = LlbBridgeServer::new(Gateways::new(open, worker))
            .max_decoding_message_size(limit)
            .max_encoding_message_size(limit);
        let (_, health) = tonic_health::server::health_reporter();
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .build_v1()
            .map_err(Error::Reflection)?;
        let old_reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .build_v1alpha()
            .map_err(Error::Reflection)?;
        let routes = Routes::new(control)
            .add_service(bridge)
            .add_service(blobs)
            .add_service(health)
            .add_service(reflection)
            .add_service(old_reflection)
            .add_service(TraceServiceServer::new(traces.clone()).max_decoding_message_size(limit));
        let routes = Routes::from(routes.into_axum_router().layer(metrics));
        Ok(Services {
            routes,
            builds,
            finalizers,
            shown,
            traces,
            builder,
            stop,
        })
    }

    /// Answers over one connection until the other side closes it: for a client in the
    /// same process.
    pub async fn answer(&self, connection: DuplexStream) -> Result<(), Error> {
        let incoming = futures::stream::once(async { Ok::<_, std::io::Error>(connection) });
        // The stream must not end before the connection does, or the server would.
        let incoming = incoming.chain(futures::stream::pending());
        server()
            .add_routes(self.routes.clone())
            .serve_with_incoming(incoming)
            .await
            .map_err(Error::Serve)
    }

    /// Cancels the builds that run, refuses new ones, and waits until all have cleaned up.
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        self.builds.idle().await;
        self.finalizers.hurry();
    }

    /// What is told of builds that have ended is written and sent, if that is quick.
    async fn write_traces(&self) {
        let written = tokio::time::timeout(GOODBYE, self.finalizers.settle()).await;
        if written.is_err() {
            tracing::warn!("traces of the last builds are not kept");
        }
        self.traces.sent().await;
    }

    /// Flushes what builds left unflushed, if that is quick, and lets go of what was kept
    /// for further ones.
    pub async fn finish(&self) {
        self.write_traces().await;
        self.builder.close().await;
        if let Err(failure) = self.builder.sync(true).await {
            tracing::warn!(
                error = failure.message,
                "could not flush results to the disk"
            );
        }
    }

    /// Answers at all `listeners` until `asked` says to stop, or one of them cannot go on;
    /// then refuses new builds, cancels those that run, and lets them clean up.
    pub async fn serve(
        &self,
        listeners: Vec<Listener>,
        config: &Config,
        asked: impl Future<Output = ()>,
    ) -> Result<(), Error> {
        let served = self.serve_until(listeners, config, asked).await;
        self.write_traces().await;
        self.builder.close().await;
        served
    }

    async fn serve_until(
        &self,
        listeners: Vec<Listener>,
        config: &Config,
        asked: impl Future<Output = ()>,
    ) -> Result<(), Error> {
        let (close, closed) = watch::channel(false);
        let mut servers = futures::stream::FuturesUnordered::new();
        for listener in listeners {
            servers.push(self.serve_one(listener, config, closed.clone()));
        }
        let _debugging = match &config.debug_address {
            None => None,
            Some(address) => {
                let listener = debug::listen(address).await?;
                let shown = self.shown.clone();
                Some(stdx::task::spawn("debug", debug::serve(listener, shown)))
            }
        };
        let _tracing = match &config.trace_socket {
            None => None,
            Some(path) => {
                let listener = listen::for_steps(path, config)?;
                let (traces, closed) = (self.traces.clone(), closed.clone());
                let serving = traces::serve(listener, traces, closed);
                Some(stdx::task::spawn("traces of steps", serving))
            }
        };
        tokio::pin!(asked);
        let served = tokio::select! {
            ended = servers.next() => ended.unwrap_or(Ok(())),
            () = &mut asked => Ok(()),
        };
        tracing::info!("stopping");
        self.stop.send_replace(true);
        let builds_end = async {
            self.builds.idle().await;
            self.finalizers.hurry();
            close.send_replace(true);
        };
        let drained = async {
            while let Some(ended) = servers.next().await {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a server ended");
                }
            }
        };
        tokio::select! {
            () = drained => {}
            // Clients that keep their connections open do not hold us for ever.
            () = async { builds_end.await; tokio::time::sleep(GOODBYE).await } => {}
        }
        served
    }

    async fn serve_one(
        &self,
        mut listener: Listener,
        config: &Config,
        mut closed: watch::Receiver<bool>,
    ) -> Result<(), Error> {
        let until = async move {
            // The sender lives until all servers have ended.
            let _ = closed.wait_for(|closed| *closed).await;
        };
        tracing::info!(address = listener.address, "listening");
        let served = match listener.take_socket() {
            None => return Ok(()),
            Some(Socket::Unix(socket)) => {
                let incoming = UnixListenerStream::new(socket);
                server()
                    .add_routes(self.routes.clone())
                    .serve_with_incoming_shutdown(incoming, until)
                    .await
            }
            Some(Socket::Tcp(socket)) => {
                let mut server = server();
                if let Some(files) = &config.tls {
                    server = server.tls_config(listen::tls(files)?).map_err(Error::Tls)?;
                }
                let incoming = TcpListenerStream::new(socket);
                server
                    .add_routes(self.routes.clone())
                    .serve_with_incoming_shutdown(incoming, until)
                    .await
            }
        };
        served.map_err(Error::Serve)
    }
}

pub(crate) fn server() -> Server {
    Server::builder()
        .http2_max_header_list_size(proto::MAX_HEADER_LIST_SIZE)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(8 << 20)
        .max_concurrent_streams(None)
}
