//! The daemon's API, call by call, in plain values.

mod records;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use hyper_util::rt::TokioIo;
use progress::Event;
use proto::moby::buildkit::v1 as wire;
use proto::moby::buildkit::v1::control_client::ControlClient;
use stdx::text::sentence;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

pub use self::records::{
    DiskRecord, GcPolicy, HistoryEvent, HistoryKind, HistoryRecord, Info, PruneOptions, Worker,
};
use self::records::{disk_record, history_event, version, worker};
use crate::convert::{self, Skew};
use crate::helper::Helper;
use crate::{Address, Error, Result};

/// A line to a daemon. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    channel: Channel,
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
                    .map_err(|e| failed(sentence(&e)))?
                    .connect_with_connector(connect)
                    .await
            }
            Address::Tcp { authority, tls } => {
                let scheme = if tls.is_some() { "https" } else { "http" };
                let mut to = endpoint(&format!("{scheme}://{authority}"))
                    .map_err(|e| failed(sentence(&e)))?;
                if let Some(tls) = tls {
                    to = to
                        .tls_config(tls.config())
                        .map_err(|e| failed(sentence(&e)))?;
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
                    .map_err(|e| failed(sentence(&e)))?
                    .connect_with_connector(connect)
                    .await
            }
        };
        Ok(Client {
            channel: channel.map_err(|e| failed(sentence(&e)))?,
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
            reason: sentence(&e),
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

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}
