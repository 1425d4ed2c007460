//! Builds that were (rows A12–A14, D11), as `ListenBuildHistory` tells them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use proto::moby::buildkit::v1::{
    BuildHistoryEvent, BuildHistoryEventType, BuildHistoryRecord, BuildHistoryRequest,
    UpdateBuildHistoryRequest,
};
use tokio::sync::broadcast;
use tonic::Status;

use crate::to_proto;

/// Events a slow listener may fall behind by.
const BACKLOG: usize = 256;

/// All builds that are remembered. Clones are the same list.
#[derive(Clone, Debug)]
pub(crate) struct History(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    max_age: Duration,
    max_entries: usize,
    records: Mutex<BTreeMap<u64, Entry>>,
    events: broadcast::Sender<BuildHistoryEvent>,
}

#[derive(Clone, Debug)]
struct Entry {
    record: BuildHistoryRecord,
    completed: Option<SystemTime>,
}

impl Entry {
    fn event(&self) -> BuildHistoryEvent {
        let kind = match self.completed {
            Some(_) => BuildHistoryEventType::Complete,
            None => BuildHistoryEventType::Started,
        };
        event(kind, self.record.clone())
    }
}

fn event(kind: BuildHistoryEventType, record: BuildHistoryRecord) -> BuildHistoryEvent {
    BuildHistoryEvent {
        r#type: kind.into(),
        record: Some(record),
    }
}

impl History {
    pub(crate) fn new(max_age: Duration, max_entries: usize) -> History {
        let records = Mutex::new(BTreeMap::new());
        History(Arc::new(Inner {
            max_age,
            max_entries,
            records,
            events: broadcast::Sender::new(BACKLOG),
        }))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Entry>> {
        self.0
            .records
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// A build began.
    pub(crate) fn started(&self, mut record: BuildHistoryRecord, now: SystemTime) {
        record.created_at = Some(to_proto::timestamp(now));
        let mut records = self.lock();
        let next = records.last_key_value().map_or(0, |(last, _)| last + 1);
        let entry = Entry {
            record,
            completed: None,
        };
        let _ = self.0.events.send(entry.event());
        records.insert(next, entry);
    }

    /// A build ended: `finish` adds what is known now.
    pub(crate) fn completed(
        &self,
        id: &str,
        now: SystemTime,
        finish: impl FnOnce(&mut BuildHistoryRecord),
    ) {
        let mut records = self.lock();
        if let Some(entry) = records
            .values_mut()
            .rev()
            .find(|entry| entry.record.r#ref == id)
        {
            finish(&mut entry.record);
            entry.record.completed_at = Some(to_proto::timestamp(now));
            entry.record.generation += 1;
            entry.completed = Some(now);
            let _ = self.0.events.send(entry.event());
        }
        self.forget(&mut records, now);
    }

    /// Forgets what is too old or too much; never what is pinned or still runs.
    fn forget(&self, records: &mut BTreeMap<u64, Entry>, now: SystemTime) {
        let mut candidates: Vec<(u64, SystemTime)> = records
            .iter()
            .filter(|(_, entry)| !entry.record.pinned)
            .filter_map(|(at, entry)| entry.completed.map(|when| (*at, when)))
            .collect();
        candidates.reverse();
        for (place, (at, when)) in candidates.into_iter().enumerate() {
            let old = now
                .duration_since(when)
                .is_ok_and(|age| age > self.0.max_age);
            if (old || place >= self.0.max_entries)
                && let Some(entry) = records.remove(&at)
            {
                let _ = self
                    .0
                    .events
                    .send(event(BuildHistoryEventType::Deleted, entry.record));
            }
        }
    }

    /// What is known now, and then what happens, for one listener.
    pub(crate) fn listen(
        &self,
        request: &BuildHistoryRequest,
    ) -> Result<
        (
            Vec<BuildHistoryEvent>,
            broadcast::Receiver<BuildHistoryEvent>,
        ),
        Status,
    > {
        let filters = filters(&request.filter)?;
        let records = self.lock();
        let events = self.0.events.subscribe();
        let mut known: Vec<BuildHistoryEvent> = records
            .values()
            .rev()
            .filter(|entry| request.r#ref.is_empty() || entry.record.r#ref == request.r#ref)
            .filter(|entry| !request.active_only || entry.completed.is_none())
            .filter(|entry| {
                filters
                    .iter()
                    .all(|filter| filter.iter().any(|one| one.matches(entry)))
            })
            .map(Entry::event)
            .collect();
        if let Ok(limit @ 1..) = usize::try_from(request.limit) {
            known.truncate(limit);
        }
        known.reverse();
        Ok((known, events))
    }

    /// Pins, unpins or deletes.
    pub(crate) fn update(&self, request: &UpdateBuildHistoryRequest) -> Result<(), Status> {
        let mut records = self.lock();
        let found = records
            .iter()
            .rev()
            .find(|(_, entry)| entry.record.r#ref == request.r#ref)
            .map(|(at, _)| *at);
        let Some(at) = found else {
            return Err(Status::not_found(format!(
                "no build {} is remembered",
                request.r#ref
            )));
        };
        if request.delete {
            if records
                .get(&at)
                .is_some_and(|entry| entry.completed.is_none())
            {
                return Err(Status::failed_precondition(format!(
                    "build {} still runs",
                    request.r#ref
                )));
            }
            if let Some(entry) = records.remove(&at) {
                let _ = self
                    .0
                    .events
                    .send(event(BuildHistoryEventType::Deleted, entry.record));
            }
        } else if !request.finalize
            && let Some(entry) = records.get_mut(&at)
        {
            entry.record.pinned = request.pinned;
            entry.record.generation += 1;
            let _ = self.0.events.send(entry.event());
        }
        Ok(())
    }
}

/// One condition on a record: `status==error`, `ref~=abc`.
#[derive(Debug)]
struct Condition {
    key: String,
    operator: Operator,
    value: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Is,
    IsNot,
    Contains,
    After,
    Before,
}

/// Each text is one condition or several with commas, of which one must hold.
fn filters(texts: &[String]) -> Result<Vec<Vec<Condition>>, Status> {
    texts
        .iter()
        .map(|text| text.split(',').map(condition).collect())
        .collect()
}

fn condition(text: &str) -> Result<Condition, Status> {
    const OPERATORS: [(&str, Operator); 5] = [
        ("==", Operator::Is),
        ("!=", Operator::IsNot),
        ("~=", Operator::Contains),
        (">", Operator::After),
        ("<", Operator::Before),
    ];
    const KEYS: [&str; 6] = [
        "ref",
        "repository",
        "status",
        "startedAt",
        "completedAt",
        "duration",
    ];
    let found = OPERATORS
        .iter()
        .filter_map(|(sign, operator)| Some((text.find(sign)?, *sign, *operator)));
    let Some((at, sign, operator)) = found.min_by_key(|(at, ..)| *at) else {
        return Err(Status::invalid_argument(format!(
            "filter {text:?} has none of == != ~= > <"
        )));
    };
    let key = text[..at].trim().to_owned();
    if !KEYS.contains(&key.as_str()) {
        return Err(Status::invalid_argument(format!(
            "filter key {key:?} is not one of {}",
            KEYS.join(", ")
        )));
    }
    let value = text[at + sign.len()..].trim().trim_matches('"').to_owned();
    let timed = matches!(key.as_str(), "startedAt" | "completedAt" | "duration");
    if timed != matches!(operator, Operator::After | Operator::Before) {
        return Err(Status::invalid_argument(format!(
            "filter {text:?}: {key} cannot be compared with {sign}"
        )));
    }
    Ok(Condition {
        key,
        operator,
        value,
    })
}

impl Condition {
    fn matches(&self, entry: &Entry) -> bool {
        let record = &entry.record;
        let text = match self.key.as_str() {
            "ref" => record.r#ref.clone(),
            "repository" => record
                .frontend_attrs
                .get("vcs:source")
                .cloned()
                .unwrap_or_default(),
            "status" => status(entry).to_owned(),
            _ => return self.compares(entry),
        };
        match self.operator {
            Operator::Is => text == self.value,
            Operator::IsNot => text != self.value,
            Operator::Contains => text.contains(&self.value),
            Operator::After | Operator::Before => false,
        }
    }

    fn compares(&self, entry: &Entry) -> bool {
        let seconds =
            |stamp: &Option<prost_types::Timestamp>| stamp.as_ref().map(|stamp| stamp.seconds);
        let Some(started) = seconds(&entry.record.created_at) else {
            return false;
        };
        let completed = seconds(&entry.record.completed_at);
        let span = self
            .value
            .parse::<crate::config::space::Span>()
            .ok()
            .and_then(|span| span.duration());
        let Some(span) = span.and_then(|span| i64::try_from(span.as_secs()).ok()) else {
            return false;
        };
        let now = to_proto::timestamp(SystemTime::now()).seconds;
        // `startedAt>1h` reads: it began longer ago than an hour.
        let measured = match self.key.as_str() {
            "startedAt" => Some(now - started),
            "completedAt" => completed.map(|completed| now - completed),
            _ => Some(completed.unwrap_or(now) - started),
        };
        measured.is_some_and(|measured| match self.operator {
            Operator::After => measured > span,
            _ => measured < span,
        })
    }
}

fn status(entry: &Entry) -> &'static str {
    let canceled = tonic::Code::Cancelled as i32;
    match (entry.completed, &entry.record.error) {
        (None, _) => "running",
        (Some(_), None) => "completed",
        (Some(_), Some(error)) if error.code == canceled => "canceled",
        (Some(_), Some(_)) => "error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str) -> BuildHistoryRecord {
        BuildHistoryRecord {
            r#ref: id.to_owned(),
            ..BuildHistoryRecord::default()
        }
    }

    fn ids(history: &History, request: BuildHistoryRequest) -> Vec<String> {
        let (known, _) = history.listen(&request).unwrap();
        known
            .into_iter()
            .map(|event| event.record.unwrap().r#ref)
            .collect()
    }

    /// Rows: A12, A13, A14, D11
    #[test]
    fn builds_are_remembered_found_pinned_and_forgotten() {
        let history = History::new(Duration::from_secs(3600), 2);
        let now = SystemTime::now();
        for id in ["a", "b", "c"] {
            history.started(record(id), now);
        }
        history.completed("a", now, |record| {
            record.error = Some(proto::google::rpc::Status {
                code: 2,
                ..Default::default()
            });
        });
        assert_eq!(
            ids(
                &history,
                BuildHistoryRequest {
                    active_only: true,
                    ..Default::default()
                }
            ),
            ["b", "c"]
        );
        assert_eq!(
            ids(
                &history,
                BuildHistoryRequest {
                    filter: vec!["status==error".into()],
                    ..Default::default()
                }
            ),
            ["a"]
        );
        assert_eq!(
            ids(
                &history,
                BuildHistoryRequest {
                    r#ref: "b".into(),
                    ..Default::default()
                }
            ),
            ["b"]
        );
        history
            .update(&UpdateBuildHistoryRequest {
                r#ref: "a".into(),
                pinned: true,
                ..Default::default()
            })
            .unwrap();
        for id in ["b", "c"] {
            history.completed(id, now, |_| {});
        }
        history.started(record("d"), now);
        history.completed("d", now, |_| {});
        assert_eq!(
            ids(&history, BuildHistoryRequest::default()),
            ["a", "c", "d"],
            "a is pinned, b one too many"
        );
        history
            .update(&UpdateBuildHistoryRequest {
                r#ref: "d".into(),
                delete: true,
                ..Default::default()
            })
            .unwrap();
        assert_eq!(
            ids(
                &history,
                BuildHistoryRequest {
                    limit: 1,
                    ..Default::default()
                }
            ),
            ["c"]
        );
        assert!(
            history
                .update(&UpdateBuildHistoryRequest {
                    r#ref: "zz".into(),
                    ..Default::default()
                })
                .is_err()
        );
    }

    /// Rows: A12
    #[test]
    fn filters_that_make_no_sense_are_refused() {
        for wrong in ["status", "color==red", "ref>1h", "duration==1h"] {
            assert!(filters(&[wrong.to_owned()]).is_err(), "{wrong}");
        }
        assert_eq!(
            filters(&["status==error,status==canceled".to_owned()]).unwrap()[0].len(),
            2
        );
    }
}
