//! The service `moby.buildkit.v1.Control` (features group 2).

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use futures::{FutureExt as _, Stream, StreamExt as _};
use progress::Progress;
use proto::google::rpc;
use proto::moby::buildkit::v1 as wire;
use proto::moby::buildkit::v1::control_server::Control as ControlService;
use session::tunnel::{self, Health, Hello};
use stdx::Kind;
use stdx::task::Task;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::watch;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status, Streaming};

use crate::builder::{Builder, Built, ClientFrontend, What};
use crate::builds::{Builds, Running};
use crate::config::gc::GcRule;
use crate::debug::Metrics;
use crate::gateway::{OpenBuilds, Opened, Returned};
use crate::gc::Pruner;
use crate::history::{self, Ended, Finalizers, History};
use crate::streamed::{Gone, Sending, Streamed};
use crate::traces::{self, Parent, Traces};
use crate::{from_proto, to_proto};

/// The header that lets clients correct for clocks that differ.
const NOW: &str = "buildkit-current-timestamp";

/// How long a finished build waits for its session to begin. Longer than that takes, and
/// short enough for a client that names a session it never opens.
const GREETING: Duration = Duration::from_millis(100);

/// What the service is made of.
pub(crate) struct Control {
    pub(crate) builder: Arc<dyn Builder>,
    pub(crate) builds: Builds,
    pub(crate) open: OpenBuilds,
    pub(crate) history: History,
    pub(crate) finalizers: Finalizers,
    pub(crate) traces: Traces,
    pub(crate) metrics: Metrics,
    pub(crate) pruner: Pruner,
    pub(crate) gc: Vec<GcRule>,
    pub(crate) entitlements: Vec<String>,
    pub(crate) progress: progress::Options,
    /// Becomes true when builds have to stop.
    pub(crate) stopping: watch::Receiver<bool>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A response that says what time it is here.
fn dated<T>(stream: Answers<T>) -> Response<Answers<T>> {
    let mut response = Response::new(stream);
    let now = OffsetDateTime::now_utc()
        .format(&Rfc3339)
        .unwrap_or_default();
    if let Ok(value) = MetadataValue::try_from(now) {
        response.metadata_mut().insert(NOW, value);
    }
    response
}

/// Keeps a build open to its client.
type StaysOpen = Arc<OnceLock<Opened>>;

impl Control {
    /// Refuses what the daemon was not told to allow (row P11).
    fn check_entitlements(&self, wanted: &[String]) -> Result<(), Status> {
        let listed = |name: &str| self.entitlements.iter().any(|allowed| allowed == name);
        let allowed = |name: &str| match name.strip_prefix("device=") {
            // Under another name it is the same device.
            Some(device) => {
                let name = device.split(',').next().unwrap_or(device);
                listed("device") || listed(&format!("device={name}"))
            }
            None => listed(name),
        };
        match wanted.iter().find(|name| !allowed(name)) {
            Some(name) => Err(Status::permission_denied(format!(
                "entitlement {name} is not allowed by build daemon configuration"
            ))),
            None => Ok(()),
        }
    }

    /// Waits a moment for a session that was announced: a client that has its answer
    /// closes its session, and one that closes before the greeting reached it takes the
    /// greeting for a broken protocol and tries again a second later.
    async fn greeted(&self, session: &str) {
        if !session.is_empty() {
            let sessions = self.builder.sessions();
            let greeted = async {
                if let Ok(session) = sessions.get(session, GREETING).await {
                    session.answered().await;
                }
            };
            // A client that never answers does not get its greeting wrong either.
            let _ = tokio::time::timeout(GREETING, greeted).await;
        }
    }

    /// A frontend in the client. Its calls are answered as long as the other one that is given
    /// lives.
    fn client_frontend(&self, id: String) -> (ClientFrontend, StaysOpen) {
        let open = self.open.clone();
        let stays = StaysOpen::default();
        let kept = stays.clone();
        let run = Box::new(move |bridge| {
            async move {
                let mut opened = open.open(&id, bridge);
                let returned = opened.returned().await;
                let _first = kept.set(opened);
                match returned {
                    Returned::Ok(result) => Ok(result),
                    Returned::Err(status) => Err(to_proto::returned_error(&status)),
                }
            }
            .boxed()
        });
        (run, stays)
    }

    async fn build(
        &self,
        request: wire::SolveRequest,
        progress: &Progress,
    ) -> Result<Built, Status> {
        self.check_entitlements(&request.entitlements)?;
        let id = request.r#ref.clone();
        let mut plain = from_proto::solve(request)?;
        // Until the build has ended: who chooses the exporters looks at the result first.
        let mut _open = StaysOpen::default();
        if let What::Client { run, .. } = &mut plain.what {
            (*run, _open) = self.client_frontend(id);
        }
        let mut stopping = self.stopping.clone();
        let outcome = tokio::select! {
            outcome = self.builder.build(plain, progress.clone()) => outcome,
            // An error says that the daemon is gone, which stops builds too.
            _ = stopping.wait_for(|stopping| *stopping) => {
                Err(crate::builder::Failure::new(Kind::Canceled, "the daemon is stopping"))
            }
        };
        outcome.map_err(|failure| to_proto::failure(&failure))
    }
}

/// A build that is in the history: when this is dropped, its client left.
struct Remembered<'a> {
    control: &'a Control,
    id: String,
    frontend: String,
    parent: Parent,
    began: SystemTime,
    running: Option<Running>,
}

impl Remembered<'_> {
    /// Writes the build's end into the history, to its end even if nobody waits for it.
    fn end(&mut self, outcome: Result<Built, rpc::Status>) -> Option<Task<()>> {
        let running = self.running.take()?;
        running.close();
        self.control.pruner.build_ended();
        let status = match &outcome {
            Ok(_) => "completed",
            Err(status) if status.message.contains(progress::CANCELED) => "canceled",
            Err(_) => "error",
        };
        let took = self.began.elapsed().unwrap_or_default();
        self.control.metrics.build(&self.frontend, status, took);
        let (history, traces) = (self.control.history.clone(), self.control.traces.clone());
        let ended = Ended {
            id: self.id.clone(),
            at: SystemTime::now(),
            outcome,
            progress: running.progress().clone(),
        };
        let (parent, began) = (self.parent.clone(), self.began);
        let mut pending = self.control.finalizers.begin(&self.id);
        Some(stdx::task::spawn("history", async move {
            let (ended, writer, kept) = stdx::task::blocking(move || {
                let kept = history.completed(&ended);
                (ended, history, kept)
            })
            .await;
            // Those who wait for the daemon to be idle wait until here.
            match kept {
                true => running.remembered(),
                false => drop(running),
            }
            let trace = stdx::task::spawn("trace", async move {
                pending.wait().await;
                stdx::task::blocking(move || {
                    let error = ended
                        .outcome
                        .as_ref()
                        .err()
                        .map(|status| status.message.as_str());
                    let trace = traces.finish(&parent, &ended.progress, began, ended.at, error);
                    if let Err(error) = writer.set_trace(&ended.id, traces::MEDIA_TYPE, &trace) {
                        tracing::warn!(
                            error = stdx::text::sentence(&error),
                            "the trace is not kept"
                        );
                    }
                })
                .await;
                drop(pending);
            });
            trace.detach();
        }))
    }
}

impl Drop for Remembered<'_> {
    fn drop(&mut self) {
        let left = to_proto::rpc_from_status(&Status::cancelled(progress::CANCELED));
        if let Some(writing) = self.end(Err(left)) {
            writing.detach();
        }
    }
}

#[tonic::async_trait]
impl ControlService for Control {
    async fn solve(
        &self,
        request: Request<wire::SolveRequest>,
    ) -> Result<Response<wire::SolveResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        if request.r#ref.is_empty() {
            return Err(Status::invalid_argument("the build has no id (Ref)"));
        }
        if *self.stopping.borrow() {
            return Err(Status::unavailable("the daemon is stopping"));
        }
        let (id, session) = (request.r#ref.clone(), request.session.clone());
        let (began, parent) = (SystemTime::now(), Parent::of(&metadata, &id));
        let options = progress::Options {
            trace: Some(parent.steps(began)),
            ..self.progress.clone()
        };
        let Some(running) = self.builds.start(&id, Progress::new(options)) else {
            return Err(Status::already_exists(format!(
                "job ID {id} exists: two builds cannot have one id"
            )));
        };
        if request.internal {
            let built = self.build(request, running.progress()).await;
            self.greeted(&session).await;
            return Ok(Response::new(wire::SolveResponse {
                exporter_response: built?.response,
            }));
        }
        self.history
            .started(from_proto::history_record(&request), began);
        let progress = running.progress().clone();
        let mut remembered = Remembered {
            control: self,
            parent,
            id,
            frontend: request.frontend.clone(),
            began,
            running: Some(running),
        };
        let outcome = self.build(request, &progress).await;
        let kept = outcome.as_ref().map_err(to_proto::rpc_from_status);
        if let Some(writing) = remembered.end(kept.cloned()) {
            writing.await;
        }
        self.greeted(&session).await;
        Ok(Response::new(wire::SolveResponse {
            exporter_response: outcome?.response,
        }))
    }

    type StatusStream = Answers<wire::StatusResponse>;

    async fn status(
        &self,
        request: Request<wire::StatusRequest>,
    ) -> Result<Response<Self::StatusStream>, Status> {
        let id = request.into_inner().r#ref;
        let (builds, history) = (self.builds.clone(), self.history.clone());
        // The header has to go out before the build begins, so the wait is in the stream.
        let stream = Streamed::new("status", move |out| async move {
            let progress = match builds.known(&id) {
                Some(progress) => Some(progress),
                None => match replay(&history, &id, &out).await? {
                    true => return Ok(()),
                    false => builds.progress(&id).await,
                },
            };
            let Some(progress) = progress else {
                // It may have begun and ended while we looked.
                return match replay(&history, &id, &out).await? {
                    true => Ok(()),
                    false => Err(Status::not_found(format!("no such job {id}"))),
                };
            };
            let mut follower = progress.follow();
            while let Some(events) = follower.next_batch(to_proto::EVENTS).await {
                for message in to_proto::progress(events) {
                    if let Err(Gone) = out.send(message).await {
                        return Ok(());
                    }
                }
            }
            Ok(())
        });
        Ok(dated(Box::pin(stream)))
    }

    type SessionStream = Answers<wire::BytesMessage>;

    async fn session(
        &self,
        request: Request<Streaming<wire::BytesMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let refused =
            |error: session::Error| Status::new(to_proto::code(error.kind()), error.to_string());
        let hello = Hello::from_metadata(request.metadata()).map_err(refused)?;
        let sessions = self.builder.sessions().clone();
        let incoming = request.into_inner();
        // The answer's headers must go out before the client serves the handshake.
        let stream = Streamed::new("session", move |out| async move {
            let mut outgoing = tunnel::accept(&sessions, hello, Health::default(), incoming)
                .await
                .map_err(refused)?;
            while let Some(message) = outgoing.recv().await {
                if let Err(Gone) = out.send(message).await {
                    break;
                }
            }
            Ok(())
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn list_workers(
        &self,
        request: Request<wire::ListWorkersRequest>,
    ) -> Result<Response<wire::ListWorkersResponse>, Status> {
        let mut record = to_proto::worker(&self.builder.worker(), &self.gc);
        let devices = self.builder.devices().await;
        record.cdi_devices = devices.into_iter().map(to_proto::device).collect();
        let filters = request.into_inner().filter;
        let found =
            filters.is_empty() || filters.iter().any(|filter| worker_matches(filter, &record));
        Ok(Response::new(wire::ListWorkersResponse {
            record: if found { vec![record] } else { Vec::new() },
        }))
    }

    async fn info(
        &self,
        _: Request<wire::InfoRequest>,
    ) -> Result<Response<wire::InfoResponse>, Status> {
        Ok(Response::new(wire::InfoResponse {
            buildkit_version: Some(to_proto::version()),
        }))
    }

    async fn disk_usage(
        &self,
        request: Request<wire::DiskUsageRequest>,
    ) -> Result<Response<wire::DiskUsageResponse>, Status> {
        let request = request.into_inner();
        let unused = from_proto::duration(request.age_limit)?;
        let records = self
            .builder
            .usage(&request.filter, unused)
            .await
            .map_err(|failure| to_proto::failure(&failure))?;
        Ok(Response::new(wire::DiskUsageResponse {
            record: records.into_iter().map(to_proto::usage).collect(),
        }))
    }

    type PruneStream = Answers<wire::UsageRecord>;

    async fn prune(
        &self,
        request: Request<wire::PruneRequest>,
    ) -> Result<Response<Self::PruneStream>, Status> {
        let rule = from_proto::gc_rule(request.into_inner())?;
        let freed = self
            .builder
            .prune(&rule)
            .await
            .map_err(|failure| to_proto::failure(&failure))?;
        let stream =
            futures::stream::iter(freed.into_iter().map(|record| Ok(to_proto::usage(record))));
        Ok(Response::new(stream.boxed()))
    }

    type ListenBuildHistoryStream = Answers<wire::BuildHistoryEvent>;

    async fn listen_build_history(
        &self,
        request: Request<wire::BuildHistoryRequest>,
    ) -> Result<Response<Self::ListenBuildHistoryStream>, Status> {
        let request = request.into_inner();
        let history = self.history.clone();
        let asked = request.clone();
        let (known, mut events) = stdx::task::blocking(move || history.listen(&asked)).await?;
        let stream = Streamed::new("history", move |out| async move {
            for event in known {
                if let Err(Gone) = out.send(event).await {
                    return Ok(());
                }
            }
            if request.early_exit {
                return Ok(());
            }
            loop {
                let event = match events.recv().await {
                    Ok(event) => event,
                    Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {
                        return Err(Status::data_loss("the listener was too slow; listen again"));
                    }
                    Err(tokio::sync::broadcast::error::RecvError::Closed) => break,
                };
                let id = event
                    .record
                    .as_ref()
                    .map_or("", |record| record.r#ref.as_str());
                if !request.r#ref.is_empty() && request.r#ref != id {
                    continue;
                }
                if let Err(Gone) = out.send(event).await {
                    break;
                }
            }
            Ok(())
        });
        Ok(dated(Box::pin(stream)))
    }

    async fn update_build_history(
        &self,
        request: Request<wire::UpdateBuildHistoryRequest>,
    ) -> Result<Response<wire::UpdateBuildHistoryResponse>, Status> {
        let request = request.into_inner();
        if request.finalize {
            self.finalizers.finalize(&request.r#ref).await;
        }
        let history = self.history.clone();
        stdx::task::blocking(move || history.update(&request)).await?;
        Ok(Response::new(wire::UpdateBuildHistoryResponse {}))
    }
}

/// Sends the story of a build that ended long ago; `false` if it is not remembered.
async fn replay(
    history: &History,
    id: &str,
    out: &Sending<wire::StatusResponse>,
) -> Result<bool, Status> {
    let (history, id) = (history.clone(), id.to_owned());
    let story = stdx::task::blocking(move || history.story(&id)).await;
    let mut story = match story.map_err(|error| history::refused(&error))? {
        None => return Ok(false),
        Some(None) => return Ok(true),
        Some(Some(story)) => story,
    };
    loop {
        let (rest, message) = stdx::task::blocking(move || {
            let message = story.next();
            (story, message)
        })
        .await;
        story = rest;
        match message {
            None => return Ok(true),
            Some(Err(error)) => return Err(Status::data_loss(error.to_string())),
            Some(Ok(message)) => {
                if let Err(Gone) = out.send(message).await {
                    return Ok(true);
                }
            }
        }
    }
}

/// `id==…`, `labels.NAME==…` or a bare id prefix, as containerd filters write them.
fn worker_matches(filter: &str, record: &wire::types::WorkerRecord) -> bool {
    filter
        .split(',')
        .all(|condition| match condition.split_once("==") {
            Some(("id", id)) => record.id == id,
            Some((key, value)) => {
                let name = key.strip_prefix("labels.").unwrap_or(key).trim_matches('"');
                record.labels.get(name).is_some_and(|label| label == value)
            }
            None => match condition.split_once("~=") {
                Some(("id", part)) => record.id.contains(part),
                _ => record.id.starts_with(condition),
            },
        })
}
