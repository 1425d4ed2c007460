//! A daemon in this process, with a builder that only pretends: it has no containers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use daemon::Services;
use daemon::builder::{
    Archive, ArchiveError, Builder, Built, Compatibility, Failure, Lack, Predicate, Request, Usage,
    What, Worker,
};
use daemon::config::file::File;
use daemon::config::flags::Flags;
use daemon::config::gc::GcRule;
use daemon::config::{Config, Name, Surroundings};
use frontend::policy::SourcePolicy;
use frontend::{
    Bridge, FileRange, FileStat, FrontendResult, ImageLookup, NestedRequest, Options, RefId, Refs,
    ResolvedImage, SolveRequest, SourceFile, SourceLocation, SourceMetadata, Warning,
};
use oci::{Digest, Platform};
use progress::{Progress, Stream};
use proto::moby::buildkit::v1 as wire;
use session::Sessions;
use stdx::Kind;
use tonic::transport::{Channel, Endpoint};

/// So many it says it has.
pub(crate) const BLOBS: usize = 2500;

/// A build whose result says `linger` goes on until it is told of this.
pub(crate) static EXPORTED: tokio::sync::Notify = tokio::sync::Notify::const_new();

/// Builds nothing, but tells of it.
pub(crate) struct Pretender {
    sessions: Sessions,
    archive: Archive,
    closed: AtomicBool,
    _dir: Option<tempfile::TempDir>,
}

impl Default for Pretender {
    fn default() -> Pretender {
        let dir = tempfile::tempdir().unwrap();
        let mut pretender = Pretender::at(dir.path());
        pretender._dir = Some(dir);
        pretender
    }
}

impl Pretender {
    /// With a history in `dir`.
    pub(crate) fn at(dir: &std::path::Path) -> Pretender {
        std::fs::create_dir_all(dir).unwrap();
        let db = Arc::new(db::Db::open(dir.join("kiln.db")).unwrap());
        let store = content::Store::open(dir.join("content"), db.clone()).unwrap();
        let leases = lease::Leases::open(dir.join("leases"), db.clone()).unwrap();
        let archive = Archive::open(db, store, leases).unwrap();
        Pretender {
            sessions: Sessions::default(),
            archive,
            closed: AtomicBool::new(false),
            _dir: None,
        }
    }

    /// Whether it has let go of what it keeps.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Builder for Pretender {
    fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    fn blobs(&self) -> Arc<dyn content::Provider> {
        {
            let blobs = content::Memory::default();
            blobs.add("text/plain", "a blob");
            Arc::new(blobs)
        }
    }

    /// More than are told at a time, by the names of their numbers.
    fn list_blobs(
        &self,
        after: Option<&Digest>,
        count: usize,
    ) -> Result<Vec<content::BlobInfo>, content::Error> {
        let mut all: Vec<_> = (0..BLOBS).map(|n| Digest::of(n.to_string())).collect();
        all.sort_by_key(Digest::to_string);
        let after = after.map_or_else(String::new, Digest::to_string);
        let page = all.into_iter().filter(|digest| digest.to_string() > after);
        let page = page.take(count).map(|digest| content::BlobInfo {
            digest,
            media_type: "text/plain".into(),
            size: 6,
            created: std::time::SystemTime::UNIX_EPOCH,
        });
        Ok(page.collect())
    }

    fn archive(&self) -> Result<Archive, ArchiveError> {
        Ok(self.archive.clone())
    }

    fn worker(&self) -> Worker {
        Worker {
            id: "w1".into(),
            labels: [("a".to_owned(), "b".to_owned())].into(),
            platforms: vec![Platform::host()],
        }
    }

    async fn build(&self, request: Request, progress: Progress) -> Result<Built, Failure> {
        let step = progress.step(Digest::of(&request.id), "[1/1] RUN pretend", &[]);
        step.start();
        step.log(Stream::Out, "pretending\n");
        let mut response = BTreeMap::new();
        match request.what {
            What::Frontend { name, .. } if name == "sleep" => std::future::pending().await,
            What::Frontend { name, .. } if name == "fail" => {
                step.fail("exit code: 7");
                return Err(failure());
            }
            What::Frontend { name, options, .. } => {
                response.insert("frontend".to_owned(), name);
                let version = request.compatibility.number().to_string();
                response.insert("compatibility".to_owned(), version);
                response.extend(options);
            }
            What::Definition { options, .. } => response.extend(options),
            What::Client { run, .. } => match run(Arc::new(PretendBridge::new(&progress))).await {
                Ok(result) => {
                    if result.metadata.contains_key("linger") {
                        EXPORTED.notified().await;
                    }
                    let told = result.metadata.into_iter();
                    response.extend(
                        told.map(|(key, value)| (key, String::from_utf8_lossy(&value).into())),
                    );
                }
                Err(error) => return Err(Failure::of_frontend(&error)),
            },
        }
        for exporter in request.exporters {
            response.insert("exporter".to_owned(), exporter.kind);
        }
        step.complete(false);
        let provenance = match request.remembered {
            true => {
                let told = Predicate {
                    kind: "https://slsa.dev/provenance/v1".to_owned(),
                    bytes: format!("{{\"id\":\"{}\"}}", request.id).into(),
                };
                [(String::new(), told)].into()
            }
            false => BTreeMap::new(),
        };
        Ok(Built {
            response,
            provenance,
            ..Built::default()
        })
    }

    async fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    async fn usage(&self, _: &[String], _: Duration) -> Result<Vec<Usage>, Failure> {
        Ok(vec![Usage {
            id: "u1".into(),
            size: 7,
            parents: vec!["p".into()],
            ..Usage::default()
        }])
    }

    async fn prune(&self, rule: &GcRule) -> Result<Vec<Usage>, Failure> {
        if rule.filters.iter().any(|filter| filter == "bad") {
            return Err(Failure::new(Kind::InvalidInput, "no such filter"));
        }
        self.usage(&[], Duration::ZERO).await
    }
}

fn failure() -> Failure {
    let file = SourceFile {
        name: "Dockerfile".into(),
        language: "Dockerfile".into(),
        data: "RUN x".into(),
        definition: None,
    };
    Failure {
        kind: Some(Kind::Internal),
        message: "process \"x\" did not complete successfully: exit code: 7".into(),
        vertex: Some(Digest::of("v")),
        places: vec![SourceLocation {
            file: Arc::new(file),
            ranges: vec![frontend::Range::line(1)],
        }],
        exit_code: Some(7),
        lacks: Some(Lack::Feature(Compatibility::V013, "a feature".into())),
        hints: vec!["Look at the manual.".into()],
        of_a_build: true,
        ..Failure::default()
    }
}

struct PretendBridge {
    options: Options,
    progress: Progress,
}

impl PretendBridge {
    fn new(progress: &Progress) -> PretendBridge {
        PretendBridge {
            options: Options::default(),
            progress: progress.clone(),
        }
    }
}

fn none<T>(path: &str) -> frontend::Result<T> {
    Err(frontend::Error::NoFile {
        path: path.to_owned(),
    })
}

/// Refuses every source for which somebody made rules, and says them.
fn policed(policies: &[SourcePolicy]) -> frontend::Result<()> {
    match policies {
        [] => Ok(()),
        some => Err(frontend::Error::bad_option(
            "policies",
            "",
            format!("{some:?}"),
        )),
    }
}

#[async_trait]
impl Bridge for PretendBridge {
    fn options(&self) -> &Options {
        &self.options
    }
    fn session(&self) -> &str {
        ""
    }
    fn platforms(&self) -> Vec<Platform> {
        vec![Platform::host(), "linux/riscv64".parse().unwrap()]
    }
    async fn inputs(&self) -> frontend::Result<BTreeMap<String, llb::Definition>> {
        Ok(BTreeMap::new())
    }
    async fn solve(&self, request: SolveRequest) -> frontend::Result<Option<RefId>> {
        policed(&request.policies)?;
        Ok(Some(RefId::new("r1")))
    }
    async fn evaluate(&self, reference: &RefId) -> frontend::Result<()> {
        if reference.as_str() == "r1" {
            Ok(())
        } else {
            Err(frontend::Error::NoRef(reference.to_string()))
        }
    }
    async fn definition(&self, _: &RefId) -> frontend::Result<llb::Definition> {
        Ok(llb::Definition::default())
    }
    async fn nested(&self, request: NestedRequest) -> frontend::Result<FrontendResult> {
        policed(&request.policies)?;
        if request.frontend != "dockerfile.v0" {
            return Err(frontend::Error::UnknownFrontend(request.frontend));
        }
        Ok(FrontendResult {
            refs: Refs::One(Some(RefId::new("r1"))),
            ..FrontendResult::default()
        })
    }
    async fn resolve_image(
        &self,
        name: &str,
        lookup: ImageLookup,
    ) -> frontend::Result<ResolvedImage> {
        policed(&lookup.policies)?;
        Ok(ResolvedImage {
            name: name.to_owned(),
            digest: Digest::of(name),
            config: Bytes::from_static(b"{}"),
        })
    }
    async fn resolve_source(
        &self,
        _: &str,
        _: &BTreeMap<String, String>,
        _: Option<&Platform>,
        policies: Vec<SourcePolicy>,
        _: &llb::facts::Questions,
    ) -> frontend::Result<SourceMetadata> {
        policed(&policies)?;
        none("source")
    }
    async fn read_file(
        &self,
        _: &RefId,
        path: &str,
        _: Option<FileRange>,
    ) -> frontend::Result<Bytes> {
        if path == "/etc/os" {
            Ok(Bytes::from_static(b"kiln"))
        } else {
            none(path)
        }
    }
    async fn read_dir(
        &self,
        _: &RefId,
        path: &str,
        _: Option<&str>,
    ) -> frontend::Result<Vec<FileStat>> {
        none(path)
    }
    async fn stat_file(&self, _: &RefId, path: &str) -> frontend::Result<FileStat> {
        none(path)
    }
    async fn warn(&self, step: Option<&Digest>, warning: Warning) -> frontend::Result<()> {
        let at = warning.at.expect("ours say where");
        let position = |at: frontend::Position| progress::Position {
            line: at.line,
            character: at.character,
        };
        let ranges = at.ranges.iter().map(|range| progress::Range {
            start: position(range.start),
            end: position(range.end),
        });
        let definition = at.file.definition.as_ref().map(llb::Definition::encode);
        let event = progress::Event::Warning(progress::Warning {
            step: *step.expect("ours say what"),
            level: warning.level.into(),
            short: warning.short,
            detail: warning.detail,
            url: warning.url,
            source: Some(progress::Source {
                filename: at.file.name.clone(),
                language: at.file.language.clone(),
                data: at.file.data.clone(),
                definition: definition.unwrap_or_default(),
            }),
            ranges: ranges.collect(),
        });
        self.progress.emit(event);
        Ok(())
    }
    async fn new_container(
        &self,
        wanted: frontend::NewContainer,
    ) -> frontend::Result<Arc<dyn frontend::Container>> {
        crate::containers::pretend(&wanted)
    }
    fn failed_step(&self, _: &frontend::Error) -> Option<frontend::FailedStep> {
        None
    }
}

/// A daemon in this process, and a way to call it.
pub(crate) async fn daemon(line: &str) -> (Channel, stdx::task::Task<()>) {
    let flags = Flags::parse_from_args(
        std::iter::once("kiln")
            .chain(line.split_whitespace())
            .map(Into::into),
    )
    .unwrap();
    let surroundings = Surroundings {
        home: Some("/tmp".into()),
        ..Surroundings::default()
    };
    let config = Config::resolve(File::default(), &flags, Name::Kiln, &surroundings).unwrap();
    let services = Services::new(Arc::new(Pretender::default()), &config).unwrap();
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let task = stdx::task::spawn(
        "daemon",
        async move { services.answer(theirs).await.unwrap() },
    );
    let mut ours = Some(hyper_util::rt::TokioIo::new(ours));
    let connect = tower::service_fn(move |_: http::Uri| {
        let ours = ours
            .take()
            .ok_or_else(|| std::io::Error::other("one connection only"));
        async move { ours }
    });
    let endpoint = Endpoint::from_static("http://kiln")
        .http2_max_header_list_size(proto::MAX_HEADER_LIST_SIZE);
    (
        endpoint.connect_with_connector(connect).await.unwrap(),
        task,
    )
}

pub(crate) fn solve(id: &str, frontend: &str) -> wire::SolveRequest {
    wire::SolveRequest {
        r#ref: id.into(),
        frontend: frontend.into(),
        ..wire::SolveRequest::default()
    }
}

pub(crate) fn for_build<T>(id: &str, message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request
        .metadata_mut()
        .insert("buildkit-controlapi-buildid", id.parse().unwrap());
    request
}
