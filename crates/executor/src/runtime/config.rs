//! A container in the words of the OCI runtime specification.

use serde_json::{Value, json};

use crate::devices::{INSECURE_NODES, NODES};
use crate::helper::filesystems::{MASKED_PROC, MASKED_SYS, READONLY_PROC};
use crate::helper::identity::DEFAULT_CAPABILITIES;
use crate::network::Attached;
use crate::process::{Device, DeviceKind, Hook, Process, Resources};
use crate::spec::{MountKind, MountRef, Spec};
use crate::sys;

/// Names of capabilities by number.
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

const RLIMITS: [&str; 16] = [
    "CPU",
    "FSIZE",
    "DATA",
    "STACK",
    "CORE",
    "RSS",
    "NPROC",
    "NOFILE",
    "MEMLOCK",
    "AS",
    "LOCKS",
    "SIGPENDING",
    "MSGQUEUE",
    "NICE",
    "RTPRIO",
    "RTTIME",
];

/// The configuration of a container whose trees are staged at `stage`.
pub(super) fn container(
    spec: &Spec,
    process: &Process,
    network: &Attached,
    stage: &str,
    cgroup: &str,
) -> Value {
    let mut namespaces = vec!["pid", "ipc", "uts", "mount"];
    if spec.own_network {
        namespaces.push("network");
    }
    if std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        namespaces.push("cgroup");
    }
    let mut namespaces: Vec<Value> = namespaces
        .iter()
        .map(|kind| json!({ "type": kind }))
        .collect();
    if let Some(path) = network.path() {
        namespaces.push(json!({"type": "network", "path": path}));
    }
    let mut linux = json!({
        "namespaces": namespaces,
        "cgroupsPath": cgroup,
        "resources": resources(&process.resources, spec),
        "maskedPaths": [],
        "readonlyPaths": [],
        "devices": [],
    });
    let mut devices: Vec<Value> = spec.devices.iter().map(device).collect();
    if spec.insecure {
        devices.extend(INSECURE_NODES.iter().map(|(name, major, minor)| {
            json!({"path": format!("/dev/{name}"), "type": "c", "major": major, "minor": minor,
                "fileMode": 0o666})
        }));
    } else {
        let masked = MASKED_PROC.iter().map(|name| format!("/proc/{name}"));
        let masked = masked.chain(MASKED_SYS.iter().map(|name| format!("/sys/{name}")));
        linux["maskedPaths"] = masked.collect();
        linux["readonlyPaths"] = READONLY_PROC
            .iter()
            .map(|name| format!("/proc/{name}"))
            .collect();
        linux["seccomp"] = crate::seccomp::oci_profile();
    }
    linux["devices"] = devices.into();
    json!({
        "hooks": hooks(&process.hooks),
        "ociVersion": "1.0.2",
        "process": self::process(spec),
        "root": {"path": format!("{stage}/root"), "readonly": spec.readonly_root},
        "hostname": spec.hostname,
        "mounts": mounts(spec, stage),
        "linux": linux,
    })
}

fn device(device: &Device) -> Value {
    json!({"path": device.path, "type": letter(device.kind), "major": device.major,
        "minor": device.minor, "fileMode": device.mode, "uid": device.uid, "gid": device.gid})
}

fn letter(kind: DeviceKind) -> &'static str {
    match kind {
        DeviceKind::Block => "b",
        DeviceKind::Character => "c",
    }
}

fn hooks(hooks: &[Hook]) -> Value {
    let mut stages = serde_json::Map::new();
    for hook in hooks {
        let mut one = json!({"path": hook.path, "args": hook.args, "env": hook.env});
        if let Some(timeout) = hook.timeout {
            one["timeout"] = timeout.into();
        }
        let stage = stages.entry(hook.stage.clone());
        if let Value::Array(list) = stage.or_insert_with(|| json!([])) {
            list.push(one);
        }
    }
    stages.into()
}

/// The process part, also used alone for one more process in a container.
pub(super) fn process(spec: &Spec) -> Value {
    let keep = if spec.insecure {
        all_capabilities()
    } else {
        DEFAULT_CAPABILITIES
    };
    let names: Vec<String> = (0u32..)
        .zip(CAPABILITIES)
        .filter(|(number, _)| keep & (1 << number) != 0)
        .map(|(_, name)| format!("CAP_{name}"))
        .collect();
    let more: &[String] = if spec.insecure { &names } else { &[] };
    let limits: Vec<Value> = spec
        .rlimits
        .iter()
        .map(|(number, soft, hard)| {
            let name = RLIMITS[*number as usize];
            json!({"type": format!("RLIMIT_{name}"), "soft": soft, "hard": hard})
        })
        .collect();
    let ids = &spec.ids;
    let mut process = json!({
        "terminal": spec.console.is_some(),
        "user": {"uid": ids.uid, "gid": ids.gid, "additionalGids": ids.groups, "umask": 0o022},
        "args": spec.args,
        "env": spec.env,
        "cwd": spec.cwd,
        "capabilities": {"bounding": names, "effective": names, "permitted": names,
            "inheritable": more, "ambient": more},
        "rlimits": limits,
        "noNewPrivileges": false,
    });
    if let Some(profile) = &spec.apparmor {
        process["apparmorProfile"] = profile.clone().into();
    }
    process
}

/// Every capability this process may hand on.
fn all_capabilities() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    let bounding = line.and_then(|value| u64::from_str_radix(value.trim(), 16).ok());
    bounding.unwrap_or(DEFAULT_CAPABILITIES)
}

fn mounts(spec: &Spec, stage: &str) -> Vec<Value> {
    let readonly = if spec.insecure { "rw" } else { "ro" };
    let shm = format!("size={}", spec.shm_size);
    let mut mounts = vec![
        json!({"destination": "/proc", "type": "proc", "source": "proc",
            "options": ["nosuid", "noexec", "nodev"]}),
        json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]}),
        json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]}),
        json!({"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
            "options": ["nosuid", "noexec", "nodev", "mode=1777", shm]}),
        json!({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
            "options": ["nosuid", "noexec", "nodev"]}),
        json!({"destination": "/sys", "type": "sysfs", "source": "sysfs",
            "options": ["nosuid", "noexec", "nodev", readonly]}),
        json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
            "options": ["nosuid", "noexec", "nodev", "relatime", readonly]}),
    ];
    for (index, mount) in spec.mounts.iter().enumerate() {
        let access = if mount.readonly { "ro" } else { "rw" };
        mounts.push(match &mount.kind {
            MountKind::Tmpfs { size } => {
                let mut options = vec![
                    "nosuid".to_string(),
                    "nodev".to_string(),
                    access.to_string(),
                ];
                options.extend(size.map(|size| format!("size={size}")));
                json!({"destination": mount.target, "type": "tmpfs", "source": "tmpfs",
                    "options": options})
            }
            MountKind::Bind { .. } => json!({"destination": mount.target, "type": "bind",
                "source": format!("{stage}/m{index}"), "options": options(access, mount)}),
            MountKind::File { .. } => json!({"destination": mount.target, "type": "bind",
                "source": format!("{stage}/m{index}"),
                "options": ["bind", "ro", "nosuid", "noexec", "nodev"]}),
        });
    }
    mounts
}

fn options(access: &str, mount: &MountRef) -> Vec<String> {
    let restrictions = [
        (sys::NOSUID, "nosuid"),
        (sys::NODEV, "nodev"),
        (sys::NOEXEC, "noexec"),
    ];
    let asked = restrictions
        .iter()
        .filter(|(bit, _)| mount.attributes & bit != 0);
    let asked = asked.map(|(_, name)| *name);
    ["rbind", access]
        .into_iter()
        .chain(asked)
        .map(String::from)
        .collect()
}

fn resources(resources: &Resources, spec: &Spec) -> Value {
    let devices: Vec<Value> = if spec.insecure {
        vec![json!({"allow": true, "access": "rwm"})]
    } else {
        let mut rules = vec![
            json!({"allow": false, "access": "rwm"}),
            json!({"allow": true, "type": "c", "access": "m"}),
            json!({"allow": true, "type": "b", "access": "m"}),
            json!({"allow": true, "type": "c", "major": 136, "access": "rwm"}),
        ];
        let terminals = [("", 5, 1), ("", 5, 2)];
        for (_, major, minor) in NODES.iter().chain(&terminals) {
            rules.push(
                json!({"allow": true, "type": "c", "major": major, "minor": minor,
                "access": "rwm"}),
            );
        }
        rules.extend(spec.devices.iter().map(|device| {
            json!({"allow": true, "type": letter(device.kind), "major": device.major,
                "minor": device.minor, "access": device.access})
        }));
        rules
    };
    let mut all = json!({ "devices": devices });
    let mut memory = serde_json::Map::new();
    let mut cpu = serde_json::Map::new();
    let put = |map: &mut serde_json::Map<String, Value>, key: &str, value: Option<Value>| {
        if let Some(value) = value {
            map.insert(key.to_string(), value);
        }
    };
    put(&mut memory, "limit", resources.memory.map(Value::from));
    put(&mut memory, "swap", resources.memory_swap.map(Value::from));
    put(&mut cpu, "shares", resources.cpu_shares.map(Value::from));
    put(&mut cpu, "period", resources.cpu_period.map(Value::from));
    put(&mut cpu, "quota", resources.cpu_quota.map(Value::from));
    put(
        &mut cpu,
        "cpus",
        resources.cpuset_cpus.clone().map(Value::from),
    );
    put(
        &mut cpu,
        "mems",
        resources.cpuset_mems.clone().map(Value::from),
    );
    if !memory.is_empty() {
        all["memory"] = memory.into();
    }
    if !cpu.is_empty() {
        all["cpu"] = cpu.into();
    }
    if let Some(pids) = resources.pids {
        all["pids"] = json!({ "limit": pids });
    }
    if !resources.unified.is_empty() {
        all["unified"] = json!(resources.unified);
    }
    all
}
