//! Builds that were (rows A12–A14, D11, P10), as `ListenBuildHistory` tells them: those
//! that run are here, those that ended in the [`archive`].

pub(crate) mod archive;
mod filter;
mod finalize;
pub(crate) mod story;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use progress::Progress;
use prost::Message as _;
use proto::google::rpc;
use proto::moby::buildkit::v1::{
    BuildHistoryEvent, BuildHistoryEventType, BuildHistoryRecord as Record, BuildHistoryRequest,
    BuildResultInfo, Descriptor, UpdateBuildHistoryRequest,
};
use tokio::sync::broadcast;
use tonic::Status;

use crate::builder::Built;
use crate::to_proto;
use archive::{Archive, Error};
use filter::Filters;
pub(crate) use finalize::Finalizers;

/// Events a slow listener may fall behind by.
const BACKLOG: usize = 256;
/// What the provenance of a result is.
const STATEMENT_TYPE: &str = "application/vnd.in-toto+json";
/// What the whole error of a build is; the spelling is BuildKit's.
const ERROR_TYPE: &str = "application/vnd.googeapis.google.rpc.status+proto";

/// All builds that are remembered. Clones are the same list.
#[derive(Clone, Debug)]
pub(crate) struct History(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    max_age: Duration,
    max_entries: usize,
    archive: Archive,
    active: Mutex<BTreeMap<String, Record>>,
    events: broadcast::Sender<BuildHistoryEvent>,
}

/// How a build ended.
pub(crate) struct Ended {
    pub(crate) id: String,
    pub(crate) at: SystemTime,
    pub(crate) outcome: Result<Built, rpc::Status>,
    pub(crate) progress: Progress,
}

fn event(kind: BuildHistoryEventType, record: Record) -> BuildHistoryEvent {
    BuildHistoryEvent {
        r#type: kind.into(),
        record: Some(record),
    }
}

/// A listener's beginning and what follows.
pub(crate) type Listening = (
    Vec<BuildHistoryEvent>,
    broadcast::Receiver<BuildHistoryEvent>,
);

pub(crate) fn refused(error: &Error) -> Status {
    Status::new(to_proto::code(error.kind()), stdx::text::sentence(error))
}

impl History {
    pub(crate) fn new(archive: Archive, max_age: Duration, max_entries: usize) -> History {
        let active = Mutex::default();
        let events = broadcast::Sender::new(BACKLOG);
        History(Arc::new(Inner {
            max_age,
            max_entries,
            archive,
            active,
            events,
        }))
    }

    fn active(&self) -> MutexGuard<'_, BTreeMap<String, Record>> {
        self.0.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, kind: BuildHistoryEventType, record: Record) {
        // Nobody may be listening.
        let _ = self.0.events.send(event(kind, record));
    }

    /// A build began.
    pub(crate) fn started(&self, mut record: Record, now: SystemTime) {
        record.created_at = Some(to_proto::timestamp(now));
        let mut active = self.active();
        self.tell(BuildHistoryEventType::Started, record.clone());
        active.insert(record.r#ref.clone(), record);
    }

    /// A build ended: its record goes to the archive. Whether it is there now, so that
    /// [`story`](History::story) tells of it. Blocks on the disk.
    pub(crate) fn completed(&self, ended: &Ended) -> bool {
        let found = self.active().get(&ended.id).cloned();
        let Some(mut record) = found else {
            return false;
        };
        record.completed_at = Some(to_proto::timestamp(ended.at));
        let archived = self.archive(&mut record, ended);
        if let Err(error) = &archived {
            tracing::warn!(
                error = stdx::text::sentence(error),
                build = ended.id,
                "the build will not be remembered"
            );
        }
        let mut active = self.active();
        active.remove(&ended.id);
        self.tell(BuildHistoryEventType::Complete, record);
        drop(active);
        if let Err(error) = self.forget_old(ended.at) {
            tracing::warn!(
                error = stdx::text::sentence(&error),
                "old builds stay remembered"
            );
        }
        // An older build may have had its name.
        archived.is_ok() && matches!(self.0.archive.get(&ended.id), Ok(Some(_)))
    }

    fn archive(&self, record: &mut Record, ended: &Ended) -> Result<(), Error> {
        let counts = ended.progress.counts();
        let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
        record.num_total_steps = number(counts.steps);
        record.num_completed_steps = number(counts.completed);
        record.num_cached_steps = number(counts.cached);
        record.num_warnings = number(counts.warnings);
        let archive = &self.0.archive;
        let logs = archive.blob(story::MEDIA_TYPE, |out| story::write(&ended.progress, out))?;
        record.logs = Some(logs.blob.clone());
        // Held until the record, which names them, is written.
        let mut held = vec![logs];
        match &ended.outcome {
            Ok(built) => {
                record.result = self.result(&built.images);
                record.exporter_response = built.response.clone();
                for (id, told) in &built.provenance {
                    let blob = archive.blob(STATEMENT_TYPE, |out| out.write_all(&told.bytes))?;
                    let mut told_in = blob.blob.clone();
                    let kind = (
                        oci::annotation::PREDICATE_TYPE.to_owned(),
                        told.kind.clone(),
                    );
                    told_in.annotations.extend([kind]);
                    let result = match id.as_str() {
                        "" => record.result.get_or_insert_default(),
                        id => record.results.entry(id.to_owned()).or_default(),
                    };
                    result.attestations.push(told_in);
                    held.push(blob);
                }
            }
            Err(status) => {
                // The details go into a blob of their own: lists of builds stay small.
                let whole =
                    archive.blob(ERROR_TYPE, |out| out.write_all(&status.encode_to_vec()))?;
                record.external_error = Some(whole.blob.clone());
                record.error = Some(rpc::Status {
                    details: Vec::new(),
                    ..status.clone()
                });
                held.push(whole);
            }
        }
        archive.put(record)?;
        drop(held);
        Ok(())
    }

    /// The images that came out, as far as they are kept here, by their exporters.
    fn result(&self, images: &BTreeMap<usize, oci::Descriptor>) -> Option<BuildResultInfo> {
        let kept = images
            .iter()
            .filter(|(_, image)| self.0.archive.has(&image.digest));
        let results = kept.filter_map(|(at, image)| {
            let image = Descriptor {
                media_type: image.media_type.clone(),
                digest: image.digest.to_string(),
                size: i64::try_from(image.size).ok()?,
                annotations: image.annotations.clone(),
            };
            Some((i64::try_from(*at).ok()?, image))
        });
        let results: BTreeMap<i64, Descriptor> = results.collect();
        Some(BuildResultInfo {
            // Older clients know one result only.
            result_deprecated: Some(results.values().next()?.clone()),
            attestations: Vec::new(),
            results: results.into_iter().collect(),
        })
    }

    /// Forgets what is both too old and too much; never what is pinned (row D11).
    pub(crate) fn forget_old(&self, now: SystemTime) -> Result<(), Error> {
        let Some(before) = now.checked_sub(self.0.max_age) else {
            return Ok(());
        };
        let before = to_proto::timestamp(before).seconds.saturating_mul(1000);
        for id in self.0.archive.outdated(self.0.max_entries, before)? {
            self.remove(&id)?;
        }
        Ok(())
    }

    fn remove(&self, id: &str) -> Result<bool, Error> {
        let removed = self.0.archive.remove(id)?;
        if removed {
            let gone = Record {
                r#ref: id.to_owned(),
                ..Record::default()
            };
            self.tell(BuildHistoryEventType::Deleted, gone);
        }
        Ok(removed)
    }

    /// What is known now, and then what happens, for one listener. Blocks on the disk.
    pub(crate) fn listen(&self, request: &BuildHistoryRequest) -> Result<Listening, Status> {
        let filters = Filters::parse(&request.filter, SystemTime::now())?;
        let limit = match usize::try_from(request.limit) {
            Ok(0) => usize::MAX,
            Ok(limit) => limit,
            Err(_) => {
                return Err(Status::invalid_argument(format!(
                    "invalid limit {}",
                    request.limit
                )));
            }
        };
        let wanted = |record: &Record| {
            (request.r#ref.is_empty() || record.r#ref == request.r#ref)
                && filters.match_record(record)
        };
        let active = self.active();
        let events = self.0.events.subscribe();
        let mut known: Vec<_> = active
            .values()
            .filter(|record| wanted(record))
            .cloned()
            .collect();
        drop(active);
        known.sort_by_key(|record| {
            std::cmp::Reverse(record.created_at.map(|at| (at.seconds, at.nanos)))
        });
        let mut known: Vec<_> = known
            .into_iter()
            .map(|record| event(BuildHistoryEventType::Started, record))
            .take(limit)
            .collect();
        if !request.active_only && known.len() < limit {
            let see = |record: Record| {
                let twice = known.iter().any(|other| {
                    other
                        .record
                        .as_ref()
                        .is_some_and(|r| r.r#ref == record.r#ref)
                });
                if wanted(&record) && !twice {
                    known.push(event(BuildHistoryEventType::Complete, record));
                }
                known.len() < limit
            };
            if request.r#ref.is_empty() {
                self.0.archive.each(see).map_err(|error| refused(&error))?;
            } else {
                self.0
                    .archive
                    .get(&request.r#ref)
                    .map_err(|error| refused(&error))?
                    .map(see);
            }
        }
        known.reverse();
        Ok((known, events))
    }

    /// Pins, unpins or deletes. Blocks on the disk.
    pub(crate) fn update(&self, request: &UpdateBuildHistoryRequest) -> Result<(), Status> {
        let id = &request.r#ref;
        if self.active().contains_key(id) {
            return Err(Status::failed_precondition(format!(
                "build {id} still runs"
            )));
        }
        let unknown = || Status::not_found(format!("no build {id} is remembered"));
        if request.delete {
            return match self.remove(id).map_err(|error| refused(&error))? {
                true => Ok(()),
                false => Err(unknown()),
            };
        }
        if request.finalize {
            let known = self.0.archive.get(id).map_err(|error| refused(&error))?;
            return known.map(drop).ok_or_else(unknown);
        }
        let changed = self
            .0
            .archive
            .update(id, |record| record.pinned = request.pinned);
        let record = changed
            .map_err(|error| refused(&error))?
            .ok_or_else(unknown)?;
        self.tell(BuildHistoryEventType::Complete, record);
        Ok(())
    }

    /// The trace of a build that ended is complete. Blocks on the disk.
    pub(crate) fn set_trace(&self, id: &str, media_type: &str, trace: &[u8]) -> Result<(), Error> {
        let held = self
            .0
            .archive
            .blob(media_type, |out| out.write_all(trace))?;
        let changed = self
            .0
            .archive
            .update(id, |record| record.trace = Some(held.blob.clone()))?;
        match changed {
            Some(record) => self.tell(BuildHistoryEventType::Complete, record),
            // The record went while its trace was on the way.
            None => self.0.archive.discard(held)?,
        }
        Ok(())
    }

    /// The progress of a build that ended, as it was told; `None` if it is not remembered.
    /// Blocks on the disk.
    pub(crate) fn story(
        &self,
        id: &str,
    ) -> Result<Option<Option<story::Reader<std::fs::File>>>, Error> {
        let Some(record) = self.0.archive.get(id)? else {
            return Ok(None);
        };
        let Some(logs) = record.logs else {
            return Ok(Some(None));
        };
        Ok(Some(
            self.0.archive.open_blob(&logs)?.map(story::Reader::new),
        ))
    }

    /// How many builds run, and how many are remembered.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.active().len(), self.0.archive.count().unwrap_or(0))
    }
}
