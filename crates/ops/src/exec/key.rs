//! How the inputs of an exec count for its cache key (rows L06, L07).

use llb::{ContentCache, Exec, MountKind};
use oci::Digest;
use solver::InputMap;

use crate::{Error, Result};

/// How one input counts: by which parts of it, and whether by what is in them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct InputKey {
    /// In the order of the mounts.
    selectors: Vec<String>,
    by_content: bool,
}

impl InputKey {
    /// Of each input of an op.
    pub(super) fn of_all(exec: &Exec, inputs: usize) -> Result<Vec<InputKey>> {
        let mut keys = vec![InputKey::default(); inputs];
        for mount in &exec.mounts {
            if !matches!(mount.kind, MountKind::Bind | MountKind::Cache(_)) {
                continue;
            }
            let Some(input) = mount.input else { continue };
            let missing = || Error::Invalid(format!("mount {} has no input {input}", mount.target));
            let key = keys.get_mut(input as usize).ok_or_else(missing)?;
            let part = clean(&mount.selector);
            // The last mount of an input decides: so do BuildKit's keys.
            key.by_content = by_content(mount, &part)?;
            key.selectors.push(part);
        }
        Ok(keys)
    }

    /// As the solver wants it.
    pub(super) fn map(&self) -> InputMap {
        let selector = match &self.selectors[..] {
            [] => None,
            selectors => Some(Digest::of(selectors.join("\0"))),
        };
        InputMap {
            selector,
            by_content: self.by_content,
        }
    }

    /// The parts whose content counts: none twice, none inside another, sorted.
    pub(super) fn parts(&self) -> Vec<String> {
        if self.selectors.is_empty() || self.selectors.iter().any(|part| part == "/") {
            return vec!["/".to_owned()];
        }
        let mut parts: Vec<String> = Vec::new();
        let mut sorted = self.selectors.clone();
        sorted.sort();
        for part in sorted {
            let inside = |outer: &String| {
                let rest = part.strip_prefix(outer.as_str());
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            };
            if !parts.iter().any(inside) {
                parts.push(part);
            }
        }
        parts
    }
}

/// Whether what is in a mount may stand for the input it is of. Not when files that
/// are not in the mount would go on to the next step with it.
fn by_content(mount: &llb::Mount, part: &str) -> Result<bool> {
    let safe = mount.output.is_none() || mount.readonly || part == "/";
    match mount.content_cache {
        ContentCache::Off => Ok(false),
        ContentCache::On if safe => Ok(true),
        ContentCache::On => Err(Error::Invalid(format!(
            "mount {} cannot be cached by its content: it is written and is only a part",
            mount.target
        ))),
        // Reading a whole root costs more than it is worth.
        ContentCache::Default => Ok(safe && mount.target != "/"),
    }
}

/// An absolute path without `.`, `..` and doubled slashes.
pub(super) fn clean(path: &str) -> String {
    let mut names = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    format!("/{}", names.join("/"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use llb::{CacheMount, Mount};
    use serde_json::Value;

    use super::*;

    fn mount(target: &str, selector: &str) -> Mount {
        Mount {
            input: Some(0),
            selector: selector.into(),
            target: target.into(),
            output: None,
            readonly: false,
            kind: MountKind::Bind,
            result_id: String::new(),
            content_cache: ContentCache::Default,
        }
    }

    fn keys(mounts: Vec<Mount>) -> Result<InputKey> {
        let exec = Exec {
            mounts,
            ..Exec::new(["true"])
        };
        InputKey::of_all(&exec, 1).map(|mut keys| keys.remove(0))
    }

    /// Rows: L07
    #[test]
    fn content_counts_where_it_is_safe() {
        let case = |target: &str, selector: &str, output, readonly, content_cache| {
            let mount = Mount {
                output,
                readonly,
                content_cache,
                ..mount(target, selector)
            };
            keys(vec![mount])
                .map(|key| key.by_content)
                .map_err(|error| error.kind())
        };
        use ContentCache::{Default, Off, On};
        for (target, selector, output, readonly, content_cache, expected) in [
            ("/", "", Some(0), false, Default, Ok(false)),
            ("/", "", Some(0), false, On, Ok(true)),
            ("/x", "", None, false, Default, Ok(true)),
            ("/x", "", None, false, Off, Ok(false)),
            ("/x", "", Some(1), true, Default, Ok(true)),
            ("/x", "", Some(1), false, Default, Ok(true)),
            ("/x", "sub", Some(1), false, Default, Ok(false)),
            ("/x", "sub", Some(1), true, Default, Ok(true)),
            (
                "/x",
                "sub",
                Some(1),
                false,
                On,
                Err(stdx::Kind::InvalidInput),
            ),
        ] {
            let found = case(target, selector, output, readonly, content_cache);
            assert_eq!(
                found, expected,
                "{target} {selector} {output:?} {readonly} {content_cache:?}"
            );
        }
        let mut nowhere = mount("/x", "");
        nowhere.input = Some(7);
        assert!(keys(vec![nowhere]).is_err());
        let mut tmpfs = mount("/x", "");
        tmpfs.kind = MountKind::Tmpfs { size: 0 };
        assert_eq!(keys(vec![tmpfs]).unwrap().map(), InputMap::default());
    }

    /// Rows: L07
    #[test]
    fn parts_are_hashed_once() {
        let parts = |selectors: &[&str]| {
            let mounts = selectors.iter().map(|selector| mount("/x", selector));
            keys(mounts.collect()).unwrap().parts()
        };
        assert_eq!(parts(&[]), ["/"]);
        assert_eq!(parts(&["a", "b", "."]), ["/"]);
        assert_eq!(
            parts(&["foo/a", "foo.b", "foo", "/foo/", "foobar"]),
            ["/foo", "/foo.b", "/foobar"]
        );
        assert_eq!(clean("/../a//./b/../c/"), "/a/c");
    }

    fn golden(build: &str, file: &str) -> String {
        let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden"));
        let bytes = std::fs::read(root.join(build).join(file)).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Protobuf's JSON has 64-bit numbers as text.
    fn number(value: &Value) -> Option<u32> {
        let text = value.as_str().unwrap_or("0");
        u32::try_from(text.parse::<i64>().unwrap()).ok()
    }

    fn exec_of(op: &Value) -> Exec {
        let mounts = op["mounts"].as_array().unwrap().iter().map(|value| {
            let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
            Mount {
                input: number(&value["input"]),
                output: number(&value["output"]),
                readonly: value["readonly"] == true,
                kind: match value["mountType"].as_str() {
                    Some("CACHE") => MountKind::Cache(CacheMount::default()),
                    Some("TMPFS") => MountKind::Tmpfs { size: 0 },
                    Some("SECRET") => MountKind::Secret(llb::Owned::default()),
                    Some("SSH") => MountKind::Ssh(llb::Owned::default()),
                    _ => MountKind::Bind,
                },
                ..mount(&text("dest"), &text("selector"))
            }
        });
        Exec {
            mounts: mounts.collect(),
            ..Exec::new(["true"])
        }
    }

    /// The links of the cache records BuildKit wrote, by the record of output 0 of
    /// each exec: a link with a selector is of the input's definition, one without of
    /// its content.
    ///
    /// Rows: L06, L07
    #[test]
    fn inputs_count_as_in_buildkits_cache_records() {
        let mut checked = 0;
        let mut by_content = 0;
        for build in [
            "a01-run-shell",
            "a02-run-exec",
            "a03-run-env-dir-user",
            "c01-mount-cache",
            "c02-mount-bind",
            "c03-mount-tmpfs-secret-ssh",
            "c04-network-hostname",
        ] {
            let texts = golden(build, "preimages.json");
            let digests: BTreeMap<String, Digest> = texts
                .lines()
                .filter_map(|line| line.trim().strip_prefix("data: "))
                .filter(|text| text.starts_with(r#"{"Type":"buildkit.exec.v0""#))
                .map(|text| {
                    let json: Value = serde_json::from_str(text).unwrap();
                    (json["Exec"]["meta"].to_string(), Digest::of(text))
                })
                .collect();
            let cache: Value = serde_json::from_str(&golden(build, "cache.json")).unwrap();
            let records = cache["config"]["records"].as_array().unwrap();
            let llb: Value = serde_json::from_str(&golden(build, "llb.json")).unwrap();
            for op in llb["def"].as_object().unwrap().values() {
                let Some(exec) = op.get("exec") else { continue };
                let args = exec["meta"]["args"].to_string();
                let digest = digests
                    .iter()
                    .find(|(meta, _)| meta.contains(&args))
                    .unwrap()
                    .1;
                let record = Digest::of(format!("{digest}@0")).to_string();
                let record = records
                    .iter()
                    .find(|r| r["digest"] == *record)
                    .expect(&record);
                let inputs = op["inputs"].as_array().unwrap().len();
                let keys = InputKey::of_all(&exec_of(exec), inputs).unwrap();
                let links = record["inputs"].as_array().unwrap();
                assert_eq!(links.len(), keys.len(), "{build}");
                for (links, key) in links.iter().zip(keys) {
                    let map = key.map();
                    let links = links.as_array().unwrap();
                    let selectors: Vec<_> = links
                        .iter()
                        .filter_map(|l| l["selector"].as_str())
                        .collect();
                    let ours = map.selector.map(|s| s.to_string()).unwrap_or_default();
                    assert!(
                        selectors.iter().all(|theirs| *theirs == ours),
                        "{build} {args}"
                    );
                    let content = links.len() > selectors.len();
                    assert_eq!(content, map.by_content, "{build} {args} {links:?}");
                    checked += 1;
                    by_content += usize::from(content);
                }
            }
        }
        assert!(checked >= 15 && by_content >= 3, "{checked} {by_content}");
    }
}
