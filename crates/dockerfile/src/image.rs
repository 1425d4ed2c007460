//! The image config a Dockerfile makes, in the field order Go writes.

use std::collections::BTreeMap;

use oci::Platform;
use serde::{Deserialize, Serialize};

/// `PATH` where an image has none.
pub(crate) const DEFAULT_PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// In each history entry of ours.
pub(crate) const HISTORY_COMMENT: &str = "buildkit.dockerfile.v0";

/// An image config.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Image {
    /// When it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who made it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// What it runs on.
    #[serde(flatten)]
    pub platform: Platform,
    /// How to run it.
    #[serde(default, deserialize_with = "or_default")]
    pub config: Config,
    /// Its layers.
    #[serde(default)]
    pub rootfs: RootFs,
    /// How it was made.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub history: Vec<History>,
}

/// Layers, uncompressed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// `layers`
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Lowest first. `null` in images without any.
    #[serde(default)]
    pub diff_ids: Option<Vec<String>>,
}

/// One step of an image's making.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// What made it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    /// Who made it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// Our name, in ours.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// It has no layer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

/// How to run an image.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Config {
    /// Who runs it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// `80/tcp`
    #[serde(
        deserialize_with = "or_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub exposed_ports: BTreeMap<String, Empty>,
    /// `NAME=value`
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// What runs.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// Its arguments, or what runs.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// Directories of their own.
    #[serde(
        deserialize_with = "or_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub volumes: BTreeMap<String, Empty>,
    /// Where it runs.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Labels.
    #[serde(
        deserialize_with = "or_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub labels: BTreeMap<String, String>,
    /// How to end it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// Of Windows' interest.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub args_escaped: bool,
    /// Is it well?
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// What builds on top of it run first.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub on_build: Vec<String>,
    /// Seconds between signal and kill.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    /// What runs commands in shell form.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub shell: Vec<String>,
}

/// `{}`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// `HEALTHCHECK`; times in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `NONE`, `CMD …`, `CMD-SHELL …`
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Between two checks.
    #[serde(skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// One check may take.
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// Failures count only after this.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Between two checks until then.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// So many failures make it unhealthy.
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: i64,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// `null` is as good as absent.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Image {
    /// An image with nothing in it.
    pub fn scratch(platform: &Platform) -> Image {
        let mut image = Image {
            platform: Platform {
                architecture: platform.architecture.clone(),
                os: platform.os.clone(),
                os_version: platform.os_version.clone(),
                os_features: platform.os_features.clone(),
                variant: platform.variant.clone(),
            },
            rootfs: RootFs {
                kind: "layers".into(),
                diff_ids: None,
            },
            ..Image::default()
        };
        image.config.working_dir = "/".into();
        if platform.os != "windows" {
            image.config.env = vec![format!("PATH={DEFAULT_PATH}")];
        }
        image
    }

    /// The config as JSON, as Go would write it.
    pub fn to_json(&self) -> String {
        oci::go_json::compact(self)
    }

    /// Adds what a step did to the history.
    pub(crate) fn commit(&mut self, what: String, layer: bool, created: Option<&str>) {
        self.history.push(History {
            created: created.map(str::to_owned),
            created_by: what,
            comment: HISTORY_COMMENT.into(),
            empty_layer: !layer,
            ..History::default()
        });
    }

    /// Sets a variable where it stands, or as the last one.
    pub(crate) fn set_env(&mut self, name: &str, value: &str) {
        frontend::set_env(&mut self.config.env, name, value);
    }

    /// What runs commands in shell form.
    pub(crate) fn shell(&self) -> Vec<String> {
        match (self.config.shell.is_empty(), self.platform.os.as_str()) {
            (false, _) => self.config.shell.clone(),
            (true, "windows") => vec!["cmd".into(), "/S".into(), "/C".into()],
            (true, _) => vec!["/bin/sh".into(), "-c".into()],
        }
    }
}

/// Seconds since 1970 as `2023-11-14T22:13:20Z`.
pub(crate) fn timestamp(seconds: i64) -> String {
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days from civil, backwards: eras of 400 years that begin in March.
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_right_around_leap_days() {
        assert_eq!(timestamp(1_700_000_000), "2023-11-14T22:13:20Z");
        assert_eq!(timestamp(0), "1970-01-01T00:00:00Z");
        assert_eq!(timestamp(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(timestamp(-1), "1969-12-31T23:59:59Z");
    }

    /// Rows: F32
    #[test]
    fn nulls_of_other_builders_are_read() {
        let json = r#"{"architecture":"amd64","os":"linux","config":{"Env":null,"Labels":null,"OnBuild":null},"rootfs":{"type":"layers","diff_ids":null},"history":null}"#;
        let image: Image = serde_json::from_str(json).unwrap();
        assert_eq!(image.platform.architecture, "amd64");
        let image: Image = serde_json::from_str(r#"{"config":null}"#).unwrap();
        assert!(image.config.env.is_empty());
    }
}
