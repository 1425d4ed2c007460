//! Cache keys of images (P18). Their text is BuildKit's, so that caches can be
//! exchanged: golden vectors hold it to that.

use oci::{DiffId, Digest, Platform};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use oci::go_json;

/// Key 0: this manifest on this platform.
pub(crate) fn manifest(digest: &Digest, platform: &Platform, limit: Option<usize>) -> Digest {
    go_json::digest(&Preimage::new(digest, platform, limit))
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Preimage<'a> {
    digest: &'a Digest,
    #[serde(rename = "OS")]
    os: &'a str,
    arch: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    variant: &'a str,
    #[serde(rename = "OSVersion", skip_serializing_if = "str::is_empty")]
    os_version: &'a str,
    #[serde(rename = "OSFeatures", skip_serializing_if = "<[String]>::is_empty")]
    os_features: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<usize>,
}

impl<'a> Preimage<'a> {
    fn new(digest: &'a Digest, platform: &'a Platform, limit: Option<usize>) -> Preimage<'a> {
        Preimage {
            digest,
            os: &platform.os,
            arch: &platform.architecture,
            variant: &platform.variant,
            os_version: &platform.os_version,
            os_features: &platform.os_features,
            limit,
        }
    }
}

/// Key 1: the stack of layers. `None` when the config names none.
pub(crate) fn config(config: &[u8], limit: Option<usize>) -> Result<Option<String>> {
    #[derive(Deserialize)]
    struct Config {
        #[serde(default)]
        rootfs: RootFs,
    }
    #[derive(Deserialize, Default)]
    struct RootFs {
        #[serde(default, rename = "type")]
        kind: String,
        #[serde(default)]
        diff_ids: Option<Vec<DiffId>>,
    }
    let Ok(Config { rootfs }) = serde_json::from_slice::<Config>(config) else {
        return Ok(Some(Digest::of(config).to_string()));
    };
    let mut diff_ids = rootfs.diff_ids.unwrap_or_default();
    if rootfs.kind != "layers" || diff_ids.is_empty() {
        return Ok(None);
    }
    if let Some(limit) = limit {
        if limit > diff_ids.len() {
            let reason = format!("image has {} layers, limit is {limit}", diff_ids.len());
            return Err(Error::Document {
                reference: "image config".into(),
                reason,
            });
        }
        diff_ids.truncate(limit);
    }
    Ok(oci::chain_id(&diff_ids).map(|chain| chain.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "sha256:e0caebf4771446149453788a72aa2b6f43806d10e6a126e3f8383d2ee2539f21";

    /// The vectors are from `a01-run-shell/preimages.json` of the golden set.
    ///
    /// Rows: S02, P18
    #[test]
    fn the_key_of_a_manifest_is_buildkits() {
        let digest: Digest = BASE.parse().unwrap();
        let amd64: Platform = "linux/amd64".parse().unwrap();
        assert_eq!(
            manifest(&digest, &amd64, None).to_string(),
            "sha256:65a8da2b84d719ac383a17bcee6153cb71ce4778fedc75a9538e2496789e042c"
        );
        assert_eq!(
            Digest::of(llb::preimage::source(
                &manifest(&digest, &amd64, None).to_string()
            ))
            .to_string(),
            "sha256:bfbba476851a06dbff485e553607ce8426fea1bc517567a85605335a587e8abf"
        );
        let arm = Platform {
            os_version: "1<2".into(),
            os_features: vec!["f".into()],
            .."linux/arm/v7".parse().unwrap()
        };
        assert_eq!(
            go_json::compact(&Preimage::new(&digest, &arm, Some(2))),
            format!(
                r#"{{"Digest":"{BASE}","OS":"linux","Arch":"arm","Variant":"v7","OSVersion":"1\u003c2","OSFeatures":["f"],"Limit":2}}"#
            )
        );
    }

    /// Rows: S02, S05, P18
    #[test]
    fn the_key_of_a_config_is_its_chain() {
        let ids = ["a", "b"].map(|text| DiffId(Digest::of(text)));
        let json = format!(
            r#"{{"rootfs":{{"type":"layers","diff_ids":["{}","{}"]}}}}"#,
            ids[0], ids[1]
        );
        let chain = |n: usize| oci::chain_id(&ids[..n]).unwrap().to_string();
        assert_eq!(config(json.as_bytes(), None).unwrap(), Some(chain(2)));
        assert_eq!(config(json.as_bytes(), Some(1)).unwrap(), Some(chain(1)));
        assert!(
            config(json.as_bytes(), Some(3))
                .unwrap_err()
                .to_string()
                .contains("image has 2 layers, limit is 3")
        );
        assert_eq!(
            config(b"not json", None).unwrap(),
            Some(Digest::of("not json").to_string())
        );
        for empty in [
            r#"{"rootfs":{"type":"layers","diff_ids":null}}"#,
            r#"{"rootfs":{"type":"x"}}"#,
            "{}",
        ] {
            assert_eq!(config(empty.as_bytes(), None).unwrap(), None, "{empty}");
        }
    }
}
