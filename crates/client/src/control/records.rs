//! What a daemon tells about itself and what it keeps, in plain values.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use oci::Platform;
use proto::moby::buildkit::v1 as wire;

use crate::convert::time;

/// Who the daemon is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// The program.
    pub package: String,
    /// Its version.
    pub version: String,
    /// Its revision.
    pub revision: String,
}

/// A worker of the daemon.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Worker {
    /// Its id.
    pub id: String,
    /// What is said about it.
    pub labels: BTreeMap<String, String>,
    /// What it builds for, its own first.
    pub platforms: Vec<Platform>,
    /// What it keeps.
    pub gc: Vec<GcPolicy>,
    /// Its version.
    pub version: Info,
}

/// One rule of what is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GcPolicy {
    /// Internal records too.
    pub all: bool,
    /// Which records; all when empty.
    pub filters: Vec<String>,
    /// Younger records are kept.
    pub keep_for: Duration,
    /// So much is always kept.
    pub reserved_bytes: u64,
    /// Above this something goes.
    pub max_used_bytes: u64,
    /// Below this much free space something goes.
    pub min_free_bytes: u64,
}

/// One record of the disk usage report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskRecord {
    /// Its id.
    pub id: String,
    /// Can still be written.
    pub mutable: bool,
    /// Somebody needs it now.
    pub in_use: bool,
    /// Bytes on disk.
    pub size: u64,
    /// Records it lies on.
    pub parents: Vec<String>,
    /// Since when.
    pub created: Option<SystemTime>,
    /// Used last.
    pub last_used: Option<SystemTime>,
    /// Used how often.
    pub usage_count: u64,
    /// What it is.
    pub description: String,
    /// Like `regular`, `exec.cachemount`.
    pub kind: String,
    /// Also kept by somebody else.
    pub shared: bool,
}

/// What may go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PruneOptions {
    /// Which records; all when empty.
    pub filters: Vec<String>,
    /// Internal records too.
    pub all: bool,
    /// Younger records stay.
    pub keep_for: Duration,
    /// So much stays.
    pub reserved_bytes: u64,
    /// Stop when no more than this is used.
    pub max_used_bytes: u64,
    /// Stop when this much is free.
    pub min_free_bytes: u64,
}

/// What happened to a build in the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HistoryKind {
    /// It began.
    Started,
    /// It is over.
    Complete,
    /// It was forgotten.
    Deleted,
}

/// Something that happened to a build.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryEvent {
    /// What.
    pub kind: HistoryKind,
    /// The build, as it is now.
    pub record: HistoryRecord,
}

/// A build that was, or is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HistoryRecord {
    /// Its id.
    pub id: String,
    /// Like `dockerfile.v0`.
    pub frontend: String,
    /// What the frontend was told.
    pub options: BTreeMap<String, String>,
    /// Why it failed.
    pub error: Option<String>,
    /// When it began.
    pub created: Option<SystemTime>,
    /// When it ended.
    pub completed: Option<SystemTime>,
    /// What it answered.
    pub response: BTreeMap<String, String>,
    /// Kept whatever the policy says.
    pub pinned: bool,
    /// Steps whose result was known.
    pub cached_steps: u32,
    /// All steps.
    pub total_steps: u32,
    /// Steps that are done.
    pub completed_steps: u32,
    /// Warnings.
    pub warnings: u32,
}

fn unsigned(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

pub(super) fn version(version: Option<wire::types::BuildkitVersion>) -> Info {
    let version = version.unwrap_or_default();
    Info {
        package: version.package,
        version: version.version,
        revision: version.revision,
    }
}

pub(super) fn worker(record: wire::types::WorkerRecord) -> Worker {
    Worker {
        id: record.id,
        labels: record.labels,
        platforms: record
            .platforms
            .into_iter()
            .map(|p| Platform {
                architecture: p.architecture,
                os: p.os,
                os_version: p.os_version,
                os_features: p.os_features,
                variant: p.variant,
            })
            .collect(),
        gc: record
            .gc_policy
            .into_iter()
            .map(|p| GcPolicy {
                all: p.all,
                filters: p.filters,
                keep_for: Duration::from_nanos(unsigned(p.keep_duration)),
                reserved_bytes: unsigned(p.reserved_space),
                max_used_bytes: unsigned(p.max_used_space),
                min_free_bytes: unsigned(p.min_free_space),
            })
            .collect(),
        version: version(record.buildkit_version),
    }
}

#[expect(deprecated, reason = "old daemons fill only this")]
pub(super) fn disk_record(record: wire::UsageRecord) -> DiskRecord {
    let mut parents = record.parents;
    if parents.is_empty() && !record.parent.is_empty() {
        parents.push(record.parent);
    }
    DiskRecord {
        id: record.id,
        mutable: record.mutable,
        in_use: record.in_use,
        size: unsigned(record.size),
        parents,
        created: record.created_at.as_ref().map(time),
        last_used: record.last_used_at.as_ref().map(time),
        usage_count: unsigned(record.usage_count),
        description: record.description,
        kind: record.record_type,
        shared: record.shared,
    }
}

pub(super) fn history_event(event: wire::BuildHistoryEvent) -> HistoryEvent {
    let kind = match event.r#type() {
        wire::BuildHistoryEventType::Started => HistoryKind::Started,
        wire::BuildHistoryEventType::Complete => HistoryKind::Complete,
        wire::BuildHistoryEventType::Deleted => HistoryKind::Deleted,
    };
    let record = event.record.unwrap_or_default();
    let count = |n: i32| u32::try_from(n).unwrap_or(0);
    HistoryEvent {
        kind,
        record: HistoryRecord {
            id: record.r#ref,
            frontend: record.frontend,
            options: record.frontend_attrs,
            error: record.error.map(|status| status.message),
            created: record.created_at.as_ref().map(time),
            completed: record.completed_at.as_ref().map(time),
            response: record.exporter_response,
            pinned: record.pinned,
            cached_steps: count(record.num_cached_steps),
            total_steps: count(record.num_total_steps),
            completed_steps: count(record.num_completed_steps),
            warnings: count(record.num_warnings),
        },
    }
}
