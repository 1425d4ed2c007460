//! The client's content stores, as containerd's content service.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use oci::{Descriptor, Digest};
use proto::containerd::services::content::v1 as wire;
use proto::containerd::services::content::v1::content_server::{Content, ContentServer};
use stdx::Kind;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::service::RoutesBuilder;
use tonic::{Request, Response, Status, Streaming};

use super::Filled;
use crate::remote::STORE;
use crate::{Attachables, ContentStore, ContentStores, metadata};

pub(super) fn add(routes: &mut RoutesBuilder, offers: &Attachables) {
    if let Some(stores) = &offers.content {
        let service = ContentServer::new(Blobs(stores.clone()))
            .max_decoding_message_size(proto::MAX_MESSAGE_SIZE)
            .max_encoding_message_size(proto::MAX_MESSAGE_SIZE);
        routes.add_service(service);
    }
}

struct Blobs(Arc<dyn ContentStores>);

impl Blobs {
    fn store(&self, headers: &MetadataMap) -> Arc<dyn ContentStore> {
        self.0
            .store(&metadata::first(headers, STORE).unwrap_or_default())
    }
}

/// A blob of which only the name is known: its size is whatever it is.
fn named(digest: &str) -> Result<Descriptor, Status> {
    let digest: Digest = digest
        .parse()
        .map_err(|e: oci::InvalidDigest| Status::invalid_argument(e.to_string()))?;
    Ok(Descriptor::new("application/octet-stream", digest, 0))
}

fn status(error: &content::Error) -> Status {
    let code = match error.kind() {
        Kind::NotFound => tonic::Code::NotFound,
        Kind::AlreadyExists => tonic::Code::AlreadyExists,
        Kind::InvalidInput => tonic::Code::InvalidArgument,
        Kind::Denied => tonic::Code::PermissionDenied,
        Kind::Unavailable => tonic::Code::Unavailable,
        Kind::Canceled => tonic::Code::Cancelled,
        Kind::Unsupported => tonic::Code::Unimplemented,
        Kind::Internal => tonic::Code::Internal,
    };
    // The other end has only this text: an error that keeps its reason in its cause must not
    // lose it on the way.
    Status::new(code, stdx::text::sentence(error))
}

fn not_here<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented(
        "a client's store can be read and written, nothing else",
    ))
}

#[tonic::async_trait]
impl Content for Blobs {
    async fn info(
        &self,
        call: Request<wire::InfoRequest>,
    ) -> Result<Response<wire::InfoResponse>, Status> {
        let store = self.store(call.metadata());
        let blob = named(&call.get_ref().digest)?;
        let size = store.size(&blob).await.map_err(|e| status(&e))?;
        let info = wire::Info {
            digest: blob.digest.to_string(),
            size: i64::try_from(size).unwrap_or(i64::MAX),
            ..wire::Info::default()
        };
        Ok(Response::new(wire::InfoResponse { info: Some(info) }))
    }

    type ReadStream = BoxStream<'static, Result<wire::ReadContentResponse, Status>>;

    async fn read(
        &self,
        call: Request<wire::ReadContentRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let store = self.store(call.metadata());
        let request = call.get_ref();
        let blob = named(&request.digest)?;
        let offset =
            u64::try_from(request.offset).map_err(|_| Status::out_of_range("before the start"))?;
        let limit = match u64::try_from(request.size) {
            Ok(0) | Err(_) => u64::MAX,
            Ok(size) => size,
        };
        let bytes = store.read(&blob, offset).await.map_err(|e| status(&e))?;
        let pieces = bytes.scan((offset, limit), |(at, left), piece| {
            let answer = piece.map_err(|e| status(&e)).map(|mut data| {
                data.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                let offset = i64::try_from(*at).unwrap_or(i64::MAX);
                *at += data.len() as u64;
                *left -= data.len() as u64;
                wire::ReadContentResponse { offset, data }
            });
            let over = matches!(&answer, Ok(piece) if piece.data.is_empty());
            futures::future::ready((!over).then_some(answer))
        });
        Ok(Response::new(pieces.boxed()))
    }

    type WriteStream = BoxStream<'static, Result<wire::WriteContentResponse, Status>>;

    async fn write(
        &self,
        call: Request<Streaming<wire::WriteContentRequest>>,
    ) -> Result<Response<Self::WriteStream>, Status> {
        let store = self.store(call.metadata());
        let incoming = call.into_inner();
        let (out, outgoing) = mpsc::channel(16);
        let task = stdx::task::spawn("write-blob", async move {
            if let Err(status) = write(store, incoming, &out).await {
                // Nobody waiting for it is fine.
                let _ = out.send(Err(status)).await;
            }
        });
        Ok(Response::new(
            Filled {
                stream: ReceiverStream::new(outgoing),
                _task: task,
            }
            .boxed(),
        ))
    }

    async fn status(
        &self,
        _: Request<wire::StatusRequest>,
    ) -> Result<Response<wire::StatusResponse>, Status> {
        Err(Status::not_found(
            "nothing is being written under this name",
        ))
    }

    async fn list_statuses(
        &self,
        _: Request<wire::ListStatusesRequest>,
    ) -> Result<Response<wire::ListStatusesResponse>, Status> {
        Ok(Response::new(wire::ListStatusesResponse::default()))
    }

    async fn abort(&self, _: Request<wire::AbortRequest>) -> Result<Response<()>, Status> {
        Ok(Response::new(()))
    }

    async fn update(
        &self,
        call: Request<wire::UpdateRequest>,
    ) -> Result<Response<wire::UpdateResponse>, Status> {
        // Labels mean nothing to these stores; saying yes to them harms nobody.
        Ok(Response::new(wire::UpdateResponse {
            info: call.into_inner().info,
        }))
    }

    type ListStream = BoxStream<'static, Result<wire::ListContentResponse, Status>>;

    async fn list(
        &self,
        _: Request<wire::ListContentRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        not_here()
    }

    async fn delete(&self, _: Request<wire::DeleteContentRequest>) -> Result<Response<()>, Status> {
        not_here()
    }
}

type Answers = mpsc::Sender<Result<wire::WriteContentResponse, Status>>;

/// One blob being written. Messages have to come in order; the blob appears when it
/// is committed and is what its digest says.
async fn write(
    store: Arc<dyn ContentStore>,
    mut incoming: Streaming<wire::WriteContentRequest>,
    answers: &Answers,
) -> Result<(), Status> {
    let (mut blob, mut offset) = (None, 0_i64);
    let (bytes, pieces) = mpsc::channel::<Result<Bytes, content::Error>>(4);
    let (mut bytes, mut pieces) = (Some(bytes), Some(pieces));
    let mut putting: Option<stdx::task::Task<content::Result<()>>> = None;

    while let Some(message) = incoming.message().await? {
        let action = message.action();
        if blob.is_none() && !message.expected.is_empty() {
            let mut named = named(&message.expected)?;
            named.size = u64::try_from(message.total).unwrap_or(0);
            if store.has(&named).await.map_err(|e| status(&e))? {
                return Err(Status::already_exists(format!("content {}", named.digest)));
            }
            blob = Some(named);
        }
        if !message.data.is_empty() {
            if message.offset != offset {
                return Err(Status::out_of_range(format!(
                    "{} comes after {offset}",
                    message.offset
                )));
            }
            offset += message.data.len() as i64;
            if let (Some(blob), Some(pieces)) = (&blob, pieces.take()) {
                let (store, blob) = (store.clone(), blob.clone());
                let stream = Box::pin(ReceiverStream::new(pieces));
                putting = Some(stdx::task::spawn("put", async move {
                    store.put(&blob, stream).await
                }));
            }
            let to = bytes
                .as_ref()
                .ok_or_else(|| Status::failed_precondition("after the end"))?;
            if pieces.is_some() {
                return Err(Status::invalid_argument("a blob without its digest"));
            }
            if to.send(Ok(message.data)).await.is_err() {
                break;
            }
        }
        if action == wire::WriteAction::Commit {
            break;
        }
        answer(answers, action, offset, message.total, "").await;
    }
    let blob = blob.ok_or_else(|| Status::invalid_argument("a blob without its digest"))?;
    drop(bytes.take());
    let put = match (putting, pieces.take()) {
        (Some(task), _) => task.await,
        (None, Some(pieces)) => {
            store
                .put(&blob, Box::pin(ReceiverStream::new(pieces)))
                .await
        }
        (None, None) => Ok(()),
    };
    put.map_err(|e| status(&e))?;
    let name = blob.digest.to_string();
    answer(answers, wire::WriteAction::Commit, offset, offset, &name).await;
    Ok(())
}

async fn answer(
    answers: &Answers,
    action: wire::WriteAction,
    offset: i64,
    total: i64,
    digest: &str,
) {
    let answer = wire::WriteContentResponse {
        action: action.into(),
        offset,
        total,
        digest: digest.to_owned(),
        ..wire::WriteContentResponse::default()
    };
    // Whoever does not read answers does not need them.
    let _ = answers.send(Ok(answer)).await;
}
