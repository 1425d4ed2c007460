//! The containers of one frontend, by the names it gave them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use frontend::Container;
use tonic::Status;

/// Containers a frontend may have at one time.
const MOST: usize = 256;

#[derive(Default)]
pub(super) struct Containers {
    /// `None` once the build is over.
    named: Mutex<State>,
}

#[derive(Default)]
struct State {
    closed: bool,
    by_name: HashMap<String, Arc<dyn Container>>,
}

impl Containers {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.named.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a container may be called so.
    pub(super) fn vacant(&self, name: &str) -> Result<(), Status> {
        let state = self.lock();
        if name.is_empty() {
            return Err(Status::invalid_argument(
                "the container has no name (ContainerID)",
            ));
        }
        if state.by_name.contains_key(name) {
            return Err(Status::already_exists(format!(
                "Container {name} already exists"
            )));
        }
        if state.by_name.len() >= MOST {
            return Err(Status::resource_exhausted(format!(
                "a frontend can have {MOST} containers: release one first"
            )));
        }
        Ok(())
    }

    /// Remembers a container; gives it back if it cannot be.
    pub(super) fn add(
        &self,
        name: &str,
        container: Arc<dyn Container>,
    ) -> Result<(), (Status, Arc<dyn Container>)> {
        if let Err(status) = self.vacant(name) {
            return Err((status, container));
        }
        let mut state = self.lock();
        if state.closed {
            return Err((Status::cancelled("the build is over"), container));
        }
        state.by_name.insert(name.to_owned(), container);
        Ok(())
    }

    pub(super) fn get(&self, name: &str) -> Result<Arc<dyn Container>, Status> {
        let found = self.lock().by_name.get(name).cloned();
        found.ok_or_else(|| unknown(name))
    }

    pub(super) fn take(&self, name: &str) -> Result<Arc<dyn Container>, Status> {
        let found = self.lock().by_name.remove(name);
        found.ok_or_else(|| unknown(name))
    }

    /// Kills what runs in them and waits until their mounts are let go of.
    pub(super) async fn release_all(&self) {
        let all = self.close();
        futures::future::join_all(all.iter().map(|container| container.release())).await;
    }

    /// No more of them; dropping what this gives kills what runs in them.
    pub(super) fn close(&self) -> Vec<Arc<dyn Container>> {
        let mut state = self.lock();
        state.closed = true;
        state
            .by_name
            .drain()
            .map(|(_, container)| container)
            .collect()
    }
}

fn unknown(name: &str) -> Status {
    Status::not_found(format!(
        "container {name:?} previously released or not created"
    ))
}
