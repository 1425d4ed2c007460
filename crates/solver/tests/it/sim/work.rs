//! Does the work the state asks for, with what this world has on its disks.

use std::collections::BTreeSet;

use oci::Digest;
use solver::action::Action;
use solver::event::{Event, JobId, LOCAL, StoreId, VertexId};
use solver::{Index, MemoryIndex, Record};

use super::world::{Act, Broken, Build, World};

impl World {
    /// An op of a job that has left may find its session gone.
    pub(super) fn breaks(&mut self, job: JobId) -> bool {
        if self.calm {
            return false;
        }
        let percent = if self.jobs.contains_key(&job) { 3 } else { 50 };
        self.dice.chance(percent)
    }

    pub(super) fn work(&mut self, action: Act) -> Event<u64, Broken> {
        match action {
            Action::AskMap {
                task,
                vertex,
                job,
                index,
            } => {
                let result = match self.op(vertex, job) {
                    Some((build, name)) => Ok(build.graph.cache_map(&name, index)),
                    None => Err(Broken::Op(job)),
                };
                let result = if self.breaks(job) {
                    Err(Broken::Op(job))
                } else {
                    result
                };
                Event::MapFound { task, result }
            }
            Action::Probe {
                task,
                probes,
                stores,
            } => {
                let mut found = BTreeSet::new();
                for probe in probes {
                    for store in &stores {
                        if probe.store.is_none_or(|only| only == *store) {
                            let keys = self.index_of(*store).children(&probe.from, &probe.link);
                            found.extend(keys.unwrap().into_iter().map(|key| (*store, key)));
                        }
                    }
                }
                Event::Probed {
                    task,
                    found: found.into_iter().collect(),
                }
            }
            Action::FindRecords { task, keys, stores } => {
                let mut records = Vec::new();
                for (only, key) in keys {
                    for store in stores
                        .iter()
                        .filter(|s| only.is_none_or(|only| only == **s))
                    {
                        for (result, created) in self.index_of(*store).records(&key).unwrap() {
                            records.push(Record {
                                store: *store,
                                key,
                                result,
                                created,
                            });
                        }
                    }
                }
                Event::RecordsFound { task, records }
            }
            Action::Load {
                task,
                vertex,
                record,
                ..
            } => {
                self.did.loads.extend(self.names.get(&vertex));
                let there =
                    !self.lost.contains(&record.result) && (self.calm || !self.dice.chance(5));
                *self
                    .seen
                    .entry(if there { "loaded" } else { "gone" })
                    .or_default() += 1;
                let output = there.then(|| self.results[&record.result]);
                Event::Loaded { task, output }
            }
            Action::FindContent {
                task,
                vertex,
                job,
                input,
                output,
            } => {
                let name = self.names.get(&vertex);
                self.did.contents.extend(name.map(|name| (*name, input)));
                let result = match self.op(vertex, job) {
                    Some((build, name)) => Ok(build.graph.content(&name, input, output)),
                    None => Err(Broken::Op(job)),
                };
                let result = if self.breaks(job) {
                    Err(Broken::Op(job))
                } else {
                    result
                };
                Event::ContentFound { task, result }
            }
            Action::Run {
                task,
                vertex,
                job,
                inputs,
            } => {
                *self.seen.entry("ran").or_default() += 1;
                if let Some(name) = self.names.get(&vertex) {
                    self.did.runs.push(*name);
                }
                if self.calm {
                    let at = &self.at;
                    assert!(
                        self.explained.contains(&vertex),
                        "{at}: it runs and nobody said why"
                    );
                }
                let result = match self.op(vertex, job) {
                    Some((build, name)) => Ok(build.graph.run(&name, &inputs)),
                    None => Err(Broken::Op(job)),
                };
                let result = if self.breaks(job) {
                    Err(Broken::Op(job))
                } else {
                    result
                };
                Event::Ran { task, result }
            }
            other => panic!("{}: {other:?} is no work", self.at),
        }
    }

    /// A job's build and the digest of the vertex there; nothing when it has left.
    pub(super) fn op(&self, vertex: VertexId, job: JobId) -> Option<(&Build, Digest)> {
        let build = self.jobs.get(&job)?;
        let digest = build
            .graph
            .things
            .iter()
            .map(|thing| thing.digest)
            .find(|digest| self.state.vertex_of(job, digest) == Some(vertex))?;
        Some((build, digest))
    }

    pub(super) fn index_of(&self, store: StoreId) -> &MemoryIndex {
        if store == LOCAL {
            &self.index
        } else {
            &self.imported
        }
    }
}
