//! Calling ops and stores, and showing that in the progress of the step.

use std::sync::Arc;

use oci::Digest;
use progress::StepProgress;
use stdx::text::sentence;
use tracing::warn;

use crate::Error;
use crate::error::{Doing, VertexError};
use crate::event::{Event, LOCAL, TaskId};
use crate::index::Record;
use crate::op::{Op, OpContext, OpError};
use crate::store::{RecordStore, ResultStore};

/// What a vertex's work needs to know about the vertex.
pub(super) struct Context {
    pub(super) op: OpContext,
    pub(super) vertex: Digest,
    pub(super) name: String,
}

impl Context {
    fn error(&self, doing: Doing, cause: OpError) -> Error {
        let (vertex, name) = (self.vertex, self.name.clone());
        Error::Vertex(VertexError {
            vertex,
            name,
            doing,
            cause,
        })
    }
}

/// A step that was started; dropped before its end it is shown as cancelled.
struct Showing(Option<StepProgress>);

impl Showing {
    fn start(step: &StepProgress) -> Showing {
        step.start();
        Showing(Some(step.clone()))
    }

    fn end<T>(mut self, result: &Result<T, OpError>, cached: bool) {
        let Some(step) = self.0.take() else { return };
        match result {
            Ok(_) => step.complete(cached),
            Err(error) => step.fail(&sentence(&**error)),
        }
    }
}

impl Drop for Showing {
    fn drop(&mut self) {
        if let Some(step) = self.0.take() {
            step.cancel();
        }
    }
}

pub(super) async fn ask_map<O: Clone + Send + Sync + 'static>(
    op: Arc<dyn Op<Output = O>>,
    cx: Context,
    index: usize,
    source: bool,
    task: TaskId,
) -> Event<O, Error> {
    // Only sources do real work for their keys: they are shown.
    let showing = source.then(|| Showing::start(&cx.op.step));
    let result = op.cache_map(&cx.op, index).await;
    match showing {
        Some(showing) => showing.end(&result, false),
        None => {
            if let Err(error) = &result {
                cx.op.step.fail(&sentence(&**error));
            }
        }
    }
    let result = result.map_err(|cause| cx.error(Doing::CacheMap, cause));
    Event::MapFound { task, result }
}

pub(super) async fn find_content<O: Clone + Send + Sync + 'static>(
    op: Arc<dyn Op<Output = O>>,
    cx: Context,
    input: usize,
    output: O,
    task: TaskId,
) -> Event<O, Error> {
    let result = op.content_key(&cx.op, input, &output).await;
    if let Err(error) = &result {
        cx.op.step.fail(&sentence(&**error));
    }
    let result = result.map_err(|cause| cx.error(Doing::ContentKey { input }, cause));
    Event::ContentFound { task, result }
}

pub(super) async fn run<O: Clone + Send + Sync + 'static>(
    op: Arc<dyn Op<Output = O>>,
    cx: Context,
    inputs: Vec<O>,
    task: TaskId,
) -> Event<O, Error> {
    let showing = Showing::start(&cx.op.step);
    let result = op.run(&cx.op, inputs).await;
    showing.end(&result, false);
    let result = result.map_err(|cause| cx.error(Doing::Run, cause));
    Event::Ran { task, result }
}

/// Loads a record. That it cannot be loaded is no error of the build: the next
/// record is tried, or the step is done again.
pub(super) async fn load<O: Clone + Send + Sync + 'static>(
    results: Arc<dyn ResultStore<O>>,
    imported: Option<Arc<dyn RecordStore<O>>>,
    cx: Context,
    record: Record,
    task: TaskId,
) -> Event<O, Error> {
    let showing = Showing::start(&cx.op.step);
    let loaded = match imported {
        _ if record.store == LOCAL => results.load(&cx.op, &record.result).await,
        Some(store) => store.load(&cx.op, &record.result).await,
        None => Ok(None),
    };
    let output = loaded.unwrap_or_else(|error| {
        let error = sentence(&*error);
        warn!(step = cx.name, error, "a cached result cannot be loaded");
        let told = format!("a cached result cannot be loaded: {error}");
        cx.op.step.transfer(told).done();
        None
    });
    showing.end(&Ok(()), output.is_some());
    Event::Loaded { task, output }
}
