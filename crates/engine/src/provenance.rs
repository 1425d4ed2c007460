//! How results were made, told as statements beside them (rows P02, P03, P04).
//!
//! While a build runs, every bridge [notes](Asked) what was asked of it. When the results
//! are there, what went into each is gathered from the graphs behind them, and before
//! each export it becomes a statement, with the layers of that export.

mod capture;
mod steps;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use attest::{BuildConfig, Mode, Options, Provenance};
use bytes::Bytes;
use executor::usage::SystemRecorder;
use exporter::{Source, Statement};
use frontend::{FrontendResult, RefId, Refs};
use oci::{Descriptor, Digest, Platform};
use ops::Build;
use progress::StepProgress;
use refs::BlobOptions;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::bridge::Shared;
use crate::error::kind_of;
use crate::{Failure, Predicate};
use capture::Capture;
use steps::Steps;

/// What one frontend was asked, and what it asked in turn.
#[derive(Default)]
pub(crate) struct Asked {
    frontend: String,
    args: BTreeMap<String, String>,
    /// Graphs came with the request, of which nothing is known.
    inputs: bool,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    refs: Vec<RefId>,
    images: SeenImages,
    nested: Vec<Arc<Asked>>,
}

/// An image a frontend looked at.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SeenImage {
    pub(crate) name: String,
    pub(crate) platform: Option<Platform>,
    pub(crate) layout: bool,
}

/// Images, and what they were when they were looked at first.
type SeenImages = BTreeMap<SeenImage, Digest>;

impl Asked {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another frontend is asked.
    pub(crate) fn nested(
        &self,
        frontend: &str,
        options: &BTreeMap<String, String>,
        inputs: bool,
    ) -> Arc<Asked> {
        let asked = Asked {
            frontend: frontend.to_owned(),
            args: told(options),
            inputs,
            seen: Mutex::default(),
        };
        let asked = Arc::new(asked);
        self.seen().nested.push(asked.clone());
        asked
    }

    /// A graph was given to the solver.
    pub(crate) fn loaded(&self, reference: RefId) {
        self.seen().refs.push(reference);
    }

    /// An image was looked at.
    pub(crate) fn image(&self, image: SeenImage, digest: Digest) {
        self.seen().images.entry(image).or_insert(digest);
    }

    /// Who asked for a result: the innermost.
    fn find(self: &Arc<Asked>, reference: &RefId) -> Option<Arc<Asked>> {
        let seen = self.seen();
        let nested = seen.nested.iter().find_map(|asked| asked.find(reference));
        nested.or_else(|| seen.refs.contains(reference).then(|| self.clone()))
    }

    fn all_refs(&self, into: &mut Vec<RefId>) {
        let seen = self.seen();
        into.extend(seen.refs.iter().cloned());
        seen.nested.iter().for_each(|asked| asked.all_refs(into));
    }

    fn all_images(&self, into: &mut SeenImages) {
        let seen = self.seen();
        for (image, digest) in &seen.images {
            into.entry(image.clone()).or_insert(*digest);
        }
        seen.nested.iter().for_each(|asked| asked.all_images(into));
    }
}

/// The options that are told: not those that only say where and how it was built.
fn told(options: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let context = options.get("contextkey").filter(|key| !key.is_empty());
    let context = context.map_or("context", String::as_str);
    let hidden = |key: &str| {
        matches!(
            key,
            "cgroup-parent" | "image-resolve-mode" | "platform" | "cache-imports"
        ) || key.starts_with("attest:")
    };
    let told = options
        .iter()
        .filter(|(key, _)| !hidden(key))
        .map(|(key, value)| {
            let address = key == context || key.starts_with("context:");
            let value = if address {
                attest::redacted(value)
            } else {
                value.clone()
            };
            (key.clone(), value)
        });
    told.collect()
}

/// What went into one build's results, nothing left out.
pub(crate) struct Gathered {
    started: OffsetDateTime,
    invocation: String,
    /// By the id of the result.
    results: BTreeMap<String, Known>,
    /// What was used meanwhile, if anybody wants to know.
    used: Used,
}

/// What was used of the machine, as it is told.
#[derive(Default)]
pub(crate) struct Used {
    by_step: BTreeMap<Digest, Value>,
    system: Vec<Value>,
}

impl Used {
    /// By the steps of a build, and by everything since it began.
    pub(crate) async fn of(build: &Build, system: Option<&SystemRecorder>) -> Used {
        let Some((usage, system)) = build.usage.as_ref().zip(system) else {
            return Used::default();
        };
        let value = "plain data can always be written";
        let by_step = usage.by_step().into_iter().map(|(step, samples)| {
            let samples = serde_json::to_value(samples).expect(value);
            (step, samples)
        });
        let system = system.samples().await.into_iter();
        Used {
            by_step: by_step.collect(),
            system: system
                .map(|sample| serde_json::to_value(sample).expect(value))
                .collect(),
        }
    }
}

/// What is known of one result.
struct Known {
    facts: Provenance,
    /// Why its materials are not complete, if they are not.
    incomplete: String,
    /// If anybody wants them.
    steps: Option<Result<Steps, Failure>>,
    reference: RefId,
}

/// The provenance of one build's results, as somebody wants it told.
pub(crate) struct Told {
    options: Options,
    started: OffsetDateTime,
    invocation: String,
    /// By the id of the result.
    results: BTreeMap<String, Made>,
}

/// What is told of one result.
struct Made {
    facts: Provenance,
    /// The steps' numbers; empty when steps are not told.
    numbers: Arc<HashMap<Digest, usize>>,
    reference: RefId,
}

/// How the results were made: as the exports tell it, and as the history does.
pub(crate) async fn tell(
    exported: Option<Options>,
    remembered: bool,
    when: (OffsetDateTime, &str),
    shared: &Shared,
    asked: &Arc<Asked>,
    result: &FrontendResult,
    used: Used,
) -> Result<(Option<Told>, BTreeMap<String, Predicate>), Failure> {
    let nothing = || Ok((None, BTreeMap::new()));
    let unknown = |failure: &Failure| {
        tracing::warn!(failure.message, "how the results were made is not known");
    };
    if exported.is_none() && !remembered {
        return nothing();
    }
    let in_full = |options: &Options| options.mode == Mode::Max;
    let steps = remembered || exported.as_ref().is_some_and(in_full);
    let mut gathered = match gather(steps, when, shared, asked, result).await {
        // That it cannot be told is no reason to have no result.
        Err(failure) if exported.is_none() => {
            unknown(&failure);
            return nothing();
        }
        gathered => gathered?,
    };
    gathered.used = used;
    let mut history = BTreeMap::new();
    if remembered {
        match gathered.shape(for_history(exported.as_ref())) {
            Ok(told) => history = told.predicates(),
            Err(failure) => unknown(&failure),
        }
    }
    let exported = exported.map(|options| gathered.shape(options));
    Ok((exported.transpose()?, history))
}

/// Gathers what went into the results.
async fn gather(
    steps: bool,
    (started, invocation): (OffsetDateTime, &str),
    shared: &Shared,
    asked: &Arc<Asked>,
    result: &FrontendResult,
) -> Result<Gathered, Failure> {
    let platforms = platforms(result)?;
    let finals: Vec<&RefId> = result
        .refs
        .iter()
        .filter_map(|(_, reference)| reference)
        .collect();
    let mut results = BTreeMap::new();
    for (id, reference) in result.refs.iter() {
        let Some(reference) = reference else { continue };
        let nobody = || Arc::new(Asked::default());
        let asked = asked.find(reference).unwrap_or_else(nobody);
        let mut refs = vec![reference.clone()];
        asked.all_refs(&mut refs);
        let mut capture = Capture::default();
        for (at, one) in refs.iter().enumerate() {
            if at == 0 || !finals.contains(&one) {
                capture.walk(shared, one).await?;
            }
        }
        capture.proxies_of_others(shared);
        let mut images = SeenImages::new();
        asked.all_images(&mut images);
        let several = matches!(result.refs, Refs::Many(_));
        capture.add_seen(&images, if several { &platforms } else { &[] }, id);
        let mut facts = capture.facts(&asked);
        facts.environment = shared.engine.0.environment.clone();
        facts.request.compatibility = shared.compatibility.number();
        facts.builder_platform = shared
            .engine
            .info()
            .platforms
            .first()
            .map(Platform::to_string)
            .unwrap_or_default();
        let mut known = Known {
            incomplete: capture.reason(),
            facts,
            steps: None,
            reference: reference.clone(),
        };
        if steps {
            let solved = shared
                .get(reference)
                .map_err(|error| Failure::of_frontend(&error))?;
            let definition = solved.definition.clone();
            let told = stdx::task::blocking(move || steps::told(&definition)).await;
            known.steps = Some(told.map_err(|error| Failure::of(error.kind(), &error)));
        }
        results.insert(id.to_owned(), known);
    }
    Ok(Gathered {
        started,
        invocation: invocation.to_owned(),
        results,
        used: Used::default(),
    })
}

impl Used {
    fn add(&self, told: &mut BuildConfig, numbers: &HashMap<Digest, usize>) {
        for (step, samples) in &self.by_step {
            let number = numbers.get(step);
            if let Some(step) = number.and_then(|number| told.steps.get_mut(*number)) {
                step.usage = Some(samples.clone());
            }
        }
    }
}

impl Gathered {
    /// What `options` want told of it. Steps are told as far as they were gathered.
    fn shape(&self, options: Options) -> Result<Told, Failure> {
        let mut results = BTreeMap::new();
        for (id, known) in &self.results {
            if options.complete_materials && !known.facts.materials_complete {
                let error = attest::Error::Incomplete(known.incomplete.clone());
                return Err(Failure::of(error.kind(), &error));
            }
            let mut made = Made {
                facts: known.facts.clone(),
                numbers: Arc::default(),
                reference: known.reference.clone(),
            };
            if let (Mode::Max, Some(steps)) = (options.mode, &known.steps) {
                let steps = steps.as_ref().map_err(Failure::clone)?;
                let mut told = steps.steps.clone();
                if options.capture_usage {
                    self.used.add(&mut told, &steps.numbers);
                }
                made.facts.steps = Some(told);
                made.facts.metadata.source.clone_from(&steps.source);
                made.numbers = steps.numbers.clone();
            }
            if options.capture_usage {
                made.facts.metadata.system.clone_from(&self.used.system);
            }
            made.facts = made.facts.shaped(&options);
            results.insert(id.clone(), made);
        }
        Ok(Told {
            options,
            started: self.started,
            invocation: self.invocation.clone(),
            results,
        })
    }
}

/// The platforms of the results by their ids.
pub(crate) fn platforms(result: &FrontendResult) -> Result<Vec<(String, Platform)>, Failure> {
    let by_id = result.refs.iter().filter(|(id, _)| !id.is_empty());
    let by_id: BTreeMap<_, _> = by_id.map(|(id, _)| (id.to_owned(), None)).collect();
    let source = Source::new(None, by_id, &result.metadata);
    let source = source.map_err(|error| Failure::of(error.kind(), &error))?;
    Ok(source
        .results
        .into_iter()
        .map(|one| (one.id, one.platform))
        .collect())
}

/// What the record of a build tells: all there is, in the name `asked` gives.
fn for_history(asked: Option<&Options>) -> Options {
    Options {
        mode: Mode::Max,
        builder_id: asked.map_or_else(String::new, |asked| asked.builder_id.clone()),
        ..Options::default()
    }
}

impl Told {
    /// What is known now, by the ids of the results: without the layers, of which there
    /// may be none yet.
    fn predicates(self) -> BTreeMap<String, Predicate> {
        let finished = OffsetDateTime::now_utc();
        let version = self.options.version;
        let told = self.results.into_iter().map(|(id, made)| {
            let mut facts = made.facts;
            facts.invocation.clone_from(&self.invocation);
            (facts.started, facts.finished) = (written(self.started), written(finished));
            let predicate = Predicate {
                kind: version.predicate_type().to_owned(),
                bytes: Bytes::from(facts.predicate(version)),
            };
            (id, predicate)
        });
        told.collect()
    }

    /// Adds the statements to what is exported. `blobs` are the layers the export makes,
    /// if it makes any.
    pub(crate) async fn add(
        &self,
        source: &mut Source,
        shared: &Shared,
        blobs: Option<BlobOptions>,
    ) -> Result<(), Failure> {
        let finished = OffsetDateTime::now_utc();
        for one in &mut source.results {
            let Some(found) = self.results.get(&one.id).or_else(|| self.results.get("")) else {
                continue;
            };
            let mut facts = found.facts.clone();
            facts.invocation.clone_from(&self.invocation);
            (facts.started, facts.finished) = (written(self.started), written(finished));
            if !found.numbers.is_empty() {
                if let (Some(files), Some(blobs)) = (&one.files, &blobs) {
                    let provider = &*shared.deeds.build.provider;
                    let made = files
                        .layers(blobs, refs::Create::Yes, provider, &StepProgress::none())
                        .await;
                    made.map_err(|error| Failure::of(error.kind(), &error))?;
                }
                facts.metadata.layers = layers(shared, found, &blobs.unwrap_or_default()).await?;
            }
            one.statements.push(Statement {
                predicate_type: self.options.version.predicate_type().to_owned(),
                predicate: Bytes::from(facts.predicate(self.options.version)),
                file_name: self.options.filename.clone(),
                inline_only: self.options.inline_only,
                ..Statement::default()
            });
        }
        Ok(())
    }
}

fn written(time: OffsetDateTime) -> String {
    time.format(&Rfc3339)
        .expect("years of today have four digits")
}

/// The layers of every step whose result is there, as far as they are blobs.
async fn layers(
    shared: &Shared,
    found: &Made,
    options: &BlobOptions,
) -> Result<BTreeMap<String, Vec<Vec<Descriptor>>>, Failure> {
    let solved = shared
        .get(&found.reference)
        .map_err(|error| Failure::of_frontend(&error))?;
    let edge = solved.edge(&found.reference);
    let edge = edge.map_err(|error| Failure::of_frontend(&error))?;
    let graph = shared.job.export(edge, false).await;
    let graph = graph.map_err(|error| Failure::of(kind_of(&error), &error))?;
    let mut layers: BTreeMap<String, Vec<Vec<Descriptor>>> = BTreeMap::new();
    for node in &graph.nodes {
        let mut output = node.output.clone();
        if let (None, Some(record)) = (&output, node.records.first()) {
            // A record that cannot be loaded has no layers to tell of.
            output = shared.job.load_record(record).await.unwrap_or_default();
        }
        let Some(files) = output.and_then(|output| output.0) else {
            continue;
        };
        let provider = &*shared.deeds.build.provider;
        let chain = match files
            .layers(options, refs::Create::No, provider, &StepProgress::none())
            .await
        {
            Ok(chain) => chain,
            Err(refs::Error::NoBlobs(_)) => continue,
            Err(error) => return Err(Failure::of(error.kind(), &error)),
        };
        let chain: Vec<Descriptor> = chain
            .into_iter()
            .map(|layer| plain(layer.descriptor))
            .collect();
        for edge in node.edges.iter().filter(|_| !chain.is_empty()) {
            if let Some(number) = found.numbers.get(&edge.vertex) {
                let chains = layers
                    .entry(format!("step{number}:{}", edge.output))
                    .or_default();
                if !chains.contains(&chain) {
                    chains.push(chain.clone());
                }
            }
        }
    }
    Ok(layers)
}

/// A descriptor without what only we need to know.
fn plain(mut layer: Descriptor) -> Descriptor {
    let ours = |key: &str| key.starts_with("containerd.io/") || key.starts_with("buildkit/");
    layer.annotations.retain(|key, _| !ours(key));
    layer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    /// Rows: P02
    #[test]
    fn a_result_belongs_to_the_innermost_frontend() {
        let root = Arc::new(Asked::default());
        let outer = root.nested(
            "gateway.v0",
            &options(&[("platform", "x"), ("context", "https://u:p@h/r.git")]),
            false,
        );
        let inner = outer.nested(
            "dockerfile.v0",
            &options(&[("target", "t"), ("attest:provenance", "")]),
            true,
        );
        let id = |name: &str| RefId::new(name.to_owned());
        outer.loaded(id("a"));
        inner.loaded(id("b"));
        assert_eq!(root.find(&id("a")).unwrap().frontend, "gateway.v0");
        let found = root.find(&id("b")).unwrap();
        assert_eq!(
            (found.frontend.as_str(), found.args.len(), found.inputs),
            ("dockerfile.v0", 1, true)
        );
        assert!(root.find(&id("c")).is_none());
        assert_eq!(
            outer.args,
            options(&[("context", "https://xxxxx:xxxxx@h/r.git")])
        );
        let mut all = Vec::new();
        outer.all_refs(&mut all);
        assert_eq!(all.len(), 2);
    }

    /// Rows: P02
    #[test]
    fn an_image_looked_at_often_is_one() {
        let root = Arc::new(Asked::default());
        let inner = root.nested("dockerfile.v0", &BTreeMap::new(), false);
        let look = |asked: &Asked, platform: Option<&str>, digest: &str| {
            let image = SeenImage {
                name: "docker.io/library/alpine:3".to_owned(),
                platform: platform.map(|platform| platform.parse().unwrap()),
                layout: false,
            };
            asked.image(image, Digest::of(digest));
        };
        for asked in [&root, &inner] {
            for _ in 0..1000 {
                look(asked, None, "first");
                look(asked, None, "later");
                look(asked, Some("linux/arm64"), "other");
            }
        }
        assert_eq!(root.seen().images.len(), 2);
        let mut all = SeenImages::new();
        root.all_images(&mut all);
        let digests: Vec<Digest> = all.into_values().collect();
        assert_eq!(digests, [Digest::of("first"), Digest::of("other")]);
    }

    fn known(steps: Option<Result<Steps, Failure>>) -> Gathered {
        let known = Known {
            facts: Provenance::default(),
            incomplete: "folders were used".to_owned(),
            steps,
            reference: RefId::new("r"),
        };
        Gathered {
            started: OffsetDateTime::UNIX_EPOCH,
            invocation: "i".to_owned(),
            results: [(String::new(), known)].into(),
            used: Used {
                by_step: [(Digest::of("step"), Value::from("much"))].into(),
                system: vec![Value::from("all")],
            },
        }
    }

    /// Rows: P02, X16
    #[test]
    fn what_is_gathered_once_is_told_as_each_wants_it() {
        let (least, most) = (
            Options {
                mode: Mode::Min,
                ..Options::default()
            },
            for_history(None),
        );
        let steps = Steps {
            steps: BuildConfig {
                steps: vec![attest::Step::default()],
                ..BuildConfig::default()
            },
            source: None,
            numbers: Arc::new([(Digest::of("step"), 0)].into()),
        };
        let gathered = known(Some(Ok(steps)));
        let told = |options: &Options| gathered.shape(options.clone()).unwrap().results.remove("");
        let (min, max) = (told(&least).unwrap(), told(&most).unwrap());
        assert!(min.facts.steps.is_none() && min.numbers.is_empty());
        assert!(max.facts.steps.is_some() && max.numbers.len() == 1);
        // What was used is told to those who ask for it.
        let usage = Options {
            capture_usage: true,
            ..for_history(None)
        };
        let used = told(&usage).unwrap().facts;
        let of_steps = |facts: &Provenance| facts.steps.as_ref().unwrap().steps[0].usage.clone();
        assert_eq!(of_steps(&used), Some(Value::from("much")));
        assert_eq!(used.metadata.system, ["all"]);
        assert!(of_steps(&max.facts).is_none() && max.facts.metadata.system.is_empty());
        // Steps that cannot be told are asked for only by those who want them.
        let gathered = known(Some(Err(Failure::new(stdx::Kind::Internal, "no steps"))));
        assert!(gathered.shape(least.clone()).is_ok());
        assert_eq!(gathered.shape(most).err().unwrap().message, "no steps");
        let strict = Options {
            complete_materials: true,
            ..least
        };
        let refused = known(None).shape(strict).err().unwrap();
        assert!(refused.message.contains("folders were used"), "{refused:?}");
    }
}
