//! Remarks on a result that is for other platforms than were asked for (row E11). It is a
//! remark and no failure: the frontend may have its reasons.

use std::collections::{BTreeMap, BTreeSet};

use exporter::Source;
use frontend::{FrontendResult, Refs, metadata_key};
use oci::Platform;
use progress::{Progress, Warning};

use crate::Engine;

/// Tells what there is to say, as a step of its own.
pub(crate) fn warn(
    options: &BTreeMap<String, String>,
    engine: &Engine,
    result: &FrontendResult,
    source: &Source,
    progress: &Progress,
) {
    let nothing = matches!(result.refs, Refs::One(None));
    if nothing && !result.metadata.contains_key(metadata_key::PLATFORMS) {
        // An answer that is all metadata is for no platform.
        return;
    }
    let asked = options.get("platform").map(String::as_str);
    let remarks = remarks(asked, &engine.0.parts.platform, source);
    if remarks.is_empty() {
        return;
    }
    let step = progress.internal_step("verifying build result");
    step.start();
    for short in remarks {
        step.warn(Warning {
            step: step.digest(),
            level: 1,
            short,
            detail: Vec::new(),
            url: String::new(),
            source: None,
            ranges: Vec::new(),
        });
    }
    step.complete(false);
}

/// What is wrong with the platforms of `source`; `usual` is what is built when none is asked
/// for. The sentences are BuildKit's.
fn remarks(asked: Option<&str>, usual: &Platform, source: &Source) -> Vec<String> {
    let mut remarks = Vec::new();
    let mut wanted = BTreeSet::new();
    for text in asked.iter().flat_map(|asked| asked.split(',')) {
        match text.parse::<Platform>().map(Platform::normalized) {
            Err(error) => {
                remarks.push(format!(
                    "Invalid platform result requested {text:?}: {error}"
                ));
            }
            Ok(platform) if !wanted.insert(platform.to_string()) => {
                remarks.push(format!("Duplicate platform result requested {text:?}"));
            }
            Ok(_) => {}
        }
    }
    if !remarks.is_empty() {
        return remarks;
    }
    if asked.is_none() {
        wanted.insert(usual.clone().normalized().to_string());
    }
    let made = source.results.iter().map(|one| one.platform.to_string());
    let made: BTreeSet<String> = made.collect();
    let text = |all: &BTreeSet<String>| all.iter().cloned().collect::<Vec<_>>().join(",");
    let (asked, found) = (text(&wanted), text(&made));
    if wanted == made && made.len() == source.results.len() {
        return remarks;
    }
    remarks.push(match (wanted.len(), source.results.len()) {
        (1, 1) => format!("Requested platform {asked:?} does not match result platform {found:?}"),
        _ if wanted.len() > 1 && !source.multi_platform => {
            "Multiple platforms requested but result is not multi-platform".to_owned()
        }
        _ => format!("Requested platforms {asked} do not match result platforms {found}"),
    });
    remarks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(platforms: &[&str]) -> Source {
        let listed = platforms.iter().map(|text| {
            let platform: Platform = text.parse().unwrap();
            serde_json::json!({ "ID": text, "Platform": platform })
        });
        let listed = serde_json::json!({ "Platforms": listed.collect::<Vec<_>>() });
        let metadata = [(
            metadata_key::PLATFORMS.to_owned(),
            listed.to_string().into(),
        )];
        let by_id = platforms.iter().map(|id| ((*id).to_owned(), None));
        Source::new(None, by_id.collect(), &metadata.into()).unwrap()
    }

    fn said(asked: Option<&str>, source: &Source) -> String {
        let usual = "linux/amd64".parse().unwrap();
        remarks(asked, &usual, source).join("; ")
    }

    /// Rows: E11
    #[test]
    fn a_result_for_other_platforms_than_asked_for_is_remarked_on() {
        let both = source(&["linux/arm64", "linux/amd64"]);
        let one = source(&["linux/arm64"]);
        let single = Source {
            multi_platform: false,
            ..source(&["linux/amd64"])
        };
        for (asked, source, remark) in [
            (None, &single, ""),
            (Some("linux/x86_64"), &single, ""),
            (Some("linux/amd64,linux/aarch64"), &both, ""),
            (
                None,
                &one,
                "Requested platform \"linux/amd64\" does not match result platform \"linux/arm64\"",
            ),
            (
                None,
                &both,
                "Requested platforms linux/amd64 do not match result platforms linux/amd64,linux/arm64",
            ),
            (
                Some("linux/arm64,linux/amd64"),
                &single,
                "Multiple platforms requested but result is not multi-platform",
            ),
            (
                Some("linux/amd64,linux/amd64"),
                &single,
                "Duplicate platform result requested \"linux/amd64\"",
            ),
            (
                Some("linux/amd64,a/b/c/d/e"),
                &both,
                "Invalid platform result requested \"a/b/c/d/e\": `a/b/c/d/e` is not a platform like linux/amd64 or linux/arm/v7",
            ),
        ] {
            assert_eq!(said(asked, source), remark);
        }
    }
}
