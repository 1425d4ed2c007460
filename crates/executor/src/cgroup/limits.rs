//! Limits of a container, in the words of whichever hierarchy has the controller.

use std::io;
use std::path::PathBuf;

use super::{ContainerCgroup, Dir, Hold};
use crate::error::Error;
use crate::process::Resources;

/// One value to write: its controller, and file and value in each hierarchy.
struct Setting {
    controller: &'static str,
    v2: Option<(&'static str, String)>,
    v1: Option<(&'static str, String)>,
}

/// Sets every limit, or says which one this host cannot keep.
pub(super) fn set(
    container: &mut ContainerCgroup,
    instances: &[(String, Hold)],
    id: &str,
    resources: &Resources,
) -> Result<(), Error> {
    for setting in settings(resources) {
        apply(container, instances, id, &setting)?;
    }
    for (file, value) in &resources.unified {
        let failed = |source| Error::Cgroup {
            path: PathBuf::from(file),
            source,
        };
        if file.contains('/') || file.starts_with("cgroup.") {
            let reason = "only a controller's own files can be set".to_string();
            return Err(Error::Invalid {
                what: format!("cgroup file {file:?}"),
                reason,
            });
        }
        let dir = container.v2.as_ref();
        let missing = || failed(io::Error::from(io::ErrorKind::NotFound));
        dir.ok_or_else(missing)?
            .write(file, value)
            .map_err(failed)?;
    }
    Ok(())
}

fn apply(
    container: &mut ContainerCgroup,
    instances: &[(String, Hold)],
    id: &str,
    setting: &Setting,
) -> Result<(), Error> {
    if let (Some(dir), Some((file, value))) = (&container.v2, &setting.v2)
        && dir.has(file)
    {
        return dir.write(file, value).map_err(|source| Error::Cgroup {
            path: PathBuf::from(file),
            source,
        });
    }
    let joined = join(container, instances, id, setting.controller)?;
    let (Some(dir), Some((file, value))) = (joined, &setting.v1) else {
        let what = format!(
            "a {} limit: this host's cgroups have no {} controller we may use",
            setting.controller, setting.controller
        );
        return Err(Error::Unsupported { what });
    };
    dir.write(file, value).map_err(|source| Error::Cgroup {
        path: PathBuf::from(setting.controller).join(file),
        source,
    })
}

/// The container's directory in the hierarchy of a controller of the first version, made if it
/// has none there yet; nothing if the host has no such hierarchy.
pub(super) fn join<'a>(
    container: &'a mut ContainerCgroup,
    instances: &[(String, Hold)],
    id: &str,
    controller: &str,
) -> Result<Option<&'a Dir>, Error> {
    let Some((_, instance)) = instances.iter().find(|(name, _)| name == controller) else {
        return Ok(None);
    };
    let at = container.v1.iter().position(|(name, _)| name == controller);
    let at = match at {
        Some(at) => at,
        None => {
            let dir = instance.dir().make(id).map_err(|source| Error::Cgroup {
                path: PathBuf::from(controller),
                source,
            })?;
            if controller == "cpuset" {
                inherit_cpuset(instance.dir(), &dir);
            }
            container.v1.push((controller.to_owned(), dir));
            container.v1.len() - 1
        }
    };
    Ok(Some(&container.v1[at].1))
}

/// A new v1 cpuset has no CPUs and no memory until it gets its parent's.
pub(super) fn inherit_cpuset(parent: &Dir, dir: &Dir) {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if let Ok(value) = parent.read(file) {
            let _shows_when_joined = dir.write(file, value.trim());
        }
    }
}

fn settings(resources: &Resources) -> Vec<Setting> {
    let mut settings = Vec::new();
    let mut push = |controller, v2: Option<(&'static str, String)>, v1| {
        settings.push(Setting { controller, v2, v1 });
    };
    let or_max = |value: i64| {
        if value < 0 {
            "max".to_string()
        } else {
            value.to_string()
        }
    };
    if let Some(memory) = resources.memory {
        let value = memory.to_string();
        push(
            "memory",
            Some(("memory.max", or_max(memory))),
            Some(("memory.limit_in_bytes", value)),
        );
    }
    if let Some(both) = resources.memory_swap {
        let swap = if both < 0 {
            both
        } else {
            both - resources.memory.unwrap_or(0).max(0)
        };
        let v1 = ("memory.memsw.limit_in_bytes", both.to_string());
        push("memory", Some(("memory.swap.max", or_max(swap))), Some(v1));
    }
    if let Some(shares) = resources.cpu_shares {
        let shares = shares.clamp(2, 262_144);
        let weight = 1 + (shares - 2) * 9999 / 262_142;
        push(
            "cpu",
            Some(("cpu.weight", weight.to_string())),
            Some(("cpu.shares", shares.to_string())),
        );
    }
    if let Some(period) = resources.cpu_period {
        push("cpu", None, Some(("cpu.cfs_period_us", period.to_string())));
    }
    if let Some(quota) = resources.cpu_quota {
        push("cpu", None, Some(("cpu.cfs_quota_us", quota.to_string())));
    }
    if resources.cpu_period.is_some() || resources.cpu_quota.is_some() {
        let quota = or_max(resources.cpu_quota.unwrap_or(-1));
        let value = format!("{quota} {}", resources.cpu_period.unwrap_or(100_000));
        merge_cpu_max(&mut settings, value);
    }
    let mut push = |controller, v2, v1| settings.push(Setting { controller, v2, v1 });
    for (file, value) in [
        ("cpuset.cpus", &resources.cpuset_cpus),
        ("cpuset.mems", &resources.cpuset_mems),
    ] {
        if let Some(value) = value {
            push(
                "cpuset",
                Some((file, value.clone())),
                Some((file, value.clone())),
            );
        }
    }
    if let Some(pids) = resources.pids {
        let value = if pids <= 0 {
            "max".to_string()
        } else {
            pids.to_string()
        };
        push(
            "pids",
            Some(("pids.max", value.clone())),
            Some(("pids.max", value)),
        );
    }
    settings
}

/// Period and quota are one file in v2 and two in v1.
fn merge_cpu_max(settings: &mut [Setting], value: String) {
    for setting in settings.iter_mut().filter(|setting| setting.v2.is_none()) {
        setting.v2 = Some(("cpu.max", value.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows: X12
    #[test]
    fn limits_in_the_words_of_both_hierarchies() {
        let resources = Resources {
            memory: Some(1 << 20),
            memory_swap: Some(3 << 20),
            cpu_shares: Some(1024),
            cpu_quota: Some(50_000),
            pids: Some(7),
            ..Resources::default()
        };
        let written: Vec<String> = settings(&resources)
            .into_iter()
            .map(|s| {
                let side =
                    |side: Option<(&str, String)>| side.map(|(f, v)| format!("{f}={v}")).unwrap();
                format!("{} {}", side(s.v2), side(s.v1))
            })
            .collect();
        assert_eq!(
            written,
            [
                "memory.max=1048576 memory.limit_in_bytes=1048576",
                "memory.swap.max=2097152 memory.memsw.limit_in_bytes=3145728",
                "cpu.weight=39 cpu.shares=1024",
                "cpu.max=50000 100000 cpu.cfs_quota_us=50000",
                "pids.max=7 pids.max=7",
            ]
        );
    }
}
