//! One build, from request to response.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use content::Provider;
use executor::cdi::Grants;
use executor::usage::SystemRecorder;
use exporter::{Source, Statement};
use frontend::{FrontendResult, Options, RefId, Refs};
use futures::FutureExt as _;
use futures::future::{BoxFuture, join_all, try_join, try_join_all};
use netproxy::Gate;
use ops::{Build, Deeds, Proxied, StepUsage};
use progress::Progress;
use refs::BlobOptions;
use registry::{Credentials, Origins};
use remotecache::ExportTo;
use session::Group;
use solver::{Edge, JobOptions};
use source::{Resolutions, SessionCredentials};
use stdx::Kind;

use crate::attestations;
use crate::bridge::{self, BuildBridge, Shared};
use crate::cache::{self, CacheExport, Imports};
use crate::export::{self, Export, Reading};
use crate::nested::Within;
use crate::places::Places;
use crate::policy::Policies;
use crate::provenance::{self, Asked, Told, Used};
use crate::proxy::PolicyGate;
use crate::verify;
use crate::{Built, Engine, Failure, Request, Spec, What};

impl Engine {
    /// Builds; dropping the future cancels.
    pub async fn build(&self, mut request: Request, progress: Progress) -> Result<Built, Failure> {
        let started = time::OffsetDateTime::now_utc();
        let options = request.what.options();
        let wanted = attestations::wanted(&options)?;
        let epoch = options
            .get("build-arg:SOURCE_DATE_EPOCH")
            .filter(|epoch| !epoch.is_empty());
        let how = Reading {
            epoch: epoch.map(String::as_str),
            compatibility: request.compatibility,
        };
        let exports = export::exports(&request.exporters, how)?;
        let cache_exports = cache::exports(&with_inline(request.cache_exports.clone(), &options))?;
        let captures = |options: &attest::Options| options.capture_usage;
        let capture = wanted.provenance.as_ref().is_some_and(captures);
        let (policy, sessions) = (std::mem::take(&mut request.policy), self.sessions().clone());
        let policies = stdx::task::blocking(move || Policies::new(&policy, &sessions)).await;
        let policies = policies.map_err(|error| Failure::of(error.kind(), &error))?;
        let (build, places) = self.build_parts(&request, &policies, capture)?;
        let system = capture.then(SystemRecorder::start);
        let deeds = Deeds {
            parts: self.0.parts.clone(),
            build: build.clone(),
        };
        let job = self.0.solver.job(progress.clone(), JobOptions::default());
        let imports = Imports::new(self.clone(), build.clone(), places);
        for import in &request.cache_imports {
            imports.start(import, &job, &progress);
        }
        let mut shared = Shared::new(
            self.clone(),
            deeds,
            job.handle(),
            progress.clone(),
            request.session.clone(),
            imports,
            policies,
        );
        shared.compatibility = request.compatibility;
        shared.entitlements = request.entitlements.iter().cloned().collect();
        let shared = Arc::new(shared);
        // Whatever ends the build, it leaves before the rest of it goes: other builds may share a
        // step that is done with what this one has, and only of one that has left they take over.
        let job = job;

        let asked = Arc::new(Asked::default());
        let mut result = results(&shared, request.what, &asked)
            .await
            .map_err(|error| Failure::of_frontend(&error))?;
        // Boxed, or the compiler cannot see that the whole may cross threads.
        let scanned = attestations::scan(&wanted, &options, &shared, &asked, &mut result);
        scanned.boxed().await?;
        let solving = solve_all(&shared, &result).boxed();
        let reading = attestations::statements(&shared, &result).boxed();
        let (solved, statements) = try_join(solving, reading).await?;
        let when = (started, request.id.as_str());
        let used = Used::of(&build, system.as_ref()).await;
        drop(system);
        let telling = provenance::tell(
            wanted.provenance,
            request.remembered,
            when,
            &shared,
            &asked,
            &result,
            used,
        );
        let (told, provenance) = telling.boxed().await?;
        let running = Running {
            engine: self,
            build: &build,
            shared: &shared,
            progress: &progress,
            statements: &statements,
            told: told.as_ref(),
        };
        let mut exports = exports;
        if request.session_exporter {
            let chosen = running.chosen_by_client(&result, exports.len(), how);
            exports.extend(chosen.await?);
        }
        let source = source(&result, &solved)?;
        verify::warn(&options, self, &result, &source, &progress);
        let (mut response, images) = running
            .export(&source, &solved, &exports, &cache_exports)
            .await?;
        let told = result
            .metadata
            .iter()
            .filter(|(key, _)| key.starts_with("frontend."));
        response.extend(
            told.map(|(key, value)| (key.clone(), String::from_utf8_lossy(value).into_owned())),
        );
        if request.session_exporter {
            running.tell_client(&response).await?;
        }
        drop(job);
        Ok(Built {
            response,
            images,
            provenance,
        })
    }

    /// What this build has of its own.
    fn build_parts(
        &self,
        request: &Request,
        policies: &Policies,
        capture_usage: bool,
    ) -> Result<(Arc<Build>, Arc<Places>), Failure> {
        let group = match request.session.as_str() {
            "" => Group::default(),
            id => Group::of(id),
        };
        let sessions = self.sessions().clone();
        let salt = request.id.as_bytes().to_vec();
        let credentials: Arc<dyn Credentials> = Arc::new(SessionCredentials::new(
            sessions.clone(),
            group.clone(),
            salt,
        ));
        let origins = Origins::new(self.0.registry.clone(), credentials.clone());
        let places = Arc::new(Places::new(vec![
            Arc::new(self.0.store.clone()),
            Arc::new(origins),
        ]));
        let mut build = Build {
            sessions,
            group,
            project: project(&request.what.options()),
            credentials,
            resolutions: Arc::new(Resolutions::default()),
            provider: places.clone() as Arc<dyn Provider>,
            allow_network_host: false,
            allow_security_insecure: false,
            devices: Grants::default(),
            usage: capture_usage.then(StepUsage::default),
            proxy: (request.proxy_network || self.0.proxy_network).then(|| {
                let gate = (!policies.is_empty()).then(|| policies.clone());
                let gate = gate.map(|policies| Arc::new(PolicyGate(policies)) as Arc<dyn Gate>);
                Proxied::new(self.0.upstreams.clone(), gate)
            }),
        };
        for entitlement in &request.entitlements {
            match entitlement.as_str() {
                "network.host" => build.allow_network_host = true,
                "security.insecure" => build.allow_security_insecure = true,
                "device" => build.devices.all = true,
                other if other.starts_with("device=") => {
                    let added = build.devices.add(&other["device=".len()..]);
                    added.map_err(|why| {
                        let text = format!("invalid entitlement {other}: {why}");
                        Failure::new(Kind::InvalidInput, text)
                    })?;
                }
                other => {
                    return Err(Failure::new(
                        Kind::InvalidInput,
                        format!("invalid entitlement {other}"),
                    ));
                }
            }
        }
        Ok((Arc::new(build), places))
    }
}

/// What is built, as far as the request itself says: a context that is no directory of the
/// client, and the file with the instructions.
fn project(options: &BTreeMap<String, String>) -> String {
    let said = ["context", "filename"].map(|name| options.get(name).map_or("", String::as_str));
    said.join("\0")
}

/// `BUILDKIT_INLINE_CACHE=1` is an older way to ask for an inline cache.
fn with_inline(mut exports: Vec<Spec>, options: &BTreeMap<String, String>) -> Vec<Spec> {
    let asked = options
        .get("build-arg:BUILDKIT_INLINE_CACHE")
        .map(String::as_str);
    let there = exports.iter().any(|export| export.kind == "inline");
    if matches!(asked, Some("1" | "true")) && !there {
        exports.push(Spec {
            kind: "inline".into(),
            attrs: BTreeMap::new(),
        });
    }
    exports
}

/// Runs the frontend, or takes the graph as it is.
async fn results(
    shared: &Arc<Shared>,
    what: What,
    asked: &Arc<Asked>,
) -> frontend::Result<FrontendResult> {
    let bridge = |options, inputs, asked| {
        let bridge = BuildBridge::new(shared.clone(), Options::new(options), inputs, asked);
        Arc::new(bridge)
    };
    match what {
        What::Definition { definition, .. } => {
            let within = Within::outermost(shared.policies.clone(), asked.clone());
            let one = shared.load(definition, &within).await?;
            Ok(FrontendResult {
                refs: Refs::One(one),
                ..FrontendResult::default()
            })
        }
        What::Frontend {
            name,
            options,
            inputs,
        } => {
            let asked = asked.nested(&name, &options, !inputs.is_empty());
            bridge::run(&name, &bridge(options, inputs, asked)).await
        }
        What::Client {
            options,
            inputs,
            run,
        } => run(bridge(options, inputs, asked.clone())).await,
    }
}

/// One result, solved.
struct Solved {
    edge: Edge,
    files: Option<refs::Ref>,
}

/// All results by their ids, solved side by side; the first failure ends it.
async fn solve_all(
    shared: &Shared,
    result: &FrontendResult,
) -> Result<BTreeMap<String, Option<Solved>>, Failure> {
    let all = result.refs.iter().map(|(id, reference)| async move {
        let solved = match reference {
            None => None,
            Some(reference) => Some(solve(shared, reference).await?),
        };
        Ok::<_, frontend::Error>((id.to_owned(), solved))
    });
    // Boxed, or the compiler cannot see that the whole may cross threads.
    let all: Vec<BoxFuture<'_, _>> = all.map(|one| one.boxed()).collect();
    let all = try_join_all(all)
        .await
        .map_err(|error| Failure::of_frontend(&error))?;
    Ok(all.into_iter().collect())
}

async fn solve(shared: &Shared, reference: &RefId) -> frontend::Result<Solved> {
    let edge = shared.get(reference)?.edge(reference)?;
    let output = shared.output(reference).await?;
    Ok(Solved {
        edge,
        files: output.0,
    })
}

/// The images that exporters wrote, by the exporters' places.
type Images = BTreeMap<usize, oci::Descriptor>;

/// A build whose results are there.
struct Running<'a> {
    engine: &'a Engine,
    build: &'a Build,
    shared: &'a Shared,
    progress: &'a Progress,
    statements: &'a BTreeMap<String, Vec<Statement>>,
    told: Option<&'a Told>,
}

impl Running<'_> {
    /// The client says what to do with the result, having seen what it is (row E10). What it
    /// chooses is numbered from `first` on, as it counts on: after those of the request.
    async fn chosen_by_client(
        &self,
        result: &FrontendResult,
        first: usize,
        how: Reading<'_>,
    ) -> Result<Vec<Export>, Failure> {
        let metadata: BTreeMap<String, Bytes> = result.metadata.clone();
        // By these names it asks for their files.
        let refs = result.refs.iter();
        let refs: Vec<String> = refs
            .filter_map(|(_, reference)| Some(reference?.to_string()))
            .collect();
        let found = self.build.group.any(&self.build.sessions, |session| {
            let (metadata, refs) = (metadata.clone(), refs.clone());
            async move {
                match session.exporters() {
                    Ok(exporters) => exporters.find(metadata, refs).await,
                    // It leaves the choice to the request.
                    Err(_) => Ok(Vec::new()),
                }
            }
        });
        let found = found
            .await
            .map_err(|error| Failure::of(error.kind(), &error))?;
        let specs = found.into_iter().map(|one| Spec {
            kind: one.kind,
            attrs: one.attrs,
        });
        specs
            .enumerate()
            .map(|(at, spec)| export::read(first + at, &spec, how))
            .collect()
    }

    /// The client that could choose hears that everything is out, while it can still look at
    /// the result (row E10).
    async fn tell_client(&self, response: &BTreeMap<String, String>) -> Result<(), Failure> {
        let told = self.build.group.any(&self.build.sessions, |session| {
            let response = response.clone();
            async move {
                match session.exporters() {
                    Ok(exporters) => exporters.finalize(response).await,
                    Err(_) => Ok(()),
                }
            }
        });
        told.await
            .map_err(|error| Failure::of(error.kind(), &error))
    }

    /// Everything out, exporters and caches side by side (row X34). All end before the first
    /// failure is told, so that nothing is cut off in the middle of a push.
    async fn export(
        &self,
        source: &Source,
        solved: &BTreeMap<String, Option<Solved>>,
        exports: &[Export],
        cache_exports: &[CacheExport],
    ) -> Result<(BTreeMap<String, String>, Images), Failure> {
        let edges: Vec<Edge> = solved.values().flatten().map(|one| one.edge).collect();
        let (engine, build, progress) = (self.engine, self.build, self.progress);
        let caches = cache::Exporting {
            engine,
            build,
            job: &self.shared.job,
            progress,
            edges: &edges,
        };
        let inline = cache_exports
            .iter()
            .any(|export| export.spec.to == ExportTo::Inline);
        let outward = export::Exporting {
            engine,
            build,
            progress,
            compatibility: self.shared.compatibility,
        };
        // Boxed, or the compiler cannot see that the whole may cross threads.
        let mut exporting: Vec<BoxFuture<'_, Result<_, Failure>>> = Vec::new();
        for export in exports {
            exporting.push(Box::pin(async {
                let mut source = source.clone();
                for one in &mut source.results {
                    let brought = self.statements.get(&one.id);
                    one.statements
                        .extend(brought.into_iter().flatten().cloned());
                }
                let blobs = export.kind.image().map(|options| BlobOptions {
                    compression: options.compression,
                    force: options.force_compression,
                });
                if let Some(told) = self.told {
                    told.add(&mut source, self.shared, blobs).await?;
                }
                if let (true, Some(blobs)) = (inline, blobs) {
                    self.add_inline(&mut source, solved, &caches, blobs).await?;
                }
                outward.run(export, &source).await
            }));
        }
        let exporting = join_all(exporting);
        let remote = cache_exports
            .iter()
            .filter(|export| export.spec.to != ExportTo::Inline);
        let caching: Vec<BoxFuture<'_, _>> =
            remote.map(|export| caches.run(export).boxed()).collect();
        let caching = join_all(caching);
        let (exported, cached) = tokio::join!(exporting, caching);
        let mut response = BTreeMap::new();
        let mut images = Images::new();
        for (at, exported) in exported.into_iter().enumerate() {
            let exported = exported?;
            response.extend(exported.response);
            images.extend(exported.image.map(|image| (at, image)));
        }
        for keys in cached {
            response.extend(keys?);
        }
        Ok((response, images))
    }

    /// Cache records into the config of each platform's image.
    async fn add_inline(
        &self,
        source: &mut Source,
        solved: &BTreeMap<String, Option<Solved>>,
        caches: &cache::Exporting<'_>,
        options: BlobOptions,
    ) -> Result<(), Failure> {
        let step = self.progress.internal_step("exporting inline cache");
        step.start();
        for one in &mut source.results {
            let Some(Some(found)) = solved.get(&one.id).or_else(|| solved.get("")) else {
                continue;
            };
            let Some(files) = &found.files else { continue };
            let layers = files
                .layers(&options, refs::Create::Yes, &*self.build.provider, &step)
                .await;
            let layers = layers.map_err(|error| Failure::of(error.kind(), &error))?;
            let value = caches.inline(found.edge, &layers, options, &step).await;
            let value = value.map_err(|error| Failure::of(error.kind(), &error))?;
            one.inline_cache = value.map(Bytes::from);
        }
        step.complete(false);
        Ok(())
    }
}

/// The results as exporters want them.
fn source(
    result: &FrontendResult,
    solved: &BTreeMap<String, Option<Solved>>,
) -> Result<Source, Failure> {
    let files = |one: &Option<Solved>| one.as_ref().and_then(|one| one.files.clone());
    let (single, by_id) = match &result.refs {
        Refs::One(_) => (solved.get("").and_then(files), BTreeMap::new()),
        Refs::Many(_) => (
            None,
            solved
                .iter()
                .map(|(id, one)| (id.clone(), files(one)))
                .collect(),
        ),
    };
    Source::new(single, by_id, &result.metadata).map_err(|error| Failure::of(error.kind(), &error))
}
