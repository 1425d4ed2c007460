//! What a device adds to a process.

use std::path::Path;

use rustix::fs::FileType;

use super::spec::{DeviceNode, Edits, Mount};
use crate::error::Error;
use crate::process::{self, Device, DeviceKind, Hook, MountSource, Process, Restrict};

/// Adds what `edits` (of `device`) say.
pub(super) fn apply(edits: &Edits, device: &str, process: &mut Process) -> Result<(), Error> {
    let unsupported = |what: &str| Error::Unsupported {
        what: format!("device {device}: {what}"),
    };
    if edits.intel_rdt.is_some() {
        return Err(unsupported("Intel RDT classes"));
    }
    if !edits.net_devices.is_empty() {
        return Err(unsupported("network devices"));
    }
    for variable in &edits.env {
        let name = variable.split('=').next().unwrap_or_default();
        let same = |one: &String| one.split('=').next() == Some(name);
        process.env.retain(|one| !same(one));
        process.env.push(variable.clone());
    }
    for node in &edits.device_nodes {
        let node = complete(node).map_err(|what| unsupported(&what))?;
        process.devices.retain(|other| other.path != node.path);
        process.devices.push(node);
    }
    for mount in &edits.mounts {
        let mount = described(mount).map_err(|what| unsupported(&what))?;
        process.mounts.retain(|other| other.target != mount.target);
        process.mounts.push(mount);
    }
    process.mounts.sort_by(|a, b| a.target.cmp(&b.target));
    process.hooks.extend(edits.hooks.iter().map(|hook| Hook {
        stage: hook.hook_name.clone(),
        path: hook.path.clone(),
        args: hook.args.clone(),
        env: hook.env.clone(),
        timeout: hook.timeout,
    }));
    // Nobody is given root's group in addition.
    process
        .groups
        .extend(edits.groups.iter().filter(|group| **group != 0));
    Ok(())
}

/// Finds out what the file leaves open from the host's node.
fn complete(node: &DeviceNode) -> Result<Device, String> {
    let number = |number: i64| {
        u32::try_from(number).map_err(|_| format!("the device number {number} of {}", node.path))
    };
    let mut kind = node.kind.as_str();
    let (mut major, mut minor) = (number(node.major)?, number(node.minor)?);
    if kind.is_empty() || major == 0 {
        let host = match node.host_path.as_str() {
            "" => &node.path,
            path => path,
        };
        let stat = rustix::fs::lstat(host).map_err(|error| format!("{host}: {error}"))?;
        let found = match FileType::from_raw_mode(stat.st_mode) {
            FileType::BlockDevice => "b",
            FileType::CharacterDevice => "c",
            _ => return Err(format!("{host} is no device node")),
        };
        if !kind.is_empty() && kind.replace('u', "c") != found {
            return Err(format!("{host} is of type {found}, not {kind}"));
        }
        kind = found;
        if major == 0 {
            major = rustix::fs::major(stat.st_rdev);
            minor = rustix::fs::minor(stat.st_rdev);
        }
    }
    Ok(Device {
        path: node.path.clone(),
        kind: match kind {
            "b" => DeviceKind::Block,
            "c" | "u" => DeviceKind::Character,
            other => return Err(format!("{} of type {other}", node.path)),
        },
        major,
        minor,
        mode: node.file_mode.map_or(0o666, |mode| mode & 0o7777),
        uid: node.uid,
        gid: node.gid,
        access: match node.permissions.as_str() {
            "" => "rwm".to_string(),
            "none" => String::new(),
            access => access.to_string(),
        },
    })
}

fn described(mount: &Mount) -> Result<process::Mount, String> {
    let target = &mount.container_path;
    let mut readonly = false;
    let mut restrict = Restrict::default();
    let mut size = None;
    let memory = mount.kind == "tmpfs";
    if !memory && !["", "bind", "none"].contains(&mount.kind.as_str()) {
        return Err(format!("a mount of type {} at {target}", mount.kind));
    }
    for option in &mount.options {
        match option.as_str() {
            "ro" => readonly = true,
            "rw" | "bind" | "rbind" | "private" | "rprivate" | "slave" | "rslave" => {}
            "suid" | "dev" | "exec" => {}
            "nosuid" => restrict.nosuid = true,
            "nodev" => restrict.nodev = true,
            "noexec" => restrict.noexec = true,
            text if memory && text.starts_with("size=") => {
                let bytes = text["size=".len()..].parse();
                size = Some(bytes.map_err(|_| format!("{text} of the mount at {target}"))?);
            }
            text if memory && text.starts_with("mode=") => {}
            other => return Err(format!("the option {other} of the mount at {target}")),
        }
    }
    let source = match memory {
        true => MountSource::Tmpfs { size },
        false => MountSource::Host {
            path: Path::new(&mount.host_path).to_owned(),
            restrict,
        },
    };
    Ok(process::Mount {
        target: target.clone(),
        source,
        readonly,
    })
}
