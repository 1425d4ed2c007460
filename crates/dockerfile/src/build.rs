//! One build, from options to results.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use frontend::{
    Bridge, FrontendResult, NestedRequest, Refs, Scanner, SolveRequest, SourceFile, SourceLocation,
    Warning, metadata_key,
};
use futures::future::try_join_all;
use oci::Platform;
use serde::Serialize;

use crate::instruction::{File, instructions};
use crate::lint::LintWarning;
use crate::lower::{How, Lowered, lower, warnings_only};
use crate::syntax::{Fault, Lines, Syntax, Tree, detect_syntax, parse};
use crate::ui::Ui;
use crate::{BuildOptions, Error, request};

/// Builds the Dockerfile a client asks for, or answers its question about it.
///
/// Everything comes through `bridge`: the options, the file, the context, the images.
/// What cannot be built is said with its lines ([`frontend::Error::Written`]).
pub async fn build(bridge: &dyn Bridge) -> Result<FrontendResult, frontend::Error> {
    let options = BuildOptions::parse(bridge.options()).map_err(without_place)?;
    if options.request.as_deref() == Some(request::DESCRIBE) {
        return Ok(request::describe());
    }
    let mut ui = Ui::open(bridge, options).await.map_err(without_place)?;
    let file = ui.file.clone();
    if let Some(syntax) = other_frontend(&ui).map_err(without_place)? {
        return forward(&ui, syntax).await;
    }
    if file.data.is_empty() {
        return Err(located(
            &file,
            vec![Fault {
                error: Error::Empty,
                lines: Lines::default(),
            }],
        ));
    }
    let tree = parse(&file.data);
    let parsed = instructions(&tree);
    let source = Source { tree, parsed };
    if let Some(name) = ui.options.request.clone() {
        return request::answer(&mut ui, &source, &name).await;
    }
    if let Err(error) = source.check(&file) {
        tell(&ui, &source.warnings_only(&ui)).await?;
        return Err(error);
    }
    ui.load_ignore().await.map_err(without_place)?;
    build_all(&ui, &source).await
}

/// A parsed file.
pub(crate) struct Source {
    pub(crate) tree: Tree,
    pub(crate) parsed: File,
}

impl Source {
    /// Refuses a file with mistakes.
    pub(crate) fn check(&self, file: &Arc<SourceFile>) -> Result<(), frontend::Error> {
        let mut faults = self.parsed.faults.clone();
        let Some(first) = faults.first_mut() else {
            return Ok(());
        };
        if first.lines.first > 0 {
            first.error = Error::Parse {
                line: first.lines.first,
                error: Box::new(first.error.clone()),
            };
        }
        Err(located(file, faults))
    }

    /// What there is to say about a file with mistakes beside these.
    pub(crate) fn warnings_only(&self, ui: &Ui<'_>) -> Vec<LintWarning> {
        let check = self.tree.check.as_deref();
        warnings_only(ui, &self.parsed, check, &self.tree.empty_continuations)
    }

    /// Lowers it for one platform.
    pub(crate) async fn lower(
        &self,
        ui: &Ui<'_>,
        how: &How,
    ) -> (Vec<LintWarning>, Result<Lowered, frontend::Error>) {
        let check = self.tree.check.as_deref();
        let empty = &self.tree.empty_continuations;
        let (warnings, lowered) =
            lower(ui, &self.parsed, how, check, self.tree.escape, empty).await;
        (
            warnings,
            lowered.map_err(|fault| located(&ui.file, vec![fault])),
        )
    }
}

/// The frontend the file or the client wants instead of us. An image the client gave in place
/// of one that is built in is wanted.
fn other_frontend(ui: &Ui<'_>) -> Result<Option<Syntax>, Error> {
    let options = ui.bridge.options();
    if options.get("cmdline").is_some() {
        // We are the one.
        return Ok(None);
    }
    let asked = match options.text("build-arg:BUILDKIT_SYNTAX") {
        Some(line) => Some(Syntax {
            image: line
                .split_whitespace()
                .next()
                .unwrap_or_default()
                .to_owned(),
            command_line: line.to_owned(),
            lines: Lines::default(),
        }),
        None => detect_syntax(&String::from_utf8_lossy(&ui.file.data)),
    };
    let Some(asked) = asked else { return Ok(None) };
    let replaced = ui.named_context(&asked.image, &ui.build_platform())?;
    Ok(Some(asked).filter(|asked| replaced.is_some() || !is_ours(&asked.image)))
}

/// The newest `docker/dockerfile:1.N` whose language we speak.
const NEWEST_MINOR: u32 = 26;

/// Whether `image` is the upstream Dockerfile frontend in a version whose language is ours:
/// then nobody has to be asked over the network for what is built in. One named by its
/// digest is wanted to the byte, and is not.
fn is_ours(image: &str) -> bool {
    let name = image.strip_prefix("docker.io/").unwrap_or(image);
    let (name, tag) = name.split_once(':').unwrap_or((name, "latest"));
    if name != "docker/dockerfile" {
        return false;
    }
    let version = match tag {
        "latest" | "labs" => return true,
        tag => tag.strip_suffix("-labs").unwrap_or(tag),
    };
    let mut parts = version.split('.').map(str::parse::<u32>);
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(Ok(1)), None, None, None) => true,
        (Some(Ok(1)), Some(Ok(minor)), None | Some(Ok(_)), None) => minor <= NEWEST_MINOR,
        _ => false,
    }
}

async fn forward(ui: &Ui<'_>, syntax: Syntax) -> Result<FrontendResult, frontend::Error> {
    let mut options = ui.bridge.options().as_map().clone();
    options.insert("cmdline".into(), syntax.command_line);
    options.insert("source".into(), syntax.image);
    let request = NestedRequest {
        frontend: "gateway.v0".into(),
        options,
        inputs: ui.bridge.inputs().await?,
        cache_imports: ui.options.cache_imports.clone(),
        ..NestedRequest::default()
    };
    match ui.bridge.nested(request).await {
        Err(error) if error.locations().is_empty() => Err(frontend::Error::Written {
            kind: error.kind(),
            at: vec![location(&ui.file, syntax.lines)],
            hints: Vec::new(),
            cause: Arc::new(error),
        }),
        result => result,
    }
}

/// One platform's part of the result.
struct Part {
    id: String,
    platform: Platform,
    reference: Option<frontend::RefId>,
    config: String,
    base_config: Option<String>,
    attestations: Vec<frontend::Attestation>,
}

async fn build_all(ui: &Ui<'_>, source: &Source) -> Result<FrontendResult, frontend::Error> {
    let mut platforms: Vec<Option<Platform>> =
        ui.options.platforms.iter().cloned().map(Some).collect();
    if platforms.is_empty() {
        platforms.push(None);
    }
    let scanner = match &ui.options.sbom {
        Some(sbom) => Some(Scanner::find(ui.bridge, sbom, ui.options.resolve_mode).await?),
        None => None,
    };
    let scanner = scanner.as_ref();
    let parts = platforms.into_iter().enumerate();
    let parts = parts.map(|(nth, platform)| build_one(ui, source, platform, nth == 0, scanner));
    let parts = try_join_all(parts).await?;
    Ok(assembled(ui, parts))
}

async fn build_one(
    ui: &Ui<'_>,
    source: &Source,
    platform: Option<Platform>,
    first: bool,
    scanner: Option<&Scanner>,
) -> Result<Part, frontend::Error> {
    let how = How {
        platform: platform.clone(),
        all_stages: false,
        quiet: !first,
    };
    let (warnings, lowered) = source.lower(ui, &how).await;
    tell(ui, &warnings).await?;
    let lowered = lowered?;
    let core = scanner.map(|_| lowered.definition.clone());
    let reference = ui
        .bridge
        .solve(SolveRequest {
            definition: lowered.definition,
            cache_imports: ui.options.cache_imports.clone(),
            ..SolveRequest::default()
        })
        .await?;
    // Nobody asked for another one than ours, and that is what is looked for in an index later,
    // though the base image may say something else.
    let platform = platform.unwrap_or_else(|| ui.build_platform());
    let platform = platform.normalized();
    let id = platform.to_string();
    let mut attestations = Vec::new();
    if let (Some(scanner), Some(core)) = (scanner, core) {
        let scan = &lowered.scan;
        let made = scanner.scan(ui.bridge, &id, &core, &scan.extras, scan.ignore_cache);
        attestations.push(made.await?);
    }
    Ok(Part {
        id,
        platform,
        reference,
        attestations,
        config: lowered.image.to_json(),
        base_config: lowered.base_image.map(|image| image.to_json()),
    })
}

fn assembled(ui: &Ui<'_>, parts: Vec<Part>) -> FrontendResult {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Entry<'a> {
        #[serde(rename = "ID")]
        id: &'a str,
        platform: &'a Platform,
    }
    let entries: Vec<Entry<'_>> = parts
        .iter()
        .map(|part| Entry {
            id: &part.id,
            platform: &part.platform,
        })
        .collect();
    let list = oci::go_json::compact(&BTreeMap::from([("Platforms", entries)]));
    let mut metadata = BTreeMap::from([(metadata_key::PLATFORMS.to_owned(), Bytes::from(list))]);
    if let Some(epoch) = ui.options.epoch {
        metadata.insert(
            metadata_key::SOURCE_DATE_EPOCH.into(),
            epoch.to_string().into(),
        );
    }
    let several = ui.options.multi_platform;
    let mut refs = BTreeMap::new();
    let mut attestations = BTreeMap::new();
    let mut one = None;
    for part in parts {
        if !part.attestations.is_empty() {
            attestations.insert(part.id.clone(), part.attestations);
        }
        let key = |name: &str| match several {
            true => format!("{name}/{}", part.id),
            false => name.to_owned(),
        };
        metadata.insert(key(metadata_key::IMAGE_CONFIG), part.config.into());
        if let Some(base) = part.base_config {
            metadata.insert(key(metadata_key::BASE_IMAGE_CONFIG), base.into());
        }
        one.clone_from(&part.reference);
        refs.insert(part.id, part.reference);
    }
    let refs = if several {
        Refs::Many(refs)
    } else {
        Refs::One(one)
    };
    FrontendResult {
        refs,
        metadata,
        attestations,
    }
}

/// Shows warnings where the file was loaded.
async fn tell(ui: &Ui<'_>, warnings: &[LintWarning]) -> Result<(), frontend::Error> {
    for warning in warnings {
        let shown = Warning {
            level: 1,
            short: warning.short(),
            detail: vec![warning.rule.description().to_owned()],
            url: warning.rule.url(),
            at: Some(location(&ui.file, warning.lines)),
        };
        ui.bridge.warn(ui.loaded_by.as_ref(), shown).await?;
    }
    Ok(())
}

pub(crate) fn location(file: &Arc<SourceFile>, lines: Lines) -> SourceLocation {
    SourceLocation {
        file: file.clone(),
        ranges: lines.ranges(),
    }
}

/// An error about no line in particular.
pub(crate) fn without_place(error: Error) -> frontend::Error {
    match error {
        Error::Bridge(error) => error,
        error => frontend::Error::Written {
            kind: error.kind(),
            cause: Arc::new(error),
            at: Vec::new(),
            hints: Vec::new(),
        },
    }
}

/// The first fault with its place; the others follow as hints with theirs.
pub(crate) fn located(file: &Arc<SourceFile>, faults: Vec<Fault>) -> frontend::Error {
    let place = |fault: &Fault| location(file, fault.lines);
    let mut at: Vec<SourceLocation> = faults
        .iter()
        .filter(|fault| fault.lines.first > 0)
        .map(place)
        .collect();
    let mut faults = faults.into_iter();
    let Some(first) = faults.next() else {
        return without_place(Error::NoStages);
    };
    let hints = faults
        .map(|fault| format!("{}: {}", location(file, fault.lines), fault.error))
        .collect();
    match first.error {
        Error::Bridge(error) if !error.locations().is_empty() => error,
        error => {
            at.truncate(10);
            frontend::Error::Written {
                kind: error.kind(),
                cause: Arc::new(error),
                at,
                hints,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_ours;

    /// Rows: F11, Q13
    #[test]
    fn the_upstream_frontend_is_built_in_up_to_a_version() {
        for ours in [
            "docker/dockerfile:1",
            "docker/dockerfile:1.4",
            "docker/dockerfile:1.7.0",
            "docker/dockerfile:1-labs",
            "docker.io/docker/dockerfile:1.20-labs",
            "docker/dockerfile",
            "docker/dockerfile:labs",
        ] {
            assert!(is_ours(ours), "{ours}");
        }
        for other in [
            "docker/dockerfile:2",
            "docker/dockerfile:1.99",
            "docker/dockerfile:1.x",
            "docker/dockerfile:master",
            "docker/dockerfile-upstream:1",
            "evil/docker/dockerfile:1",
            "docker/dockerfile:1@sha256:0000000000000000000000000000000000000000000000000000000000000000",
            "tonistiigi/dockerfile:1",
        ] {
            assert!(!is_ours(other), "{other}");
        }
    }
}
