//! A build's side of the solver.

use std::ops::Deref;
use std::sync::Arc;

use oci::Digest;
use progress::{Progress, StepProgress};
use tokio::sync::oneshot;

use super::{Inner, JobInfo, Shown, order};
use crate::event::{Declared, Event, JobId, LOCAL, RequestId, StoreId, VertexId};
use crate::export::{self, ExportGraph};
use crate::index::Record;
use crate::op::{Edge, OpContext, OpError, VertexSpec};
use crate::store::RecordStore;
use crate::{Error, Miss, Result};

/// How a job is solved.
#[derive(Clone, Debug, Default)]
pub struct JobOptions {
    /// Use no results of earlier builds.
    pub no_cache: bool,
}

/// One build's part in the solver. Dropping it is leaving: questions end with
/// [`Error::Canceled`], and work nobody else waits for stops at once.
pub struct Job<O: Clone + Send + Sync + 'static>(JobHandle<O>);

/// A job as work done on its behalf may hold it: this does not keep the job
/// from leaving.
pub struct JobHandle<O> {
    pub(super) inner: Arc<Inner<O>>,
    pub(super) id: JobId,
    no_cache: bool,
}

impl<O> Clone for JobHandle<O> {
    fn clone(&self) -> JobHandle<O> {
        JobHandle {
            inner: self.inner.clone(),
            id: self.id,
            no_cache: self.no_cache,
        }
    }
}

impl<O: Clone + Send + Sync + 'static> Job<O> {
    pub(super) fn new(inner: Arc<Inner<O>>, progress: Progress, options: JobOptions) -> Job<O> {
        let id = JobId(inner.number());
        let info = JobInfo {
            progress,
            misses: Vec::new(),
            stores: Vec::new(),
            vertices: Vec::new(),
        };
        inner.core().jobs.insert(id, info);
        inner.event(Event::JobCame { job: id });
        Job(JobHandle {
            inner,
            id,
            no_cache: options.no_cache,
        })
    }

    /// This job, for work done on its behalf.
    pub fn handle(&self) -> JobHandle<O> {
        self.0.clone()
    }
}

impl<O: Clone + Send + Sync + 'static> Deref for Job<O> {
    type Target = JobHandle<O>;

    fn deref(&self) -> &JobHandle<O> {
        &self.0
    }
}

impl<O: Clone + Send + Sync + 'static> Drop for Job<O> {
    fn drop(&mut self) {
        let inner = &self.0.inner;
        inner.event(Event::JobLeft { job: self.0.id });
        let mut core = inner.core();
        let info = core.jobs.remove(&self.0.id);
        let stores: Vec<_> = info
            .iter()
            .flat_map(|info| &info.stores)
            .map(|store| core.stores.remove(store))
            .collect();
        let id = self.0.id;
        let vertices = info.iter().flat_map(|info| &info.vertices);
        let ops: Vec<_> = vertices
            .filter_map(|vertex| core.vertices.get_mut(vertex)?.ops.remove(&id))
            .collect();
        drop(core);
        drop((stores, ops));
    }
}

impl<O: Clone + Send + Sync + 'static> JobHandle<O> {
    /// The number of the job.
    pub fn id(&self) -> JobId {
        self.id
    }

    /// Also looks for records in this store.
    pub fn import(&self, store: Arc<dyn RecordStore<O>>) -> Result<()> {
        let id = StoreId(self.inner.number());
        let mut core = self.inner.core();
        let job = core.jobs.get_mut(&self.id).ok_or(Error::Canceled)?;
        job.stores.push(id);
        core.stores.insert(id, store);
        drop(core);
        self.inner.event(Event::StoreCame {
            job: self.id,
            store: id,
        });
        Ok(())
    }

    /// Describes vertices, in any order. Their inputs are among them or were
    /// described before.
    pub fn load(&self, vertices: Vec<VertexSpec<O>>) -> Result<()> {
        let mut dropped = Vec::new();
        let mut core = self.inner.core();
        let job = core.jobs.get(&self.id).ok_or(Error::Canceled)?;
        let progress = job.progress.clone();
        let state = &core.state;
        let known = |digest: &Digest| state.vertex_of(self.id, digest).is_some();
        let vertices = order::inputs_first(vertices, known)?;
        let declared = vertices
            .iter()
            .map(|vertex| self.declared(vertex))
            .collect();
        let event = Event::Declared {
            job: self.id,
            vertices: declared,
        };
        self.inner.event_in(&mut core, event, &mut dropped);
        let mut mine = Vec::new();
        for vertex in vertices {
            let Some(id) = core.state.vertex_of(self.id, &vertex.digest) else {
                continue;
            };
            let shown = core.vertices.entry(id).or_insert_with(|| {
                let inputs: Vec<Digest> = vertex.inputs.iter().map(|edge| edge.vertex).collect();
                let (name, group) = (vertex.name.clone(), vertex.group.clone());
                Shown {
                    digest: vertex.digest,
                    step: progress.step_in_group(vertex.digest, name.clone(), &inputs, group),
                    name,
                    ops: Default::default(),
                    export_cache: vertex.export_cache,
                    missed: None,
                }
            });
            shown.step.attach(&progress);
            match shown.ops.insert(self.id, vertex.op) {
                None => mine.push(id),
                Some(old) => dropped.push(Box::new(old)),
            }
        }
        if let Some(job) = core.jobs.get_mut(&self.id) {
            job.vertices.extend(mine);
        }
        Ok(())
    }

    fn declared(&self, vertex: &VertexSpec<O>) -> Declared {
        Declared {
            digest: vertex.digest,
            inputs: vertex
                .inputs
                .iter()
                .map(|edge| (edge.vertex, edge.output))
                .collect(),
            ignore_cache: vertex.ignore_cache || self.no_cache,
            limited: vertex.limited,
        }
    }

    /// The output of an edge, and its key in the index. Dropping the future
    /// takes the question back.
    pub async fn solve(&self, edge: Edge) -> Result<O> {
        self.ask(edge, None).await
    }

    /// The same for an op that finds out only while it runs what it needs: `cx` is its own,
    /// of this very job. What waits for that op itself ends with [`Error::Cycle`].
    pub async fn solve_within(&self, cx: &OpContext, edge: Edge) -> Result<O> {
        self.ask(edge, cx.vertex).await
    }

    async fn ask(&self, edge: Edge, within: Option<VertexId>) -> Result<O> {
        let request = RequestId(self.inner.number());
        let (sender, receiver) = oneshot::channel();
        self.inner.core().replies.insert(request, sender);
        let asking = Asking {
            inner: &self.inner,
            request,
        };
        let Edge { vertex, output } = edge;
        self.inner.event(Event::Wanted {
            job: self.id,
            request,
            vertex,
            output,
            within,
        });
        let result = receiver.await.unwrap_or(Err(Error::Canceled));
        drop(asking);
        if result.is_ok() {
            self.inner.saves.flush().await;
        }
        result
    }

    /// What is known below a solved edge, for exporting it. With `backlinks` also
    /// other ways to the same keys that only the indexes know.
    pub async fn export(&self, edge: Edge, backlinks: bool) -> Result<ExportGraph<O>> {
        self.inner.saves.flush().await;
        let (picture, shown, stores) = {
            let core = self.inner.core();
            let vertex = core.state.vertex_of(self.id, &edge.vertex);
            let vertex = vertex.ok_or(Error::UnknownVertex(edge.vertex))?;
            let picture = core.state.picture((vertex, edge.output));
            let shown = picture.iter().map(|found| {
                let shown = core.vertices.get(&found.vertex);
                let edge = shown.map(|shown| Edge {
                    vertex: shown.digest,
                    output: found.number,
                });
                (edge, shown.and_then(|shown| shown.export_cache))
            });
            let shown: Vec<_> = shown.collect();
            let job = core.jobs.get(&self.id).ok_or(Error::Canceled)?;
            (picture, shown, core.some_stores(&job.stores))
        };
        let mut indexes = vec![(LOCAL, self.inner.index.clone())];
        for (id, store) in stores {
            indexes.push((id, store.index().await));
        }
        let graph = move || export::graph(picture, &shown, &indexes, backlinks);
        Ok(stdx::task::blocking(graph).await?)
    }

    /// The output of a record found by [`JobHandle::export`]; nothing when it is gone.
    pub async fn load_record(&self, record: &Record) -> Result<Option<O>, OpError> {
        let store = self.inner.core().stores.get(&record.store).cloned();
        let cx = OpContext {
            step: StepProgress::none(),
            job: self.id,
            vertex: None,
            missed: None,
        };
        match store {
            _ if record.store == LOCAL => self.inner.results.load(&cx, &record.result).await,
            Some(store) => store.load(&cx, &record.result).await,
            None => Ok(None),
        }
    }

    /// Why vertices of this job were not found in any cache, in order of finding out.
    pub fn misses(&self) -> Vec<(Digest, Miss)> {
        let core = self.inner.core();
        core.jobs
            .get(&self.id)
            .map(|job| job.misses.clone())
            .unwrap_or_default()
    }
}

/// A question being asked; dropped, it is taken back.
struct Asking<'a, O: Clone + Send + Sync + 'static> {
    inner: &'a Arc<Inner<O>>,
    request: RequestId,
}

impl<O: Clone + Send + Sync + 'static> Drop for Asking<'_, O> {
    fn drop(&mut self) {
        let waiting = self.inner.core().replies.remove(&self.request);
        if waiting.is_some() {
            self.inner.event(Event::Withdrawn {
                request: self.request,
            });
        }
    }
}
