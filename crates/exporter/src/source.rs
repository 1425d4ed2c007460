//! What is exported: one result, or one per platform, with what the frontend said.

use std::collections::BTreeMap;

use bytes::Bytes;
use oci::Platform;
use refs::Ref;
use serde::Deserialize;

use crate::{Annotations, Error, Result, Stamp, options};

/// What a statement speaks of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum About {
    /// The result: the image under all its names, or the files that come out. A name of the
    /// statement's own is told beside those.
    Result(Option<String>),
    /// Something else.
    Other(attest::Subject),
}

/// A statement about one platform's result, to be kept beside the image.
#[derive(Clone, Debug, Default)]
pub struct Statement {
    /// What kind of predicate.
    pub predicate_type: String,
    /// The predicate, JSON.
    pub predicate: Bytes,
    /// File name in tar and local exports.
    pub file_name: String,
    /// Only meant for inline use.
    pub inline_only: bool,
    /// What it speaks of; nothing said is the result.
    pub about: Vec<About>,
    /// It lists what is in the result itself.
    pub core_sbom: bool,
}

/// The result for one platform.
#[derive(Clone)]
pub struct PlatformResult {
    /// The frontend's name of it.
    pub id: String,
    /// Which machines it is for.
    pub platform: Platform,
    /// The files; `None` is an empty image.
    pub files: Option<Ref>,
    /// The image config.
    pub config: Option<Bytes>,
    /// The config of the image it was built on.
    pub base_config: Option<Bytes>,
    /// Cache records to keep in the config.
    pub inline_cache: Option<Bytes>,
    /// The epoch the frontend found.
    pub epoch: Option<Stamp>,
    /// Statements about it.
    pub statements: Vec<Statement>,
}

/// All that is exported.
#[derive(Clone)]
pub struct Source {
    /// In the order they appear in an index.
    pub results: Vec<PlatformResult>,
    /// Whether platforms were asked for, so that an index or directories are wanted.
    pub multi_platform: bool,
    /// Whether the one platform was named by the frontend.
    pub declared: bool,
    /// The name the frontend found for the image.
    pub image_name: Option<String>,
    /// What the frontend wants written at the documents of the image.
    pub annotations: Annotations,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    #[serde(default)]
    platforms: Option<Vec<ListedPlatform>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListedPlatform {
    #[serde(rename = "ID")]
    id: String,
    platform: Platform,
}

impl Source {
    /// Reads a frontend's result: a single one, or several by id, and its metadata.
    pub fn new(
        single: Option<Ref>,
        by_id: BTreeMap<String, Option<Ref>>,
        metadata: &BTreeMap<String, Bytes>,
    ) -> Result<Source> {
        let multi_platform = !by_id.is_empty();
        let listed = listed(metadata)?;
        let declared = listed.is_some();
        let listed = match listed {
            None if multi_platform => return Err(Error::NoPlatforms),
            Some(listed) if !multi_platform && listed.len() > 1 => {
                return Err(Error::NotMultiPlatform);
            }
            Some(listed) => listed,
            None => vec![ListedPlatform {
                id: String::new(),
                platform: of_config(metadata)?,
            }],
        };
        let mut results = Vec::with_capacity(listed.len());
        for ListedPlatform { id, platform } in listed {
            let files = if multi_platform {
                // Named twice, it is there twice.
                let named = by_id.get(&id).cloned();
                named.ok_or_else(|| Error::NoRef(id.clone()))?
            } else {
                single.clone()
            };
            let fact = |name: &str| {
                let own = metadata.get(&format!("{name}/{id}"));
                own.or_else(|| metadata.get(name).filter(|_| !multi_platform))
                    .cloned()
            };
            let epoch = match fact("source.date.epoch")
                .or_else(|| metadata.get("source.date.epoch").cloned())
            {
                Some(value) => {
                    let text = String::from_utf8_lossy(&value).into_owned();
                    Some(options::epoch("source-date-epoch", &text)?)
                }
                None => None,
            };
            results.push(PlatformResult {
                platform: platform.normalized(),
                files,
                config: fact("containerimage.config"),
                base_config: fact("containerimage.base.config"),
                inline_cache: fact("containerimage.inlinecache"),
                epoch,
                statements: Vec::new(),
                id,
            });
        }
        let image_name = metadata.get("image.name");
        let image_name = image_name.map(|name| String::from_utf8_lossy(name).into_owned());
        Ok(Source {
            results,
            multi_platform,
            declared,
            image_name,
            annotations: Annotations::of_result(metadata)?,
        })
    }
}

/// The platforms the frontend listed, if it did.
fn listed(metadata: &BTreeMap<String, Bytes>) -> Result<Option<Vec<ListedPlatform>>> {
    let Some(bytes) = metadata.get("refs.platforms") else {
        return Ok(None);
    };
    let listed = match bytes.is_empty() {
        true => None,
        false => serde_json::from_slice::<Option<Listed>>(bytes).map_err(Error::Platforms)?,
    };
    let listed = listed.and_then(|listed| listed.platforms);
    let listed = listed.unwrap_or_default();
    if listed.is_empty() {
        return Err(Error::EmptyPlatforms);
    }
    for ListedPlatform { id, platform } in &listed {
        if id.is_empty() {
            return Err(Error::EmptyPlatformId);
        }
        if platform.os.is_empty() || platform.architecture.is_empty() {
            return Err(Error::PlatformValue {
                os: platform.os.clone(),
                architecture: platform.architecture.clone(),
            });
        }
    }
    Ok(Some(listed))
}

/// The platform the image config tells; without one it is this machine's.
fn of_config(metadata: &BTreeMap<String, Bytes>) -> Result<Platform> {
    let Some(config) = metadata.get("containerimage.config") else {
        return Ok(Platform::host());
    };
    let told: Option<Platform> = serde_json::from_slice(config).map_err(Error::ConfigJson)?;
    let told = told.unwrap_or_default();
    match (told.os.is_empty(), told.architecture.is_empty()) {
        (true, true) => Ok(Platform::host()),
        (false, false) => Ok(told),
        _ => Err(Error::HalfPlatform),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platforms(text: &str) -> BTreeMap<String, Bytes> {
        BTreeMap::from([("refs.platforms".to_owned(), Bytes::from(text.to_owned()))])
    }

    fn error(single: bool, by_id: &[&str], metadata: &BTreeMap<String, Bytes>) -> String {
        assert!(!single);
        let by_id = by_id.iter().map(|id| ((*id).to_owned(), None)).collect();
        Source::new(None, by_id, metadata)
            .err()
            .map(|e| e.to_string())
            .unwrap_or_default()
    }

    const TWO: &str = r#"{"Platforms":[
        {"ID":"linux/arm64","Platform":{"architecture":"arm64","os":"linux"}},
        {"ID":"linux/amd64","Platform":{"architecture":"amd64","os":"linux"}}]}"#;

    /// Rows: W5, W28
    #[test]
    fn platforms_that_are_none_are_refused() {
        let config = |text: &'static str| {
            let key = "containerimage.config".to_owned();
            BTreeMap::from([(key, Bytes::from(text))])
        };
        for (metadata, message) in [
            (
                platforms("null"),
                "invalid empty platforms index for exporter",
            ),
            (platforms(""), "invalid empty platforms index for exporter"),
            (
                platforms(r#"{"Platforms":null}"#),
                "invalid empty platforms index for exporter",
            ),
            (
                platforms(r#"{"Platforms":[{"ID":"","Platform":{"architecture":"","os":""}}]}"#),
                "invalid empty platform key for exporter",
            ),
            (
                platforms(r#"{"Platforms":[{"ID":"foo","Platform":{"architecture":"a"}}]}"#),
                "invalid platform value \"\"/\"a\" for exporter",
            ),
            (
                config(r#"{"architecture":"amd64"}"#),
                "invalid image config: os and architecture must be specified together",
            ),
            (config("[1]"), "failed to parse image config for patch"),
        ] {
            assert_eq!(error(false, &[], &metadata), message);
        }
        let of = |text| Source::new(None, BTreeMap::new(), &config(text)).unwrap();
        let told = of(r#"{"architecture":"aarch64","os":"linux"}"#);
        assert_eq!(told.results[0].platform.to_string(), "linux/arm64");
        // What the writer of the config says to it comes later.
        for nothing in ["null", "{}"] {
            let platform = &of(nothing).results[0].platform;
            assert_eq!(*platform, Platform::host().normalized());
        }
    }

    /// Rows: E07
    #[test]
    fn a_frontend_annotates_the_image_too() {
        let said = [
            ("annotation-index.gi", "of the index"),
            ("annotation.m", "of all manifests"),
            ("annotations.other", "is something else"),
        ];
        let said = said.map(|(key, value)| (key.to_owned(), Bytes::from(value)));
        let source = Source::new(None, BTreeMap::new(), &said.into()).unwrap();
        assert_eq!(source.annotations.index["gi"], "of the index");
        let manifest = source.annotations.manifest(&Platform::host());
        assert_eq!(
            manifest.into_values().collect::<Vec<_>>(),
            ["of all manifests"]
        );
        let wrong = BTreeMap::from([("annotation-nowhere.a".to_owned(), Bytes::new())]);
        let message = error(false, &[], &wrong);
        assert_eq!(message, "invalid annotation key \"annotation-nowhere.a\"");
    }

    /// Rows: W1, W2, W3, W5, W6, W7
    #[test]
    fn results_and_platforms_must_fit_together() {
        let none = BTreeMap::new();
        let two = platforms(TWO);
        assert_eq!(error(false, &["a"], &none), Error::NoPlatforms.to_string());
        assert_eq!(
            error(false, &["linux/arm64"], &two),
            "failed to find ref for ID linux/amd64"
        );
        assert_eq!(error(false, &[], &two), Error::NotMultiPlatform.to_string());
        let mut metadata = two;
        metadata.insert(
            "containerimage.config/linux/amd64".to_owned(),
            Bytes::from_static(b"{}"),
        );
        let twice = TWO
            .replace("linux/arm64", "linux/amd64")
            .replace(r#""arm64""#, r#""amd64""#);
        let by_id = BTreeMap::from([("linux/amd64".to_owned(), None)]);
        let twice = Source::new(None, by_id, &platforms(&twice)).unwrap();
        assert_eq!(twice.results.len(), 2, "a platform asked for twice");
        // Each platform has its own; what no platform names is not exported.
        let by_id = [("linux/amd64", None), ("linux/arm64", None), ("more", None)];
        let by_id = by_id
            .into_iter()
            .map(|(id, r)| (id.to_owned(), r))
            .collect();
        let source = Source::new(None, by_id, &metadata).unwrap();
        let ids: Vec<&str> = source.results.iter().map(|one| one.id.as_str()).collect();
        assert_eq!(ids, ["linux/arm64", "linux/amd64"]);
        assert_eq!(source.results[1].config.as_deref(), Some(&b"{}"[..]));
        assert!(source.results[0].config.is_none() && source.multi_platform);
    }
}
