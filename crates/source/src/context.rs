//! What sources are read with, and on whose behalf.

use std::path::PathBuf;
use std::sync::Arc;

use db::Db;
use progress::StepProgress;
use refs::Refs;
use registry::{Credentials, Registry};
use session::{Group, Session, Sessions};

use crate::error::Result;
use crate::resolutions::Resolutions;

/// What sources are read with.
#[derive(Clone)]
pub struct Parts {
    /// Where results are kept.
    pub refs: Refs,
    /// Registries.
    pub registry: Registry,
    /// Our tables: what downloads and names were the last time.
    pub db: Arc<Db>,
    /// The git program.
    pub git: PathBuf,
    /// A folder for short-lived files: known hosts, agent sockets.
    pub scratch: PathBuf,
}

/// All sources of a daemon. Cloning gives another handle.
#[derive(Clone)]
pub struct Sources(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub parts: Parts,
    pub web: crate::http::Web,
    /// Who reads a git remote just now: two would disturb each other in its mirror.
    pub git_locks: stdx::locks::Locks<String>,
    pub pins: crate::Pins,
}

const TABLES: &[&str] = &["
    CREATE TABLE source_names (
        name TEXT PRIMARY KEY,
        media_type TEXT NOT NULL,
        digest TEXT NOT NULL,
        size INTEGER NOT NULL
    );
    CREATE TABLE source_downloads (
        request TEXT NOT NULL,
        etag TEXT NOT NULL,
        digest TEXT NOT NULL,
        filename TEXT NOT NULL,
        modified TEXT NOT NULL,
        ref TEXT NOT NULL,
        PRIMARY KEY (request, etag)
    );
"];

impl Sources {
    /// Opens the sources.
    pub fn open(parts: Parts) -> Result<Sources> {
        parts.db.migrate("source", TABLES)?;
        Ok(Sources(Arc::new(Inner {
            parts,
            web: Default::default(),
            git_locks: Default::default(),
            pins: Default::default(),
        })))
    }

    pub(crate) fn parts(&self) -> &Parts {
        &self.0.parts
    }

    /// What sources of running builds turned out to be.
    pub fn pins(&self) -> &crate::Pins {
        &self.0.pins
    }
}

/// How long a named session may take to come: `Solve` may be quicker.
const SESSION_WAIT: std::time::Duration = std::time::Duration::from_secs(5);

/// On whose behalf a source is read: one step of one build.
#[derive(Clone)]
pub struct Context {
    /// All sessions.
    pub sessions: Sessions,
    /// Those of the build.
    pub group: Group,
    /// The build's logins.
    pub credentials: Arc<dyn Credentials>,
    /// What names meant so far in this build.
    pub resolutions: Arc<Resolutions>,
    /// Who watches.
    pub step: StepProgress,
}

impl Context {
    /// A session: `id` if it is named and there, else any of the build's.
    pub(crate) async fn session(&self, id: &str) -> Result<Arc<Session>> {
        if !id.is_empty()
            && let Ok(session) = self.sessions.get(id, SESSION_WAIT).await
        {
            return Ok(session);
        }
        Ok(self
            .group
            .any(&self.sessions, |session| async move { Ok(session) })
            .await?)
    }

    /// A secret of the build; `None` when no session has it.
    pub(crate) async fn secret(&self, id: &str) -> Result<Option<bytes::Bytes>> {
        let asked = self
            .group
            .any(&self.sessions, |session| async move {
                session.secrets()?.get(id).await
            })
            .await;
        match asked {
            Ok(secret) => Ok(Some(secret)),
            Err(error)
                if matches!(error.kind(), stdx::Kind::NotFound | stdx::Kind::Unsupported) =>
            {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}
