//! Logins, secrets, agents, uploads, exporters: one call each.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use proto::moby::buildkit::secrets::v1::{GetSecretRequest, secrets_client::SecretsClient};
use proto::moby::exporter::v1::exporter_client::ExporterClient;
use proto::moby::exporter::v1::{FinalizeExportRequest, FindExportersRequest};
use proto::moby::filesync::v1 as wire;
use proto::moby::filesync::v1::auth_client::AuthClient;
use proto::moby::sshforward::v1::ssh_client::SshClient;
use proto::moby::sshforward::v1::{BytesMessage as SshBytes, CheckAgentRequest};
use proto::moby::upload::v1::{BytesMessage as UploadBytes, upload_client::UploadClient};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Request};

use crate::tunnel::{Pipe, pipe};
use crate::{
    Auth, Bytestream, Credentials, Error, ExporterRequest, Exporters, Result, Secrets, SshAgent,
    SshStream, Token, TokenRequest, Upload, metadata,
};

pub(super) struct RemoteAuth(AuthClient<Channel>);

impl RemoteAuth {
    pub(super) fn new(channel: Channel) -> RemoteAuth {
        RemoteAuth(AuthClient::new(channel))
    }
}

#[async_trait]
impl Auth for RemoteAuth {
    async fn credentials(&self, host: &str) -> Result<Credentials> {
        let request = wire::CredentialsRequest {
            host: host.to_owned(),
        };
        let answer = self.0.clone().credentials(request).await?.into_inner();
        Ok(Credentials {
            username: answer.username,
            secret: answer.secret,
        })
    }

    async fn fetch_token(&self, request: &TokenRequest) -> Result<Token> {
        let request = wire::FetchTokenRequest {
            client_id: request.client_id.clone(),
            host: request.host.clone(),
            realm: request.realm.clone(),
            service: request.service.clone(),
            scopes: request.scopes.clone(),
        };
        let answer = self.0.clone().fetch_token(request).await?.into_inner();
        Ok(Token {
            token: answer.token,
            expires_in: answer.expires_in,
            issued_at: answer.issued_at,
        })
    }

    async fn token_authority(&self, host: &str, salt: &[u8]) -> Result<Bytes> {
        let request = wire::GetTokenAuthorityRequest {
            host: host.to_owned(),
            salt: Bytes::copy_from_slice(salt),
        };
        Ok(self
            .0
            .clone()
            .get_token_authority(request)
            .await?
            .into_inner()
            .public_key)
    }

    async fn verify_token_authority(
        &self,
        host: &str,
        payload: &[u8],
        salt: &[u8],
    ) -> Result<Bytes> {
        let request = wire::VerifyTokenAuthorityRequest {
            host: host.to_owned(),
            payload: Bytes::copy_from_slice(payload),
            salt: Bytes::copy_from_slice(salt),
        };
        Ok(self
            .0
            .clone()
            .verify_token_authority(request)
            .await?
            .into_inner()
            .signed)
    }
}

pub(super) struct RemoteSecrets(pub(super) Channel);

#[async_trait]
impl Secrets for RemoteSecrets {
    async fn get(&self, id: &str) -> Result<Bytes> {
        let request = GetSecretRequest {
            id: id.to_owned(),
            ..GetSecretRequest::default()
        };
        match SecretsClient::new(self.0.clone()).get_secret(request).await {
            Ok(answer) => Ok(answer.into_inner().data),
            Err(status) if status.code() == Code::NotFound => Err(Error::NotFound {
                what: "secret",
                name: id.to_owned(),
            }),
            Err(status) => Err(status.into()),
        }
    }
}

pub(super) struct RemoteSsh(pub(super) Channel);

#[async_trait]
impl SshAgent for RemoteSsh {
    async fn check(&self, id: &str) -> Result<()> {
        let request = CheckAgentRequest { id: id.to_owned() };
        SshClient::new(self.0.clone()).check_agent(request).await?;
        Ok(())
    }

    async fn connect(&self, id: &str) -> Result<Box<dyn SshStream>> {
        let (forward, incoming) = tokio::sync::mpsc::channel(16);
        let Pipe {
            io, outgoing, over, ..
        } = pipe(ReceiverStream::new(incoming));
        let outgoing = ReceiverStream::new(outgoing).map(|m| SshBytes { data: m.data });
        let mut call = Request::new(outgoing);
        metadata::add(call.metadata_mut(), "buildkit.ssh.id", &[id.to_owned()])?;
        let mut client = SshClient::new(self.0.clone());
        let pump = async move {
            let answers = async move {
                // The answer may come only after we have said something.
                let Ok(answers) = client.forward_agent(call).await else {
                    return;
                };
                let mut answers = answers.into_inner();
                while let Ok(Some(message)) = answers.message().await {
                    let message = proto::moby::buildkit::v1::BytesMessage { data: message.data };
                    if forward.send(Ok(message)).await.is_err() {
                        break;
                    }
                }
            };
            let mut over = over;
            tokio::select! {
                // What has come is still to be handed on.
                () = answers => over.await,
                () = &mut over => {}
            }
        };
        // Ends when either side closes.
        stdx::task::spawn("ssh", pump).detach();
        Ok(Box::new(io))
    }
}

pub(super) struct RemoteUpload(pub(super) Channel);

#[async_trait]
impl Upload for RemoteUpload {
    async fn pull(&self, host: &str, path: &str) -> Result<Bytestream> {
        let mut call = Request::new(futures::stream::pending::<UploadBytes>());
        metadata::add(call.metadata_mut(), "urlpath", &[path.to_owned()])?;
        metadata::add(call.metadata_mut(), "urlhost", &[host.to_owned()])?;
        let answers = UploadClient::new(self.0.clone())
            .max_decoding_message_size(proto::MAX_MESSAGE_SIZE)
            .pull(call)
            .await?
            .into_inner();
        Ok(answers.map(|message| Ok(message?.data)).boxed())
    }
}

pub(super) struct RemoteExporters(pub(super) Channel);

#[async_trait]
impl Exporters for RemoteExporters {
    async fn find(
        &self,
        metadata: BTreeMap<String, Bytes>,
        refs: Vec<String>,
    ) -> Result<Vec<ExporterRequest>> {
        let request = FindExportersRequest { metadata, refs };
        let answer = ExporterClient::new(self.0.clone())
            .find_exporters(request)
            .await;
        let answer = match answer {
            Err(status) if declines(&status) => return Ok(Vec::new()),
            answer => answer?.into_inner(),
        };
        let plain = |e: proto::moby::exporter::v1::ExporterRequest| ExporterRequest {
            kind: e.r#type,
            attrs: e.attrs,
        };
        Ok(answer.exporters.into_iter().map(plain).collect())
    }

    async fn finalize(&self, response: BTreeMap<String, String>) -> Result<()> {
        let request = FinalizeExportRequest {
            exporter_response: response,
        };
        let answer = ExporterClient::new(self.0.clone())
            .finalize_export(request)
            .await;
        match answer {
            Err(status) if !declines(&status) => Err(status.into()),
            _ => Ok(()),
        }
    }
}

/// Whether the client is there and wants no say: a Go client serves both methods when it has
/// a use for one of them, and answers the other in one of these ways. A broken line looks
/// much the same, but has a cause on this side.
fn declines(status: &tonic::Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::Unimplemented)
        && std::error::Error::source(status).is_none()
}
