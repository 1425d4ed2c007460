//! The frontend's side of a build over gRPC (features groups 7 and A15): a frontend
//! outside of this process asks here what a built-in frontend asks in process. Either it
//! is a client that runs the frontend itself, and calls on the control socket; or it
//! lives in a container, and calls over its standard input and output ([`Pipes`]).
//!
//! A build that waits for a client is opened with [`OpenBuilds::open`]; calls find it by the
//! build id in their metadata, answer from its `frontend::Bridge`, and `Return` ends it.

mod containers;
mod exec;
mod files;
mod pipes;
mod service;
mod signals;
mod stdin;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use frontend::{Bridge, FrontendResult};
use proto::google::rpc;
use proto::moby::buildkit::v1::types::WorkerRecord;
use tokio::sync::{oneshot, watch};
use tonic::{Request, Status};

use crate::to_proto;
use containers::Containers;
pub(crate) use pipes::Pipes;

/// The metadata that says which build a call belongs to.
const BUILD_ID: &str = "buildkit-controlapi-buildid";
/// How long a call waits for its build: the client sends it beside `Solve`.
const GRACE: Duration = Duration::from_secs(3);

/// What a frontend ended with.
pub(crate) type Returned = Result<FrontendResult, rpc::Status>;

/// Answers frontends: all that the control socket knows, or the one at the end of a pipe.
#[derive(Clone)]
pub(crate) struct Gateways {
    open: Open,
    /// What is told of the worker, but for the platforms, which may change.
    worker: Arc<WorkerRecord>,
}

/// Whom a call is from.
#[derive(Clone)]
enum Open {
    /// The build its metadata names.
    ById(OpenBuilds),
    /// Always the same.
    Only(Arc<OpenBuild>),
}

/// The builds whose frontends are their clients. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct OpenBuilds(Arc<ById>);

#[derive(Default)]
struct ById {
    builds: Mutex<HashMap<String, Arc<OpenBuild>>>,
    changed: watch::Sender<()>,
}

/// A build whose frontend is outside of this process.
struct OpenBuild {
    bridge: Arc<dyn Bridge>,
    containers: Containers,
    returned: Mutex<Option<oneshot::Sender<Returned>>>,
}

/// A build is open to its client while this lives.
pub(crate) struct Opened {
    builds: Arc<ById>,
    id: String,
    build: Arc<OpenBuild>,
    returned: oneshot::Receiver<Returned>,
}

impl Opened {
    /// Waits for the client to return a result. It may ask on until this is dropped: for files
    /// of the result, when it is to choose the exporters.
    pub(crate) async fn returned(&mut self) -> Returned {
        let returned = (&mut self.returned).await;
        self.build.containers.release_all().await;
        returned.expect("the build has the other end until it answers")
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.builds.lock().remove(&self.id);
        self.build.containers.close();
    }
}

impl ById {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<OpenBuild>>> {
        self.builds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A build by its id; one that is announced and not there yet is waited for.
    async fn find(&self, id: &str) -> Option<Arc<OpenBuild>> {
        let mut changed = self.changed.subscribe();
        let wait = async {
            loop {
                changed.borrow_and_update();
                if let Some(build) = self.lock().get(id).cloned() {
                    return build;
                }
                // The sender lives as long as `self`.
                let _ = changed.changed().await;
            }
        };
        tokio::time::timeout(GRACE, wait).await.ok()
    }
}

impl OpenBuilds {
    /// Lets the client of build `id` ask `bridge`.
    pub(crate) fn open(&self, id: &str, bridge: Arc<dyn Bridge>) -> Opened {
        let (build, returned) = OpenBuild::new(bridge);
        self.0.lock().insert(id.to_owned(), build.clone());
        self.0.changed.send_replace(());
        Opened {
            builds: self.0.clone(),
            id: id.to_owned(),
            build,
            returned,
        }
    }
}

impl Gateways {
    /// Answers the clients of `builds`, on a worker like this.
    pub(crate) fn new(builds: OpenBuilds, worker: WorkerRecord) -> Gateways {
        Gateways {
            open: Open::ById(builds),
            worker: Arc::new(worker),
        }
    }

    async fn find<T>(&self, request: &Request<T>) -> Result<Arc<OpenBuild>, Status> {
        let builds = match &self.open {
            Open::Only(build) => return Ok(build.clone()),
            Open::ById(OpenBuilds(builds)) => builds,
        };
        let id = request
            .metadata()
            .get(BUILD_ID)
            .and_then(|id| id.to_str().ok())
            .unwrap_or_default();
        if id.is_empty() {
            return Err(Status::invalid_argument(format!(
                "no buildid found in context: a call must name its build by {BUILD_ID}"
            )));
        }
        let found = builds.find(id).await;
        found.ok_or_else(|| Status::not_found(format!("no such job {id}")))
    }
}

impl OpenBuild {
    fn new(bridge: Arc<dyn Bridge>) -> (Arc<OpenBuild>, oneshot::Receiver<Returned>) {
        let (sender, returned) = oneshot::channel();
        let build = OpenBuild {
            bridge,
            containers: Containers::default(),
            returned: Mutex::new(Some(sender)),
        };
        (Arc::new(build), returned)
    }

    /// What a question of this build ended with, if it went wrong. Of a step that failed,
    /// what is left is named, so that the frontend can look at it.
    fn asked(&self, error: &frontend::Error) -> Status {
        to_proto::frontend_error(error, self.bridge.failed_step(error))
    }

    /// The same for a question that wants a result.
    fn solved(&self, error: &frontend::Error) -> Status {
        to_proto::solve_error(error, self.bridge.failed_step(error))
    }

    fn answer(&self, returned: Returned) -> Result<(), Status> {
        let sender = self
            .returned
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        match sender {
            // The build may have ended in the meantime; then nobody waits for the answer.
            Some(sender) => {
                let _ = sender.send(returned);
                Ok(())
            }
            None => Err(Status::failed_precondition("a result was returned already")),
        }
    }
}
