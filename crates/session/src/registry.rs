//! All sessions by id.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;

use crate::{
    Attachables, Auth, ContentStores, Error, Exporters, FileSend, FileSync, Policies, Result,
    Secrets, SshAgent, Upload,
};

/// One client's open line.
pub struct Session {
    id: String,
    name: String,
    shared_key: String,
    offers: Attachables,
    answered: Option<watch::Receiver<bool>>,
    ended: watch::Receiver<bool>,
    _alive: Option<watch::Sender<bool>>,
}

impl Session {
    /// A session without a wire: what is offered is used as it is.
    pub fn direct(id: impl Into<String>, name: impl Into<String>, offers: Attachables) -> Session {
        let (alive, ended) = watch::channel(false);
        Session {
            id: id.into(),
            name: name.into(),
            shared_key: String::new(),
            offers,
            answered: None,
            ended,
            _alive: Some(alive),
        }
    }

    pub(crate) fn remote(
        id: String,
        name: String,
        shared_key: String,
        offers: Attachables,
        answered: watch::Receiver<bool>,
        ended: watch::Receiver<bool>,
    ) -> Session {
        Session {
            id,
            name,
            shared_key,
            offers,
            answered: Some(answered),
            ended,
            _alive: None,
        }
    }

    /// The id the client made up.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What the client calls it: the name of the build directory.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Same key, same directory kept between builds.
    pub fn shared_key(&self) -> &str {
        &self.shared_key
    }

    /// The client's directories.
    pub fn file_sync(&self) -> Result<Arc<dyn FileSync>> {
        self.offers
            .file_sync
            .clone()
            .ok_or(Error::NotOffered("files"))
    }

    /// Where results go.
    pub fn file_send(&self) -> Result<Arc<dyn FileSend>> {
        self.offers
            .file_send
            .clone()
            .ok_or(Error::NotOffered("a place for results"))
    }

    /// The client's logins.
    pub fn auth(&self) -> Result<Arc<dyn Auth>> {
        self.offers
            .auth
            .clone()
            .ok_or(Error::NotOffered("registry logins"))
    }

    /// The client's secrets.
    pub fn secrets(&self) -> Result<Arc<dyn Secrets>> {
        self.offers
            .secrets
            .clone()
            .ok_or(Error::NotOffered("secrets"))
    }

    /// The client's SSH agents.
    pub fn ssh(&self) -> Result<Arc<dyn SshAgent>> {
        self.offers
            .ssh
            .clone()
            .ok_or(Error::NotOffered("an SSH agent"))
    }

    /// The client's blobs.
    pub fn content(&self) -> Result<Arc<dyn ContentStores>> {
        self.offers
            .content
            .clone()
            .ok_or(Error::NotOffered("a content store"))
    }

    /// The client's uploads.
    pub fn upload(&self) -> Result<Arc<dyn Upload>> {
        self.offers
            .upload
            .clone()
            .ok_or(Error::NotOffered("uploads"))
    }

    /// The client's choice of exporters.
    pub fn exporters(&self) -> Result<Arc<dyn Exporters>> {
        self.offers
            .exporters
            .clone()
            .ok_or(Error::NotOffered("a choice of exporters"))
    }

    /// The client's decisions about sources.
    pub fn policies(&self) -> Result<Arc<dyn Policies>> {
        let policies = self.offers.policies.clone();
        policies.ok_or(Error::NotOffered("decisions about sources"))
    }

    /// Waits until the client has answered for the first time, or is gone.
    pub async fn answered(&self) {
        if let Some(mut answered) = self.answered.clone() {
            // An error says that the line is gone.
            let _ = answered.wait_for(|answered| *answered).await;
        }
    }

    /// Whether the line is gone.
    pub fn is_over(&self) -> bool {
        *self.ended.borrow()
    }

    /// Waits until the line is gone.
    pub async fn over(&self) {
        let mut ended = self.ended.clone();
        // An error says that the line's owner is gone, and the line with it.
        let _ = ended.wait_for(|over| *over).await;
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("id", &self.id)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// All sessions of a daemon. Cheap to clone.
#[derive(Clone, Default)]
pub struct Sessions {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    by_id: Mutex<HashMap<String, Arc<Session>>>,
    changed: watch::Sender<u64>,
}

/// Keeps a session known; drop it and it is not any more.
#[must_use = "dropping it ends the session"]
pub struct Registration {
    sessions: Sessions,
    session: Arc<Session>,
}

impl Registration {
    /// The session.
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut by_id = self
            .sessions
            .inner
            .by_id
            .lock()
            .expect("nothing panics holding it");
        // A client may have come back under the same id meanwhile.
        if by_id
            .get(&self.session.id)
            .is_some_and(|known| Arc::ptr_eq(known, &self.session))
        {
            by_id.remove(&self.session.id);
        }
    }
}

impl Sessions {
    /// None yet.
    pub fn new() -> Sessions {
        Sessions::default()
    }

    /// Makes a session known. One with the same id is replaced.
    pub fn register(&self, session: Session) -> Registration {
        let session = Arc::new(session);
        let mut by_id = self.inner.by_id.lock().expect("nothing panics holding it");
        by_id.insert(session.id.clone(), session.clone());
        drop(by_id);
        self.inner.changed.send_modify(|n| *n += 1);
        Registration {
            sessions: self.clone(),
            session,
        }
    }

    /// The session of this id, waiting for it if it has not come yet.
    pub async fn get(&self, id: &str, wait: Duration) -> Result<Arc<Session>> {
        let mut changed = self.inner.changed.subscribe();
        let come = async {
            loop {
                changed.mark_unchanged();
                if let Some(session) = self.find(id) {
                    return session;
                }
                // The sender lives as long as `self`, so this cannot end in an error.
                let _ = changed.changed().await;
            }
        };
        tokio::time::timeout(wait, come)
            .await
            .map_err(|_| Error::NoSession(id.to_owned()))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.inner
            .by_id
            .lock()
            .expect("nothing panics holding it")
            .len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn find(&self, id: &str) -> Option<Arc<Session>> {
        let by_id = self.inner.by_id.lock().expect("nothing panics holding it");
        by_id.get(id).filter(|session| !session.is_over()).cloned()
    }
}
