//! One at a time, by key: whoever comes second finds the work done. Unlike a shared future, a
//! leader that is dropped leaves the work to the next one waiting, who has means of its own.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::OwnedMutexGuard;

/// So many forgotten locks are nobody's trouble.
const FEW: usize = 32;

/// Locks by key, each there only while someone has or wants it.
pub struct Locks<K>(Mutex<Known<K>>);

struct Known<K> {
    by_key: HashMap<K, Weak<tokio::sync::Mutex<()>>>,
    /// At this size those that nobody has any more are cleared away. Twice what was left the last
    /// time, so that it costs each lock the same, however many there are.
    full: usize,
}

impl<K> Default for Locks<K> {
    fn default() -> Locks<K> {
        Locks(Mutex::new(Known {
            by_key: HashMap::new(),
            full: FEW,
        }))
    }
}

impl<K: Eq + Hash> Locks<K> {
    /// Waits until nobody else has `key`; who came first gets it first. It is the caller's until
    /// the guard is dropped.
    pub async fn lock(&self, key: K) -> OwnedMutexGuard<()> {
        self.of(key).lock_owned().await
    }

    fn of(&self, key: K) -> Arc<tokio::sync::Mutex<()>> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.by_key.len() >= known.full {
            known.by_key.retain(|_, lock| lock.strong_count() > 0);
            known.full = FEW.max(known.by_key.len() * 2);
        }
        let slot = known.by_key.entry(key).or_default();
        slot.upgrade().unwrap_or_else(|| {
            let lock = Arc::new(tokio::sync::Mutex::new(()));
            *slot = Arc::downgrade(&lock);
            lock
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn one_at_a_time_and_other_keys_at_once() {
        let locks = Locks::default();
        let first = locks.lock("a").await;
        assert!(timeout(SOON, locks.lock("a")).await.is_err());
        let _other = timeout(SOON, locks.lock("b")).await.unwrap();
        // Whoever gives up leaves it to the next one.
        let mut waiting = Box::pin(locks.lock("a"));
        assert!(timeout(SOON, &mut waiting).await.is_err());
        let next = locks.lock("a");
        drop((waiting, first));
        let next = timeout(SOON, next).await.unwrap();
        assert!(timeout(SOON, locks.lock("a")).await.is_err());
        drop(next);
        timeout(SOON, locks.lock("a")).await.unwrap();
    }

    #[tokio::test]
    async fn what_nobody_has_is_forgotten_and_what_someone_has_is_not() {
        let locks = Locks::default();
        let mut held = Vec::new();
        for key in 0..10_000 {
            let lock = locks.lock(key).await;
            if key % 100 == 0 {
                held.push(lock);
            }
        }
        assert!(locks.0.lock().unwrap().by_key.len() <= held.len() * 2 + FEW);
        let held_still = (0..10_000).step_by(100);
        assert!(
            held_still
                .map(|key| locks.of(key))
                .all(|lock| lock.try_lock().is_err())
        );
    }
}
