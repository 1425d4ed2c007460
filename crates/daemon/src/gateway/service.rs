//! The service itself: each call, asked of the build's bridge.

use std::collections::BTreeMap;
use std::pin::Pin;

use frontend::{FrontendResult, RefId, Refs};
use futures::Stream;
use proto::moby::buildkit::v1::apicaps::ApiCap;
use proto::moby::buildkit::v1::frontend as wire;
use proto::moby::buildkit::v1::frontend::llb_bridge_server::LlbBridge;
use tonic::{Request, Response, Status, Streaming};

use super::files::Place;
use super::{Gateways, OpenBuild, exec};
use crate::{from_proto, to_proto};
use progress::CANCELED;

/// What a frontend may use of us (row G11).
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
    "gateway.exec",
    "gateway.exec.extrahosts",
    "gateway.exec.secretenv",
    "gateway.exec.signals",
    "gateway.exec.filesystem",
    "frontend.caps",
    "gateway.solve.evaluate",
    "gateway.evaluate",
    "gateway.warnings",
    "reference.attestations",
    "source.metaresolver",
    "source.metaresolver.image.attestations",
    "source.metaresolver.http.checksumrequest",
];

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
pub(super) fn named(id: &str) -> Result<RefId, Status> {
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
        let build = self.find(&request).await?;
        Ok(Response::new(wire::PongResponse {
            frontend_api_caps: caps(CAPS),
            llb_caps: caps(llb::caps::ALL),
            workers: vec![to_proto::worker_now(&self.worker, &*build.bridge)],
        }))
    }

    async fn resolve_image_config(
        &self,
        request: Request<wire::ResolveImageConfigRequest>,
    ) -> Result<Response<wire::ResolveImageConfigResponse>, Status> {
        let build = self.find(&request).await?;
        let mut request = request.into_inner();
        let name = std::mem::take(&mut request.r#ref);
        if name.is_empty() {
            return Err(Status::invalid_argument("the request names no image"));
        }
        let lookup = from_proto::image_lookup(request)?;
        let image = build
            .bridge
            .resolve_image(&name, lookup)
            .await
            .map_err(|error| build.asked(&error))?;
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
        let build = self.find(&request).await?;
        let request = request.into_inner();
        let questions = session::facts::questions(&request)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let source = request
            .source
            .ok_or_else(|| Status::invalid_argument("the request names no source"))?;
        let platform = request.platform.map(from_proto::platform);
        let policies = from_proto::source_policies(request.source_policies)?;
        let known = build
            .bridge
            .resolve_source(
                &source.identifier,
                &source.attrs,
                platform.as_ref(),
                policies,
                &questions,
            )
            .await
            .map_err(|error| build.asked(&error))?;
        Ok(Response::new(session::facts::response(
            &known.identifier,
            &known.attrs,
            &known.facts,
        )))
    }

    async fn solve(
        &self,
        request: Request<wire::SolveRequest>,
    ) -> Result<Response<wire::SolveResponse>, Status> {
        let build = self.find(&request).await?;
        let request = request.into_inner();
        let (inline, arrays, last) = (
            request.allow_result_return,
            request.allow_result_array_ref,
            request.r#final,
        );
        let result = solve(&build, request).await?;
        let response = if inline {
            let definitions = if arrays {
                definitions(&build, &result).await?
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
        let build = self.find(&request).await?;
        let request = request.into_inner();
        let place = Place::Result(named(&request.r#ref)?);
        place.read_file(&build, request).await
    }

    async fn read_file_container(
        &self,
        request: Request<wire::ReadFileRequest>,
    ) -> Result<Response<wire::ReadFileResponse>, Status> {
        let build = self.find(&request).await?;
        let request = request.into_inner();
        let place = Place::mount(&build, &request.r#ref, request.mount_index)?;
        place.read_file(&build, request).await
    }

    async fn read_dir(
        &self,
        request: Request<wire::ReadDirRequest>,
    ) -> Result<Response<wire::ReadDirResponse>, Status> {
        let build = self.find(&request).await?;
        let request = request.into_inner();
        let place = Place::Result(named(&request.r#ref)?);
        place.read_dir(&build, request).await
    }

    async fn read_dir_container(
        &self,
        request: Request<wire::ReadDirRequest>,
    ) -> Result<Response<wire::ReadDirResponse>, Status> {
        let build = self.find(&request).await?;
        let request = request.into_inner();
        let place = Place::mount(&build, &request.r#ref, request.mount_index)?;
        place.read_dir(&build, request).await
    }

    async fn stat_file(
        &self,
        request: Request<wire::StatFileRequest>,
    ) -> Result<Response<wire::StatFileResponse>, Status> {
        let build = self.find(&request).await?;
        let request = request.into_inner();
        let place = Place::Result(named(&request.r#ref)?);
        place.stat_file(&build, request).await
    }

    async fn stat_file_container(
        &self,
        request: Request<wire::StatFileRequest>,
    ) -> Result<Response<wire::StatFileResponse>, Status> {
        let build = self.find(&request).await?;
        let request = request.into_inner();
        let place = Place::mount(&build, &request.r#ref, request.mount_index)?;
        place.stat_file(&build, request).await
    }

    async fn evaluate(
        &self,
        request: Request<wire::EvaluateRequest>,
    ) -> Result<Response<wire::EvaluateResponse>, Status> {
        let build = self.find(&request).await?;
        build
            .bridge
            .evaluate(&named(&request.into_inner().r#ref)?)
            .await
            .map_err(|error| build.solved(&error))?;
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
        let build = self.find(&request).await?;
        let inputs = build
            .bridge
            .inputs()
            .await
            .map_err(|error| build.asked(&error))?;
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
        let build = self.find(&request).await?;
        let (step, warning) = from_proto::warning(request.into_inner())?;
        build
            .bridge
            .warn(step.as_ref(), warning)
            .await
            .map_err(|error| build.asked(&error))?;
        Ok(Response::new(wire::WarnResponse {}))
    }

    async fn new_container(
        &self,
        request: Request<wire::NewContainerRequest>,
    ) -> Result<Response<wire::NewContainerResponse>, Status> {
        let build = self.find(&request).await?;
        let request = request.into_inner();
        let id = request.container_id.clone();
        let wanted = from_proto::container(request)?;
        let name = build.containers.reserve(&id)?;
        let made = build.bridge.new_container(wanted).await;
        name.fill(made.map_err(|error| build.asked(&error))?)
            .await?;
        Ok(Response::new(wire::NewContainerResponse {}))
    }

    async fn release_container(
        &self,
        request: Request<wire::ReleaseContainerRequest>,
    ) -> Result<Response<wire::ReleaseContainerResponse>, Status> {
        let build = self.find(&request).await?;
        let id = request.into_inner().container_id;
        match build.containers.take(&id)?.release().await {
            false => Ok(Response::new(wire::ReleaseContainerResponse {})),
            // Clients go by these words.
            true => Err(Status::cancelled(format!(
                "container {id} is released, and what ran in it killed: {CANCELED}"
            ))),
        }
    }

    type ExecProcessStream = Pin<Box<dyn Stream<Item = Result<wire::ExecMessage, Status>> + Send>>;

    async fn exec_process(
        &self,
        request: Request<Streaming<wire::ExecMessage>>,
    ) -> Result<Response<Self::ExecProcessStream>, Status> {
        let build = self.find(&request).await?;
        let stream = exec::serve(build, request.into_inner());
        Ok(Response::new(Box::pin(stream)))
    }
}

async fn solve(build: &OpenBuild, request: wire::SolveRequest) -> Result<FrontendResult, Status> {
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
        let nested = build.bridge.nested(from_proto::nested(request)?).await;
        return nested.map_err(|error| build.solved(&error));
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
        policies: from_proto::source_policies(request.source_policies)?,
    };
    let one = build
        .bridge
        .solve(solve)
        .await
        .map_err(|error| build.solved(&error))?;
    Ok(FrontendResult {
        refs: Refs::One(one),
        ..FrontendResult::default()
    })
}

async fn definitions(
    build: &OpenBuild,
    result: &FrontendResult,
) -> Result<BTreeMap<RefId, llb::Definition>, Status> {
    let mut definitions = BTreeMap::new();
    for (_, one) in result.refs.iter() {
        if let Some(one) = one {
            let definition = build
                .bridge
                .definition(one)
                .await
                .map_err(|error| build.asked(&error))?;
            definitions.insert(one.clone(), definition);
        }
    }
    Ok(definitions)
}
