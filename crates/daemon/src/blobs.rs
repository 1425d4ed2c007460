//! The blobs of the daemon's store, to be read and not to be written (row D29): clients
//! fetch logs, provenance and results of the history here.

use std::sync::Arc;

use content::Provider;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use oci::Descriptor;
use proto::containerd::services::content::v1 as wire;
use proto::containerd::services::content::v1::content_server::Content;
use tonic::{Request, Response, Status, Streaming};

use crate::builder::Builder;
use crate::{from_proto, to_proto};

/// Blobs told at a time.
const AT_A_TIME: usize = 1000;

/// Read access.
pub(crate) struct Blobs {
    blobs: Arc<dyn Provider>,
    builder: Arc<dyn Builder>,
}

fn refused(error: content::Error) -> Status {
    Status::new(to_proto::code(error.kind()), stdx::text::sentence(&error))
}

/// A blob as a list has it.
fn listed(blob: content::BlobInfo) -> wire::Info {
    let created = prost_types::Timestamp::from(blob.created);
    wire::Info {
        digest: blob.digest.to_string(),
        size: i64::try_from(blob.size).unwrap_or(i64::MAX),
        created_at: Some(created),
        updated_at: Some(created),
        ..wire::Info::default()
    }
}

fn read_only<T>() -> Result<T, Status> {
    Err(Status::permission_denied("the content store is read-only"))
}

impl Blobs {
    /// What `builder` has.
    pub(crate) fn new(builder: Arc<dyn Builder>) -> Blobs {
        Blobs {
            blobs: builder.blobs(),
            builder,
        }
    }

    /// A blob that is there, with its size.
    async fn find(&self, digest: &str) -> Result<Descriptor, Status> {
        let mut blob = Descriptor::new("", from_proto::digest(digest)?, 0);
        blob.size = self.blobs.size(&blob).await.map_err(refused)?;
        Ok(blob)
    }
}

#[tonic::async_trait]
impl Content for Blobs {
    async fn info(
        &self,
        call: Request<wire::InfoRequest>,
    ) -> Result<Response<wire::InfoResponse>, Status> {
        let blob = self.find(&call.get_ref().digest).await?;
        let size = i64::try_from(blob.size).unwrap_or(i64::MAX);
        let info = wire::Info {
            digest: blob.digest.to_string(),
            size,
            ..wire::Info::default()
        };
        Ok(Response::new(wire::InfoResponse { info: Some(info) }))
    }

    type ReadStream = BoxStream<'static, Result<wire::ReadContentResponse, Status>>;

    async fn read(
        &self,
        call: Request<wire::ReadContentRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let request = call.into_inner();
        let blob = self.find(&request.digest).await?;
        let offset = u64::try_from(request.offset)
            .ok()
            .filter(|offset| *offset <= blob.size);
        let offset =
            offset.ok_or_else(|| Status::out_of_range("the offset is outside the blob"))?;
        let wanted = u64::try_from(request.size)
            .ok()
            .filter(|size| *size > 0)
            .unwrap_or(u64::MAX);
        let bytes = self.blobs.read(&blob, offset).await.map_err(refused)?;
        let pieces = bytes.scan((offset, wanted), |(at, left), piece| {
            let answer = piece.map_err(refused).map(|mut data| {
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

    type ListStream = BoxStream<'static, Result<wire::ListContentResponse, Status>>;

    async fn list(
        &self,
        call: Request<wire::ListContentRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        if !call.get_ref().filters.is_empty() {
            return Err(Status::unimplemented(
                "not supported yet: filters of a list of blobs",
            ));
        }
        let state = (self.builder.clone(), None);
        let answers = futures::stream::try_unfold(state, |(builder, after)| async move {
            let builder_too = builder.clone();
            let page = move || builder_too.list_blobs(after.as_ref(), AT_A_TIME);
            let page = stdx::task::blocking(page).await.map_err(refused)?;
            let Some(last) = page.last().map(|blob| blob.digest) else {
                return Ok(None);
            };
            let info = page.into_iter().map(listed).collect();
            let answer = wire::ListContentResponse { info };
            Ok(Some((answer, (builder, Some(last)))))
        });
        Ok(Response::new(answers.boxed()))
    }

    type WriteStream = BoxStream<'static, Result<wire::WriteContentResponse, Status>>;

    async fn write(
        &self,
        _: Request<Streaming<wire::WriteContentRequest>>,
    ) -> Result<Response<Self::WriteStream>, Status> {
        read_only()
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

    async fn update(
        &self,
        _: Request<wire::UpdateRequest>,
    ) -> Result<Response<wire::UpdateResponse>, Status> {
        read_only()
    }

    async fn delete(&self, _: Request<wire::DeleteContentRequest>) -> Result<Response<()>, Status> {
        read_only()
    }

    async fn abort(&self, _: Request<wire::AbortRequest>) -> Result<Response<()>, Status> {
        read_only()
    }
}
