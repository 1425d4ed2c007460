//! What an op gives.

use std::sync::Arc;

use async_trait::async_trait;
use progress::StepProgress;
use refs::{Ref, Refs};
use snapshot::Tree;
use solver::{OpContext, OpError, ResultId, ResultStore};

use crate::{Build, Result};

/// A filesystem, or the empty one. Cheap to clone; the last clone lets go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output(pub Option<Ref>);

impl Output {
    /// Its tree to read, fetched and unpacked if need be; `None` for the empty one.
    pub async fn tree(&self, build: &Build, step: &StepProgress) -> Result<Option<Arc<Tree>>> {
        match &self.0 {
            None => Ok(None),
            Some(found) => Ok(Some(found.tree(&*build.provider, step).await?)),
        }
    }
}

/// The name under which the empty filesystem is kept.
const SCRATCH: &str = "scratch";

/// Keeps outputs as refs: the solver's memory beyond a build.
pub struct Results(pub Refs);

#[async_trait]
impl ResultStore<Output> for Results {
    async fn save(&self, output: &Output) -> Result<Option<ResultId>, OpError> {
        let id = output.0.as_ref().map_or(SCRATCH, Ref::id);
        Ok(Some(ResultId(id.to_owned())))
    }

    async fn load(&self, _: &OpContext, result: &ResultId) -> Result<Option<Output>, OpError> {
        if result.0 == SCRATCH {
            return Ok(Some(Output(None)));
        }
        let (refs, id) = (self.0.clone(), result.0.clone());
        let found = stdx::task::blocking(move || refs.get(&id)).await;
        Ok(found
            .map_err(|error| Arc::new(error) as OpError)?
            .map(|found| Output(Some(found))))
    }

    fn exists(&self, result: &ResultId) -> bool {
        result.0 == SCRATCH || matches!(self.0.get(&result.0), Ok(Some(_)))
    }
}
