//! One push of a blob into a repository at a time. An image and the cache of the same build, or
//! two builds on one base, come with the same layers: who comes second finds them there. Sent
//! twice at once they would cost twice, and some registries lose sight of a blob for a moment
//! when it arrives once more, and refuse the manifest that names it.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard};

use oci::Digest;
use tokio::sync::Notify;

type Key = (String, Digest);

/// What is on its way to a host.
#[derive(Default)]
pub(crate) struct Uploads {
    running: Mutex<HashSet<Key>>,
    ended: Notify,
}

/// Held by the one who pushes.
pub(crate) struct Alone<'a> {
    uploads: &'a Uploads,
    key: Key,
}

impl Uploads {
    /// Waits until nobody else pushes this blob into this repository.
    pub(crate) async fn alone(&self, repository: &str, blob: Digest) -> Alone<'_> {
        let key = (repository.to_owned(), blob);
        loop {
            let mut ended = std::pin::pin!(self.ended.notified());
            // From here on no end is missed.
            ended.as_mut().enable();
            if self.running().insert(key.clone()) {
                return Alone { uploads: self, key };
            }
            ended.await;
        }
    }

    fn running(&self) -> MutexGuard<'_, HashSet<Key>> {
        self.running.lock().expect("not poisoned")
    }
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        self.uploads.running().remove(&self.key);
        self.uploads.ended.notify_waiters();
    }
}
