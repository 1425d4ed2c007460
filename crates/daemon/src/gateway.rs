//! The frontend's side of a build over gRPC (features groups 7 and A15): a client
//! that runs the frontend itself asks here what a built-in frontend asks in process.
//!
//! A build that waits for such a client is opened with [`Gateways::open`]; calls find
//! it by the build id in their metadata, answer from its `frontend::Bridge`, and
//! `Return` ends it.

use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use frontend::{Bridge, FrontendResult, RefId, Refs};
use futures::Stream;
use proto::google::rpc;
use proto::moby::buildkit::v1::apicaps::ApiCap;
use proto::moby::buildkit::v1::frontend as wire;
use proto::moby::buildkit::v1::frontend::llb_bridge_server::LlbBridge;
use proto::moby::buildkit::v1::types::WorkerRecord;
use tokio::sync::{oneshot, watch};
use tonic::{Request, Response, Status, Streaming};

use crate::{from_proto, to_proto};

/// The metadata that says which build a call belongs to.
const BUILD_ID: &str = "buildkit-controlapi-buildid";
/// How long a call waits for its build: the client sends it beside `Solve`.
const GRACE: Duration = Duration::from_secs(3);

/// What a frontend may use of us (row G11). Containers (`gateway.exec…`) are not among them.
const CAPS: &[&str] = &[
    "solve.base",
    "solve.inlinereturn",
    "resolveimage",
    "resolveimage.resolvemode",
    "readfile",
    "return",
    "returnmap",
    "readdir",
    "statfile",
    "importcaches",
    "proto.refarray",
    "reference.output",
    "frontend.inputs",
    "gateway.solve.metadata",
    "frontend.caps",
    "gateway.solve.evaluate",
    "gateway.evaluate",
    "gateway.warnings",
    "reference.attestations",
    "source.metaresolver",
];

/// What a client-side frontend ended with.
pub(crate) type Returned = Result<FrontendResult, rpc::Status>;

/// All builds that wait for a client-side frontend.
#[derive(Clone)]
pub(crate) struct Gateways {
    open: Arc<Mutex<HashMap<String, Arc<OpenBuild>>>>,
    changed: Arc<watch::Sender<()>>,
    workers: Arc<Vec<WorkerRecord>>,
}

struct OpenBuild {
    bridge: Arc<dyn Bridge>,
    returned: Mutex<Option<oneshot::Sender<Returned>>>,
}

/// A build is open to its client while this lives.
pub(crate) struct Opened {
    gateways: Gateways,
    id: String,
    returned: oneshot::Receiver<Returned>,
}

impl Opened {
    /// Waits for the client to return a result. `None` if the build was closed instead.
    pub(crate) async fn returned(&mut self) -> Option<Returned> {
        (&mut self.returned).await.ok()
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.gateways.lock().remove(&self.id);
    }
}

impl Gateways {
    pub(crate) fn new(workers: Vec<WorkerRecord>) -> Gateways {
        Gateways {
            open: Arc::default(),
            changed: Arc::new(watch::Sender::new(())),
            workers: Arc::new(workers),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<OpenBuild>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the client of build `id` ask `bridge`.
    pub(crate) fn open(&self, id: &str, bridge: Arc<dyn Bridge>) -> Opened {
        let (sender, returned) = oneshot::channel();
        let build = OpenBuild {
            bridge,
            returned: Mutex::new(Some(sender)),
        };
        self.lock().insert(id.to_owned(), Arc::new(build));
        self.changed.send_replace(());
        Opened {
            gateways: self.clone(),
            id: id.to_owned(),
            returned,
        }
    }

    async fn find<T>(&self, request: &Request<T>) -> Result<Arc<OpenBuild>, Status> {
        let id = request
            .metadata()
            .get(BUILD_ID)
            .and_then(|id| id.to_str().ok())
            .unwrap_or_default();
        if id.is_empty() {
            return Err(Status::invalid_argument(format!(
                "the call has no {BUILD_ID}: it must belong to a build"
            )));
        }
        let mut changed = self.changed.subscribe();
        let wait = async {
            loop {
                changed.borrow_and_update();
                if let Some(build) = self.lock().get(id).cloned() {
                    return build;
                }
                // The sender lives as long as `self`.
                let _ = changed.changed().await;
            }
        };
        tokio::time::timeout(GRACE, wait)
            .await
            .map_err(|_| Status::not_found(format!("no such job {id}")))
    }

    async fn bridge<T>(&self, request: &Request<T>) -> Result<Arc<dyn Bridge>, Status> {
        Ok(self.find(request).await?.bridge.clone())
    }
}

fn asked(error: frontend::Error) -> Status {
    to_proto::frontend_error(&error)
}

fn no_containers<T>() -> Result<T, Status> {
    Err(Status::unimplemented(
        "containers for frontends are not supported yet",
    ))
}

fn caps(names: &[&str]) -> Vec<ApiCap> {
    names
        .iter()
        .map(|id| ApiCap {
            id: (*id).to_owned(),
            enabled: true,
            ..ApiCap::default()
        })
        .collect()
}

/// A ref named in a request.
fn named(id: &str) -> Result<RefId, Status> {
    if id.is_empty() {
        return Err(Status::invalid_argument("the request names no result"));
    }
    Ok(RefId::new(id))
}

#[tonic::async_trait]
impl LlbBridge for Gateways {
    async fn ping(
        &self,
        request: Request<wire::PingRequest>,
    ) -> Result<Response<wire::PongResponse>, Status> {
        self.find(&request).await?;
        Ok(Response::new(wire::PongResponse {
            frontend_api_caps: caps(CAPS),
            llb_caps: caps(llb::caps::ALL),
            workers: self.workers.to_vec(),
        }))
    }

    async fn resolve_image_config(
        &self,
        request: Request<wire::ResolveImageConfigRequest>,
    ) -> Result<Response<wire::ResolveImageConfigResponse>, Status> {
        let bridge = self.bridge(&request).await?;
        let request = request.into_inner();
        if !request.source_policies.is_empty() {
            return Err(Status::unimplemented(
                "source policies of a frontend are not supported yet",
            ));
        }
        let lookup = from_proto::image_lookup(&request)?;
        let image = bridge
            .resolve_image(&request.r#ref, lookup)
            .await
            .map_err(asked)?;
        Ok(Response::new(wire::ResolveImageConfigResponse {
            digest: image.digest.to_string(),
            config: image.config,
            r#ref: image.name,
        }))
    }

    async fn resolve_source_meta(
        &self,
        request: Request<wire::ResolveSourceMetaRequest>,
    ) -> Result<Response<wire::ResolveSourceMetaResponse>, Status> {
        let bridge = self.bridge(&request).await?;
        let request = request.into_inner();
        let source = request
            .source
            .ok_or_else(|| Status::invalid_argument("the request names no source"))?;
        if request
            .image
            .as_ref()
            .is_some_and(|image| image.attestation_chain || !image.resolve_attestations.is_empty())
        {
            return Err(Status::unimplemented(
                "attestation chains are not supported yet",
            ));
        }
        let platform = request.platform.map(from_proto::platform);
        let mut attrs = source.attrs.clone();
        if !request.resolve_mode.is_empty() {
            attrs
                .entry("image.resolvemode".to_owned())
                .or_insert(request.resolve_mode);
        }
        let known = bridge
            .resolve_source(&source.identifier, &attrs, platform.as_ref())
            .await
            .map_err(asked)?;
        let mut response = wire::ResolveSourceMetaResponse {
            source: Some(proto::pb::SourceOp {
                identifier: known.identifier.clone(),
                attrs: known.attrs,
            }),
            ..wire::ResolveSourceMetaResponse::default()
        };
        if let Some(image) = known.image {
            let config = if request.image.is_some_and(|image| image.no_config) {
                bytes::Bytes::new()
            } else {
                image.config
            };
            response.image = Some(wire::ResolveSourceImageResponse {
                digest: image.digest.to_string(),
                config,
                attestation_chain: None,
            });
        } else if known.identifier.starts_with("git://") {
            response.git = Some(wire::ResolveSourceGitResponse {
                checksum: known.checksum.unwrap_or_default(),
                r#ref: known.name.unwrap_or_default(),
                ..wire::ResolveSourceGitResponse::default()
            });
        } else if let Some(checksum) = known.checksum {
            response.http = Some(wire::ResolveSourceHttpResponse {
                checksum,
                filename: known.name.unwrap_or_default(),
                last_modified: known
                    .modified
                    .map(|seconds| prost_types::Timestamp { seconds, nanos: 0 }),
                checksum_response: None,
            });
        }
        Ok(Response::new(response))
    }

    async fn solve(
        &self,
        request: Request<wire::SolveRequest>,
    ) -> Result<Response<wire::SolveResponse>, Status> {
        let build = self.find(&request).await?;
        let request = request.into_inner();
        if !request.source_policies.is_empty() {
            return Err(Status::unimplemented(
                "source policies of a frontend are not supported yet",
            ));
        }
        let (inline, arrays, last) = (
            request.allow_result_return,
            request.allow_result_array_ref,
            request.r#final,
        );
        let result = solve(build.bridge.as_ref(), request).await?;
        let response = if inline {
            let definitions = if arrays {
                definitions(build.bridge.as_ref(), &result).await?
            } else {
                BTreeMap::new()
            };
            wire::SolveResponse {
                r#ref: String::new(),
                result: Some(to_proto::result(&result, arrays, &definitions)),
            }
        } else {
            let Refs::One(one) = &result.refs else {
                return Err(Status::invalid_argument(
                    "the result has several platforms, which this client cannot take",
                ));
            };
            let id = one
                .as_ref()
                .map(|one| one.as_str().to_owned())
                .unwrap_or_default();
            wire::SolveResponse {
                r#ref: id,
                result: None,
            }
        };
        if last {
            build.answer(Ok(result))?;
        }
        Ok(Response::new(response))
    }

    async fn read_file(
        &self,
        request: Request<wire::ReadFileRequest>,
    ) -> Result<Response<wire::ReadFileResponse>, Status> {
        let bridge = self.bridge(&request).await?;
        let request = request.into_inner();
        let range = from_proto::file_range(request.range)?;
        let data = bridge
            .read_file(&named(&request.r#ref)?, &request.file_path, range)
            .await
            .map_err(asked)?;
        Ok(Response::new(wire::ReadFileResponse { data }))
    }

    async fn read_dir(
        &self,
        request: Request<wire::ReadDirRequest>,
    ) -> Result<Response<wire::ReadDirResponse>, Status> {
        let bridge = self.bridge(&request).await?;
        let request = request.into_inner();
        let include = Some(request.include_pattern.as_str()).filter(|pattern| !pattern.is_empty());
        let entries = bridge
            .read_dir(&named(&request.r#ref)?, &request.dir_path, include)
            .await
            .map_err(asked)?;
        Ok(Response::new(wire::ReadDirResponse {
            entries: entries.into_iter().map(to_proto::stat).collect(),
        }))
    }

    async fn stat_file(
        &self,
        request: Request<wire::StatFileRequest>,
    ) -> Result<Response<wire::StatFileResponse>, Status> {
        let bridge = self.bridge(&request).await?;
        let request = request.into_inner();
        let stat = bridge
            .stat_file(&named(&request.r#ref)?, &request.path)
            .await
            .map_err(asked)?;
        Ok(Response::new(wire::StatFileResponse {
            stat: Some(to_proto::stat(stat)),
        }))
    }

    async fn evaluate(
        &self,
        request: Request<wire::EvaluateRequest>,
    ) -> Result<Response<wire::EvaluateResponse>, Status> {
        let bridge = self.bridge(&request).await?;
        bridge
            .evaluate(&named(&request.into_inner().r#ref)?)
            .await
            .map_err(asked)?;
        Ok(Response::new(wire::EvaluateResponse {}))
    }

    async fn r#return(
        &self,
        request: Request<wire::ReturnRequest>,
    ) -> Result<Response<wire::ReturnResponse>, Status> {
        let build = self.find(&request).await?;
        let request = request.into_inner();
        let returned = match (request.error, request.result) {
            (Some(error), _) => Err(error),
            (None, Some(result)) => Ok(from_proto::result(result)?),
            (None, None) => {
                return Err(Status::invalid_argument(
                    "neither a result nor an error was returned",
                ));
            }
        };
        build.answer(returned)?;
        Ok(Response::new(wire::ReturnResponse {}))
    }

    async fn inputs(
        &self,
        request: Request<wire::InputsRequest>,
    ) -> Result<Response<wire::InputsResponse>, Status> {
        let inputs = self.bridge(&request).await?.inputs().await.map_err(asked)?;
        let definitions = inputs
            .iter()
            .map(|(name, graph)| (name.clone(), graph.to_proto()))
            .collect();
        Ok(Response::new(wire::InputsResponse { definitions }))
    }

    async fn warn(
        &self,
        request: Request<wire::WarnRequest>,
    ) -> Result<Response<wire::WarnResponse>, Status> {
        let bridge = self.bridge(&request).await?;
        let (step, warning) = from_proto::warning(request.into_inner())?;
        bridge.warn(step.as_ref(), warning).await.map_err(asked)?;
        Ok(Response::new(wire::WarnResponse {}))
    }

    async fn new_container(
        &self,
        _: Request<wire::NewContainerRequest>,
    ) -> Result<Response<wire::NewContainerResponse>, Status> {
        no_containers()
    }

    async fn release_container(
        &self,
        _: Request<wire::ReleaseContainerRequest>,
    ) -> Result<Response<wire::ReleaseContainerResponse>, Status> {
        no_containers()
    }

    type ExecProcessStream = Pin<Box<dyn Stream<Item = Result<wire::ExecMessage, Status>> + Send>>;

    async fn exec_process(
        &self,
        _: Request<Streaming<wire::ExecMessage>>,
    ) -> Result<Response<Self::ExecProcessStream>, Status> {
        no_containers()
    }

    async fn read_file_container(
        &self,
        _: Request<wire::ReadFileRequest>,
    ) -> Result<Response<wire::ReadFileResponse>, Status> {
        no_containers()
    }

    async fn read_dir_container(
        &self,
        _: Request<wire::ReadDirRequest>,
    ) -> Result<Response<wire::ReadDirResponse>, Status> {
        no_containers()
    }

    async fn stat_file_container(
        &self,
        _: Request<wire::StatFileRequest>,
    ) -> Result<Response<wire::StatFileResponse>, Status> {
        no_containers()
    }
}

impl OpenBuild {
    fn answer(&self, returned: Returned) -> Result<(), Status> {
        let sender = self
            .returned
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        match sender {
            // The build may have ended in the meantime; then nobody waits for the answer.
            Some(sender) => {
                let _ = sender.send(returned);
                Ok(())
            }
            None => Err(Status::failed_precondition("a result was returned already")),
        }
    }
}

async fn solve(bridge: &dyn Bridge, request: wire::SolveRequest) -> Result<FrontendResult, Status> {
    if !request.frontend.is_empty() {
        if request
            .definition
            .as_ref()
            .is_some_and(|definition| !definition.def.is_empty())
        {
            return Err(Status::invalid_argument(
                "a request has either a frontend or a definition",
            ));
        }
        return bridge
            .nested(from_proto::nested(request)?)
            .await
            .map_err(asked);
    }
    let definition = match request.definition {
        Some(definition) => from_proto::definition(definition)?,
        None => llb::Definition::default(),
    };
    let cache_imports = from_proto::cache_imports(request.cache_imports);
    let solve = frontend::SolveRequest {
        definition,
        evaluate: request.evaluate,
        cache_imports,
    };
    let one = bridge.solve(solve).await.map_err(asked)?;
    Ok(FrontendResult {
        refs: Refs::One(one),
        ..FrontendResult::default()
    })
}

async fn definitions(
    bridge: &dyn Bridge,
    result: &FrontendResult,
) -> Result<BTreeMap<RefId, llb::Definition>, Status> {
    let mut definitions = BTreeMap::new();
    for (_, one) in result.refs.iter() {
        if let Some(one) = one {
            definitions.insert(one.clone(), bridge.definition(one).await.map_err(asked)?);
        }
    }
    Ok(definitions)
}
