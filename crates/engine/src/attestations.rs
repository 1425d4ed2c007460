//! Statements about results that others make: frontends bring them along, or a scanner
//! lists what is in a result (rows W49, P01). They become [`Statement`]s here, read out of
//! the results that hold them.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use attest::{Options, SLSA_PREFIX, Sbom, key};
use bytes::Bytes;
use exporter::{About, Statement};
use frontend::{
    Attestation, AttestationKind, FrontendResult, RefId, Refs, ResolveMode, Scanner, Subject,
};
use futures::FutureExt as _;
use futures::future::{BoxFuture, try_join_all};
use oci::Platform;
use serde::Deserialize;
use serde_json::value::RawValue;
use stdx::Kind;
use stdx::sys::Root;

use crate::Failure;
use crate::bridge::{BuildBridge, Shared};
use crate::provenance::{Asked, platforms};

/// What a request says about statements.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) provenance: Option<Options>,
    sbom: Option<Sbom>,
}

/// Reads what a request says about statements.
pub(crate) fn wanted(options: &BTreeMap<String, String>) -> Result<Wanted, Failure> {
    let failed = |error: attest::Error| Failure::of(error.kind(), &error);
    let requests =
        attest::requests(|visit| options.iter().for_each(|(key, value)| visit(key, value)));
    let mut wanted = Wanted::default();
    for (kind, attrs) in requests.map_err(failed)? {
        match kind.as_str() {
            "provenance" => wanted.provenance = Some(Options::parse(&attrs).map_err(failed)?),
            "sbom" => wanted.sbom = Some(Sbom::parse(&attrs).map_err(failed)?),
            _ => return Err(failed(attest::Error::Unknown(kind))),
        }
    }
    Ok(wanted)
}

/// Why a statement somebody brought along is not taken.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("frontend may not {0} provenance attestations")]
    Provenance(&'static str),
    #[error("attestation does not have set path")]
    NoPath,
    #[error("attestation does not have available content")]
    NoContent,
    #[error("no ref provided for attestation bundle")]
    NoBundle,
    #[error("attestations for {0}, but there is no such result")]
    NoResult(String),
    #[error("cannot read in-toto attestation {path}")]
    Read { path: String, source: io::Error },
    #[error(
        "attestation {path} has more than {} bytes",
        attest::MAX_STATEMENT_SIZE
    )]
    TooLarge { path: String },
    #[error("cannot decode in-toto statement {path}")]
    Decode {
        path: String,
        source: serde_json::Error,
    },
    #[error("bundle entry {found} does not match required predicate type {wanted}")]
    OtherType { found: String, wanted: String },
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let kind = match &error {
            Error::Read { source, .. } if source.kind() != io::ErrorKind::InvalidInput => {
                match source.kind() {
                    io::ErrorKind::NotFound => Kind::NotFound,
                    _ => Kind::Internal,
                }
            }
            _ => Kind::InvalidInput,
        };
        Failure::of(kind, &error)
    }
}

/// Has every result scanned, if that is wanted and the frontend did not do it.
pub(crate) async fn scan(
    wanted: &Wanted,
    options: &BTreeMap<String, String>,
    shared: &Arc<Shared>,
    asked: &Arc<Asked>,
    result: &mut FrontendResult,
) -> Result<(), Failure> {
    let Some(sbom) = wanted.sbom.as_ref().filter(|_| !has_sbom(result)) else {
        return Ok(());
    };
    let found: Vec<(String, RefId)> = result
        .refs
        .iter()
        .filter_map(|(id, reference)| Some((id.to_owned(), reference?.clone())))
        .collect();
    if found.is_empty() {
        return Ok(());
    }
    let failed = |error: frontend::Error| Failure::of_frontend(&error);
    let ids = platforms(result)?;
    let mode = match options.get("image-resolve-mode").map(String::as_str) {
        Some("pull") => ResolveMode::Pull,
        Some("local") => ResolveMode::PreferLocal,
        _ => ResolveMode::Default,
    };
    let ignore_cache = options.get("no-cache").is_some_and(String::is_empty);
    let bridge = BuildBridge::new(
        shared.clone(),
        frontend::Options::default(),
        BTreeMap::new(),
        asked.clone(),
    );
    let scanner = Scanner::find(&bridge, sbom, mode).await.map_err(failed)?;
    for (id, reference) in found {
        let id = match (&result.refs, ids.first()) {
            (Refs::One(_), Some(first)) => name_of(first),
            _ => id,
        };
        let core = &shared.get(&reference).map_err(failed)?.definition;
        let made = scanner
            .scan(&bridge, &id, core, &BTreeMap::new(), ignore_cache)
            .await;
        let all = result.attestations.entry(id).or_default();
        all.push(made.map_err(failed)?);
    }
    Ok(())
}

fn has_sbom(result: &FrontendResult) -> bool {
    let is_sbom = |one: &Attestation| {
        attest::is_sbom(&one.predicate_type)
            || fact(one, key::REASON) == Some(key::REASON_SBOM.as_bytes())
    };
    result.attestations.values().flatten().any(is_sbom)
}

/// What attestations call a platform's result.
fn name_of((id, platform): &(String, Platform)) -> String {
    match id.as_str() {
        "" => platform.to_string(),
        id => id.to_owned(),
    }
}

fn fact<'a>(one: &'a Attestation, key: &str) -> Option<&'a [u8]> {
    one.metadata.get(key).map(AsRef::as_ref)
}

/// All statements that came with a result, by the id of what they are about. What holds
/// them is solved now.
pub(crate) async fn statements(
    shared: &Shared,
    result: &FrontendResult,
) -> Result<BTreeMap<String, Vec<Statement>>, Failure> {
    let mut statements = BTreeMap::new();
    if result.attestations.is_empty() {
        return Ok(statements);
    }
    let ids = platforms(result)?;
    for (given, attestations) in &result.attestations {
        let known = ids.iter().find(|one| name_of(one) == *given);
        let known = known.or(ids
            .first()
            .filter(|one| one.0.is_empty() && given.is_empty()));
        let (id, _) = known.ok_or_else(|| Error::NoResult(given.clone()))?;
        let read = attestations.iter().map(|one| -> BoxFuture<'_, _> {
            async move {
                check(one)?;
                read(shared, one).await
            }
            .boxed()
        });
        let mut all: Vec<Statement> = try_join_all(read).await?.into_iter().flatten().collect();
        // What the result itself holds comes first.
        all.sort_by_key(|one| !one.core_sbom);
        statements.insert(id.clone(), all);
    }
    Ok(statements)
}

fn check(one: &Attestation) -> Result<(), Error> {
    match (one.kind, &one.reference) {
        (AttestationKind::InToto, _) if one.predicate_type.starts_with(SLSA_PREFIX) => {
            Err(Error::Provenance("set"))
        }
        (AttestationKind::InToto, _) if one.path.is_empty() => Err(Error::NoPath),
        (AttestationKind::InToto, None) => Err(Error::NoContent),
        (AttestationKind::Bundle, None) => Err(Error::NoBundle),
        _ => Ok(()),
    }
}

async fn read(shared: &Shared, one: &Attestation) -> Result<Vec<Statement>, Failure> {
    let reference = one.reference.as_ref().ok_or(Error::NoContent)?;
    let tree = shared.tree(reference).await;
    let tree = tree.map_err(|error| Failure::of_frontend(&error))?;
    let one = one.clone();
    let read = stdx::task::blocking(move || {
        let root = tree.as_deref().map(snapshot::Tree::root);
        match one.kind {
            AttestationKind::InToto => predicate(root, &one),
            AttestationKind::Bundle => bundle(root, &one),
        }
    });
    Ok(read.await?)
}

/// One predicate in a file.
fn predicate(root: Option<&Root>, one: &Attestation) -> Result<Vec<Statement>, Error> {
    let root = root.ok_or(Error::NoContent)?;
    let about = one.subjects.iter().map(|subject| match subject {
        Subject::Own { name } => About::Result((!name.is_empty()).then(|| name.clone())),
        Subject::Raw { name, digests } => {
            let name = if name.is_empty() { "_" } else { name };
            let digest = digests.iter().flat_map(attest::digest_set).collect();
            About::Other(attest::Subject {
                name: name.to_owned(),
                digest,
            })
        }
    });
    Ok(vec![Statement {
        predicate_type: one.predicate_type.clone(),
        predicate: file(root, &one.path)?,
        about: about.collect(),
        ..statement(one, &one.path)
    }])
}

/// What a bundle's statements are read as: a statement that leaves things out is one, too.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundled {
    #[serde(default)]
    predicate_type: String,
    #[serde(default)]
    subject: Option<Vec<attest::Subject>>,
    predicate: Box<RawValue>,
}

/// A directory of whole statements.
fn bundle(root: Option<&Root>, one: &Attestation) -> Result<Vec<Statement>, Error> {
    // The empty file system has no statements in it.
    let Some(root) = root else {
        return Ok(Vec::new());
    };
    let unreadable = |source| Error::Read {
        path: one.path.clone(),
        source,
    };
    let dir = root.open_dir(one.path.trim_start_matches('/'));
    let dir = dir.map_err(unreadable)?;
    let mut statements = Vec::new();
    for entry in dir.read_dir_sorted("").map_err(unreadable)? {
        let name = entry.name.to_string_lossy().into_owned();
        let bytes = file(&dir, &entry.name)?;
        let bundled: Bundled = serde_json::from_slice(&bytes).map_err(|source| Error::Decode {
            path: name.clone(),
            source,
        })?;
        let found = bundled.predicate_type;
        if found.starts_with(SLSA_PREFIX) {
            return Err(Error::Provenance("bundle"));
        }
        if !one.predicate_type.is_empty() && found != one.predicate_type {
            let wanted = one.predicate_type.clone();
            return Err(Error::OtherType { found, wanted });
        }
        let about = bundled.subject.unwrap_or_default();
        statements.push(Statement {
            predicate_type: found,
            predicate: Bytes::from(Box::<str>::from(bundled.predicate).into_string()),
            about: about.into_iter().map(About::Other).collect(),
            ..statement(one, &name)
        });
    }
    Ok(statements)
}

/// What is known of a statement by where it stands.
fn statement(one: &Attestation, path: &str) -> Statement {
    let file_name = path.rsplit('/').next().unwrap_or(path).to_owned();
    let stem = file_name.split('.').next().unwrap_or_default();
    Statement {
        core_sbom: fact(one, key::SBOM_CORE) == Some(stem.as_bytes()),
        inline_only: fact(one, key::INLINE_ONLY) == Some(b"true"),
        file_name,
        ..Statement::default()
    }
}

/// A regular file, whole.
fn file(root: &Root, path: impl AsRef<Path>) -> Result<Bytes, Error> {
    let path = path.as_ref();
    let path = path.strip_prefix("/").unwrap_or(path);
    let shown = || path.to_string_lossy().into_owned();
    let unreadable = |source| Error::Read {
        path: shown(),
        source,
    };
    let file = root.open_file(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    let limit = attest::MAX_STATEMENT_SIZE;
    let read = file.take(limit + 1).read_to_end(&mut bytes);
    read.map_err(unreadable)?;
    if bytes.len() as u64 > limit {
        return Err(Error::TooLarge { path: shown() });
    }
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(key: &str, value: &str) -> Result<Wanted, Failure> {
        wanted(&BTreeMap::from([(key.to_owned(), value.to_owned())]))
    }

    /// Rows: P01, P02
    #[test]
    fn statements_are_asked_for_by_options() {
        let nothing = asked("target", "a").unwrap();
        assert!(nothing.provenance.is_none() && nothing.sbom.is_none());
        let inline = asked("attest:provenance", "mode=min,inline-only=true").unwrap();
        assert!(inline.provenance.unwrap().inline_only);
        let disabled = asked("attest:provenance", "disabled=true").unwrap();
        assert!(disabled.provenance.is_none());
        let sbom = asked("build-arg:BUILDKIT_ATTEST_SBOM", "").unwrap().sbom;
        let usual = "docker.io/docker/buildkit-syft-scanner:stable-1";
        assert_eq!(sbom.unwrap().generator.to_string(), usual);
        let wrong = asked("attest:provenance", "mode=x").unwrap_err();
        assert!(wrong.message.contains("invalid mode"));
        let unknown = asked("attest:dream", "").unwrap_err();
        assert!(unknown.message.contains("unknown attestation type"));
    }

    fn attestation(kind: AttestationKind, path: &str, predicate_type: &str) -> Attestation {
        Attestation {
            kind,
            reference: Some(RefId::new("1")),
            path: path.to_owned(),
            predicate_type: predicate_type.to_owned(),
            subjects: Vec::new(),
            metadata: BTreeMap::from([(key::SBOM_CORE.to_owned(), "sbom".into())]),
        }
    }

    fn tree(files: &[(&str, &str)]) -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let root = Root::open(dir.path()).unwrap();
        (dir, root)
    }

    const STATEMENT: &str = r#"{"_type":"https://in-toto.io/Statement/v0.1","predicateType":"https://spdx.dev/Document","subject":null,"predicate":{"a": 1}}"#;

    /// Rows: W49
    #[test]
    fn a_bundle_is_a_directory_of_statements() {
        let about = STATEMENT.replace("null", r#"[{"name":"x","digest":{"sha1":"ab"}}]"#);
        let (_dir, root) = tree(&[("sbom.spdx.json", STATEMENT), ("sbom-x.json", &about)]);
        let whole = attestation(AttestationKind::Bundle, "/", "");
        let read = bundle(Some(&root), &whole).unwrap();
        let [other, core] = &read[..] else {
            panic!("{read:?}")
        };
        assert_eq!(
            (core.file_name.as_str(), core.core_sbom, core.about.len()),
            ("sbom.spdx.json", true, 0)
        );
        assert_eq!(core.predicate_type, attest::SPDX);
        assert_eq!(core.predicate, "{\"a\": 1}");
        assert!(!other.core_sbom);
        let [About::Other(subject)] = &other.about[..] else {
            panic!("{other:?}")
        };
        assert_eq!(subject.digest["sha1"], "ab");
        let named = attestation(AttestationKind::Bundle, "", "https://other");
        let error = bundle(Some(&root), &named).unwrap_err();
        assert_eq!(
            error.to_string(),
            "bundle entry https://spdx.dev/Document does not match required predicate type https://other"
        );
        assert!(bundle(None, &whole).unwrap().is_empty());
    }

    /// Rows: W49
    #[test]
    fn what_is_no_statement_is_refused() {
        let whole = attestation(AttestationKind::Bundle, "", "");
        let told = |files: &[(&str, &str)]| {
            let (_dir, root) = tree(files);
            bundle(Some(&root), &whole).unwrap_err().to_string()
        };
        let decode = "cannot decode in-toto statement a";
        assert_eq!(told(&[("a", "{")]), decode);
        assert_eq!(told(&[("a", &format!("{STATEMENT}{STATEMENT}"))]), decode);
        let slsa = STATEMENT.replace(
            "https://spdx.dev/Document",
            "https://slsa.dev/provenance/v1",
        );
        assert_eq!(
            told(&[("a", &slsa)]),
            "frontend may not bundle provenance attestations"
        );
        let (dir, root) = tree(&[]);
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        let error = bundle(Some(&root), &whole).unwrap_err().to_string();
        assert_eq!(error, "cannot read in-toto attestation sub");
        // A link leads nowhere outside.
        let (dir, root) = tree(&[]);
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("a")).unwrap();
        let error = bundle(Some(&root), &whole).unwrap_err().to_string();
        assert_eq!(error, "cannot read in-toto attestation a");
        let (dir, root) = tree(&[]);
        let large = std::fs::File::create(dir.path().join("a")).unwrap();
        large.set_len(attest::MAX_STATEMENT_SIZE + 1).unwrap();
        let error = bundle(Some(&root), &whole).unwrap_err().to_string();
        assert_eq!(error, "attestation a has more than 41943040 bytes");
    }

    /// Rows: W49
    #[test]
    fn one_predicate_says_what_it_is_about() {
        let (_dir, root) = tree(&[("p.json", "{}")]);
        let mut one = attestation(AttestationKind::InToto, "p.json", "https://x");
        one.metadata
            .insert(key::INLINE_ONLY.to_owned(), "true".into());
        let digests = vec![oci::Digest::of(b"x")];
        let (own, raw) = (String::new(), String::new());
        one.subjects = vec![
            Subject::Own { name: own },
            Subject::Raw { name: raw, digests },
        ];
        let read = predicate(Some(&root), &one).unwrap();
        assert!(read[0].inline_only && read[0].predicate == "{}");
        let [About::Result(None), About::Other(other)] = &read[0].about[..] else {
            panic!("{read:?}")
        };
        assert_eq!(other.name, "_");
        check(&one).unwrap();
        let wrong = |change: &dyn Fn(&mut Attestation)| {
            let mut one = one.clone();
            change(&mut one);
            check(&one).unwrap_err().to_string()
        };
        assert_eq!(
            wrong(&|one| one.predicate_type = "https://slsa.dev/provenance/v1".into()),
            "frontend may not set provenance attestations"
        );
        assert_eq!(
            wrong(&|one| one.path.clear()),
            "attestation does not have set path"
        );
        assert_eq!(
            wrong(&|one| one.reference = None),
            "attestation does not have available content"
        );
        assert_eq!(
            wrong(&|one| (one.kind, one.reference) = (AttestationKind::Bundle, None)),
            "no ref provided for attestation bundle"
        );
    }
}
