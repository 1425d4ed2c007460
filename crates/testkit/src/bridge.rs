//! A bridge without an engine: local directories and images are maps in memory, and
//! solving remembers what was asked.

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;
use frontend::policy::SourcePolicy;
use frontend::{
    Bridge, Error, FileRange, FileStat, FrontendResult, ImageLookup, NestedRequest, Options, RefId,
    ResolvedImage, Result, SolveRequest, SourceMetadata, Warning,
};
use oci::{Digest, Platform};

/// The config of the golden base image.
pub const BASE_CONFIG: &str = r#"{"architecture":"amd64","config":{"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"Cmd":["sh"]},"created":"2023-11-14T20:00:00Z","history":[{"created":"2023-11-14T20:00:00Z","created_by":"base"}],"os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:8bf5a497ec203c5d363e25f994eed64157b86a634336f0bb7e0bf87ca4fdd5aa"]}}"#;

/// Everything a test can set, and what was asked.
pub struct FakeBridge {
    /// What the client asked for.
    pub options: Options,
    /// The client's session.
    pub session: String,
    /// By local name and path.
    pub files: BTreeMap<(String, String), Bytes>,
    /// By full name: digest and config.
    pub images: BTreeMap<String, (Digest, String)>,
    /// By full name: what a source policy puts in the place of an image.
    pub converted: BTreeMap<String, llb::Source>,
    /// Graphs handed in by name.
    pub inputs: BTreeMap<String, llb::Definition>,
    /// Graphs that were solved; a ref is the number of one.
    pub solved: Mutex<Vec<llb::Definition>>,
    /// Other frontends that were asked for.
    pub nested: Mutex<Vec<NestedRequest>>,
    /// What was warned of.
    pub warnings: Mutex<Vec<Warning>>,
    /// Steps images were resolved for.
    pub resolved: Mutex<Vec<String>>,
    /// Places nothing can be read of, and what that is.
    pub broken: BTreeMap<String, stdx::Kind>,
}

impl FakeBridge {
    /// A Dockerfile on the golden base image.
    pub fn new(dockerfile: &str) -> FakeBridge {
        let digest = "sha256:e0caebf4771446149453788a72aa2b6f43806d10e6a126e3f8383d2ee2539f21";
        let base = (digest.parse().expect("a digest"), BASE_CONFIG.to_owned());
        let mut bridge = FakeBridge {
            options: Options::default(),
            session: "session".into(),
            files: BTreeMap::new(),
            images: BTreeMap::from([("docker.io/library/base:1".to_owned(), base)]),
            converted: BTreeMap::new(),
            inputs: BTreeMap::new(),
            solved: Mutex::default(),
            nested: Mutex::default(),
            warnings: Mutex::default(),
            resolved: Mutex::default(),
            broken: BTreeMap::new(),
        };
        bridge.file("dockerfile", "Dockerfile", dockerfile.to_owned());
        bridge
    }

    /// Adds a file of a local directory.
    pub fn file(&mut self, local: &str, path: &str, data: impl Into<Bytes>) -> &mut FakeBridge {
        self.files.insert((local.into(), path.into()), data.into());
        self
    }

    /// With these options more.
    pub fn options(mut self, options: &[(&str, &str)]) -> FakeBridge {
        let own = self
            .options
            .as_map()
            .iter()
            .map(|(k, v)| (k.clone(), v.clone()));
        let new = options
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        self.options = own.chain(new).collect();
        self
    }

    /// The graph that was solved last.
    pub fn last(&self) -> llb::Definition {
        self.solved
            .lock()
            .expect("nothing panics holding it")
            .last()
            .cloned()
            .expect("something was solved")
    }

    /// Its steps.
    pub fn ops(&self) -> Vec<llb::Op> {
        let graph = llb::Graph::load(&self.last()).expect("what was solved is a graph");
        graph
            .vertices()
            .iter()
            .map(|vertex| vertex.op.clone())
            .collect()
    }

    /// The names of its steps, in order.
    pub fn names(&self) -> Vec<String> {
        let definition = self.last();
        let graph = llb::Graph::load(&definition).expect("what was solved is a graph");
        let name = |v: &llb::Vertex| v.metadata.description.get(llb::attr::CUSTOM_NAME).cloned();
        graph.vertices().iter().filter_map(name).collect()
    }

    /// The short texts of all warnings.
    pub fn warned(&self) -> Vec<String> {
        self.warnings
            .lock()
            .expect("nothing panics holding it")
            .iter()
            .map(|w| w.short.clone())
            .collect()
    }
}

#[async_trait]
impl Bridge for FakeBridge {
    fn options(&self) -> &Options {
        &self.options
    }

    fn session(&self) -> &str {
        &self.session
    }

    fn platforms(&self) -> Vec<Platform> {
        vec![
            "linux/amd64".parse().expect("a platform"),
            "linux/arm64".parse().expect("a platform"),
        ]
    }

    async fn inputs(&self) -> Result<BTreeMap<String, llb::Definition>> {
        Ok(self.inputs.clone())
    }

    async fn solve(&self, request: SolveRequest) -> Result<Option<RefId>> {
        let mut solved = self.solved.lock().expect("nothing panics holding it");
        solved.push(request.definition);
        Ok(Some(RefId::new((solved.len() - 1).to_string())))
    }

    async fn evaluate(&self, _: &RefId) -> Result<()> {
        Ok(())
    }

    async fn definition(&self, reference: &RefId) -> Result<llb::Definition> {
        let solved = self.solved.lock().expect("nothing panics holding it");
        let index: Option<usize> = reference.as_str().parse().ok();
        let definition = index.and_then(|index| solved.get(index));
        definition
            .cloned()
            .ok_or_else(|| Error::NoRef(reference.to_string()))
    }

    async fn nested(&self, request: NestedRequest) -> Result<FrontendResult> {
        self.nested
            .lock()
            .expect("nothing panics holding it")
            .push(request);
        Ok(FrontendResult::default())
    }

    async fn resolve_image(&self, name: &str, lookup: ImageLookup) -> Result<ResolvedImage> {
        self.resolved
            .lock()
            .expect("nothing panics holding it")
            .push(lookup.step_name);
        if let Some(instead) = self.converted.get(name) {
            return Err(Error::NotAnImage {
                image: format!("docker-image://{name}"),
                instead: Box::new(instead.clone()),
            });
        }
        let Some((digest, config)) = self.images.get(name) else {
            return Err(Error::Engine {
                doing: format!("{name}: not found"),
                kind: stdx::Kind::NotFound,
                source: std::sync::Arc::new(std::io::Error::other("no such image")),
            });
        };
        Ok(ResolvedImage {
            name: name.to_owned(),
            digest: *digest,
            config: Bytes::from(config.clone()),
        })
    }

    async fn resolve_source(
        &self,
        identifier: &str,
        _: &BTreeMap<String, String>,
        _: Option<&Platform>,
        _: Vec<SourcePolicy>,
        _: &llb::facts::Questions,
    ) -> Result<SourceMetadata> {
        Err(Error::NoFile {
            path: identifier.to_owned(),
        })
    }

    async fn read_file(
        &self,
        reference: &RefId,
        path: &str,
        range: Option<FileRange>,
    ) -> Result<Bytes> {
        let definition = self.definition(reference).await?;
        let graph = llb::Graph::load(&definition).expect("what was solved is a graph");
        let place = graph
            .vertices()
            .iter()
            .find_map(|vertex| match &vertex.op.kind {
                llb::OpKind::Source(source) => Some(source.identifier.clone()),
                _ => None,
            });
        let place = place.unwrap_or_default();
        let place = place.strip_prefix("local://").unwrap_or(&place).to_owned();
        if let Some(kind) = self.broken.get(&place) {
            return Err(Error::Engine {
                doing: format!("loading {place}"),
                kind: *kind,
                source: std::sync::Arc::new(std::io::Error::other("it is broken")),
            });
        }
        let data = self.files.get(&(place, path.to_owned())).cloned();
        let data = data.ok_or_else(|| Error::NoFile {
            path: path.to_owned(),
        })?;
        let longest = range.map_or(u64::MAX, |r| r.length);
        Ok(data.slice(
            ..data
                .len()
                .min(usize::try_from(longest).unwrap_or(usize::MAX)),
        ))
    }

    async fn read_dir(&self, _: &RefId, path: &str, _: Option<&str>) -> Result<Vec<FileStat>> {
        Err(Error::NoFile {
            path: path.to_owned(),
        })
    }

    async fn stat_file(&self, _: &RefId, path: &str) -> Result<FileStat> {
        Err(Error::NoFile {
            path: path.to_owned(),
        })
    }

    async fn warn(&self, _: Option<&Digest>, warning: Warning) -> Result<()> {
        self.warnings
            .lock()
            .expect("nothing panics holding it")
            .push(warning);
        Ok(())
    }

    async fn new_container(
        &self,
        _: frontend::NewContainer,
    ) -> Result<std::sync::Arc<dyn frontend::Container>> {
        Err(Error::NoContainer(String::new()))
    }

    fn failed_step(&self, _: &Error) -> Option<frontend::FailedStep> {
        None
    }
}
