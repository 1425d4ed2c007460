//! The bridge over a frontend container's standard input and output: HTTP/2 on a pair of
//! pipes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use engine::{FrontendServer, Line};
use frontend::{Bridge, FrontendResult};
use futures::StreamExt as _;
use proto::moby::buildkit::v1::frontend::llb_bridge_server::LlbBridgeServer;
use proto::moby::buildkit::v1::types::WorkerRecord;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tonic::transport::Server;
use tonic::transport::server::Connected;

use super::{Gateways, Open, OpenBuild};
use crate::to_proto;

/// How long a frontend may keep its line open after it has returned a result.
const GOODBYE: Duration = Duration::from_secs(10);

/// Speaks with frontends that live in containers.
pub(crate) struct Pipes {
    worker: Arc<WorkerRecord>,
}

impl Pipes {
    /// On a worker like this. What it can run is asked of each build.
    pub(crate) fn new(worker: WorkerRecord) -> Pipes {
        Pipes {
            worker: Arc::new(worker),
        }
    }
}

#[async_trait]
impl FrontendServer for Pipes {
    async fn serve(
        &self,
        bridge: Arc<dyn Bridge>,
        line: Box<dyn Line>,
    ) -> Option<frontend::Result<FrontendResult>> {
        let (build, mut returned) = OpenBuild::new(bridge);
        let gateway = Gateways {
            open: Open::Only(build.clone()),
            worker: self.worker.clone(),
        };
        let serving = answer(gateway, line);
        tokio::pin!(serving);
        let result = tokio::select! {
            () = &mut serving => returned.try_recv().ok(),
            result = &mut returned => {
                // Its answer to the frontend still has to go out.
                let _stays_open = tokio::time::timeout(GOODBYE, &mut serving).await;
                result.ok()
            }
        };
        build.containers.release_all().await;
        let said = |status: &_| to_proto::returned_error(status);
        result.map(|result| result.map_err(|status| said(&status)))
    }

    fn workers(&self, bridge: &dyn Bridge) -> String {
        to_proto::workers_json(&[to_proto::worker_now(&self.worker, bridge)])
    }
}

/// Answers until the line is closed.
async fn answer(gateway: Gateways, line: Box<dyn Line>) {
    let limit = proto::MAX_MESSAGE_SIZE;
    let bridge = LlbBridgeServer::new(gateway)
        .max_decoding_message_size(limit)
        .max_encoding_message_size(limit);
    let (_, health) = tonic_health::server::health_reporter();
    let (close, closed) = oneshot::channel();
    let line = Wire {
        line,
        _closes: close,
    };
    let incoming = futures::stream::once(async { Ok::<_, io::Error>(line) });
    // The stream must not end before the connection does, or the server would.
    let incoming = incoming.chain(futures::stream::pending());
    let serving = Server::builder()
        .http2_max_header_list_size(proto::MAX_HEADER_LIST_SIZE)
        .add_service(bridge)
        .add_service(health)
        .serve_with_incoming(incoming);
    tokio::select! {
        ended = serving => {
            if let Err(error) = ended {
                tracing::debug!(%error, "the server of a frontend ended");
            }
        }
        // The server drops the line when the frontend has closed it.
        _ = closed => {}
    }
}

/// A line as a server takes it.
struct Wire {
    line: Box<dyn Line>,
    /// Dropped with the line.
    _closes: oneshot::Sender<()>,
}

impl Connected for Wire {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.line).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.line).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.line).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.line).poll_shutdown(cx)
    }
}
