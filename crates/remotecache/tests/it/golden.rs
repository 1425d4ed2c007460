//! Builds of the golden data, played with ops that answer as BuildKit's did: our solver must come
//! to BuildKit's records, in the first build, from its own cache, and from BuildKit's cache.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use oci::{Descriptor, DiffId, Digest};
use progress::{Progress, StepProgress};
use refs::LayerBlob;
use remotecache::Chains;
use remotecache::config::{CacheConfig, CacheRecord};
use remotecache::export::{OutputLayers, collect};
use remotecache::import::{Imported, Layers};
use solver::export::Mode;
use solver::{
    CacheMap, Edge, InputMap, JobOptions, KeyDigest, MemoryIndex, Op, OpContext, OpError, ResultId,
    ResultStore, Solver, VertexSpec,
};

/// An output is the digest of the record it belongs to.
type Out = String;

struct Fake {
    name: String,
    maps: Vec<CacheMap>,
    contents: Vec<Option<Digest>>,
    outputs: usize,
    runs: Arc<AtomicUsize>,
}

#[async_trait]
impl Op for Fake {
    type Output = Out;

    async fn cache_map(&self, _: &OpContext, index: usize) -> Result<CacheMap, OpError> {
        Ok(self.maps[index].clone())
    }

    async fn content_key(
        &self,
        _: &OpContext,
        input: usize,
        _: &Out,
    ) -> Result<Option<Digest>, OpError> {
        Ok(self.contents[input])
    }

    async fn run(&self, _: &OpContext, _: Vec<Out>) -> Result<Vec<Out>, OpError> {
        self.runs.fetch_add(1, Ordering::SeqCst);
        Ok((0..self.outputs)
            .map(|number| format!("{} {number}", self.name))
            .collect())
    }
}

/// Every name is a result.
struct Names;

#[async_trait]
impl ResultStore<Out> for Names {
    async fn save(&self, output: &Out) -> Result<Option<ResultId>, OpError> {
        Ok(Some(ResultId(output.clone())))
    }

    async fn load(&self, _: &OpContext, result: &ResultId) -> Result<Option<Out>, OpError> {
        Ok(Some(result.0.clone()))
    }

    fn exists(&self, _: &ResultId) -> bool {
        true
    }
}

struct OneLayer;

#[async_trait]
impl OutputLayers<Out> for OneLayer {
    async fn layers(&self, output: &Out, _: bool) -> Result<Option<Vec<LayerBlob>>, OpError> {
        Ok(Some(vec![LayerBlob {
            descriptor: Descriptor::of(oci::media_type::OCI_LAYER_GZIP, output.as_bytes()),
            diff_id: DiffId(Digest::of(output)),
            description: String::new(),
            created: None,
        }]))
    }
}

struct Golden {
    name: String,
    config: CacheConfig,
    blobs: HashMap<Digest, Descriptor>,
    /// What record digests are made of: a digest and an output.
    preimages: HashMap<String, (Digest, i64)>,
}

fn read_preimages(text: &str) -> HashMap<String, (Digest, i64)> {
    let mut found = HashMap::new();
    let mut subject = None;
    for line in text.lines() {
        if let Some(digest) = line
            .strip_suffix(" (string):")
            .filter(|l| !l.starts_with(' '))
        {
            subject = Some(digest.to_owned());
        } else if let (Some(of), Some(data)) = (&subject, line.strip_prefix("  data: "))
            && let Some((digest, output)) = data.rsplit_once('@')
            && let (Ok(digest), Ok(output)) = (digest.parse(), output.parse())
        {
            found.insert(of.clone(), (digest, output));
        }
    }
    found
}

fn all() -> Vec<Golden> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
    let mut all = Vec::new();
    for dir in std::fs::read_dir(root).expect("golden data").flatten() {
        let Ok(bytes) = std::fs::read(dir.path().join("cache.json")) else {
            continue;
        };
        let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        let layers: Vec<Descriptor> =
            serde_json::from_value(value["manifest"]["layers"].clone()).unwrap();
        let preimages = std::fs::read(dir.path().join("preimages.json")).unwrap();
        all.push(Golden {
            name: dir.file_name().to_string_lossy().into_owned(),
            config: serde_json::from_value(value["config"].clone()).unwrap(),
            blobs: layers
                .into_iter()
                .map(|layer| (layer.digest, layer))
                .collect(),
            preimages: read_preimages(&String::from_utf8_lossy(&preimages)),
        });
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

impl Golden {
    fn vertex(&self, number: usize) -> Digest {
        Digest::of(format!("vertex {} {number}", self.name))
    }

    fn is_content(&self, number: usize) -> bool {
        self.key(number).1 == -1
    }

    fn key(&self, number: usize) -> (Digest, i64) {
        let record = &self.config.records[number].digest;
        *self
            .preimages
            .get(record)
            .unwrap_or_else(|| panic!("{}: {record}", self.name))
    }

    /// Roots that are alternatives of one input are keys of one source.
    fn sources(&self) -> HashMap<usize, Vec<usize>> {
        let mut groups: HashMap<usize, Vec<usize>> = HashMap::new();
        for alternatives in self.config.records.iter().flat_map(|record| &record.inputs) {
            let roots: Vec<usize> = alternatives
                .iter()
                .map(|input| input.link as usize)
                .filter(|link| self.config.records[*link].inputs.is_empty())
                .filter(|link| !self.is_content(*link))
                .collect();
            if let Some(first) = roots.first() {
                groups.insert(*first, roots.clone());
            }
        }
        groups
    }

    /// The graph that leads to these records, and the edges nothing else uses.
    fn graph(&self, runs: &Arc<AtomicUsize>, session: &str) -> (Vec<VertexSpec<Out>>, Vec<Edge>) {
        let mut specs = Vec::new();
        let mut used = Vec::new();
        for (first, roots) in self.sources() {
            let map = |number: &usize| CacheMap {
                digest: KeyDigest::Stable(self.key(*number).0),
                inputs: Vec::new(),
                last: Some(number) == roots.last(),
            };
            let maps = roots.iter().map(map).collect();
            specs.push(self.spec(self.vertex(first), Vec::new(), maps, Vec::new(), runs));
        }
        for (number, record) in self.config.records.iter().enumerate() {
            if record.inputs.is_empty() {
                continue;
            }
            let mut edges = Vec::new();
            let mut map = CacheMap::new(KeyDigest::Stable(self.key(number).0), record.inputs.len());
            let mut contents = Vec::new();
            for (index, alternatives) in record.inputs.iter().enumerate() {
                let content = alternatives
                    .iter()
                    .find(|input| self.is_content(input.link as usize));
                let definition = alternatives
                    .iter()
                    .find(|i| !self.is_content(i.link as usize));
                let content = content.map(|input| self.key(input.link as usize).0);
                map.inputs[index] = InputMap {
                    selector: definition.and_then(|input| input.selector.parse().ok()),
                    by_content: content.is_some(),
                };
                contents.push(content);
                edges.push(match definition {
                    Some(input) => {
                        let link = input.link as usize;
                        Edge {
                            vertex: self.vertex(link),
                            output: self.key(link).1 as u32,
                        }
                    }
                    None => {
                        let digest = Digest::of(format!("{session} {number} {index}"));
                        let map = CacheMap::new(KeyDigest::Random(digest), 0);
                        specs.push(self.spec(digest, Vec::new(), vec![map], Vec::new(), runs));
                        Edge {
                            vertex: digest,
                            output: 0,
                        }
                    }
                });
            }
            used.extend(edges.iter().map(|edge| edge.vertex));
            specs.push(self.spec(self.vertex(number), edges, vec![map], contents, runs));
        }
        let targets = (0..self.config.records.len())
            .filter(|number| !self.config.records[*number].inputs.is_empty())
            .map(|number| Edge {
                vertex: self.vertex(number),
                output: self.key(number).1 as u32,
            })
            .filter(|edge| !used.contains(&edge.vertex))
            .collect();
        (specs, targets)
    }

    fn spec(
        &self,
        digest: Digest,
        inputs: Vec<Edge>,
        maps: Vec<CacheMap>,
        contents: Vec<Option<Digest>>,
        runs: &Arc<AtomicUsize>,
    ) -> VertexSpec<Out> {
        let name = digest.short();
        let op = Fake {
            name: name.clone(),
            maps,
            contents,
            outputs: 4,
            runs: runs.clone(),
        };
        VertexSpec::new(digest, name, inputs, Arc::new(op))
    }
}

/// Keys and the ways to them; results aside.
fn keys(records: &[CacheRecord]) -> Vec<CacheRecord> {
    let key = |record: &CacheRecord| CacheRecord {
        layers: Vec::new(),
        ..record.clone()
    };
    records.iter().map(key).collect()
}

async fn build(
    golden: &Golden,
    solver: &Solver<Out>,
    session: &str,
    import: Option<Arc<Imported<Out>>>,
) -> (Vec<CacheRecord>, usize, usize) {
    let runs = Arc::new(AtomicUsize::new(0));
    let (specs, targets) = golden.graph(&runs, session);
    let job = solver.job(Progress::default(), JobOptions::default());
    if let Some(import) = import {
        job.import(import).unwrap();
    }
    job.load(specs).unwrap();
    for target in &targets {
        job.solve(*target).await.unwrap();
    }
    let locals = runs.load(Ordering::SeqCst);
    let chains = collect(&job.handle(), &targets, Mode::Max, &OneLayer)
        .await
        .unwrap();
    let records = chains.marshal(|_| true).0.records;
    let results = records
        .iter()
        .filter(|record| !record.layers.is_empty())
        .count();
    (keys(&records), locals, results)
}

/// Sources of a session have to be read anew by each build.
fn session_sources(golden: &Golden) -> usize {
    let inputs = golden
        .config
        .records
        .iter()
        .flat_map(|record| &record.inputs);
    let only_content = |alternatives: &&Vec<remotecache::config::CacheInput>| {
        alternatives
            .iter()
            .all(|input| golden.is_content(input.link as usize))
    };
    inputs.filter(only_content).count()
}

/// Rows: C02, C03, I35, I38, core:X17, X22, X24, X25, X29
#[tokio::test]
async fn records_are_buildkits() {
    let all = all();
    assert!(all.len() > 20);
    for golden in &all {
        let expected = keys(&golden.config.records);
        let solver = Solver::new(
            Arc::new(MemoryIndex::new()),
            Arc::new(Names),
            solver::Options::default(),
        );
        let (records, runs, results) = build(golden, &solver, "one", None).await;
        assert_eq!(records, expected, "{}: the first build", golden.name);
        let with_result = golden
            .config
            .records
            .iter()
            .filter(|record| !record.layers.is_empty())
            .count();
        assert_eq!(results, with_result, "{}: results", golden.name);
        assert!(runs > 0);
        let (records, runs, _) = build(golden, &solver, "two", None).await;
        assert_eq!(
            runs,
            session_sources(golden),
            "{}: all from our cache",
            golden.name
        );
        assert_eq!(
            records, expected,
            "{}: exported from our cache",
            golden.name
        );
    }
}

/// Rows: C04, C05, I32, I45, R01
#[tokio::test]
async fn buildkits_cache_is_used() {
    for golden in &all() {
        let solver = Solver::new(
            Arc::new(MemoryIndex::new()),
            Arc::new(Names),
            solver::Options::default(),
        );
        let chains = Chains::parse(&golden.config, &golden.blobs).unwrap();
        let sizes: BTreeMap<Digest, u64> = golden
            .blobs
            .values()
            .map(|blob| (blob.digest, blob.size))
            .collect();
        let layers = Layers {
            provider: Arc::new(Sizes(sizes)),
            fetch_into: None,
            origin: None,
            make: Arc::new(|blobs: Vec<LayerBlob>| {
                let digests: Vec<_> = blobs
                    .iter()
                    .map(|blob| blob.descriptor.digest.to_string())
                    .collect();
                Ok(Some(digests.join(" ")))
            }),
        };
        let import = || {
            Some(Imported::start(
                layers_like(&layers),
                StepProgress::none(),
                {
                    let chains = chains.clone();
                    async move { Ok(chains) }
                },
            ))
        };
        let (records, runs, _) = build(golden, &solver, "one", import()).await;
        assert_eq!(
            runs,
            session_sources(golden),
            "{}: all from BuildKit's cache",
            golden.name
        );
        assert_eq!(records, keys(&golden.config.records), "{}", golden.name);
        // What was hit is ours now.
        let (_, runs, _) = build(golden, &solver, "two", None).await;
        assert_eq!(
            runs,
            session_sources(golden),
            "{}: without the import",
            golden.name
        );
    }
}

fn layers_like(layers: &Layers<Out>) -> Layers<Out> {
    let (provider, make) = (layers.provider.clone(), layers.make.clone());
    Layers {
        provider,
        fetch_into: None,
        origin: None,
        make,
    }
}

/// A place that has every blob but is never asked for its bytes: results stay lazy.
struct Sizes(BTreeMap<Digest, u64>);

#[async_trait]
impl content::Provider for Sizes {
    async fn size(&self, blob: &Descriptor) -> content::Result<u64> {
        self.0
            .get(&blob.digest)
            .copied()
            .ok_or(content::Error::NotFound(blob.digest))
    }

    async fn read(&self, blob: &Descriptor, _: u64) -> content::Result<content::ByteStream> {
        panic!("{} is fetched", blob.digest)
    }
}
