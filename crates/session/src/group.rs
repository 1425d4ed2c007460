//! Several sessions that stand for one build: when two builds became one, any of
//! their clients can answer.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::{Error, Result, Session, Sessions};

/// How long to wait for a session that has not come yet: `Solve` may arrive first.
pub const WAIT: Duration = Duration::from_secs(5);

/// Sessions any of which will do.
#[derive(Clone, Default)]
pub struct Group {
    ids: Arc<Mutex<Vec<String>>>,
}

impl Group {
    /// A group of one.
    pub fn of(id: impl Into<String>) -> Group {
        Group {
            ids: Arc::new(Mutex::new(vec![id.into()])),
        }
    }

    /// Adds another build's sessions.
    pub fn join(&self, other: &Group) {
        let theirs = other.ids();
        let mut ids = self.ids.lock().expect("nothing panics holding it");
        for id in theirs {
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
    }

    /// The ids, oldest first.
    pub fn ids(&self) -> Vec<String> {
        self.ids.lock().expect("nothing panics holding it").clone()
    }

    /// Whether nobody is in it.
    pub fn is_empty(&self) -> bool {
        self.ids().is_empty()
    }

    /// Asks each session in turn until one gives an answer. The last error is the
    /// error; an empty group gives [`Error::NoSession`].
    pub async fn any<T, F>(
        &self,
        sessions: &Sessions,
        mut ask: impl FnMut(Arc<Session>) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let mut last = Error::NoSession(String::new());
        for id in self.ids() {
            let answer = match sessions.get(&id, WAIT).await {
                Ok(session) => ask(session).await,
                Err(error) => Err(error),
            };
            match answer {
                Ok(answer) => return Ok(answer),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}
