//! The builds that are and those that were lately: who asks for progress finds them
//! by the id the client made up, before the build begins and after it has ended.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use progress::Progress;
use tokio::sync::watch;

/// How long `Status` waits for a build: it is sent beside `Solve`.
const WAIT: Duration = Duration::from_secs(6);
/// Ended builds whose progress is kept here, as the history has none of it.
const KEEP: usize = 16;

/// All builds by id. Clones are the same table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Builds(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    by_id: HashMap<String, Progress>,
    running: usize,
    ended: VecDeque<String>,
}

/// A build that runs; when this is dropped, it has ended and its story is closed.
#[derive(Debug)]
pub(crate) struct Running {
    builds: Builds,
    id: String,
    progress: Progress,
    /// The history tells its story from now on.
    remembered: bool,
}

impl Running {
    pub(crate) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The build ended: those who watch have seen all once they have seen what is there.
    pub(crate) fn close(&self) {
        self.progress.close();
    }

    /// The build ended and its story is in the history, whole: it need not be kept here. Who
    /// follows it already goes on.
    pub(crate) fn remembered(mut self) {
        self.remembered = true;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.progress.close();
        let mut state = self.builds.lock();
        state.running -= 1;
        match self.remembered {
            true => drop(state.by_id.remove(&self.id)),
            false => state.ended.push_back(std::mem::take(&mut self.id)),
        }
        while state.ended.len() > KEEP {
            if let Some(oldest) = state.ended.pop_front() {
                state.by_id.remove(&oldest);
            }
        }
        self.builds.0.changed.send_replace(());
    }
}

impl Builds {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a build known. `None` if there is one of this id already.
    pub(crate) fn start(&self, id: &str, progress: Progress) -> Option<Running> {
        let mut state = self.lock();
        if state.by_id.contains_key(id) {
            let ended = state.ended.len();
            state.ended.retain(|other| other != id);
            if state.ended.len() == ended {
                return None;
            }
        }
        state.by_id.insert(id.to_owned(), progress.clone());
        state.running += 1;
        self.0.changed.send_replace(());
        Some(Running {
            builds: self.clone(),
            id: id.to_owned(),
            progress,
            remembered: false,
        })
    }

    /// The progress of a build that runs or ended lately.
    pub(crate) fn known(&self, id: &str) -> Option<Progress> {
        self.lock().by_id.get(id).cloned()
    }

    /// The progress of a build, waiting a while for it to begin.
    pub(crate) async fn progress(&self, id: &str) -> Option<Progress> {
        let mut changed = self.0.changed.subscribe();
        let found = async {
            loop {
                changed.borrow_and_update();
                if let Some(progress) = self.lock().by_id.get(id).cloned() {
                    return progress;
                }
                // The sender lives as long as `self`.
                let _ = changed.changed().await;
            }
        };
        tokio::time::timeout(WAIT, found).await.ok()
    }

    /// Waits until no build runs.
    pub(crate) async fn idle(&self) {
        let mut changed = self.0.changed.subscribe();
        loop {
            changed.borrow_and_update();
            if self.lock().running == 0 {
                return;
            }
            let _ = changed.changed().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows: A04, C10
    #[tokio::test(start_paused = true)]
    async fn progress_is_found_before_and_after_the_build() {
        let builds = Builds::default();
        let early = stdx::task::spawn("status", {
            let builds = builds.clone();
            async move { builds.progress("a").await.is_some() }
        });
        tokio::task::yield_now().await;
        let running = builds.start("a", Progress::default()).unwrap();
        assert!(early.await);
        assert!(
            builds.start("a", Progress::default()).is_none(),
            "two builds of one id"
        );
        drop(running);
        drop(
            builds
                .start("a", Progress::default())
                .expect("an id may be used again"),
        );
        assert!(builds.progress("a").await.unwrap().is_closed());
        assert!(builds.progress("never").await.is_none());
        builds.idle().await;
    }

    /// Rows: A04, A14
    #[tokio::test]
    async fn what_the_history_tells_is_not_kept_twice() {
        let builds = Builds::default();
        let running = builds.start("a", Progress::default()).unwrap();
        let mut follower = builds.known("a").unwrap().follow();
        running.progress().step(oci::Digest::of("s"), "RUN x", &[]);
        running.close();
        running.remembered();
        assert!(builds.known("a").is_none());
        assert!(
            follower.next_batch(10).await.is_some(),
            "who follows it sees the rest"
        );
        let again = builds.start("a", Progress::default());
        drop(again.expect("an id may be used again"));
        assert!(builds.known("a").is_some(), "this one nobody remembers");
        builds.idle().await;
    }

    #[tokio::test]
    async fn old_builds_are_forgotten() {
        let builds = Builds::default();
        for number in 0..100 {
            drop(builds.start(&number.to_string(), Progress::default()));
        }
        assert_eq!(builds.lock().by_id.len(), KEEP);
    }
}
