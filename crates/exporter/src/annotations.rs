//! Annotation options: `annotation[-<where>][[<platform>]].<key>`.

use std::collections::BTreeMap;

use bytes::Bytes;
use oci::Platform;

use crate::{Error, Result};

/// Annotations for the documents of an export.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotations {
    /// Of the index.
    pub index: BTreeMap<String, String>,
    /// Of the descriptor of the index.
    pub index_descriptor: BTreeMap<String, String>,
    manifest: Vec<ForPlatform>,
    manifest_descriptor: Vec<ForPlatform>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct ForPlatform {
    platform: Option<Platform>,
    key: String,
    value: String,
}

impl Annotations {
    /// Those a frontend gave with its result.
    pub(crate) fn of_result(metadata: &BTreeMap<String, Bytes>) -> Result<Annotations> {
        let mut annotations = Annotations::default();
        for (key, value) in metadata {
            let rest = key.strip_prefix("annotation");
            if rest.is_some_and(|rest| rest.starts_with(['.', '-', '['])) {
                annotations.set(key, &String::from_utf8_lossy(value))?;
            }
        }
        Ok(annotations)
    }

    /// These and `more`, which weigh more where both say something.
    pub(crate) fn and(mut self, more: &Annotations) -> Annotations {
        let Annotations {
            index,
            index_descriptor,
            manifest,
            manifest_descriptor,
        } = more.clone();
        self.index.extend(index);
        self.index_descriptor.extend(index_descriptor);
        self.manifest.extend(manifest);
        self.manifest_descriptor.extend(manifest_descriptor);
        self
    }

    pub(crate) fn set(&mut self, option: &str, value: &str) -> Result<()> {
        let bad = || Error::AnnotationKey(option.to_owned());
        let rest = option.strip_prefix("annotation").ok_or_else(bad)?;
        let at = rest.find(['.', '[']).ok_or_else(bad)?;
        let (place, rest) = rest.split_at(at);
        let (platform, key) = match rest.strip_prefix('[') {
            Some(rest) => {
                let (platform, key) = rest.split_once("].").ok_or_else(bad)?;
                (
                    Some(
                        platform
                            .parse::<Platform>()
                            .map_err(|_| bad())?
                            .normalized(),
                    ),
                    key,
                )
            }
            None => (None, &rest[1..]),
        };
        if key.is_empty() {
            return Err(bad());
        }
        let (key, value) = (key.to_owned(), value.to_owned());
        match (place, &platform) {
            ("" | "-manifest", _) => self.manifest.push(ForPlatform {
                platform,
                key,
                value,
            }),
            ("-manifest-descriptor", _) => {
                self.manifest_descriptor.push(ForPlatform {
                    platform,
                    key,
                    value,
                });
            }
            ("-index", None) => drop(self.index.insert(key, value)),
            ("-index-descriptor", None) => drop(self.index_descriptor.insert(key, value)),
            _ => return Err(bad()),
        }
        Ok(())
    }

    /// Those of one platform's manifest; said for the platform weighs more.
    pub fn manifest(&self, platform: &Platform) -> BTreeMap<String, String> {
        pick(&self.manifest, platform)
    }

    /// Those of the descriptor of one platform's manifest.
    pub fn manifest_descriptor(&self, platform: &Platform) -> BTreeMap<String, String> {
        pick(&self.manifest_descriptor, platform)
    }

    pub(crate) fn need_oci(&self) -> bool {
        let none = self.index.is_empty()
            && self.index_descriptor.is_empty()
            && self.manifest.is_empty()
            && self.manifest_descriptor.is_empty();
        !none
    }

    /// That every platform named is among those built.
    pub(crate) fn check(&self, built: &[Platform]) -> Result<()> {
        for one in self.manifest.iter().chain(&self.manifest_descriptor) {
            if let Some(platform) = &one.platform
                && !built.contains(platform)
            {
                return Err(Error::AnnotationPlatform(platform.to_string()));
            }
        }
        Ok(())
    }
}

fn pick(all: &[ForPlatform], platform: &Platform) -> BTreeMap<String, String> {
    let general = all.iter().filter(|one| one.platform.is_none());
    let own = all
        .iter()
        .filter(|one| one.platform.as_ref() == Some(platform));
    general
        .chain(own)
        .map(|one| (one.key.clone(), one.value.clone()))
        .collect()
}
