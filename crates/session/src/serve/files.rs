//! Files to and from the daemon.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use prost::Message as _;
use proto::Raw;
use proto::fsutil::types::Packet;
use proto::moby::filesync::v1::BytesMessage;
use proto::moby::filesync::v1::file_sync_server::{FileSync, FileSyncServer};
use tonic::metadata::MetadataMap;
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::service::RoutesBuilder;
use tonic::{Request, Response, Status, Streaming};

use super::Filled;
use crate::fsutil::Link;
use crate::local::{Dirs, Target, Targets};
use crate::{Attachables, DirRequest, SendRequest, metadata};

pub(super) fn add(routes: &mut RoutesBuilder, offers: &Attachables) {
    if let Some(dirs) = &offers.dirs {
        let service = FileSyncServer::new(Sync(dirs.clone()));
        routes.add_service(service.max_decoding_message_size(proto::MAX_MESSAGE_SIZE));
    }
    if let Some(targets) = &offers.targets {
        routes.add_service(SendServer(targets.clone()));
    }
}

type Packets = BoxStream<'static, Result<Packet, Status>>;

struct Sync(Arc<Dirs>);

#[tonic::async_trait]
impl FileSync for Sync {
    type DiffCopyStream = Packets;
    type TarStreamStream = Packets;

    async fn diff_copy(
        &self,
        call: Request<Streaming<Packet>>,
    ) -> Result<Response<Packets>, Status> {
        let headers = call.metadata();
        let request = DirRequest {
            name: metadata::first(headers, "dir-name").unwrap_or_default(),
            include: metadata::all(headers, "include-patterns"),
            exclude: metadata::all(headers, "exclude-patterns"),
            follow: metadata::all(headers, "followpaths"),
            ..DirRequest::default()
        };
        let (out, outgoing) = Link::outgoing();
        let (failed, failure) = tokio::sync::oneshot::channel();
        let incoming = call.into_inner().map(|message| Ok(message?));
        let dirs = self.0.clone();
        let task = stdx::task::spawn("send", async move {
            if let Err(error) = dirs.send(&request, Link::new(out, incoming)).await {
                tracing::debug!(%error, dir = request.name, "sending a directory");
                // Nobody waiting for it is fine.
                let _ = failed.send(error.to_status());
            }
        });
        let end = failure
            .map(|failure| failure.ok().map(Err))
            .into_stream()
            .filter_map(futures::future::ready);
        let stream = outgoing.map(Ok).chain(end).boxed();
        Ok(Response::new(
            Filled {
                stream,
                _task: task,
            }
            .boxed(),
        ))
    }

    async fn tar_stream(&self, _: Request<Streaming<Packet>>) -> Result<Response<Packets>, Status> {
        Err(Status::unimplemented(
            "directories are sent as DiffCopy only",
        ))
    }
}

/// `FileSend` by hand: its one method carries tarballs in one kind of message and
/// directories in another, and only the receiver knows which it is going to be.
#[derive(Clone)]
struct SendServer(Arc<Targets>);

impl NamedService for SendServer {
    const NAME: &'static str = "moby.filesync.v1.FileSend";
}

impl tower::Service<http::Request<tonic::body::Body>> for SendServer {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = futures::future::BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let method = SendMethod(self.0.clone());
        Box::pin(async move {
            if !request
                .uri()
                .path()
                .eq_ignore_ascii_case("/moby.filesync.v1.FileSend/DiffCopy")
            {
                return Ok(Status::unimplemented("no such method").into_http());
            }
            let mut grpc = Grpc::new(Raw).max_decoding_message_size(proto::MAX_MESSAGE_SIZE);
            Ok(grpc.streaming(method, request).await)
        })
    }
}

struct SendMethod(Arc<Targets>);

impl StreamingService<Bytes> for SendMethod {
    type Response = Bytes;
    type ResponseStream = BoxStream<'static, Result<Bytes, Status>>;
    type Future =
        futures::future::BoxFuture<'static, Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, call: Request<Streaming<Bytes>>) -> Self::Future {
        let targets = self.0.clone();
        Box::pin(async move { take(&targets, call) })
    }
}

fn take(
    targets: &Targets,
    call: Request<Streaming<Bytes>>,
) -> Result<Response<BoxStream<'static, Result<Bytes, Status>>>, Status> {
    let request = send_request(call.metadata());
    let target = targets
        .find(&request)
        .map_err(|error| error.to_status())?
        .clone();
    let incoming = call.into_inner();
    let (failed, failure) = tokio::sync::oneshot::channel();
    let (out, outgoing) = Link::outgoing();
    let work = async move {
        match target {
            Target::Dir { path, delete } => {
                let packets = incoming.map(|message| {
                    Packet::decode(message?).map_err(|e| crate::Error::Protocol(e.to_string()))
                });
                Targets::receive_dir(&path, delete, Link::new(out, packets)).await
            }
            target => {
                // Held until all is in its place: its end is what the daemon waits for.
                let _out = out;
                let bytes = incoming.map(|message| match BytesMessage::decode(message?) {
                    Ok(message) => Ok(message.data),
                    Err(error) => Err(crate::Error::Protocol(error.to_string())),
                });
                Targets::receive_stream(&target, &request.metadata, bytes.boxed()).await
            }
        }
    };
    let task = stdx::task::spawn("take", async move {
        if let Err(error) = work.await {
            tracing::debug!(%error, "taking a result");
            // Nobody waiting for it is fine.
            let _ = failed.send(error.to_status());
        }
    });
    let end = failure
        .map(|failure| failure.ok().map(Err))
        .into_stream()
        .filter_map(futures::future::ready);
    let packets = outgoing.map(|p| Ok(Bytes::from(p.encode_to_vec())));
    Ok(Response::new(
        Filled {
            stream: packets.chain(end).boxed(),
            _task: task,
        }
        .boxed(),
    ))
}

fn send_request(headers: &MetadataMap) -> SendRequest {
    let told = |key: &str| key.strip_prefix("exporter-md-").map(str::to_owned);
    let metadata: BTreeMap<String, String> = headers
        .keys()
        .filter_map(|key| match key {
            tonic::metadata::KeyRef::Ascii(key) => Some(key.as_str()),
            tonic::metadata::KeyRef::Binary(_) => None,
        })
        .filter(|key| !key.ends_with("-encoded"))
        .filter_map(|key| Some((told(key)?, metadata::first(headers, key)?)))
        .collect();
    SendRequest {
        exporter_id: metadata::first(headers, "buildkit-attachable-exporter-id"),
        metadata,
        multi_platform: metadata::first(headers, "buildkit-exporter-multi-platform")
            .and_then(|text| text.parse().ok()),
        // Each entry comes with its time.
        modified: None,
    }
}
