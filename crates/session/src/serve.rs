//! The client's end of a session: a gRPC server over the stream of `Control.Session`,
//! which gives the daemon what the client offers, and nothing else.

mod blobs;
mod files;
mod policy;
mod small;

use std::pin::Pin;
use std::task::{Context, Poll};

use futures::{Stream, StreamExt as _};
use proto::moby::buildkit::v1::BytesMessage;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tonic::service::RoutesBuilder;
use tonic::transport::Server;

use crate::tunnel::{Hello, Pipe, pipe};
use crate::{Attachables, Error, Result};

/// What to say when opening the session: its id, and the methods that are served.
pub fn hello(id: &str, name: &str, shared_key: &str, offers: &Attachables) -> Hello {
    let mut methods = vec!["/grpc.health.v1.Health/Check"];
    let mut add = |yes: bool, more: &[&'static str]| {
        if yes {
            methods.extend(more);
        }
    };
    add(
        offers.dirs.is_some(),
        &["/moby.filesync.v1.FileSync/DiffCopy"],
    );
    add(
        offers.targets.is_some(),
        &["/moby.filesync.v1.FileSend/DiffCopy"],
    );
    add(
        offers.auth.is_some(),
        &[
            "/moby.filesync.v1.Auth/Credentials",
            "/moby.filesync.v1.Auth/FetchToken",
            "/moby.filesync.v1.Auth/GetTokenAuthority",
            "/moby.filesync.v1.Auth/VerifyTokenAuthority",
        ],
    );
    add(
        offers.secrets.is_some(),
        &["/moby.buildkit.secrets.v1.Secrets/GetSecret"],
    );
    add(
        offers.ssh.is_some(),
        &[
            "/moby.sshforward.v1.SSH/CheckAgent",
            "/moby.sshforward.v1.SSH/ForwardAgent",
        ],
    );
    add(
        offers.content.is_some(),
        &[
            "/containerd.services.content.v1.Content/Info",
            "/containerd.services.content.v1.Content/Read",
            "/containerd.services.content.v1.Content/Write",
        ],
    );
    add(offers.upload.is_some(), &["/moby.upload.v1.Upload/Pull"]);
    add(
        offers.exporters.is_some(),
        &[
            "/moby.exporter.v1.Exporter/FindExporters",
            "/moby.exporter.v1.Exporter/FinalizeExport",
        ],
    );
    add(offers.policies.is_some(), &[crate::remote::CHECK_POLICY]);
    Hello {
        id: id.to_owned(),
        name: name.to_owned(),
        shared_key: shared_key.to_owned(),
        methods: methods.into_iter().map(str::to_owned).collect(),
    }
}

/// A session being served; drop it and it ends.
#[must_use = "dropping it ends the session"]
pub struct Serving(#[expect(dead_code, reason = "held, not read")] stdx::task::Task<()>);

/// Serves over messages. The first value gives what has to be sent to the daemon, the
/// second takes what comes from it once the call has been answered.
pub fn over(
    offers: Attachables,
    incoming: impl Stream<Item = Result<BytesMessage, tonic::Status>> + Send + Unpin + 'static,
) -> (mpsc::Receiver<BytesMessage>, Serving) {
    let Pipe {
        io, outgoing, over, ..
    } = pipe(incoming);
    let serving = async move {
        if let Err(error) = on(io, offers, over).await {
            tracing::debug!(%error, "session ends");
        }
    };
    (outgoing, Serving(stdx::task::spawn("session", serving)))
}

/// Serves one connection until it, or `until`, is over.
pub async fn on(
    io: DuplexStream,
    offers: Attachables,
    until: impl Future<Output = ()> + Send,
) -> Result<()> {
    let mut routes = RoutesBuilder::default();
    small::add(&mut routes, &offers);
    files::add(&mut routes, &offers);
    blobs::add(&mut routes, &offers);
    policy::add(&mut routes, &offers);
    let connections =
        futures::stream::iter([Ok::<_, std::io::Error>(io)]).chain(futures::stream::pending());
    Server::builder()
        .http2_max_header_list_size(proto::MAX_HEADER_LIST_SIZE)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(8 << 20)
        .add_routes(routes.routes())
        .serve_with_incoming_shutdown(connections, until)
        .await
        .map_err(|error| Error::Lost(error.to_string()))
}

/// A stream with the task that fills it: when nobody reads on, the task stops.
struct Filled<S> {
    stream: S,
    _task: stdx::task::Task<()>,
}

impl<S: Stream + Unpin> Stream for Filled<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        self.stream.poll_next_unpin(cx)
    }
}
