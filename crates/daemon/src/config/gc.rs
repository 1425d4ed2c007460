//! The rules the cache is kept within (rows D06, D08, D34).

use std::time::Duration;

use crate::Error;
use crate::config::file::Oci;
use crate::config::flags::Flags;
use crate::config::space::{DiskSpace, Span};

const GB: u64 = 1_000_000_000;
const HOUR: Duration = Duration::from_secs(3600);

/// One rule: which records it may remove, and until what. Zero means no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GcRule {
    /// Internal records and shared ones too.
    pub all: bool,
    /// Which records, in containerd's filter grammar.
    pub filters: Vec<String>,
    /// Only what was not used for so long.
    pub keep_duration: Duration,
    /// Never below so many bytes.
    pub reserved: u64,
    /// Never above so many bytes.
    pub max_used: u64,
    /// Try to leave so many bytes free.
    pub min_free: u64,
}

#[derive(Clone, Copy)]
struct Limits {
    reserved: u64,
    max_used: u64,
    min_free: u64,
}

/// The rules that follow from the settings, for a disk of `disk` bytes.
pub fn rules(worker: &Oci, flags: &Flags, disk: u64) -> Result<Vec<GcRule>, Error> {
    if !flags.oci_worker_gc.or(worker.gc).unwrap_or(true) {
        return Ok(Vec::new());
    }
    if !worker.gcpolicy.is_empty() && flags.oci_worker_gc_keepstorage.is_none() {
        return Ok(worker
            .gcpolicy
            .iter()
            .map(|policy| {
                let bytes = |space: Option<DiskSpace>| space.map_or(0, |space| space.bytes(disk));
                GcRule {
                    all: policy.all,
                    filters: policy.filters.clone(),
                    keep_duration: policy
                        .keep_duration
                        .and_then(Span::duration)
                        .unwrap_or_default(),
                    reserved: bytes(policy.reserved_space.or(policy.keep_bytes)),
                    max_used: bytes(policy.max_used_space),
                    min_free: bytes(policy.min_free_space),
                }
            })
            .collect());
    }
    Ok(default_rules(limits(worker, flags, disk)?))
}

fn limits(worker: &Oci, flags: &Flags, disk: u64) -> Result<Limits, Error> {
    if let Some(text) = &flags.oci_worker_gc_keepstorage {
        return from_flag(text);
    }
    let bytes = |space: Option<DiskSpace>| space.map(|space| space.bytes(disk));
    let reserved = bytes(worker.reserved_space.or(worker.gckeepstorage));
    let (max_used, min_free) = (bytes(worker.max_used_space), bytes(worker.min_free_space));
    if reserved.is_some() || max_used.is_some() || min_free.is_some() {
        return Ok(Limits {
            reserved: reserved.unwrap_or(0),
            max_used: max_used.unwrap_or(0),
            min_free: min_free.unwrap_or(0),
        });
    }
    Ok(Limits {
        reserved: (disk / 10).min(10 * GB),
        max_used: (disk / 100 * 80).min(100 * GB),
        min_free: disk / 5,
    })
}

/// `Reserved[,Free[,Max]]` in megabytes.
fn from_flag(text: &str) -> Result<Limits, Error> {
    let wrong = || Error::BadSetting {
        setting: "--oci-worker-gc-keepstorage",
        value: text.to_owned(),
        problem: "is not Reserved[,Free[,Max]] in megabytes".to_owned(),
    };
    let parts: Result<Vec<u64>, _> = text
        .split(',')
        .map(|part| part.trim().parse::<u64>())
        .collect();
    let parts = parts.map_err(|_| wrong())?;
    if parts.len() > 3 {
        return Err(wrong());
    }
    let part = |at: usize| {
        parts
            .get(at)
            .copied()
            .unwrap_or(0)
            .saturating_mul(1_000_000)
    };
    Ok(Limits {
        reserved: part(0),
        min_free: part(1),
        max_used: part(2),
    })
}

fn default_rules(limits: Limits) -> Vec<GcRule> {
    let within = GcRule {
        reserved: limits.reserved,
        max_used: limits.max_used,
        min_free: limits.min_free,
        ..GcRule::default()
    };
    vec![
        // What is cheap to make again goes first: sources and cache mounts left alone.
        GcRule {
            filters: vec![
                "type==source.local,type==exec.cachemount,type==source.git.checkout".to_owned(),
            ],
            keep_duration: 48 * HOUR,
            max_used: 512_000_000,
            ..GcRule::default()
        },
        GcRule {
            keep_duration: 60 * 24 * HOUR,
            ..within.clone()
        },
        within.clone(),
        GcRule {
            all: true,
            ..within
        },
    ]
}
