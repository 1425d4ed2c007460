//! Devices by name, as the Container Device Interface describes them (row X13): vendors
//! put files into directories of the host that say what a container needs to use a
//! device, and builds ask for devices by `vendor.com/class=name`.
//!
//! The files may change at any time, so they are read when someone asks: they are few.

mod edits;
mod grants;
mod spec;
mod yaml;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::process::Process;
pub use grants::Grants;
use spec::{Device, Spec};

/// Where vendors put their files unless told otherwise. Later ones win.
pub const SPEC_DIRS: [&str; 3] = ["/etc/cdi", "/var/run/cdi", "/etc/buildkit/cdi"];
/// The annotation that names a class several devices are in.
const CLASS: &str = "org.mobyproject.buildkit.device.class";
/// The annotation that says that a device needs no entitlement.
const AUTO_ALLOW: &str = "org.mobyproject.buildkit.device.autoallow";
/// A file larger than this is not one.
const MOST_BYTES: u64 = 4 << 20;

/// Where devices are described, and which of them every build may use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cdi {
    /// Directories with `.json` and `.yaml` files; later ones win. None = no devices.
    pub dirs: Vec<PathBuf>,
    /// Devices (`vendor.com/class=name`) and kinds (`vendor.com/class`).
    pub auto_allowed: BTreeSet<String>,
}

/// A device as it is told to clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceInfo {
    /// `vendor.com/class=name`
    pub name: String,
    /// Whether builds may use it that were not given the entitlement.
    pub auto_allow: bool,
    /// What its vendor notes about it.
    pub annotations: BTreeMap<String, String>,
}

/// The devices there are now.
#[derive(Debug, Default)]
pub struct Devices {
    specs: Vec<Spec>,
    /// Which specification and which device of it.
    by_name: BTreeMap<String, (usize, usize)>,
    auto_allowed: BTreeSet<String>,
}

impl Cdi {
    /// Reads the files. One that is wrong is left out and told in the log.
    pub fn read(&self) -> Devices {
        let mut devices = Devices {
            auto_allowed: self.auto_allowed.clone(),
            ..Devices::default()
        };
        for dir in &self.dirs {
            // Of the same directory no file is better than another: what two describe
            // nobody can use.
            let mut here: BTreeMap<String, Option<(usize, usize)>> = BTreeMap::new();
            for path in files(dir) {
                let spec = match read(&path) {
                    Ok(spec) => spec,
                    Err(reason) => {
                        tracing::warn!(path = %path.display(), reason, "no device specification");
                        continue;
                    }
                };
                let number = devices.specs.len();
                for (at, device) in spec.devices.iter().enumerate() {
                    let name = format!("{}={}", spec.kind, device.name);
                    let twice = here.contains_key(&name);
                    if twice {
                        tracing::warn!(name, dir = %dir.display(), "described by two files");
                    }
                    here.insert(name, (!twice).then_some((number, at)));
                }
                devices.specs.push(spec);
            }
            for (name, place) in here {
                match place {
                    Some(place) => devices.by_name.insert(name, place),
                    None => devices.by_name.remove(&name),
                };
            }
        }
        devices
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| {
            let extension = path.extension().and_then(|extension| extension.to_str());
            matches!(extension, Some("json" | "yaml")) && path.is_file()
        })
        .collect();
    files.sort();
    files
}

fn read(path: &Path) -> Result<Spec, String> {
    let size = std::fs::metadata(path)
        .map_err(|error| error.to_string())?
        .len();
    if size > MOST_BYTES {
        return Err(format!("it has {size} bytes"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    // JSON is YAML as well, but its own reader knows it better.
    let value = match path
        .extension()
        .is_some_and(|extension| extension == "json")
    {
        true => serde_json::from_str(&text).map_err(|error| error.to_string())?,
        false => yaml::parse(&text)?,
    };
    Spec::parse(value)
}

impl Devices {
    /// All of them, by name.
    pub fn list(&self) -> Vec<DeviceInfo> {
        self.by_name.keys().map(|name| self.info(name)).collect()
    }

    fn info(&self, name: &str) -> DeviceInfo {
        let kind = name.split('=').next().unwrap_or_default();
        let annotations = self.annotations(name);
        let noted = annotations.get(AUTO_ALLOW).map(String::as_str);
        DeviceInfo {
            name: name.to_string(),
            auto_allow: self.auto_allowed.contains(name)
                || self.auto_allowed.contains(kind)
                || noted.and_then(stdx::text::go_bool) == Some(true),
            annotations,
        }
    }

    fn get(&self, name: &str) -> Option<(usize, &Spec, &Device)> {
        let (spec, device) = self.by_name.get(name)?;
        let number = *spec;
        let spec = self.specs.get(number)?;
        Some((number, spec, spec.devices.get(*device)?))
    }

    /// A device's own win over those of its file.
    fn annotations(&self, name: &str) -> BTreeMap<String, String> {
        let Some((_, spec, device)) = self.get(name) else {
            return BTreeMap::new();
        };
        let mut all = spec.annotations.clone();
        all.extend(device.annotations.clone());
        all
    }

    /// The devices that `wanted` means: one by its name, all of a class of its kind with that
    /// name, the first of a kind (`vendor.com/class`), or all of it (`vendor.com/class=*`).
    /// What names no device of a kind is the name of a class, of whatever kinds.
    pub fn find(&self, wanted: &str, optional: bool) -> Result<Vec<String>, Error> {
        let invalid = |reason: String| Error::Invalid {
            what: format!("device {wanted:?}"),
            reason,
        };
        let (kind, name) = wanted.split_once('=').unwrap_or((wanted, ""));
        let mut found = Vec::new();
        if kind.contains('/') {
            spec::check_kind(kind).map_err(invalid)?;
            found = self.of_kind(kind, name, wanted);
        } else if wanted.is_empty() {
            return Err(invalid("it has no name".to_string()));
        }
        if found.is_empty() {
            let all = self.by_name.keys();
            found = all
                .filter(|device| self.in_class(device, wanted))
                .cloned()
                .collect();
        }
        if found.is_empty() && !optional {
            let what = format!("required device {wanted:?}: it is not registered on this host");
            return Err(Error::Unsupported { what });
        }
        Ok(found)
    }

    /// Those of a kind that `name` means; `wanted` is both together.
    fn of_kind(&self, kind: &str, name: &str, wanted: &str) -> Vec<String> {
        let all = self.by_name.keys();
        let of_kind = all.filter(|device| device.split('=').next() == Some(kind));
        match name {
            "" => of_kind.take(1).cloned().collect(),
            "*" => of_kind.cloned().collect(),
            _ if self.by_name.contains_key(wanted) => vec![wanted.to_string()],
            _ => of_kind
                .filter(|device| self.in_class(device, name))
                .cloned()
                .collect(),
        }
    }

    fn in_class(&self, device: &str, class: &str) -> bool {
        self.annotations(device).get(CLASS).map(String::as_str) == Some(class)
    }

    /// The names a step may use of those it wants (each with whether it does without).
    /// With the right to all devices they stay as they are.
    pub fn allow(
        &self,
        wanted: &[(String, bool)],
        grants: &Grants,
    ) -> Result<Vec<(String, bool)>, Refused> {
        if grants.all {
            return Ok(wanted.to_vec());
        }
        let mut allowed = Vec::new();
        let mut granted = BTreeSet::new();
        for name in grants.plain() {
            granted.extend(self.find(name, true)?);
        }
        let mut forbidden = Vec::new();
        for (name, optional) in wanted {
            if let Some(real) = grants.behind(name) {
                allowed.push((real.to_string(), *optional));
                continue;
            }
            for device in self.find(name, *optional)? {
                if granted.contains(&device) || self.info(&device).auto_allow {
                    allowed.push((device, *optional));
                } else {
                    forbidden.push(device);
                }
            }
        }
        match forbidden.is_empty() {
            true => Ok(allowed),
            false => Err(Refused::Forbidden(forbidden)),
        }
    }

    /// Gives `process` what the devices of these names need.
    pub fn apply(&self, wanted: &[(String, bool)], process: &mut Process) -> Result<(), Error> {
        let mut seen = BTreeSet::new();
        let mut seen_specs = BTreeSet::new();
        for (name, optional) in wanted {
            for device in self.find(name, *optional)? {
                let Some((number, spec, found)) = self.get(&device) else {
                    continue;
                };
                if !seen.insert(device.clone()) {
                    continue;
                }
                if seen_specs.insert(number) {
                    edits::apply(&spec.edits, &spec.kind, process)?;
                }
                edits::apply(&found.edits, &device, process)?;
            }
        }
        Ok(())
    }
}

/// Why a step may not have its devices.
#[derive(Debug)]
pub enum Refused {
    /// The build was not given the right to these.
    Forbidden(Vec<String>),
    /// They cannot be found.
    Error(Error),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Refused {
        Refused::Error(error)
    }
}

#[cfg(test)]
mod tests;
