//! The daemon's API, call by call, in plain values.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use hyper_util::rt::TokioIo;
use oci::Platform;
use progress::Event;
use proto::moby::buildkit::v1 as wire;
use proto::moby::buildkit::v1::control_client::ControlClient;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

use crate::convert::{self, Skew, time};
use crate::helper::Helper;
use crate::{Address, Error, Result};

/// A line to a daemon. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    channel: Channel,
}

/// Who the daemon is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// The program.
    pub package: String,
    /// Its version.
    pub version: String,
    /// Its revision.
    pub revision: String,
}

/// A worker of the daemon.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Worker {
    /// Its id.
    pub id: String,
    /// What is said about it.
    pub labels: BTreeMap<String, String>,
    /// What it builds for, its own first.
    pub platforms: Vec<Platform>,
    /// What it keeps.
    pub gc: Vec<GcPolicy>,
    /// Its version.
    pub version: Info,
}

/// One rule of what is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GcPolicy {
    /// Internal records too.
    pub all: bool,
    /// Which records; all when empty.
    pub filters: Vec<String>,
    /// Younger records are kept.
    pub keep_for: Duration,
    /// So much is always kept.
    pub reserved_bytes: u64,
    /// Above this something goes.
    pub max_used_bytes: u64,
    /// Below this much free space something goes.
    pub min_free_bytes: u64,
}

/// One record of the disk usage report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskRecord {
    /// Its id.
    pub id: String,
    /// Can still be written.
    pub mutable: bool,
    /// Somebody needs it now.
    pub in_use: bool,
    /// Bytes on disk.
    pub size: u64,
    /// Records it lies on.
    pub parents: Vec<String>,
    /// Since when.
    pub created: Option<SystemTime>,
    /// Used last.
    pub last_used: Option<SystemTime>,
    /// Used how often.
    pub usage_count: u64,
    /// What it is.
    pub description: String,
    /// Like `regular`, `exec.cachemount`.
    pub kind: String,
    /// Also kept by somebody else.
    pub shared: bool,
}

/// What may go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PruneOptions {
    /// Which records; all when empty.
    pub filters: Vec<String>,
    /// Internal records too.
    pub all: bool,
    /// Younger records stay.
    pub keep_for: Duration,
    /// So much stays.
    pub reserved_bytes: u64,
    /// Stop when no more than this is used.
    pub max_used_bytes: u64,
    /// Stop when this much is free.
    pub min_free_bytes: u64,
}

/// What happened to a build in the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HistoryKind {
    /// It began.
    Started,
    /// It is over.
    Complete,
    /// It was forgotten.
    Deleted,
}

/// Something that happened to a build.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryEvent {
    /// What.
    pub kind: HistoryKind,
    /// The build, as it is now.
    pub record: HistoryRecord,
}

/// A build that was, or is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HistoryRecord {
    /// Its id.
    pub id: String,
    /// Like `dockerfile.v0`.
    pub frontend: String,
    /// What the frontend was told.
    pub options: BTreeMap<String, String>,
    /// Why it failed.
    pub error: Option<String>,
    /// When it began.
    pub created: Option<SystemTime>,
    /// When it ended.
    pub completed: Option<SystemTime>,
    /// What it answered.
    pub response: BTreeMap<String, String>,
    /// Kept whatever the policy says.
    pub pinned: bool,
    /// Steps whose result was known.
    pub cached_steps: u32,
    /// All steps.
    pub total_steps: u32,
    /// Steps that are done.
    pub completed_steps: u32,
    /// Warnings.
    pub warnings: u32,
}

/// A session that is open; drop it and it ends.
#[must_use = "dropping it ends the session"]
pub struct OpenSession {
    id: String,
    _serving: session::serve::Serving,
    _feeding: stdx::task::Task<()>,
}

impl OpenSession {
    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }
}

fn endpoint(uri: &str) -> std::result::Result<Endpoint, tonic::transport::Error> {
    Ok(Endpoint::from_shared(uri.to_owned())?
        .http2_max_header_list_size(proto::MAX_HEADER_LIST_SIZE)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(8 << 20)
        .connect_timeout(Duration::from_secs(5)))
}

impl Client {
    /// Connects.
    pub async fn connect(address: &Address) -> Result<Client> {
        let failed = |reason: String| Error::Connect {
            address: address.to_string(),
            reason,
        };
        let channel = match address {
            Address::Unix(path) => {
                let path = path.clone();
                let connect = tower::service_fn(move |_: http::Uri| {
                    let path = path.clone();
                    async move {
                        tokio::net::UnixStream::connect(path)
                            .await
                            .map(TokioIo::new)
                    }
                });
                endpoint("http://daemon")
                    .map_err(|e| failed(say(&e)))?
                    .connect_with_connector(connect)
                    .await
            }
            Address::Tcp { authority, tls } => {
                let scheme = if tls.is_some() { "https" } else { "http" };
                let mut to =
                    endpoint(&format!("{scheme}://{authority}")).map_err(|e| failed(say(&e)))?;
                if let Some(tls) = tls {
                    to = to.tls_config(tls.config()).map_err(|e| failed(say(&e)))?;
                }
                to.connect().await
            }
            Address::Command(words) => {
                let words = words.clone();
                let connect = tower::service_fn(move |_: http::Uri| {
                    let started = Helper::start(&words).map(TokioIo::new);
                    async move { started }
                });
                endpoint("http://daemon")
                    .map_err(|e| failed(say(&e)))?
                    .connect_with_connector(connect)
                    .await
            }
        };
        Ok(Client {
            channel: channel.map_err(|e| failed(say(&e)))?,
        })
    }

    /// Uses a connection that is there already: a pipe in memory.
    pub async fn over(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Result<Client> {
        let once = std::sync::Arc::new(std::sync::Mutex::new(Some(io)));
        let connect = tower::service_fn(move |_: http::Uri| {
            let io = once.lock().expect("nothing panics holding it").take();
            async move {
                io.map(TokioIo::new)
                    .ok_or_else(|| std::io::Error::other("the connection is used up"))
            }
        });
        let failed = |e: tonic::transport::Error| Error::Connect {
            address: "a pipe".into(),
            reason: say(&e),
        };
        let channel = endpoint("http://daemon")
            .map_err(failed)?
            .connect_with_connector(connect)
            .await;
        Ok(Client {
            channel: channel.map_err(failed)?,
        })
    }

    pub(crate) fn control(&self) -> ControlClient<Channel> {
        ControlClient::new(self.channel.clone())
            .max_decoding_message_size(256 << 20)
            .max_encoding_message_size(proto::MAX_MESSAGE_SIZE)
    }

    /// The channel, for calls this library has no words for.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Who the daemon is.
    pub async fn info(&self) -> Result<Info> {
        let answer = self
            .control()
            .info(wire::InfoRequest {})
            .await?
            .into_inner();
        Ok(version(answer.buildkit_version))
    }

    /// The daemon's workers.
    pub async fn list_workers(&self, filters: &[String]) -> Result<Vec<Worker>> {
        let request = wire::ListWorkersRequest {
            filter: filters.to_vec(),
        };
        let answer = self.control().list_workers(request).await?.into_inner();
        Ok(answer.record.into_iter().map(worker).collect())
    }

    /// What the daemon keeps, and how much of it.
    pub async fn disk_usage(
        &self,
        filters: &[String],
        older_than: Duration,
    ) -> Result<Vec<DiskRecord>> {
        let age_limit = nanos(older_than);
        let request = wire::DiskUsageRequest {
            filter: filters.to_vec(),
            age_limit,
        };
        let answer = self.control().disk_usage(request).await?.into_inner();
        Ok(answer.record.into_iter().map(disk_record).collect())
    }

    /// Removes what may go, and tells what went as it goes.
    pub async fn prune(
        &self,
        options: PruneOptions,
    ) -> Result<BoxStream<'static, Result<DiskRecord>>> {
        let bytes = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let request = wire::PruneRequest {
            filter: options.filters,
            all: options.all,
            keep_duration: nanos(options.keep_for),
            reserved_space: bytes(options.reserved_bytes),
            max_used_space: bytes(options.max_used_bytes),
            min_free_space: bytes(options.min_free_bytes),
        };
        let answers = self.control().prune(request).await?.into_inner();
        Ok(answers.map(|record| Ok(disk_record(record?))).boxed())
    }

    /// Builds and waits for the end. Most want [`Client::build`].
    pub async fn solve(&self, request: wire::SolveRequest) -> Result<BTreeMap<String, String>> {
        Ok(self
            .control()
            .solve(request)
            .await?
            .into_inner()
            .exporter_response)
    }

    /// What happens in a build, from its beginning. Waits for a build that has not begun.
    pub async fn status(
        &self,
        build: &str,
    ) -> Result<impl Stream<Item = Result<Vec<Event>>> + Send + use<>> {
        let answer = self
            .control()
            .status(wire::StatusRequest {
                r#ref: build.to_owned(),
            })
            .await?;
        let skew = answer
            .metadata()
            .get("buildkit-current-timestamp")
            .and_then(|value| Skew::from_header(value.to_str().ok()?, SystemTime::now()))
            .unwrap_or_default();
        Ok(answer
            .into_inner()
            .map(move |message| Ok(convert::events(message?, skew))))
    }

    /// Opens a session, so that the daemon can ask for what is offered.
    pub async fn session(
        &self,
        id: &str,
        name: &str,
        shared_key: &str,
        offers: session::Attachables,
    ) -> Result<OpenSession> {
        let hello = session::serve::hello(id, name, shared_key, &offers);
        let (inward, incoming) = tokio::sync::mpsc::channel(16);
        let (outgoing, serving) = session::serve::over(offers, ReceiverStream::new(incoming));
        let mut call = Request::new(ReceiverStream::new(outgoing));
        *call.metadata_mut() = hello.to_metadata()?;
        let mut control = self.control();
        let feeding = stdx::task::spawn("session-feed", async move {
            let mut answers = match control.session(call).await {
                Ok(answers) => answers.into_inner(),
                Err(status) => {
                    tracing::warn!(%status, "the daemon takes no session");
                    return;
                }
            };
            while let Some(message) = answers.next().await {
                if inward.send(message).await.is_err() {
                    break;
                }
            }
        });
        Ok(OpenSession {
            id: id.to_owned(),
            _serving: serving,
            _feeding: feeding,
        })
    }

    /// Builds that were and are.
    pub async fn history(
        &self,
        active_only: bool,
        id: &str,
        until_now: bool,
        filters: &[String],
        limit: u32,
    ) -> Result<impl Stream<Item = Result<HistoryEvent>> + Send + use<>> {
        let request = wire::BuildHistoryRequest {
            active_only,
            r#ref: id.to_owned(),
            early_exit: until_now,
            filter: filters.to_vec(),
            limit: i32::try_from(limit).unwrap_or(i32::MAX),
        };
        let answers = self
            .control()
            .listen_build_history(request)
            .await?
            .into_inner();
        Ok(answers.map(|event| Ok(history_event(event?))))
    }

    /// Keeps a build for good, or no longer.
    pub async fn pin(&self, id: &str, pinned: bool) -> Result<()> {
        let request = wire::UpdateBuildHistoryRequest {
            r#ref: id.to_owned(),
            pinned,
            ..Default::default()
        };
        self.control().update_build_history(request).await?;
        Ok(())
    }

    /// Forgets a build.
    pub async fn forget(&self, id: &str) -> Result<()> {
        let request = wire::UpdateBuildHistoryRequest {
            r#ref: id.to_owned(),
            delete: true,
            ..Default::default()
        };
        self.control().update_build_history(request).await?;
        Ok(())
    }
}

/// An error of the transport with its causes, which hold the reason.
fn say(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = inner.source();
    }
    text
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

fn unsigned(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

fn version(version: Option<wire::types::BuildkitVersion>) -> Info {
    let version = version.unwrap_or_default();
    Info {
        package: version.package,
        version: version.version,
        revision: version.revision,
    }
}

fn worker(record: wire::types::WorkerRecord) -> Worker {
    Worker {
        id: record.id,
        labels: record.labels,
        platforms: record
            .platforms
            .into_iter()
            .map(|p| Platform {
                architecture: p.architecture,
                os: p.os,
                os_version: p.os_version,
                os_features: p.os_features,
                variant: p.variant,
            })
            .collect(),
        gc: record
            .gc_policy
            .into_iter()
            .map(|p| GcPolicy {
                all: p.all,
                filters: p.filters,
                keep_for: Duration::from_nanos(unsigned(p.keep_duration)),
                reserved_bytes: unsigned(p.reserved_space),
                max_used_bytes: unsigned(p.max_used_space),
                min_free_bytes: unsigned(p.min_free_space),
            })
            .collect(),
        version: version(record.buildkit_version),
    }
}

#[expect(deprecated, reason = "old daemons fill only this")]
fn disk_record(record: wire::UsageRecord) -> DiskRecord {
    let mut parents = record.parents;
    if parents.is_empty() && !record.parent.is_empty() {
        parents.push(record.parent);
    }
    DiskRecord {
        id: record.id,
        mutable: record.mutable,
        in_use: record.in_use,
        size: unsigned(record.size),
        parents,
        created: record.created_at.as_ref().map(time),
        last_used: record.last_used_at.as_ref().map(time),
        usage_count: unsigned(record.usage_count),
        description: record.description,
        kind: record.record_type,
        shared: record.shared,
    }
}

fn history_event(event: wire::BuildHistoryEvent) -> HistoryEvent {
    let kind = match event.r#type() {
        wire::BuildHistoryEventType::Started => HistoryKind::Started,
        wire::BuildHistoryEventType::Complete => HistoryKind::Complete,
        wire::BuildHistoryEventType::Deleted => HistoryKind::Deleted,
    };
    let record = event.record.unwrap_or_default();
    let count = |n: i32| u32::try_from(n).unwrap_or(0);
    HistoryEvent {
        kind,
        record: HistoryRecord {
            id: record.r#ref,
            frontend: record.frontend,
            options: record.frontend_attrs,
            error: record.error.map(|status| status.message),
            created: record.created_at.as_ref().map(time),
            completed: record.completed_at.as_ref().map(time),
            response: record.exporter_response,
            pinned: record.pinned,
            cached_steps: count(record.num_cached_steps),
            total_steps: count(record.num_total_steps),
            completed_steps: count(record.num_completed_steps),
            warnings: count(record.num_warnings),
        },
    }
}
