//! Files from and to a client.

use async_trait::async_trait;
use contenthash::Contents;
use futures::{StreamExt as _, TryStreamExt as _};
use proto::fsutil::types::Packet;
use proto::moby::filesync::v1::BytesMessage;
use proto::moby::filesync::v1::file_send_client::FileSendClient;
use proto::moby::filesync::v1::file_sync_client::FileSyncClient;
use stdx::sys::Root;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use crate::fsutil::{Batch, Filter, Link, Owner, Receive, dated, receive, send};
use crate::patterns::Patterns;
use crate::{
    Bytestream, DirRequest, Error, FileSend, FileSync, Observer, Result, SendRequest, Summary,
    Target, metadata,
};

/// Largest piece of a tarball in one message.
const PIECE: usize = 3 << 20;

pub(super) struct RemoteFiles(pub(super) Channel);

#[async_trait]
impl FileSync for RemoteFiles {
    async fn sync_hashed(
        &self,
        request: &DirRequest,
        target: Target,
        observer: Option<Observer>,
    ) -> Result<(Summary, Option<Contents>)> {
        let mut headers = MetadataMap::new();
        metadata::add(
            &mut headers,
            "dir-name",
            std::slice::from_ref(&request.name),
        )?;
        metadata::add(&mut headers, "include-patterns", &request.include)?;
        metadata::add(&mut headers, "exclude-patterns", &request.exclude)?;
        metadata::add(&mut headers, "followpaths", &request.follow)?;

        let (out, outgoing) = Link::outgoing();
        let mut call = Request::new(outgoing);
        *call.metadata_mut() = headers;
        let mut client =
            FileSyncClient::new(self.0.clone()).max_decoding_message_size(proto::MAX_MESSAGE_SIZE);
        let incoming = async move { client.diff_copy(call).await };
        let metadata_only = match request.metadata_only {
            true => Some(Patterns::new(&request.metadata_except)?),
            false => None,
        };
        let options = Receive {
            owner: sync_owner(),
            delete: true,
            all: request.all,
            metadata_only,
            known: target.known,
            hold: target.hold,
            observer,
        };
        receive(link(out, incoming), target.root, options).await
    }
}

/// Whose synced files are: root's, if we can give them to root.
pub(crate) fn sync_owner() -> Owner {
    match rustix::process::geteuid().is_root() {
        true => Owner::Fixed(0, 0),
        false => Owner::Ours,
    }
}

/// The call as a link. A peer may give the head of its answer only with the first
/// thing it has to say, so the answer is waited for while we are talking already.
fn link(
    out: mpsc::Sender<Batch>,
    answer: impl Future<Output = Result<Response<Streaming<Packet>>, Status>> + Send + 'static,
) -> Link {
    let packets = futures::stream::once(answer)
        .map_ok(Response::into_inner)
        .try_flatten()
        .map_err(Error::from);
    Link::new(out, packets)
}

fn send_headers(request: &SendRequest) -> Result<MetadataMap> {
    let mut headers = MetadataMap::new();
    for (key, value) in &request.metadata {
        let key = format!("exporter-md-{}", key.to_lowercase());
        metadata::add(&mut headers, &key, std::slice::from_ref(value))?;
    }
    if let Some(id) = &request.exporter_id {
        metadata::add(
            &mut headers,
            "buildkit-attachable-exporter-id",
            std::slice::from_ref(id),
        )?;
    }
    if let Some(multi) = request.multi_platform {
        metadata::add(
            &mut headers,
            "buildkit-exporter-multi-platform",
            &[multi.to_string()],
        )?;
    }
    Ok(headers)
}

#[async_trait]
impl FileSend for RemoteFiles {
    async fn send_stream(&self, request: &SendRequest, mut bytes: Bytestream) -> Result<()> {
        let (out, outgoing) = mpsc::channel(4);
        let mut call = Request::new(ReceiverStream::new(outgoing));
        *call.metadata_mut() = send_headers(request)?;
        let mut client = FileSendClient::new(self.0.clone());
        // The client ends the call once it has put everything where it belongs.
        let answers = async {
            let mut answers = client.diff_copy(call).await?.into_inner();
            while answers.message().await?.is_some() {}
            Ok(())
        };
        let mut out = Some(out);
        let feed = async {
            while let (Some(piece), Some(out)) = (bytes.next().await, &out) {
                let mut piece = piece?;
                while !piece.is_empty() {
                    let data = piece.split_to(piece.len().min(PIECE));
                    if out.send(BytesMessage { data }).await.is_err() {
                        return Ok(());
                    }
                }
            }
            // Only a stream that is whole is ended. One that broke is left open, and
            // the call is cut off, so that the client does not take it for whole.
            out = None;
            Ok(())
        };
        tokio::try_join!(answers, feed).map(|_| ())
    }

    async fn send_dir(
        &self,
        request: &SendRequest,
        dir: Root,
        observer: Option<Observer>,
    ) -> Result<()> {
        let (out, outgoing) = Link::outgoing();
        let mut call = Request::new(outgoing);
        *call.metadata_mut() = send_headers(request)?;
        // The same method carries two kinds of message, told apart by who receives.
        let mut grpc = tonic::client::Grpc::new(self.0.clone());
        grpc.ready()
            .await
            .map_err(|error| Error::Lost(error.to_string()))?;
        let codec = tonic_prost::ProstCodec::<Packet, Packet>::default();
        let path = http::uri::PathAndQuery::from_static("/moby.filesync.v1.FileSend/DiffCopy");
        let incoming = async move { grpc.streaming(call, path, codec).await };
        send(
            link(out, incoming),
            dir,
            Filter::default(),
            dated(request.modified),
            observer,
        )
        .await
    }
}
