//! What is exported: one result, or one per platform, with what the frontend said.

use std::collections::BTreeMap;

use bytes::Bytes;
use oci::Platform;
use refs::Ref;
use serde::Deserialize;

use crate::{Error, Result, Stamp, options};

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
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    #[serde(default)]
    platforms: Vec<ListedPlatform>,
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
        mut by_id: BTreeMap<String, Option<Ref>>,
        metadata: &BTreeMap<String, Bytes>,
    ) -> Result<Source> {
        let listed = match metadata.get("refs.platforms") {
            Some(bytes) if !bytes.is_empty() => {
                serde_json::from_slice::<Listed>(bytes)
                    .map_err(Error::Platforms)?
                    .platforms
            }
            _ => Vec::new(),
        };
        if listed.is_empty() && !by_id.is_empty() {
            return Err(Error::NoPlatforms);
        }
        if by_id.is_empty() && listed.len() > 1 {
            return Err(Error::NotMultiPlatform);
        }
        let multi_platform = !by_id.is_empty();
        let declared = !listed.is_empty();
        let host = ListedPlatform {
            id: String::new(),
            platform: Platform::host(),
        };
        let listed = if declared { listed } else { vec![host] };
        let mut results = Vec::with_capacity(listed.len());
        for ListedPlatform { id, platform } in listed {
            let files = if multi_platform {
                by_id.remove(&id).ok_or_else(|| Error::NoRef(id.clone()))?
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
        })
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
