//! What is left of a step that failed: enough to stand where it stood.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use frontend::FailedPart;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared, try_join_all};
use oci::Digest;
use refs::MutableRef;
use solver::{CacheMap, Op, OpContext, OpError};
use stdx::task::{blocking, to_the_end};

use crate::{Error, Output, Result};

/// A step failed. It says what its cause says.
#[derive(Clone, Debug)]
pub struct StepError {
    cause: OpError,
    /// What it was, and what is left of it to look at.
    pub remains: Arc<Remains>,
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(f)
    }
}

impl std::error::Error for StepError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.cause)
    }
}

/// A step as its graph has it, for those who look at its failure.
pub(crate) struct Step {
    op: llb::Op,
    description: BTreeMap<String, String>,
}

impl Step {
    pub(crate) fn of(vertex: &llb::Vertex) -> Arc<Step> {
        Arc::new(Step {
            op: vertex.op.clone(),
            description: vertex.metadata.description.clone(),
        })
    }

    /// Its process failed, or one of its actions. `began` is what it was given, by its mounts
    /// or as its inputs; `places` is how many mounts or actions it has.
    pub(crate) fn failed(
        &self,
        cause: Error,
        part: FailedPart,
        began: Vec<Option<Output>>,
        places: usize,
        left: Left,
    ) -> StepError {
        StepError {
            cause: cause.into(),
            remains: Arc::new(Remains {
                op: self.op.clone(),
                description: self.description.clone(),
                part,
                inputs: began,
                places,
                written: left.places().collect(),
                made: made(left).boxed().shared(),
            }),
        }
    }

    /// One of its inputs could not be looked into. That one can.
    pub(crate) fn failed_input(&self, cause: OpError, number: usize, input: &Output) -> StepError {
        self.failed_early(cause, FailedPart::Input(number), vec![Some(input.clone())])
    }

    /// It failed, and there is nothing to look at.
    fn failed_whole(&self, cause: OpError) -> StepError {
        self.failed_early(cause, FailedPart::Whole, Vec::new())
    }

    /// It failed before it made anything.
    fn failed_early(
        &self,
        cause: OpError,
        part: FailedPart,
        inputs: Vec<Option<Output>>,
    ) -> StepError {
        StepError {
            cause,
            remains: Arc::new(Remains {
                op: self.op.clone(),
                description: self.description.clone(),
                part,
                inputs,
                places: 0,
                written: Vec::new(),
                made: made(Left::default()).boxed().shared(),
            }),
        }
    }
}

/// An op whose failures all name their step, also where nothing is left of it to look at.
pub(crate) struct Known {
    op: Arc<dyn Op<Output = Output>>,
    step: Arc<Step>,
}

impl Known {
    pub(crate) fn new(op: Arc<dyn Op<Output = Output>>, step: Arc<Step>) -> Known {
        Known { op, step }
    }

    fn named(&self, error: OpError) -> OpError {
        // What failed in a nested build names its own step.
        let nested = matches!(error.downcast_ref(), Some(Error::Frontend(_)));
        match nested || error.is::<StepError>() {
            true => error,
            false => Arc::new(self.step.failed_whole(error)),
        }
    }
}

#[async_trait]
impl Op for Known {
    type Output = Output;

    async fn cache_map(&self, cx: &OpContext, index: usize) -> Result<CacheMap, OpError> {
        let map = self.op.cache_map(cx, index).await;
        map.map_err(|error| self.named(error))
    }

    async fn content_key(
        &self,
        cx: &OpContext,
        input: usize,
        output: &Output,
    ) -> Result<Option<Digest>, OpError> {
        let key = self.op.content_key(cx, input, output).await;
        key.map_err(|error| self.named(error))
    }

    async fn run(&self, cx: &OpContext, inputs: Vec<Output>) -> Result<Vec<Output>, OpError> {
        let outputs = self.op.run(cx, inputs).await;
        outputs.map_err(|error| self.named(error))
    }
}

/// What is left of a step that failed.
pub struct Remains {
    /// What it should have done.
    pub op: llb::Op,
    /// Its description.
    pub description: BTreeMap<String, String>,
    /// What of it failed.
    pub part: FailedPart,
    /// For each mount of a process, the input it began as; for actions on files, all inputs;
    /// for an input that could not be looked into, this one alone.
    pub inputs: Vec<Option<Output>>,
    /// How many mounts the process has, or how many actions there are.
    pub places: usize,
    written: Vec<usize>,
    /// Results of what it wrote, made when the first wants to look.
    made: Shared<BoxFuture<'static, Made>>,
}

/// Results by their places. Everyone who looks gets the same, also the same error.
type Made = Result<Arc<BTreeMap<usize, Output>>, Arc<Error>>;

/// To the end, also when whoever wanted to look goes away: it can be done only once.
async fn made(left: Left) -> Made {
    let made = to_the_end("remains", left.into_outputs()).await;
    made.map(Arc::new).map_err(Arc::new)
}

impl Remains {
    /// The places of the mounts it wrote, or of the actions whose trees are left.
    pub fn written(&self) -> impl Iterator<Item = usize> {
        self.written.iter().copied()
    }

    /// What one of those was like in the end.
    pub async fn output(&self, place: usize) -> Result<Output, Arc<Error>> {
        let written = self.made.clone().await?;
        Ok(written.get(&place).cloned().unwrap_or_default())
    }
}

impl fmt::Debug for Remains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remains").finish_non_exhaustive()
    }
}

/// What a step that failed had made, by the places of its mounts or actions. Dropped, it
/// is gone.
#[derive(Default)]
pub(crate) struct Left(pub(crate) BTreeMap<usize, Becomes>);

/// What an output is made of.
pub(crate) enum Becomes {
    /// What is final already.
    Same(Output),
    /// What was written.
    New(MutableRef),
}

impl Becomes {
    pub(crate) async fn output(self) -> Result<Output> {
        match self {
            Becomes::Same(output) => Ok(output),
            Becomes::New(written) => {
                let made = blocking(move || written.commit()).await;
                made.map(|made| Output(Some(made))).map_err(Error::from)
            }
        }
    }
}

impl Left {
    fn places(&self) -> impl Iterator<Item = usize> {
        self.0.keys().copied()
    }

    /// Makes results of all of it.
    pub(crate) async fn into_outputs(self) -> Result<BTreeMap<usize, Output>> {
        let making = self.0.into_iter();
        let making = making.map(|(place, becomes)| async move {
            let output = becomes.output().await?;
            Ok::<_, Error>((place, output))
        });
        Ok(try_join_all(making).await?.into_iter().collect())
    }
}
