//! A client's content stores: image layouts and cache directories.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use content::ByteStream;
use futures::StreamExt as _;
use oci::Descriptor;
use proto::containerd::services::content::v1 as wire;
use proto::containerd::services::content::v1::content_client::ContentClient;
use stdx::Kind;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Request};

use crate::{ContentStore, ContentStores, Error, metadata};

/// Header that says which of the client's stores is meant.
pub(crate) const STORE: &str = "buildkit-attachable-store-id";

/// Largest piece of a blob in one message.
const PIECE: usize = 1 << 20;

pub(super) struct RemoteStores(pub(super) Channel);

impl ContentStores for RemoteStores {
    fn store(&self, id: &str) -> Arc<dyn ContentStore> {
        Arc::new(RemoteStore {
            channel: self.0.clone(),
            id: id.to_owned(),
        })
    }
}

/// One of a client's stores.
pub struct RemoteStore {
    channel: Channel,
    id: String,
}

impl RemoteStore {
    fn client(&self) -> ContentClient<Channel> {
        ContentClient::new(self.channel.clone())
            .max_decoding_message_size(proto::MAX_MESSAGE_SIZE)
            .max_encoding_message_size(proto::MAX_MESSAGE_SIZE)
    }

    fn call<T>(&self, message: T) -> crate::Result<Request<T>> {
        let mut call = Request::new(message);
        metadata::add(call.metadata_mut(), STORE, std::slice::from_ref(&self.id))?;
        Ok(call)
    }

    fn failed(&self, error: impl Into<Error>) -> content::Error {
        let error = error.into();
        content::Error::place(
            format!("the client's store {}", self.id),
            error.kind(),
            error,
        )
    }

    fn status(&self, blob: &Descriptor, status: tonic::Status) -> content::Error {
        match status.code() {
            Code::NotFound => content::Error::NotFound(blob.digest),
            _ => self.failed(status),
        }
    }

    async fn write(&self, blob: &Descriptor, mut bytes: ByteStream) -> content::Result<()> {
        let (out, outgoing) = tokio::sync::mpsc::channel(4);
        let broken = self.failed(Error::Lost("the client stopped writing".into()));
        let blob_name = blob.digest.to_string();
        let size = i64::try_from(blob.size).unwrap_or(i64::MAX);
        let message =
            |action: wire::WriteAction, offset: u64, data: Bytes| wire::WriteContentRequest {
                action: action.into(),
                r#ref: blob_name.clone(),
                total: size,
                expected: blob_name.clone(),
                offset: i64::try_from(offset).unwrap_or(i64::MAX),
                data,
                labels: Default::default(),
            };
        let begin = message(wire::WriteAction::Stat, 0, Bytes::new());
        out.send(begin).await.map_err(|_| broken.clone())?;
        let call = self
            .call(ReceiverStream::new(outgoing))
            .map_err(|error| self.failed(error))?;
        let answers = self.client().write(call).await;
        let mut answers = match answers {
            Ok(answers) => answers.into_inner(),
            Err(status) if status.code() == Code::AlreadyExists => return Ok(()),
            Err(status) => return Err(self.failed(status)),
        };
        let feed = async {
            let mut offset = 0;
            while let Some(piece) = bytes.next().await {
                let mut piece = piece?;
                while !piece.is_empty() {
                    let data = piece.split_to(piece.len().min(PIECE));
                    let next = offset + data.len() as u64;
                    let write = message(wire::WriteAction::Write, offset, data);
                    if out.send(write).await.is_err() {
                        return Ok(());
                    }
                    offset = next;
                }
            }
            // If the client is gone, its answer says so.
            let _ = out
                .send(message(wire::WriteAction::Commit, offset, Bytes::new()))
                .await;
            Ok(())
        };
        let listen = async {
            loop {
                match answers.message().await {
                    Ok(Some(answer)) if answer.action() == wire::WriteAction::Commit => {
                        return Ok(());
                    }
                    Ok(Some(_)) => {}
                    Ok(None) => return Err(broken.clone()),
                    Err(status) if status.code() == Code::AlreadyExists => return Ok(()),
                    Err(status) => return Err(self.failed(status)),
                }
            }
        };
        let feed = async {
            match feed.await {
                Ok(()) => std::future::pending().await,
                Err(error) => Err(error),
            }
        };
        tokio::select! {
            done = listen => done,
            failed = feed => failed,
        }
    }
}

#[async_trait]
impl content::Provider for RemoteStore {
    async fn size(&self, blob: &Descriptor) -> content::Result<u64> {
        let call = self
            .call(wire::InfoRequest {
                digest: blob.digest.to_string(),
            })
            .map_err(|error| self.failed(error))?;
        let answer = self
            .client()
            .info(call)
            .await
            .map_err(|s| self.status(blob, s))?;
        let size = answer.into_inner().info.map_or(0, |info| info.size);
        u64::try_from(size).map_err(|_| self.failed(Error::Protocol(format!("a size of {size}"))))
    }

    async fn read(&self, blob: &Descriptor, offset: u64) -> content::Result<ByteStream> {
        let request = wire::ReadContentRequest {
            digest: blob.digest.to_string(),
            offset: i64::try_from(offset).unwrap_or(i64::MAX),
            size: 0,
        };
        let call = self.call(request).map_err(|error| self.failed(error))?;
        let answers = self
            .client()
            .read(call)
            .await
            .map_err(|s| self.status(blob, s))?;
        let digest = blob.digest;
        let pieces = answers.into_inner().scan(offset, move |at, piece| {
            futures::future::ready(Some(match piece {
                Ok(piece) => {
                    *at += piece.data.len() as u64;
                    Ok(piece.data)
                }
                Err(status) if status.code() == Code::NotFound => {
                    Err(content::Error::NotFound(digest))
                }
                Err(status) => Err(content::Error::Interrupted {
                    digest,
                    offset: *at,
                    reason: status.message().to_owned(),
                }),
            }))
        });
        Ok(Box::pin(pieces))
    }
}

#[async_trait]
impl content::Sink for RemoteStore {
    async fn has(&self, blob: &Descriptor) -> content::Result<bool> {
        match content::Provider::size(self, blob).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == Kind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn put(&self, blob: &Descriptor, bytes: ByteStream) -> content::Result<()> {
        self.write(blob, bytes).await
    }
}
