//! The spans of a build's trace may come after the build: its trace is written a while
//! later, or when a client asks for it with `Finalize` (row A13).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

/// How long spans are waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// The traces that are still to be written. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Finalizers(Arc<Mutex<HashMap<String, Signals>>>);

#[derive(Clone, Debug)]
struct Signals {
    now: watch::Sender<bool>,
    done: watch::Receiver<bool>,
}

/// One trace that is to be written; done when dropped.
pub(crate) struct Pending {
    all: Finalizers,
    id: String,
    now: watch::Receiver<bool>,
    _done: watch::Sender<bool>,
}

impl Finalizers {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Signals>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A build ended whose trace is to be written.
    pub(crate) fn begin(&self, id: &str) -> Pending {
        let (now, asked) = watch::channel(false);
        let (finished, done) = watch::channel(false);
        self.lock().insert(id.to_owned(), Signals { now, done });
        Pending {
            all: self.clone(),
            id: id.to_owned(),
            now: asked,
            _done: finished,
        }
    }

    /// Has the trace of a build written now, if it is not yet, and waits for it.
    pub(crate) async fn finalize(&self, id: &str) {
        let Some(mut signals) = self.lock().get(id).cloned() else {
            return;
        };
        signals.now.send_replace(true);
        // It ends with an error when the pending one is gone, which is what we wait for.
        let _ = signals.done.wait_for(|done| *done).await;
    }

    /// Has all written now, without waiting: the daemon stops.
    pub(crate) fn hurry(&self) {
        for signals in self.lock().values() {
            signals.now.send_replace(true);
        }
    }
}

impl Finalizers {
    /// Has all written now, and waits until they are.
    pub(crate) async fn settle(&self) {
        self.hurry();
        let waiting: Vec<_> = self.lock().values().map(|one| one.done.clone()).collect();
        for mut done in waiting {
            // It ends with an error when the pending one is gone, which is what we wait for.
            let _ = done.wait_for(|done| *done).await;
        }
    }
}

impl Pending {
    /// Comes back when the trace is to be written.
    pub(crate) async fn wait(&mut self) {
        // An error says that all finalizers are gone: then it is time as well.
        let _ = tokio::time::timeout(PATIENCE, self.now.wait_for(|now| *now)).await;
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.all.lock().remove(&self.id);
    }
}
