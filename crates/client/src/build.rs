//! One build, from options to answer, with its events on the way.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use progress::Event;
use prost::Message as _;
use proto::moby::buildkit::v1 as wire;
use tokio::sync::mpsc;

use crate::{Client, Error, Result};

/// How long events may still come once the daemon has answered.
const AFTERMATH: Duration = Duration::from_secs(5);

/// What to build.
#[derive(Clone, Default)]
pub struct BuildOptions {
    /// Names the build; made up when empty.
    pub id: String,
    /// What the session is called: the name of the build directory.
    pub name: String,
    /// Same key, same directory kept by the daemon between builds.
    pub shared_key: String,
    /// Like `dockerfile.v0`; empty when a definition is given.
    pub frontend: String,
    /// What the frontend is told.
    pub options: BTreeMap<String, String>,
    /// A graph to build, as bytes of a definition message.
    pub definition: Option<Bytes>,
    /// Graphs the frontend may use by name, as bytes.
    pub inputs: BTreeMap<String, Bytes>,
    /// Where the result goes.
    pub exports: Vec<Export>,
    /// Where cache comes from.
    pub cache_from: Vec<CacheEntry>,
    /// Where cache goes.
    pub cache_to: Vec<CacheEntry>,
    /// What the build may do: `network.host`, `security.insecure`, `device=…`.
    pub entitlements: Vec<String>,
    /// Which sources it may use, as bytes of a policy message.
    pub source_policy: Option<Bytes>,
    /// Behave as an older release; 0 is the newest.
    pub compatibility: i64,
    /// Processes reach the network through the daemon's proxy only.
    pub proxy_network: bool,
    /// Keep the build out of the history.
    pub internal: bool,
    /// What the daemon may ask for.
    pub offers: session::Attachables,
}

/// Where a result goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Export {
    /// Like `image`, `oci`, `local`.
    pub kind: String,
    /// Its settings, without those that mean something to the client only.
    pub attrs: BTreeMap<String, String>,
}

/// Where cache comes from or goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheEntry {
    /// Like `registry`, `local`.
    pub kind: String,
    /// Its settings.
    pub attrs: BTreeMap<String, String>,
}

/// A build that runs. Drop it and it is cancelled.
#[must_use = "dropping it cancels the build"]
pub struct Build {
    id: String,
    events: mpsc::Receiver<Event>,
    answer: stdx::task::Task<Result<BTreeMap<String, String>>>,
}

impl Build {
    /// The build's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What happens next; `None` when nothing more will.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// Events that are here already, without waiting.
    pub fn ready(&mut self) -> Option<Event> {
        self.events.try_recv().ok()
    }

    /// What the daemon answers. Events not taken are thrown away.
    pub async fn finish(mut self) -> Result<BTreeMap<String, String>> {
        let drain = async {
            while self.events.recv().await.is_some() {}
            std::future::pending().await
        };
        tokio::select! {
            answer = &mut self.answer => answer,
            never = drain => never,
        }
    }
}

impl Client {
    /// Builds.
    pub fn build(&self, mut options: BuildOptions) -> Build {
        if options.id.is_empty() {
            options.id = random_id();
        }
        let id = options.id.clone();
        let (out, events) = mpsc::channel(1024);
        let client = self.clone();
        let answer = stdx::task::spawn("build", async move { client.run(options, out).await });
        Build { id, events, answer }
    }

    async fn run(
        &self,
        options: BuildOptions,
        out: mpsc::Sender<Event>,
    ) -> Result<BTreeMap<String, String>> {
        let session_id = random_id();
        let session = self
            .session(
                &session_id,
                &options.name,
                &options.shared_key,
                options.offers.clone(),
            )
            .await?;
        let request = request(&options, &session_id)?;
        let watcher = self.clone();
        let id = options.id;
        let mut watching = stdx::task::spawn("status", async move {
            let mut batches = match watcher.status(&id).await {
                Ok(batches) => Box::pin(batches),
                Err(error) => {
                    tracing::debug!(%error, "no progress to show");
                    return;
                }
            };
            while let Some(Ok(batch)) = batches.next().await {
                for event in batch {
                    if out.send(event).await.is_err() {
                        return;
                    }
                }
            }
        });
        let answer = self.solve(request).await;
        // The last events follow the answer; a daemon that never ends them is not
        // waited for.
        let _ = tokio::time::timeout(AFTERMATH, &mut watching).await;
        drop(session);
        answer
    }
}

fn request(options: &BuildOptions, session: &str) -> Result<wire::SolveRequest> {
    let definition = |bytes: &Bytes| {
        proto::pb::Definition::decode(bytes.clone()).map_err(|_| Error::Address {
            address: "definition".into(),
            reason: "it is no definition message",
        })
    };
    let inputs = options
        .inputs
        .iter()
        .map(|(name, bytes)| Ok((name.clone(), definition(bytes)?)));
    let policy = options.source_policy.as_ref().map(|bytes| {
        wire::sourcepolicy::Policy::decode(bytes.clone()).map_err(|_| Error::Address {
            address: "source policy".into(),
            reason: "it is no policy message",
        })
    });
    let entry = |entry: &CacheEntry| wire::CacheOptionsEntry {
        r#type: entry.kind.clone(),
        attrs: entry.attrs.clone(),
    };
    // Daemons from before there could be several exporters read the first one here.
    let first = options.exports.first().cloned().unwrap_or_default();
    Ok(wire::SolveRequest {
        r#ref: options.id.clone(),
        definition: options.definition.as_ref().map(definition).transpose()?,
        exporter_deprecated: first.kind,
        exporter_attrs_deprecated: first.attrs,
        session: session.to_owned(),
        frontend: options.frontend.clone(),
        frontend_attrs: options.options.clone(),
        cache: Some(wire::CacheOptions {
            exports: options.cache_to.iter().map(entry).collect(),
            imports: options.cache_from.iter().map(entry).collect(),
            ..wire::CacheOptions::default()
        }),
        entitlements: options.entitlements.clone(),
        frontend_inputs: inputs.collect::<Result<_>>()?,
        internal: options.internal,
        source_policy: policy.transpose()?,
        exporters: options
            .exports
            .iter()
            .map(|e| wire::Exporter {
                r#type: e.kind.clone(),
                attrs: e.attrs.clone(),
            })
            .collect(),
        enable_session_exporter: options.offers.exporters.is_some(),
        source_policy_session: match options.offers.policies {
            Some(_) => session.to_owned(),
            None => String::new(),
        },
        compatibility_version: options.compatibility,
        proxy_network: options.proxy_network,
    })
}

/// A name nobody else has made up: 25 of `0-9a-z`, as the other clients write them.
pub fn random_id() -> String {
    const LETTERS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut random = [0_u8; 32];
    let read =
        std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut random));
    read.expect("a machine has random numbers");
    random
        .iter()
        .take(25)
        .map(|byte| LETTERS[usize::from(*byte) % 36] as char)
        .collect()
}
