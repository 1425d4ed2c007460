//! How results were made, told as statements beside them (rows P02, P03, P04).
//!
//! While a build runs, every bridge [notes](Asked) what was asked of it. When the results
//! are there, what went into each is gathered from the graphs behind them, and before
//! each export it becomes a statement, with the layers of that export.

mod capture;
mod steps;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use attest::{Mode, Options, Provenance};
use bytes::Bytes;
use exporter::{Source, Statement};
use frontend::{FrontendResult, RefId, Refs};
use oci::{Descriptor, Digest, Platform};
use progress::StepProgress;
use refs::BlobOptions;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::bridge::Shared;
use crate::error::kind_of;
use crate::{Failure, Predicate};
use capture::Capture;

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
    images: Vec<SeenImage>,
    nested: Vec<Arc<Asked>>,
}

/// An image a frontend looked at.
#[derive(Clone)]
pub(crate) struct SeenImage {
    pub(crate) name: String,
    pub(crate) platform: Option<Platform>,
    pub(crate) digest: Digest,
    pub(crate) layout: bool,
}

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
    pub(crate) fn image(&self, image: SeenImage) {
        self.seen().images.push(image);
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

    fn all_images(&self, into: &mut Vec<SeenImage>) {
        let seen = self.seen();
        into.extend(seen.images.iter().cloned());
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

/// The provenance of one build's results.
pub(crate) struct Told {
    options: Options,
    started: OffsetDateTime,
    invocation: String,
    /// By the id of the result.
    results: BTreeMap<String, Made>,
}

/// What is known of one result.
struct Made {
    facts: Provenance,
    /// The steps' numbers; empty when steps are not told.
    numbers: HashMap<Digest, usize>,
    reference: RefId,
}

/// Gathers what went into the results.
pub(crate) async fn gather(
    options: Options,
    (started, invocation): (OffsetDateTime, &str),
    shared: &Shared,
    asked: &Arc<Asked>,
    result: &FrontendResult,
) -> Result<Told, Failure> {
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
        let mut images = Vec::new();
        asked.all_images(&mut images);
        let several = matches!(result.refs, Refs::Many(_));
        capture.add_seen(images, if several { &platforms } else { &[] }, id);
        let mut facts = capture.facts(&asked);
        facts.builder_platform = shared
            .engine
            .info()
            .platforms
            .first()
            .map(Platform::to_string)
            .unwrap_or_default();
        if options.complete_materials && !facts.materials_complete {
            let error = attest::Error::Incomplete(capture.reason());
            return Err(Failure::of(error.kind(), &error));
        }
        let mut numbers = HashMap::new();
        if options.mode == Mode::Max {
            let solved = shared
                .get(reference)
                .map_err(|error| Failure::of_frontend(&error))?;
            let definition = solved.definition.clone();
            let told = stdx::task::blocking(move || steps::told(&definition)).await;
            let told = told.map_err(|error| Failure::of(error.kind(), &error))?;
            (facts.steps, facts.metadata.source, numbers) =
                (Some(told.steps), told.source, told.numbers);
        }
        let facts = facts.shaped(&options);
        results.insert(
            id.to_owned(),
            Made {
                facts,
                numbers,
                reference: reference.clone(),
            },
        );
    }
    Ok(Told {
        options,
        started,
        invocation: invocation.to_owned(),
        results,
    })
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
pub(crate) fn for_history(asked: Option<&Options>) -> Options {
    Options {
        mode: Mode::Max,
        builder_id: asked.map_or_else(String::new, |asked| asked.builder_id.clone()),
        ..Options::default()
    }
}

impl Told {
    /// What is known now, by the ids of the results: without the layers, of which there
    /// may be none yet.
    pub(crate) fn predicates(self) -> BTreeMap<String, Predicate> {
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
}
