//! The image config: what the frontend gave, with layers, history and time set. It
//! is handled as the JSON it is, so that fields nobody here knows survive.

use std::collections::BTreeMap;

use base64::Engine as _;
use oci::{DiffId, Platform, go_json};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::history::{Made, clamped, normalized};
use crate::{Error, History, Result, Stamp};

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What enters a config.
pub(crate) struct Patch<'a> {
    pub(crate) diff_ids: &'a [DiffId],
    pub(crate) made: &'a [Made],
    pub(crate) base: Option<&'a [u8]>,
    pub(crate) epoch: Option<Stamp>,
    pub(crate) inline_cache: Option<&'a [u8]>,
}

/// The few fields that are looked at.
#[derive(Deserialize)]
struct Known {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    created: Option<Stamp>,
    #[serde(default)]
    history: Option<Vec<History>>,
}

/// The layers and history of a base image.
#[derive(Default, Deserialize)]
pub(crate) struct Base {
    #[serde(default)]
    rootfs: RootFs,
    #[serde(default)]
    history: Vec<History>,
}

#[derive(Default, Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Vec<DiffId>,
}

impl Base {
    /// Reads a base config; one that cannot be read counts for nothing.
    pub(crate) fn parse(bytes: Option<&[u8]>) -> Base {
        bytes
            .and_then(|bytes| serde_json::from_slice(bytes).ok())
            .unwrap_or_default()
    }

    pub(crate) fn diff_ids(&self) -> &[DiffId] {
        &self.rootfs.diff_ids
    }
}

/// The config of an image nobody described.
pub fn default_config(platform: &Platform) -> Vec<u8> {
    let mut config = serde_json::json!({ "WorkingDir": "/" });
    if platform.os != "windows" {
        config = serde_json::json!({ "Env": [DEFAULT_PATH], "WorkingDir": "/" });
    }
    let mut value = serde_json::json!({
        "architecture": platform.architecture,
        "config": config,
        "os": platform.os,
        "rootfs": { "type": "layers", "diff_ids": [] },
    });
    if !platform.variant.is_empty() {
        value["variant"] = platform.variant.clone().into();
    }
    if !platform.os_version.is_empty() {
        value["os.version"] = platform.os_version.clone().into();
    }
    go_json::compact(&value).into_bytes()
}

/// The config with `patch` applied: compact, keys sorted.
pub(crate) fn patched(config: &[u8], patch: &Patch<'_>) -> Result<Vec<u8>> {
    let text = std::str::from_utf8(config).map_err(|_| Error::Config(": not UTF-8"))?;
    if text.trim() == "null" {
        return Err(Error::NullConfig);
    }
    let mut fields: BTreeMap<String, Box<RawValue>> =
        serde_json::from_str(text).map_err(Error::ConfigJson)?;
    let known: Known = serde_json::from_str(text).map_err(Error::ConfigJson)?;
    if known.os.is_empty() {
        return Err(Error::Config(": missing os"));
    }
    if known.architecture.is_empty() {
        return Err(Error::Config(": missing architecture"));
    }
    let mut history = normalized(known.history.unwrap_or_default(), patch.made);
    if let Some(epoch) = patch.epoch {
        history = clamped(history, &Base::parse(patch.base).history, epoch);
    }
    let created = match (known.created, patch.epoch) {
        (Some(created), Some(epoch)) => Some(created.min(epoch)),
        (Some(created), None) => Some(created),
        (None, _) => history.iter().rev().find_map(|entry| entry.created),
    };
    let rootfs = serde_json::json!({ "type": "layers", "diff_ids": patch.diff_ids });
    let mut set = |key: &str, text: String| {
        fields.insert(
            key.to_owned(),
            RawValue::from_string(text).expect("it is JSON"),
        );
    };
    set("rootfs", go_json::compact(&rootfs));
    set("history", go_json::compact(&history));
    set("created", go_json::compact(&created));
    if let Some(cache) = patch.inline_cache {
        let text = base64::engine::general_purpose::STANDARD.encode(cache);
        set("moby.buildkit.cache.v0", go_json::compact(&text));
    }
    let members: Vec<String> = fields
        .iter()
        .map(|(key, value)| {
            let key = go_json::compact(key);
            format!("{key}:{}", go_json::squeezed(value.get()))
        })
        .collect();
    Ok(format!("{{{}}}", members.join(",")).into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patch(epoch: Option<i64>) -> Patch<'static> {
        Patch {
            diff_ids: &[],
            made: &[],
            base: None,
            epoch: epoch.and_then(Stamp::from_epoch),
            inline_cache: None,
        }
    }

    fn text(config: &str, patch: &Patch<'_>) -> String {
        String::from_utf8(patched(config.as_bytes(), patch).unwrap()).unwrap()
    }

    /// Rows: W29, W30, W31, W34
    #[test]
    fn unknown_fields_survive_and_keys_are_sorted() {
        let config = r#"{ "zeta": {"b": 1.50, "a": ["x  y"]}, "os": "linux",
            "architecture": "amd64", "created": "2020-01-02T03:04:05.678900000Z" }"#;
        assert_eq!(
            text(config, &patch(None)),
            r#"{"architecture":"amd64","created":"2020-01-02T03:04:05.6789Z","history":[],"os":"linux","rootfs":{"type":"layers","diff_ids":[]},"zeta":{"b":1.50,"a":["x  y"]}}"#
        );
        assert!(text(config, &patch(Some(0))).contains(r#""created":"1970-01-01T00:00:00Z""#));
        let bare = r#"{"os":"linux","architecture":"amd64"}"#;
        assert!(text(bare, &patch(None)).contains(r#""created":null"#));
    }

    /// Rows: W28
    #[test]
    fn a_config_that_is_none_is_refused() {
        for (config, message) in [
            ("null", "invalid null image config for export"),
            ("{}", "invalid image config for export: missing os"),
            (
                r#"{"os":"linux"}"#,
                "invalid image config for export: missing architecture",
            ),
            ("[]", "failed to parse image config for patch"),
        ] {
            let error = patched(config.as_bytes(), &patch(None)).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
    }

    /// Rows: W27, W33
    #[test]
    fn a_missing_config_is_made_up_and_inline_cache_is_put_in() {
        let config = default_config(&Platform::host());
        let done = patched(
            &config,
            &Patch {
                inline_cache: Some(b"[]"),
                ..patch(None)
            },
        )
        .unwrap();
        let done = String::from_utf8(done).unwrap();
        assert!(
            done.contains(r#""moby.buildkit.cache.v0":"W10=""#),
            "{done}"
        );
        assert!(
            done.contains(r#""config":{"Env":["PATH=/usr/local/sbin"#),
            "{done}"
        );
    }
}
