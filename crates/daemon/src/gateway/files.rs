//! Files a frontend looks at: of a result, or of a mount in one of its containers.

use std::sync::Arc;

use frontend::{Container, RefId};
use proto::moby::buildkit::v1::frontend as wire;
use tonic::{Response, Status};

use super::OpenBuild;
use crate::{from_proto, to_proto};

/// Where files are looked at.
pub(super) enum Place {
    Result(RefId),
    /// With its number.
    Mount(Arc<dyn Container>, usize),
}

impl Place {
    pub(super) fn mount(build: &OpenBuild, container: &str, index: i32) -> Result<Place, Status> {
        let negative = |_| Status::invalid_argument("a mount index cannot be negative");
        let container = build.containers.get(container)?;
        let index = usize::try_from(index).map_err(negative)?;
        Ok(Place::Mount(container, index))
    }

    pub(super) async fn read_file(
        &self,
        build: &OpenBuild,
        request: wire::ReadFileRequest,
    ) -> Result<Response<wire::ReadFileResponse>, Status> {
        let (path, range) = (&request.file_path, from_proto::file_range(request.range)?);
        let data = match self {
            Place::Result(reference) => build.bridge.read_file(reference, path, range).await,
            Place::Mount(container, mount) => container.read_file(*mount, path, range).await,
        };
        let data = data.map_err(|error| build.asked(&error))?;
        Ok(Response::new(wire::ReadFileResponse { data }))
    }

    pub(super) async fn read_dir(
        &self,
        build: &OpenBuild,
        request: wire::ReadDirRequest,
    ) -> Result<Response<wire::ReadDirResponse>, Status> {
        let include = Some(request.include_pattern.as_str()).filter(|pattern| !pattern.is_empty());
        let path = &request.dir_path;
        let entries = match self {
            Place::Result(reference) => build.bridge.read_dir(reference, path, include).await,
            Place::Mount(container, mount) => container.read_dir(*mount, path, include).await,
        };
        let entries = entries.map_err(|error| build.asked(&error))?;
        Ok(Response::new(wire::ReadDirResponse {
            entries: entries.into_iter().map(to_proto::stat).collect(),
        }))
    }

    pub(super) async fn stat_file(
        &self,
        build: &OpenBuild,
        request: wire::StatFileRequest,
    ) -> Result<Response<wire::StatFileResponse>, Status> {
        let stat = match self {
            Place::Result(reference) => build.bridge.stat_file(reference, &request.path).await,
            Place::Mount(container, mount) => container.stat_file(*mount, &request.path).await,
        };
        let stat = stat.map_err(|error| build.asked(&error))?;
        Ok(Response::new(wire::StatFileResponse {
            stat: Some(to_proto::stat(stat)),
        }))
    }
}
