//! Health, logins, secrets, agents, uploads, exporters.

use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use proto::grpc::health::v1 as health;
use proto::moby::buildkit::secrets::v1 as secrets;
use proto::moby::exporter::v1 as exporter;
use proto::moby::filesync::v1 as filesync;
use proto::moby::sshforward::v1 as ssh;
use proto::moby::upload::v1 as upload;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::RoutesBuilder;
use tonic::{Request, Response, Status, Streaming};

use super::Filled;
use crate::{Attachables, Auth, Exporters, Secrets, SshAgent, TokenRequest, Upload, metadata};

pub(super) fn add(routes: &mut RoutesBuilder, offers: &Attachables) {
    routes.add_service(health::health_server::HealthServer::new(Healthy));
    if let Some(auth) = &offers.auth {
        routes.add_service(filesync::auth_server::AuthServer::new(Serve(auth.clone())));
    }
    if let Some(found) = &offers.secrets {
        let service = secrets::secrets_server::SecretsServer::new(Serve(found.clone()));
        routes.add_service(service.max_encoding_message_size(proto::MAX_MESSAGE_SIZE));
    }
    if let Some(agent) = &offers.ssh {
        routes.add_service(ssh::ssh_server::SshServer::new(Serve(agent.clone())));
    }
    if let Some(found) = &offers.upload {
        routes.add_service(upload::upload_server::UploadServer::new(Serve(
            found.clone(),
        )));
    }
    if let Some(found) = &offers.exporters {
        routes.add_service(exporter::exporter_server::ExporterServer::new(Serve(
            found.clone(),
        )));
    }
}

/// One of the things a client offers, as a service.
struct Serve<T: ?Sized>(Arc<T>);

struct Healthy;

#[tonic::async_trait]
impl health::health_server::Health for Healthy {
    async fn check(
        &self,
        _: Request<health::HealthCheckRequest>,
    ) -> Result<Response<health::HealthCheckResponse>, Status> {
        let status = health::health_check_response::ServingStatus::Serving.into();
        Ok(Response::new(health::HealthCheckResponse { status }))
    }

    type WatchStream = BoxStream<'static, Result<health::HealthCheckResponse, Status>>;

    async fn watch(
        &self,
        _: Request<health::HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("ask again instead"))
    }
}

#[tonic::async_trait]
impl filesync::auth_server::Auth for Serve<dyn Auth> {
    async fn credentials(
        &self,
        call: Request<filesync::CredentialsRequest>,
    ) -> Result<Response<filesync::CredentialsResponse>, Status> {
        let login = self
            .0
            .credentials(&call.into_inner().host)
            .await
            .map_err(|e| e.to_status())?;
        Ok(Response::new(filesync::CredentialsResponse {
            username: login.username,
            secret: login.secret,
        }))
    }

    async fn fetch_token(
        &self,
        call: Request<filesync::FetchTokenRequest>,
    ) -> Result<Response<filesync::FetchTokenResponse>, Status> {
        let r = call.into_inner();
        let request = TokenRequest {
            client_id: r.client_id,
            host: r.host,
            realm: r.realm,
            service: r.service,
            scopes: r.scopes,
        };
        let token = self
            .0
            .fetch_token(&request)
            .await
            .map_err(|e| e.to_status())?;
        Ok(Response::new(filesync::FetchTokenResponse {
            token: token.token,
            expires_in: token.expires_in,
            issued_at: token.issued_at,
        }))
    }

    async fn get_token_authority(
        &self,
        call: Request<filesync::GetTokenAuthorityRequest>,
    ) -> Result<Response<filesync::GetTokenAuthorityResponse>, Status> {
        let r = call.into_inner();
        let public_key = self
            .0
            .token_authority(&r.host, &r.salt)
            .await
            .map_err(|e| e.to_status())?;
        Ok(Response::new(filesync::GetTokenAuthorityResponse {
            public_key,
        }))
    }

    async fn verify_token_authority(
        &self,
        call: Request<filesync::VerifyTokenAuthorityRequest>,
    ) -> Result<Response<filesync::VerifyTokenAuthorityResponse>, Status> {
        let r = call.into_inner();
        let signed = self
            .0
            .verify_token_authority(&r.host, &r.payload, &r.salt)
            .await;
        let signed = signed.map_err(|e| e.to_status())?;
        Ok(Response::new(filesync::VerifyTokenAuthorityResponse {
            signed,
        }))
    }
}

#[tonic::async_trait]
impl secrets::secrets_server::Secrets for Serve<dyn Secrets> {
    async fn get_secret(
        &self,
        call: Request<secrets::GetSecretRequest>,
    ) -> Result<Response<secrets::GetSecretResponse>, Status> {
        let data = self
            .0
            .get(&call.into_inner().id)
            .await
            .map_err(|e| e.to_status())?;
        Ok(Response::new(secrets::GetSecretResponse { data }))
    }
}

#[tonic::async_trait]
impl ssh::ssh_server::Ssh for Serve<dyn SshAgent> {
    async fn check_agent(
        &self,
        call: Request<ssh::CheckAgentRequest>,
    ) -> Result<Response<ssh::CheckAgentResponse>, Status> {
        self.0
            .check(&call.into_inner().id)
            .await
            .map_err(|e| e.to_status())?;
        Ok(Response::new(ssh::CheckAgentResponse {}))
    }

    type ForwardAgentStream = BoxStream<'static, Result<ssh::BytesMessage, Status>>;

    async fn forward_agent(
        &self,
        call: Request<Streaming<ssh::BytesMessage>>,
    ) -> Result<Response<Self::ForwardAgentStream>, Status> {
        let id = metadata::first(call.metadata(), "buildkit.ssh.id").unwrap_or_default();
        let agent = self.0.connect(&id).await.map_err(|e| e.to_status())?;
        let (mut read, mut write) = tokio::io::split(agent);
        let (out, outgoing) = mpsc::channel(16);
        let mut incoming = call.into_inner();
        let task = stdx::task::spawn("ssh", async move {
            let to_agent = async {
                while let Ok(Some(message)) = incoming.message().await {
                    if write.write_all(&message.data).await.is_err() {
                        return;
                    }
                }
                // The agent may be gone already.
                let _ = write.shutdown().await;
            };
            let from_agent = async {
                let mut piece = vec![0; 32 << 10];
                while let Ok(count @ 1..) = read.read(&mut piece).await {
                    let data = bytes::Bytes::copy_from_slice(&piece[..count]);
                    if out.send(Ok(ssh::BytesMessage { data })).await.is_err() {
                        return;
                    }
                }
                drop(out);
            };
            tokio::join!(to_agent, from_agent);
        });
        let stream = ReceiverStream::new(outgoing);
        Ok(Response::new(
            Filled {
                stream,
                _task: task,
            }
            .boxed(),
        ))
    }
}

#[tonic::async_trait]
impl upload::upload_server::Upload for Serve<dyn Upload> {
    type PullStream = BoxStream<'static, Result<upload::BytesMessage, Status>>;

    async fn pull(
        &self,
        call: Request<Streaming<upload::BytesMessage>>,
    ) -> Result<Response<Self::PullStream>, Status> {
        let path = metadata::first(call.metadata(), "urlpath").unwrap_or_default();
        let host = metadata::first(call.metadata(), "urlhost").unwrap_or_default();
        let bytes = self.0.pull(&host, &path).await.map_err(|e| e.to_status())?;
        let stream = bytes.map(|piece| match piece {
            Ok(data) => Ok(upload::BytesMessage { data }),
            Err(error) => Err(error.to_status()),
        });
        Ok(Response::new(stream.boxed()))
    }
}

#[tonic::async_trait]
impl exporter::exporter_server::Exporter for Serve<dyn Exporters> {
    async fn find_exporters(
        &self,
        call: Request<exporter::FindExportersRequest>,
    ) -> Result<Response<exporter::FindExportersResponse>, Status> {
        let r = call.into_inner();
        let found = self
            .0
            .find(r.metadata, r.refs)
            .await
            .map_err(|e| e.to_status())?;
        let exporters = found
            .into_iter()
            .map(|e| exporter::ExporterRequest {
                r#type: e.kind,
                attrs: e.attrs,
                target: 0,
            })
            .collect();
        Ok(Response::new(exporter::FindExportersResponse { exporters }))
    }

    async fn finalize_export(
        &self,
        call: Request<exporter::FinalizeExportRequest>,
    ) -> Result<Response<exporter::FinalizeExportResponse>, Status> {
        let response = call.into_inner().exporter_response;
        let done = self.0.finalize(response).await;
        done.map_err(|e| e.to_status())?;
        Ok(Response::new(exporter::FinalizeExportResponse {}))
    }
}
