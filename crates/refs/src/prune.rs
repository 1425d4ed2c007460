//! Which records go: a policy and the records, a pure function. And the doing of it.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime};

use db::Tx;
use lease::{Roots, Thing};

use crate::record::{Record, Shape, remove_unused_links};
use crate::{Filter, RecordType, Refs, Result, UsageRecord};

/// How much may stay. Zero means no limit of that kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes that stay in any case.
    pub reserved_space: u64,
    /// Bytes that are never exceeded.
    pub max_used_space: u64,
    /// Bytes of the disk that shall stay free.
    pub min_free_space: u64,
}

/// One rule of pruning (rows D08, A09).
#[derive(Clone, Debug, Default)]
pub struct PrunePolicy {
    /// Which records it is about.
    pub filter: Filter,
    /// Also those the engine keeps for itself: internal ones and frontends.
    pub all: bool,
    /// Those used within this time stay.
    pub keep_duration: Duration,
    /// How much may stay; without any limit everything else goes.
    pub limits: Limits,
}

/// The disk the records are on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// Its size in bytes.
    pub total: u64,
    /// What is free for us.
    pub free: u64,
}

/// The rules of a daemon that was told none (row D34).
pub fn default_policies(disk: Disk) -> Vec<PrunePolicy> {
    const MB: u64 = 1_000_000;
    const GB: u64 = 1_000 * MB;
    const HOUR: Duration = Duration::from_secs(3600);
    let limits = Limits {
        reserved_space: (disk.total / 10).min(10 * GB),
        max_used_space: (disk.total / 100 * 80).min(100 * GB),
        min_free_space: disk.total / 100 * 20,
    };
    let cheap = ["type==source.local,type==exec.cachemount,type==source.git.checkout"];
    // The list above is one filter upstream too, in which all would have to hold; what is meant
    // is any of them.
    let cheap: Vec<&str> = cheap[0].split(',').collect();
    let cheap = Filter::parse(&cheap).expect("written here");
    vec![
        PrunePolicy {
            filter: cheap,
            keep_duration: HOUR * 48,
            limits: Limits {
                max_used_space: 512 * MB,
                ..Limits::default()
            },
            ..PrunePolicy::default()
        },
        PrunePolicy {
            keep_duration: HOUR * 24 * 60,
            limits,
            ..PrunePolicy::default()
        },
        PrunePolicy {
            limits,
            ..PrunePolicy::default()
        },
        PrunePolicy {
            all: true,
            limits,
            ..PrunePolicy::default()
        },
    ]
}

/// How many bytes may stay of `used`; `None` when everything may go.
fn allowed(used: u64, limits: Limits, disk: Disk) -> Option<u64> {
    if limits == Limits::default() {
        return None;
    }
    let mut keep = if limits.max_used_space == 0 {
        u64::MAX
    } else {
        limits.max_used_space
    };
    let missing = limits.min_free_space.saturating_sub(disk.free);
    if missing > 0 {
        keep = keep.min(used.saturating_sub(missing));
    }
    if limits.max_used_space == 0 && limits.min_free_space == 0 {
        keep = 0; // only a reserve was named: everything above it goes
    }
    Some(keep.max(limits.reserved_space))
}

/// Which records go under a policy, in the order in which they can be removed: nothing before
/// what is built on it. Those that were used little and long ago go first.
pub fn choose(
    records: &[UsageRecord],
    policy: &PrunePolicy,
    now: SystemTime,
    disk: Disk,
) -> Vec<String> {
    let mut used: u64 = records.iter().filter(|r| !r.shared).map(|r| r.size).sum();
    let keep = allowed(used, policy.limits, disk);
    let mut children: HashMap<&str, usize> = HashMap::new();
    for parent in records.iter().flat_map(|record| &record.parents) {
        *children.entry(parent).or_default() += 1;
    }
    let may_go = |record: &UsageRecord| {
        let engines = matches!(
            record.record_type,
            RecordType::Internal | RecordType::Frontend
        );
        let last = record.last_used.unwrap_or(record.created);
        let age = now.duration_since(last).unwrap_or_default();
        !record.in_use
            && (policy.all || !(engines || record.shared))
            && age >= policy.keep_duration
            && policy.filter.matches(record)
    };
    let mut worth = worths(records);
    let mut candidates: Vec<&UsageRecord> = records.iter().filter(|r| may_go(r)).collect();
    candidates.sort_by_key(|record| worth.remove(record.id.as_str()));
    let mut gone = Vec::new();
    let mut gone_set = HashSet::new();
    while keep.is_none_or(|keep| used > keep) {
        // The least worth of those nothing is built on any more.
        let free = |r: &&&UsageRecord| {
            !gone_set.contains(r.id.as_str()) && children.get(r.id.as_str()).is_none_or(|n| *n == 0)
        };
        let Some(record) = candidates.iter().find(free) else {
            break;
        };
        gone_set.insert(record.id.as_str());
        gone.push(record.id.clone());
        if !record.shared {
            used -= record.size;
        }
        for parent in &record.parents {
            if let Some(count) = children.get_mut(parent.as_str()) {
                *count -= 1;
            }
        }
    }
    gone
}

/// How much each record is worth keeping: its rank by last use plus its rank by number of uses.
fn worths(records: &[UsageRecord]) -> HashMap<&str, (usize, SystemTime)> {
    let last = |r: &UsageRecord| r.last_used.unwrap_or(r.created);
    let rank = |sorted: Vec<&UsageRecord>, same: &dyn Fn(&UsageRecord, &UsageRecord) -> bool| {
        let mut ranks: HashMap<String, usize> = HashMap::new();
        let mut rank = 0;
        for (at, record) in sorted.iter().enumerate() {
            if at > 0 && !same(sorted[at - 1], record) {
                rank += 1;
            }
            ranks.insert(record.id.clone(), rank);
        }
        ranks
    };
    let mut by_last: Vec<&UsageRecord> = records.iter().collect();
    by_last.sort_by_key(|r| last(r));
    let by_last = rank(by_last, &|a, b| last(a) == last(b));
    let mut by_uses: Vec<&UsageRecord> = records.iter().collect();
    by_uses.sort_by_key(|r| r.usage_count);
    let by_uses = rank(by_uses, &|a, b| a.usage_count == b.usage_count);
    records
        .iter()
        .map(|r| (r.id.as_str(), (by_last[&r.id] + by_uses[&r.id], last(r))))
        .collect()
}

impl Refs {
    /// The disk the layers are on.
    pub fn disk(&self) -> Result<Disk> {
        let tree = self.0.parts.snapshots.view(&[])?;
        let stat = rustix::fs::fstatvfs(&*tree).map_err(std::io::Error::from)?;
        Ok(Disk {
            total: stat.f_blocks * stat.f_frsize,
            free: stat.f_bavail * stat.f_frsize,
        })
    }

    /// Removes records by the rules, one after the other, then blobs and layers that nothing
    /// reaches any more. Gives what went. `others` reach things too, which stay.
    pub fn prune(
        &self,
        policies: &[PrunePolicy],
        others: &[&dyn Roots],
    ) -> Result<Vec<UsageRecord>> {
        let mut gone = Vec::new();
        for policy in policies {
            let records = self.usage(&Filter::default())?;
            let chosen = choose(&records, policy, SystemTime::now(), self.disk()?);
            let removed = self.remove_records(&chosen)?;
            gone.extend(
                records
                    .into_iter()
                    .filter(|record| removed.contains(&record.id)),
            );
            if !removed.is_empty() {
                self.sweep(others)?;
            }
        }
        let everything = policies
            .iter()
            .any(|p| p.all && p.limits == Limits::default() && p.keep_duration.is_zero());
        if everything {
            self.sweep(others)?;
            self.0.parts.store.sweep_all_ingests()?;
        }
        Ok(gone)
    }

    /// Removes records that are still unused and have nothing built on them.
    fn remove_records(&self, ids: &[String]) -> Result<HashSet<String>> {
        self.0.parts.db.write(|tx| {
            let held = self.0.parts.leases.held(tx)?;
            let mut removed = HashSet::new();
            for id in ids {
                let Some(record) = Record::get(tx, id)? else {
                    continue;
                };
                let used = held.contains(&Thing::Record(id.clone()));
                if !used
                    && Record::children(tx, id)?.is_empty()
                    && self.remove_record(tx, &record)?
                {
                    removed.insert(id.clone());
                }
            }
            Ok(removed)
        })
    }

    /// Removes one record; `false` when its directory turned out to be in use.
    pub(crate) fn remove_record(&self, tx: &Tx<'_>, record: &Record) -> Result<bool> {
        if let (Shape::Kept, Some(kept)) = (record.shape, &record.kept) {
            match self.0.parts.snapshots.remove_kept(kept) {
                Err(snapshot::Error::KeptInUse(_)) => return Ok(false),
                other => other?,
            }
        }
        Record::remove(tx, &record.id)?;
        remove_unused_links(tx)?;
        Ok(true)
    }
}
