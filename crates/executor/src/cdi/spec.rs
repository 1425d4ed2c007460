//! One file of a vendor: the CDI specification, versions 0.1.0 to 1.1.0.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Versions there are, oldest first.
const VERSIONS: [&str; 10] = [
    "0.1.0", "0.2.0", "0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0",
];
const HOOKS: [&str; 6] = [
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
];

/// A file. What is not in the specification makes it wrong, as everywhere else.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Spec {
    #[serde(rename = "cdiVersion")]
    version: String,
    pub(super) kind: String,
    #[serde(default, deserialize_with = "texts")]
    pub(super) annotations: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) devices: Vec<Device>,
    /// For containers with any of its devices.
    #[serde(default, rename = "containerEdits")]
    pub(super) edits: Edits,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Device {
    pub(super) name: String,
    #[serde(default, deserialize_with = "texts")]
    pub(super) annotations: BTreeMap<String, String>,
    #[serde(default, rename = "containerEdits")]
    pub(super) edits: Edits,
}

/// What a container is given.
#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(super) struct Edits {
    pub(super) env: Vec<String>,
    pub(super) device_nodes: Vec<DeviceNode>,
    pub(super) mounts: Vec<Mount>,
    pub(super) hooks: Vec<Hook>,
    #[serde(rename = "additionalGids")]
    pub(super) groups: Vec<u32>,
    pub(super) intel_rdt: Option<Value>,
    pub(super) net_devices: Vec<Value>,
}

#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(super) struct DeviceNode {
    pub(super) path: String,
    pub(super) host_path: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) major: i64,
    pub(super) minor: i64,
    pub(super) file_mode: Option<u32>,
    pub(super) permissions: String,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
}

#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(super) struct Mount {
    pub(super) host_path: String,
    pub(super) container_path: String,
    pub(super) options: Vec<String>,
    #[serde(rename = "type")]
    pub(super) kind: String,
}

#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(super) struct Hook {
    pub(super) hook_name: String,
    pub(super) path: String,
    pub(super) args: Vec<String>,
    pub(super) env: Vec<String>,
    pub(super) timeout: Option<i64>,
}

/// Annotations are texts, but people write `true` and `1` without quotes.
fn texts<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    let values = Option::<BTreeMap<String, Value>>::deserialize(from)?.unwrap_or_default();
    let texts = values.into_iter().map(|(key, value)| match value {
        Value::String(text) => Ok((key, text)),
        Value::Bool(_) | Value::Number(_) => Ok((key, value.to_string())),
        _ => Err(serde::de::Error::custom(format!(
            "annotation {key} is no text"
        ))),
    });
    texts.collect()
}

impl Spec {
    /// `Err` says what is wrong with it.
    pub(super) fn parse(value: Value) -> Result<Spec, String> {
        let spec: Spec = serde_json::from_value(value).map_err(|error| error.to_string())?;
        let place = VERSIONS.iter().position(|known| *known == spec.version);
        let place = place.ok_or_else(|| format!("unknown cdiVersion {:?}", spec.version))?;
        let needed = spec.needed();
        if VERSIONS.iter().position(|known| *known == needed) > Some(place) {
            let version = &spec.version;
            return Err(format!(
                "it is of version {version} but uses what came with {needed}"
            ));
        }
        check_kind(&spec.kind)?;
        spec.edits.check()?;
        if spec.devices.is_empty() {
            return Err("it describes no devices".to_string());
        }
        let mut names = std::collections::BTreeSet::new();
        for device in &spec.devices {
            check_name(&device.name, "_-.:", true)?;
            if !names.insert(&device.name) {
                return Err(format!("it describes {} twice", device.name));
            }
            if device.edits == Edits::default() {
                return Err(format!("{} needs nothing", device.name));
            }
            device.edits.check()?;
        }
        Ok(spec)
    }

    /// The version that knew everything it uses.
    fn needed(&self) -> &'static str {
        let edits = || {
            let devices = self.devices.iter().map(|device| &device.edits);
            devices.chain([&self.edits])
        };
        let class = self.kind.split_once('/').map_or("", |(_, class)| class);
        let annotated = !self.annotations.is_empty()
            || self
                .devices
                .iter()
                .any(|device| !device.annotations.is_empty());
        let digits = |device: &Device| device.name.starts_with(|c: char| !c.is_ascii_alphabetic());
        if edits().any(|edits| !edits.net_devices.is_empty()) {
            "1.1.0"
        } else if edits().any(|edits| edits.intel_rdt.is_some() || !edits.groups.is_empty()) {
            "0.7.0"
        } else if annotated || class.contains('.') {
            "0.6.0"
        } else if self.devices.iter().any(digits)
            || edits().any(|edits| {
                edits
                    .device_nodes
                    .iter()
                    .any(|node| !node.host_path.is_empty())
            })
        {
            "0.5.0"
        } else if edits().any(|edits| edits.mounts.iter().any(|mount| !mount.kind.is_empty())) {
            "0.4.0"
        } else {
            VERSIONS[0]
        }
    }
}

impl Edits {
    fn check(&self) -> Result<(), String> {
        let variable = |text: &String| text.find('=').is_none_or(|at| at == 0);
        let variables = self
            .hooks
            .iter()
            .flat_map(|hook| &hook.env)
            .chain(&self.env);
        if let Some(wrong) = variables.into_iter().find(|text| variable(text)) {
            return Err(format!("{wrong:?} is no environment variable"));
        }
        for node in &self.device_nodes {
            let path = &node.path;
            if path.is_empty() {
                return Err("a device node has no path".to_string());
            }
            if !["", "b", "c", "u", "p"].contains(&node.kind.as_str()) {
                return Err(format!("device node {path}: unknown type {:?}", node.kind));
            }
            if node.major < 0 || node.minor < 0 {
                return Err(format!("device node {path}: a negative number"));
            }
            let letters = node.permissions.trim_matches(['r', 'w', 'm']);
            if !letters.is_empty() && node.permissions != "none" {
                return Err(format!(
                    "device node {path}: permissions {:?}",
                    node.permissions
                ));
            }
        }
        for mount in &self.mounts {
            if mount.host_path.is_empty() || mount.container_path.is_empty() {
                return Err("a mount lacks one of its paths".to_string());
            }
        }
        for hook in &self.hooks {
            if !HOOKS.contains(&hook.hook_name.as_str()) || hook.path.is_empty() {
                return Err(format!("hook {:?} {:?}", hook.hook_name, hook.path));
            }
        }
        Ok(())
    }
}

/// `vendor.com/class`
pub(super) fn check_kind(kind: &str) -> Result<(), String> {
    let parts = kind.split_once('/');
    let (vendor, class) = parts.ok_or_else(|| format!("{kind:?} is not like vendor.com/class"))?;
    check_name(vendor, "_-.", false)?;
    check_name(class, "_-.", false)
}

/// Names begin and end with a letter or digit; `digits` says whether also with the latter.
fn check_name(name: &str, others: &str, digits: bool) -> Result<(), String> {
    let wrong = || Err(format!("{name:?} is no name"));
    let first = |c: char| c.is_ascii_alphabetic() || digits && c.is_ascii_digit();
    if !name.starts_with(first) || !name.ends_with(|c: char| c.is_ascii_alphanumeric()) {
        return wrong();
    }
    match name
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || others.contains(c))
    {
        true => Ok(()),
        false => wrong(),
    }
}
