//! Frontends that are images (rows G01, G12): the image's program runs in a container and
//! asks its questions over its standard input and output. Who understands them is the
//! [`FrontendServer`]'s business.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use executor::{Control, Exit, Input, Io, MountSource, Output as Sink, Process};
use frontend::{Bridge, Container, FrontendResult, ImageLookup, NewContainer, RefId};
use oci::Digest;
use ops::Output;
use progress::{Progress, StepProgress, Stream};
use refs::RecordMeta;
use serde::Deserialize;
use stdx::Kind;
use stdx::task::blocking;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};

use crate::bridge::BuildBridge;
use crate::error::asked;

/// Where a frontend finds the graph of its own image.
const OWN_GRAPH: &str = "/run/config/buildkit/metadata/frontend.bin";
/// The program of an image without an entrypoint.
const DEFAULT_PROGRAM: &str = "/run";
/// How we are called by BuildKit's environment.
const PRODUCT: &str = "kiln";
/// So much of what a frontend last complained about goes into the error.
const LAST_WORDS: usize = 2 << 10;
/// How long a frontend may stay once nobody speaks with it any more.
const PATIENCE: Duration = Duration::from_secs(2);
/// What a frontend must understand if graphs are given to it.
const CAP_INPUTS: &str = "moby.buildkit.frontend.inputs";
/// Old images that understand inputs and do not say so.
const UNDERSTAND_INPUTS: &[&str] = &[
    "sha256:9ac1c43a60e31dca741a6fe8314130a9cd4c4db0311fbbc636ff992ef60ae76d",
    "sha256:080bd74d8778f83e7b670de193362d8c593c8b14f5c8fb919d28ee8feda0d069",
    "sha256:60543a9d92b92af5088fb2938fb09b2072684af8384399e153e137fe081f8ab4",
    "sha256:de85b2f3a3e8a2f7fe48e8e84a65f6fdd5cd5183afa6412fff9caa6871649c44",
];

/// The line to a frontend in a container: its standard input and output.
pub trait Line: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Line for T {}

/// Speaks with frontends that live in containers.
#[async_trait]
pub trait FrontendServer: Send + Sync {
    /// Answers a frontend's questions from `bridge` until the frontend closes the line, or
    /// has returned a result and still does not. Gives what it returned.
    async fn serve(
        &self,
        bridge: Arc<dyn Bridge>,
        line: Box<dyn Line>,
    ) -> Option<frontend::Result<FrontendResult>>;

    /// What workers there are for a build, for the frontend's environment: JSON as Go writes it.
    fn workers(&self, bridge: &dyn Bridge) -> String;
}

/// Why a frontend's image gave no result.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the development gateway (gateway-devel) is no longer supported")]
    Devel,
    #[error("no source specified for gateway: the option source names the frontend's image")]
    NoSource,
    #[error("{0:?} is not a name an image can have")]
    BadName(String),
    #[error("'{0}' is not an allowed gateway source: the daemon's configuration lists others")]
    NotAllowed(String),
    #[error("frontends that are images cannot be used here")]
    NoServer,
    #[error("the image's config is not one")]
    Config(#[source] serde_json::Error),
    #[error("the image is empty")]
    Empty,
    #[error("opening a pipe")]
    Pipe(#[source] std::io::Error),
    #[error(
        "the frontend ended with exit code {code}{}{}", if *.oom { " for lack of memory" } else { "" },
        after(.said)
    )]
    Exit { code: i32, oom: bool, said: String },
    #[error("the frontend ended without a result{}", after(.0))]
    NoResult(String),
    #[error("frontend grpc server closed unexpectedly: the frontend closed its line and gave no result{}", after(.0))]
    Closed(String),
    #[error(transparent)]
    Executor(#[from] executor::Error),
    #[error(transparent)]
    Ops(#[from] ops::Error),
    #[error(transparent)]
    Refs(#[from] refs::Error),
}

fn after(said: &str) -> String {
    match said.trim() {
        "" => String::new(),
        said => format!("; it last said: {said}"),
    }
}

impl Error {
    fn kind(&self) -> Kind {
        match self {
            Error::Devel | Error::NoServer => Kind::Unsupported,
            Error::NoSource | Error::BadName(_) | Error::Config(_) | Error::Empty => {
                Kind::InvalidInput
            }
            Error::NotAllowed(_) => Kind::Denied,
            Error::Exit { oom: true, .. } => Kind::Unavailable,
            Error::Pipe(_) | Error::Exit { .. } | Error::NoResult(_) | Error::Closed(_) => {
                Kind::Internal
            }
            Error::Executor(error) => error.kind(),
            Error::Ops(error) => error.kind(),
            Error::Refs(error) => error.kind(),
        }
    }
}

/// What a container is made of: results by the names the frontend has for them.
pub(crate) async fn container(
    bridge: &BuildBridge,
    mut wanted: NewContainer,
) -> frontend::Result<Arc<dyn Container>> {
    let shared = &bridge.shared;
    let mut inputs: Vec<Output> = Vec::new();
    for mount in &mut wanted.mounts {
        mount.input = None;
        mount.output = None;
        if !mount.result_id.is_empty() {
            let reference = RefId::new(mount.result_id.as_str());
            inputs.push(shared.output(&reference).await?);
            mount.input = u32::try_from(inputs.len() - 1).ok();
        }
    }
    let made = ops::Container::prepare(shared.deeds.clone(), wanted, &inputs).await;
    let made = made.map_err(|error| asked("making a container", error.kind(), error))?;
    Ok(Arc::new(made))
}

/// Runs the frontend whose image the option `source` names.
pub(crate) async fn run(bridge: Arc<BuildBridge>) -> frontend::Result<FrontendResult> {
    let options = bridge.options().as_map();
    let source = options.get("source").cloned().unwrap_or_default();
    let doing = match source.as_str() {
        "" => "starting the frontend".to_owned(),
        source => format!("running frontend {source}"),
    };
    let failed = |error: Error| asked(doing.as_str(), error.kind(), error);
    if options.contains_key("gateway-devel") {
        return Err(failed(Error::Devel));
    }
    if source.is_empty() {
        return Err(failed(Error::NoSource));
    }
    let name: oci::ImageName = source
        .parse()
        .map_err(|_| failed(Error::BadName(source.clone())))?;
    let shared = bridge.shared.clone();
    let allowed = &shared.engine.0.frontends.allowed_repositories;
    check_allowed(&name, &source, allowed).map_err(failed)?;
    let server = shared.engine.0.frontend_server.get().cloned();
    let server = server.ok_or_else(|| failed(Error::NoServer))?;

    let image = find(&bridge, &source, &name, &failed).await?;
    let config: Config = serde_json::from_slice(&image.config)
        .map_err(Error::Config)
        .map_err(failed)?;
    let config = config.config;
    check_capabilities(&bridge, &config, image.digest.as_ref()).await?;
    let own_graph = bridge.definition(&image.reference).await?;
    let root = shared.output(&image.reference).await?;
    let root = root.0.ok_or_else(|| failed(Error::Empty))?;
    let place = Starting {
        bridge: &bridge,
        config: &config,
        workers: server.workers(&*bridge),
    };
    let (root, process) = place.process(&root, &own_graph).await.map_err(failed)?;
    let talk = Talk {
        server,
        bridge: bridge.clone(),
        source: &source,
    };
    let outcome = talk.hold(process).await;
    blocking(move || drop(root)).await;
    match outcome {
        Ok(result) => result,
        Err(error) => Err(failed(error)),
    }
}

fn check_allowed(name: &oci::ImageName, source: &str, allowed: &[String]) -> Result<(), Error> {
    let same = |other: &String| {
        let other = other.parse::<oci::ImageName>();
        other.is_ok_and(|other| other.name() == name.name())
    };
    match allowed.is_empty() || allowed.iter().any(same) {
        true => Ok(()),
        false => Err(Error::NotAllowed(source.to_owned())),
    }
}

/// A frontend's image.
struct Image {
    reference: RefId,
    config: Bytes,
    /// None for one the client has put in its place.
    digest: Option<Digest>,
}

async fn find(
    bridge: &Arc<BuildBridge>,
    source: &str,
    name: &oci::ImageName,
    failed: &impl Fn(Error) -> frontend::Error,
) -> frontend::Result<Image> {
    if let Some(other) = dockerfile::in_place_of(&**bridge, source).await? {
        return Ok(Image {
            reference: other.reference.ok_or_else(|| failed(Error::Empty))?,
            config: other.config.unwrap_or_else(|| "{}".to_owned()).into(),
            digest: None,
        });
    }
    let name = name.clone().or_latest().to_string();
    let lookup = ImageLookup {
        step_name: format!("resolve image config for docker-image://{name}"),
        ..ImageLookup::default()
    };
    let found = bridge.resolve_image(&name, lookup).await?;
    let named: oci::ImageName = found
        .name
        .parse()
        .map_err(|_| failed(Error::BadName(found.name.clone())))?;
    let attrs = BTreeMap::from([(
        llb::attr::IMAGE_RECORD_TYPE.to_owned(),
        "frontend".to_owned(),
    )]);
    let mut graph = llb::Builder::new();
    let identifier = format!("docker-image://{}", named.with_digest(found.digest));
    let edge = graph.source(&identifier, attrs, None, llb::Meta::default());
    let request = frontend::SolveRequest {
        definition: graph.definition(Some(&edge)),
        ..frontend::SolveRequest::default()
    };
    Ok(Image {
        reference: bridge
            .solve(request)
            .await?
            .ok_or_else(|| failed(Error::Empty))?,
        config: found.config,
        digest: Some(found.digest),
    })
}

/// What counts of an image's config.
#[derive(Default, Deserialize)]
struct Config {
    #[serde(default)]
    config: Inner,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Inner {
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    working_dir: String,
    labels: Option<BTreeMap<String, String>>,
}

impl Inner {
    fn label(&self, name: &str) -> &str {
        let label = self.labels.as_ref().and_then(|labels| labels.get(name));
        label.map(String::as_str).unwrap_or_default()
    }
}

/// Names of capabilities without what is said about them (`name+forward`).
fn capabilities(text: &str) -> BTreeSet<&str> {
    let names = text
        .split(',')
        .map(|one| one.split('+').next().unwrap_or(one));
    names.filter(|name| !name.is_empty()).collect()
}

/// Refuses what the image does not say it understands.
async fn check_capabilities(
    bridge: &BuildBridge,
    config: &Inner,
    digest: Option<&Digest>,
) -> frontend::Result<()> {
    let mut known = capabilities(config.label("moby.buildkit.frontend.caps"));
    if digest.is_some_and(|digest| UNDERSTAND_INPUTS.contains(&digest.to_string().as_str())) {
        known.insert(CAP_INPUTS);
    }
    let mut wanted = capabilities(bridge.options().get("frontend.caps").unwrap_or_default());
    if !bridge.inputs().await?.is_empty() {
        wanted.insert(CAP_INPUTS);
    }
    match wanted.difference(&known).next() {
        None => Ok(()),
        Some(missing) => Err(frontend::Error::NoCapability((*missing).to_owned())),
    }
}

/// A frontend that is to be started.
struct Starting<'a> {
    bridge: &'a BuildBridge,
    config: &'a Inner,
    workers: String,
}

impl Starting<'_> {
    /// The process, and the tree it lives in, which must outlive it.
    async fn process(
        &self,
        image: &refs::Ref,
        own_graph: &llb::Definition,
    ) -> Result<(refs::MutableRef, Process), Error> {
        let parts = &self.bridge.shared.deeds.parts;
        let provider = &*self.bridge.shared.deeds.build.provider;
        image.unpack(provider, &StepProgress::none()).await?;
        let (refs, parent) = (parts.refs.clone(), image.clone());
        let begun =
            blocking(move || refs.begin(Some(&parent), RecordMeta::new("a frontend"))).await?;
        let args = match &self.config.entrypoint {
            Some(args) if !args.is_empty() => args.clone(),
            _ => vec![DEFAULT_PROGRAM.to_owned()],
        };
        let mut process = Process::new(begun.tree(), args);
        process.env = self.environment();
        process.cwd = match self.config.working_dir.as_str() {
            "" => "/".to_owned(),
            dir => dir.to_owned(),
        };
        process.mounts = vec![executor::Mount {
            target: OWN_GRAPH.to_owned(),
            source: MountSource::File {
                bytes: own_graph.encode(),
                mode: 0o400,
                uid: 0,
                gid: 0,
            },
            readonly: true,
        }];
        process.dns.clone_from(&parts.dns);
        process.cgroup_parent.clone_from(&parts.cgroup_parent);
        process.remove_mount_stubs_recursive = true;
        let alone = self.config.label("moby.buildkit.frontend.network.none");
        if stdx::text::go_bool(alone) == Some(true) {
            process.network = executor::Network::None;
        }
        Ok((begun, process))
    }

    fn environment(&self) -> Vec<String> {
        let mut env = self.config.env.clone().unwrap_or_default();
        let options = self.bridge.options().as_map().iter().enumerate();
        env.extend(
            options.map(|(at, (name, value))| format!("BUILDKIT_FRONTEND_OPT_{at}={name}={value}")),
        );
        env.push(format!("BUILDKIT_SESSION_ID={}", self.bridge.session()));
        env.push(format!("BUILDKIT_WORKERS={}", self.workers));
        env.push(format!("BUILDKIT_EXPORTEDPRODUCT={PRODUCT}"));
        env
    }
}

/// A talk with a frontend.
struct Talk<'a> {
    server: Arc<dyn FrontendServer>,
    bridge: Arc<BuildBridge>,
    source: &'a str,
}

impl Talk<'_> {
    /// From the start of its process to its end. What it returned counts unless the process
    /// failed afterwards; an error it returned counts always.
    async fn hold(&self, process: Process) -> Result<frontend::Result<FrontendResult>, Error> {
        let shared = &self.bridge.shared;
        let (line, stdin, stdout) = line().map_err(Error::Pipe)?;
        let (complaints, stderr) = mpsc::channel(16);
        let io = Io {
            stdin: Input::Fd(stdin),
            stdout: Sink::Fd(stdout),
            stderr: Sink::Channel(complaints),
        };
        let (control, controller, _) = Control::new();
        let (tell, ended) = oneshot::channel();
        let running = async {
            let exit = shared.deeds.parts.executor.run(process, io, control).await;
            // If nobody is listening, the other side has ended too.
            let _ = tell.send(());
            exit
        };
        let serving = async {
            let line = Box::new(line);
            let returned = self.server.serve(self.bridge.clone(), line).await;
            // Nobody speaks with it any more: it ends soon, or is made to.
            if tokio::time::timeout(PATIENCE, ended).await.is_err() {
                controller.cancel();
            }
            returned
        };
        let listening = listen(&shared.progress, self.source, stderr);
        let (exit, returned, said) = tokio::join!(running, serving, listening);
        judge(exit, returned, said)
    }
}

fn judge(
    exit: executor::Result<Exit>,
    returned: Option<frontend::Result<FrontendResult>>,
    said: String,
) -> Result<frontend::Result<FrontendResult>, Error> {
    match (exit, returned) {
        (_, Some(Err(error))) => Ok(Err(error)),
        (Ok(exit), _) if !exit.success() => {
            let (code, oom) = (exit.code, exit.oom);
            Err(Error::Exit { code, oom, said })
        }
        // Killed because it stayed after it had returned.
        (Ok(_) | Err(executor::Error::Canceled), Some(Ok(result))) => Ok(Ok(result)),
        (Ok(_), None) => Err(Error::NoResult(said)),
        (Err(executor::Error::Canceled), None) => Err(Error::Closed(said)),
        (Err(error), _) => Err(error.into()),
    }
}

/// Our end of a pair of pipes, and a process's input and output.
fn line() -> std::io::Result<(impl Line, OwnedFd, OwnedFd)> {
    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
    let (stdin, to) = pipe()?;
    let (from, stdout) = pipe()?;
    for ours in [&to, &from] {
        rustix::io::ioctl_fionbio(ours, true)?;
    }
    let from = pipe::Receiver::from_owned_fd(from)?;
    let to = pipe::Sender::from_owned_fd(to)?;
    Ok((tokio::io::join(from, to), stdin, stdout))
}

/// Shows what a frontend complains about, as a step that is there only if it does. Gives
/// the last of it.
async fn listen(progress: &Progress, source: &str, mut stderr: mpsc::Receiver<Bytes>) -> String {
    let mut step: Option<StepProgress> = None;
    let mut last = Vec::new();
    while let Some(words) = stderr.recv().await {
        last.extend_from_slice(&words);
        if last.len() > LAST_WORDS {
            last.drain(..last.len() - LAST_WORDS);
        }
        let step = step.get_or_insert_with(|| {
            let step = progress.internal_step(format!("[internal] frontend {source}"));
            step.start();
            step
        });
        step.log(Stream::Err, words);
    }
    if let Some(step) = step {
        step.complete(false);
    }
    String::from_utf8_lossy(&last).into_owned()
}
