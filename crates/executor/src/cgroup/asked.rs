//! Parents that containers ask for. Each is there as long as a container beneath it: clients may
//! think up as many as they like.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::hold::Made;
use super::{Left, V2, check_parent, instance_name};
use crate::error::Error;

/// What is to be removed when we are gone, by number.
#[derive(Default)]
pub(super) struct Kept {
    next: AtomicU64,
    left: Mutex<BTreeMap<u64, Arc<Vec<Left>>>>,
}

/// All parents that are asked for right now.
#[derive(Default)]
pub(super) struct Asked {
    parents: Mutex<BTreeMap<Vec<String>, Arc<Parent>>>,
    pub(super) kept: Kept,
    pub(super) made: Arc<Made>,
}

/// Our part beneath one parent, while somebody uses it. Locked while it comes and while it goes,
/// which may take seconds; who wants the same one waits.
#[derive(Default)]
struct Parent(Mutex<Weak<Beneath>>);

struct Beneath {
    v2: V2,
    number: u64,
}

/// A container's use of a parent. The last one to go takes our part with it.
pub(super) struct Use {
    asked: Arc<Asked>,
    path: Vec<String>,
    parent: Arc<Parent>,
    beneath: Option<Arc<Beneath>>,
}

impl Kept {
    /// More of it; gives its number.
    pub(super) fn add(&self, left: Vec<Left>) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.all().insert(number, Arc::new(left));
        number
    }

    /// What there is now.
    pub(super) fn all(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Vec<Left>>>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asked {
    /// Our part beneath a parent, made unless it is there.
    pub(super) fn beneath(
        self: &Arc<Asked>,
        root: BorrowedFd<'_>,
        parent: &str,
    ) -> Result<Use, Error> {
        let path = check_parent(parent)?;
        // From here on a `Use`, so that nothing stays when it cannot be made.
        let mut using = Use {
            asked: self.clone(),
            path: path.clone(),
            parent: self.parents().entry(path).or_default().clone(),
            beneath: None,
        };
        let parent_of_all = using.parent.clone();
        let mut there = parent_of_all.lock();
        using.beneath = there.upgrade();
        if using.beneath.is_none() {
            let failed = |source| Error::Cgroup {
                path: PathBuf::from(parent),
                source,
            };
            let v2 = V2::start(root, &using.path, &instance_name(), &self.made).map_err(failed)?;
            let number = self.kept.add(v2.instance.left().map_err(failed)?);
            let beneath = Arc::new(Beneath { v2, number });
            *there = Arc::downgrade(&beneath);
            using.beneath = Some(beneath);
        }
        Ok(using)
    }

    fn parents(&self) -> MutexGuard<'_, BTreeMap<Vec<String>, Arc<Parent>>> {
        self.parents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Parent {
    fn lock(&self) -> MutexGuard<'_, Weak<Beneath>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Use {
    pub(super) fn v2(&self) -> &V2 {
        let beneath = self.beneath.as_ref();
        &beneath.expect("it is there until this is dropped").v2
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        if let Some(beneath) = self.beneath.take() {
            let number = beneath.number;
            // Locked, so that nobody makes it anew while it goes.
            let there = self.parent.lock();
            drop(beneath);
            if there.strong_count() == 0 {
                self.asked.kept.all().remove(&number);
            }
        }
        let mut parents = self.asked.parents();
        // Ours and the map's: nobody else has it or can get it now.
        if Arc::strong_count(&self.parent) == 2 {
            parents.remove(&self.path);
        }
    }
}
