//! The containers of one frontend, by the names it gave them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use frontend::Container;
use tonic::Status;

/// Containers a frontend may have at one time.
const MOST: usize = 256;

#[derive(Default)]
pub(super) struct Containers {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The build is over.
    closed: bool,
    by_name: HashMap<String, Entry>,
}

enum Entry {
    /// The name is taken; its mounts are made ready.
    Making,
    Made(Arc<dyn Container>),
}

/// A name for a container that is being made. Dropped, it is free again.
pub(super) struct Reserved<'a> {
    containers: &'a Containers,
    name: &'a str,
}

impl Containers {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a name, before anything is made for it.
    pub(super) fn reserve<'a>(&'a self, name: &'a str) -> Result<Reserved<'a>, Status> {
        let mut state = self.lock();
        if name.is_empty() {
            return Err(Status::invalid_argument(
                "the container has no name (ContainerID)",
            ));
        }
        if state.closed {
            return Err(over());
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
        state.by_name.insert(name.to_owned(), Entry::Making);
        Ok(Reserved {
            containers: self,
            name,
        })
    }

    pub(super) fn get(&self, name: &str) -> Result<Arc<dyn Container>, Status> {
        match self.lock().by_name.get(name) {
            Some(Entry::Made(container)) => Ok(container.clone()),
            Some(Entry::Making) | None => Err(unknown(name)),
        }
    }

    pub(super) fn take(&self, name: &str) -> Result<Arc<dyn Container>, Status> {
        let mut state = self.lock();
        match state.by_name.remove(name) {
            Some(Entry::Made(container)) => Ok(container),
            None => Err(unknown(name)),
            Some(making) => {
                state.by_name.insert(name.to_owned(), making);
                Err(unknown(name))
            }
        }
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
        let all = state.by_name.drain();
        let made = all.filter_map(|(_, entry)| match entry {
            Entry::Made(container) => Some(container),
            Entry::Making => None,
        });
        made.collect()
    }
}

impl Reserved<'_> {
    /// The container that has the name from now on; it is let go of when the build is over
    /// in the meantime.
    pub(super) async fn fill(self, container: Arc<dyn Container>) -> Result<(), Status> {
        let late = {
            let mut state = self.containers.lock();
            match state.closed {
                true => container,
                false => {
                    let made = Entry::Made(container);
                    state.by_name.insert(self.name.to_owned(), made);
                    return Ok(());
                }
            }
        };
        late.release().await;
        Err(over())
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        let mut state = self.containers.lock();
        if let Some(Entry::Making) = state.by_name.get(self.name) {
            state.by_name.remove(self.name);
        }
    }
}

fn over() -> Status {
    Status::cancelled("the build is over")
}

fn unknown(name: &str) -> Status {
    Status::not_found(format!(
        "container {name:?} previously released or not created"
    ))
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn refused(reserved: Result<Reserved<'_>, Status>) -> Code {
        reserved.map(|_| ()).unwrap_err().code()
    }

    /// Rows: G09
    #[test]
    fn a_name_is_taken_before_its_container_is_made() {
        let containers = Containers::default();
        let making = containers.reserve("a").unwrap();
        assert_eq!(refused(containers.reserve("a")), Code::AlreadyExists);
        let unknown = [containers.get("a").err(), containers.take("a").err()];
        assert!(unknown.map(|status| status.unwrap().code()) == [Code::NotFound; 2]);
        assert_eq!(refused(containers.reserve("a")), Code::AlreadyExists);
        drop(making);
        drop(containers.reserve("a").unwrap());
        // Those that are being made count too.
        let names: Vec<String> = (0..MOST).map(|number| number.to_string()).collect();
        let making: Vec<_> = names.iter().map(|name| containers.reserve(name)).collect();
        assert!(making.iter().all(Result::is_ok));
        assert_eq!(refused(containers.reserve("a")), Code::ResourceExhausted);
        drop(making);
        assert!(containers.close().is_empty());
        assert_eq!(refused(containers.reserve("a")), Code::Cancelled);
    }
}
