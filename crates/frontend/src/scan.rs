//! Lists of what is in a result: an image runs over the files and writes down what it
//! finds. What it is given and where it writes is BuildKit's SBOM scanning protocol, so
//! the same images work.

use std::collections::BTreeMap;
use std::sync::Arc;

use attest::{Sbom, key};
use llb::{Builder, Definition, Edge, Exec, Meta, MountKind, MountSpec};
use oci::Platform;
use serde::Deserialize;
use stdx::Kind;

use crate::{
    Attestation, AttestationKind, Bridge, Error, ImageLookup, ResolveMode, Result, SolveRequest,
};

/// The result itself is called so, others have it in front of their names.
const CORE: &str = "sbom";
const CORE_DIR: &str = "/run/src/core/sbom";
const EXTRAS_DIR: &str = "/run/src/extras";
const OUT_DIR: &str = "/run/out/";

/// An image that lists what is in a tree, looked up and ready to be run.
#[derive(Clone, Debug)]
pub struct Scanner {
    image: String,
    platform: Platform,
    mode: ResolveMode,
    args: Vec<String>,
    env: Vec<String>,
    dir: String,
}

#[derive(Default, Deserialize)]
struct Image {
    #[serde(default)]
    config: Option<Config>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    #[serde(default)]
    entrypoint: Option<Vec<String>>,
    #[serde(default)]
    cmd: Option<Vec<String>>,
    #[serde(default)]
    env: Option<Vec<String>>,
    #[serde(default)]
    working_dir: Option<String>,
}

/// The image has nothing that could be run.
#[derive(Debug, thiserror::Error)]
#[error("scanner {0} does not have cmd")]
struct NoCommand(String);

impl Scanner {
    /// Looks the image up. It runs on this worker, whatever the result is for.
    pub async fn find(bridge: &dyn Bridge, sbom: &Sbom, mode: ResolveMode) -> Result<Scanner> {
        let platform = bridge.platforms().into_iter().next();
        let platform = platform.unwrap_or_else(Platform::host);
        let lookup = ImageLookup {
            platform: Some(platform.clone()),
            mode,
            step_name: format!("[internal] load metadata for {}", sbom.generator),
            ..ImageLookup::default()
        };
        let found = bridge
            .resolve_image(&sbom.generator.to_string(), lookup)
            .await?;
        let doing = || format!("reading the config of scanner {}", found.name);
        let image: Image = serde_json::from_slice(&found.config)
            .map_err(|error| failed(doing(), Kind::InvalidInput, error))?;
        let config = image.config.unwrap_or_default();
        let mut args = config.entrypoint.unwrap_or_default();
        args.extend(config.cmd.unwrap_or_default());
        if args.is_empty() {
            let error = NoCommand(found.name.clone());
            return Err(failed(doing(), Kind::InvalidInput, error));
        }
        let mut env = config.env.unwrap_or_default();
        set_env(&mut env, "BUILDKIT_SCAN_DESTINATION", OUT_DIR);
        set_env(&mut env, "BUILDKIT_SCAN_SOURCE", CORE_DIR);
        for (name, value) in &sbom.parameters {
            set_env(&mut env, &format!("BUILDKIT_SCAN_{name}"), value);
        }
        let dir = config.working_dir.unwrap_or_default();
        Ok(Scanner {
            image: found.name,
            platform,
            mode,
            args,
            env,
            dir: format!("/{}", dir.trim_start_matches('/')),
        })
    }

    /// Has `core`, the result called `id`, looked at, and `extras` beside it. It runs when
    /// the attestation is read.
    pub async fn scan(
        &self,
        bridge: &dyn Bridge,
        id: &str,
        core: &Definition,
        extras: &BTreeMap<String, Definition>,
        ignore_cache: bool,
    ) -> Result<Attestation> {
        let definition = self.definition(id, core, extras, ignore_cache)?;
        let reference = bridge
            .solve(SolveRequest {
                definition,
                ..SolveRequest::default()
            })
            .await?;
        let fact = |key: &str, value: &str| (key.to_owned(), value.to_owned().into());
        Ok(Attestation {
            kind: AttestationKind::Bundle,
            reference,
            path: String::new(),
            // Each document says itself what it is.
            predicate_type: String::new(),
            subjects: Vec::new(),
            metadata: BTreeMap::from([
                fact(key::REASON, key::REASON_SBOM),
                fact(key::SBOM_CORE, CORE),
            ]),
        })
    }

    fn definition(
        &self,
        id: &str,
        core: &Definition,
        extras: &BTreeMap<String, Definition>,
        ignore_cache: bool,
    ) -> Result<Definition> {
        let mut builder = Builder::new();
        let mut import = |definition: &Definition| -> Result<Option<Edge>> {
            let root = builder.import(definition);
            root.map_err(|error| failed("reading what is to be scanned", error.kind(), error))
        };
        let look = |target: String, tree| MountSpec::bind(target, tree, "").readonly(true);
        let mut mounts = vec![look(CORE_DIR.to_owned(), import(core)?)];
        for (name, definition) in extras {
            let target = format!("{EXTRAS_DIR}/{CORE}-{name}");
            mounts.push(look(target, import(definition)?));
        }
        mounts.push(MountSpec::new("/tmp", None, MountKind::Tmpfs { size: 0 }));
        mounts.push(MountSpec {
            keep: true,
            ..MountSpec::bind(OUT_DIR, None, "")
        });
        let attrs = match self.mode {
            ResolveMode::Default => None,
            mode => Some((
                llb::attr::IMAGE_RESOLVE_MODE.to_owned(),
                mode.name().to_owned(),
            )),
        };
        let image = builder.source(
            format!("docker-image://{}", self.image),
            attrs,
            Some(&self.platform),
            Meta::default(),
        );
        mounts.push(MountSpec::root(Some(image)));
        let mut env = self.env.clone();
        if !extras.is_empty() {
            set_env(&mut env, "BUILDKIT_SCAN_SOURCE_EXTRAS", EXTRAS_DIR);
        }
        let exec = Exec {
            env,
            cwd: self.dir.clone(),
            ..Exec::new(self.args.clone())
        };
        let name = format!("[{id}] generating sbom using {}", self.image);
        let meta = Meta::named(name).ignore_cache(ignore_cache);
        let run = builder.run(exec, mounts, Some(&self.platform), meta);
        Ok(builder.definition(run.outputs.get(OUT_DIR)))
    }
}

/// Sets a variable where it stands, or behind the others.
pub fn set_env(env: &mut Vec<String>, name: &str, value: &str) {
    let entry = format!("{name}={value}");
    let same = |known: &&mut String| known.split('=').next() == Some(name);
    match env.iter_mut().find(same) {
        Some(known) => *known = entry,
        None => env.push(entry),
    }
}

fn failed(
    doing: impl Into<String>,
    kind: Kind,
    source: impl std::error::Error + Send + Sync + 'static,
) -> Error {
    Error::Engine {
        doing: doing.into(),
        kind,
        source: Arc::new(source),
    }
}
