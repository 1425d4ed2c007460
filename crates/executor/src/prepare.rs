//! From a [`Process`] to what the helper is told: every name looked up, every tree
//! opened, every limit set, nothing running yet.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};

use crate::apparmor;
use crate::error::Error;
use crate::etc_files;
use crate::io::{Input, Output};
use crate::network::{Attached, SandboxNetwork};
use crate::process::{
    DEFAULT_PATH, Device, Dns, Mount, MountSource, Network, Process, Security, Ulimit,
};
use crate::proxy::bundles::Bundles;
use crate::spec::{FdIndex, MountKind, MountRef, Spec, TreeRef};
use crate::stubs::{Stubs, Wanted};
use crate::sys;
use crate::user::{self, Ids};
use crate::walk::Leaf;

/// `/dev/shm` unless asked otherwise.
const DEFAULT_SHM: u64 = 64 << 20;

/// A container described to the last detail, without its cgroup and streams. Dropped,
/// it leaves nothing behind.
pub(crate) struct Prepared {
    pub(crate) spec: Spec,
    pub(crate) handles: Handles,
    pub(crate) stubs: Stubs,
    pub(crate) bundles: Bundles,
}

/// Handles on their way to the helper.
#[derive(Default)]
pub(crate) struct Handles(pub(crate) Vec<OwnedFd>);

impl Handles {
    pub(crate) fn push(&mut self, fd: OwnedFd) -> FdIndex {
        self.0.push(fd);
        self.0.len() - 1
    }
}

/// What the executor was set up with, and this container's part of it.
pub(crate) struct Setting<'a> {
    pub(crate) dns: Option<&'a Dns>,
    pub(crate) sandbox: &'a SandboxNetwork,
    pub(crate) network: &'a Attached,
    /// AppArmor profile of containers in the sandbox.
    pub(crate) apparmor: Option<&'a str>,
}

/// Prepares everything but the cgroup and the standard streams.
pub(crate) fn prepare(process: &Process, setting: &Setting<'_>) -> Result<Prepared, Error> {
    check(process)?;
    let apparmor = match process.security {
        Security::Sandbox => setting.apparmor,
        Security::Insecure => None,
    };
    if let Some(profile) = apparmor {
        apparmor::check(profile)?;
    }
    let root = process.root.root().as_fd();
    check_root(root)?;
    let mut handles = Handles::default();
    // The first handle will be the spec itself.
    handles.push(open("/dev/null", OFlags::RDONLY).map_err(setup("opening /dev/null"))?);
    let mut ids = user::find(root, &process.user)?;
    ids.groups.extend(&process.groups);
    let rlimits = rlimits(&process.ulimits)?;
    let bundles = match &process.proxy {
        Some(proxy) => Bundles::trust(process, proxy.authority())?,
        None => Bundles::default(),
    };
    let mut mounts = etc_mounts(process, setting, &mut handles)?;
    mounts.extend(bundles.mounts(&mut handles)?);
    for mount in &process.mounts {
        mounts.push(open_mount(mount, &mut handles)?);
    }
    let stubs = make_stubs(process, &mounts)?;
    let copy = process.root.copy_of_mount(root);
    let root = match copy.map_err(setup("copying the mount of the root"))? {
        Some(copy) => copy,
        None => root
            .try_clone_to_owned()
            .map_err(setup("opening the root"))?,
    };
    let devices = owned(&process.devices, &ids);
    let spec = Spec {
        args: process.args.clone(),
        env: environment(&process.env, &ids),
        cwd: if process.cwd.is_empty() {
            "/".to_string()
        } else {
            process.cwd.clone()
        },
        ids,
        hostname: process.hostname().to_string(),
        root: TreeRef {
            fd: handles.push(root),
            detached: process.root.is_mount(),
            recursive: false,
            readonly: process.root.is_readonly(),
        },
        readonly_root: process.readonly_root || process.root.is_readonly(),
        mounts,
        cgroup: None,
        joins: Vec::new(),
        own_network: is_alone(process.network, setting.sandbox),
        network: match setting.network.namespace() {
            Some(namespace) => {
                let namespace = namespace.try_clone_to_owned();
                Some(handles.push(namespace.map_err(setup("opening the network"))?))
            }
            None => None,
        },
        devices,
        apparmor: apparmor.map(str::to_string),
        insecure: process.security == Security::Insecure,
        nodev: false,
        rlimits,
        shm_size: process.shm_size.unwrap_or(DEFAULT_SHM),
        stdio: [0; 3],
        console: None,
        failures: 0,
    };
    Ok(Prepared {
        spec,
        handles,
        stubs,
        bundles,
    })
}

/// Devices that say no owner are their user's.
fn owned(devices: &[Device], ids: &Ids) -> Vec<Device> {
    let owned = devices.iter().cloned().map(|device| Device {
        uid: device.uid.or(Some(ids.uid)),
        gid: device.gid.or(Some(ids.gid)),
        ..device
    });
    owned.collect()
}

/// Whether a container has nothing but a loopback.
pub(crate) fn is_alone(network: Network, sandbox: &SandboxNetwork) -> bool {
    match network {
        Network::None => true,
        Network::Sandbox => *sandbox == SandboxNetwork::None,
        Network::Host => false,
    }
}

/// What is wrong with a request whatever the host.
fn check(process: &Process) -> Result<(), Error> {
    check_command(&process.args, &process.env, &process.cwd)?;
    let invalid = |what: String, reason: &str| Error::Invalid {
        what,
        reason: reason.to_string(),
    };
    let name = process.hostname();
    if name.len() > 64 || name.contains(['\0', '\n', ' ', '/']) {
        return Err(invalid(
            format!("host name {name:?}"),
            "at most 64 letters, digits, - and .",
        ));
    }
    for extra in &process.extra_hosts {
        if extra.host.is_empty() || extra.host.contains(char::is_whitespace) {
            return Err(invalid(
                format!("host {:?}", extra.host),
                "it must be one word",
            ));
        }
    }
    for device in &process.devices {
        let inside = device.path.strip_prefix("/dev/").unwrap_or_default();
        let parts = || inside.split('/');
        if inside.is_empty() || parts().any(|part| ["", ".", ".."].contains(&part)) {
            return Err(invalid(
                format!("device {:?}", device.path),
                "it must be a path in /dev",
            ));
        }
    }
    for mount in &process.mounts {
        let target = &mount.target;
        let refused = |reason: &str| Error::Target {
            target: target.clone(),
            reason: reason.into(),
        };
        if !target.starts_with('/') {
            return Err(refused("it must be absolute"));
        }
        if target.contains('\0') {
            return Err(refused("it contains a NUL byte"));
        }
        if target
            .split('/')
            .all(|part| part.is_empty() || part == "." || part == "..")
        {
            return Err(refused("it is the root"));
        }
    }
    Ok(())
}

/// The same for one more process in a container.
pub(crate) fn check_command(args: &[String], env: &[String], cwd: &str) -> Result<(), Error> {
    let invalid = |what: &str, reason: &str| Error::Invalid {
        what: what.into(),
        reason: reason.into(),
    };
    if args.first().is_none_or(String::is_empty) {
        return Err(invalid("command", "there is no program to run"));
    }
    if args.iter().chain(env).any(|one| one.contains('\0')) || cwd.contains('\0') {
        return Err(invalid("command", "it contains a NUL byte"));
    }
    if !cwd.is_empty() && !cwd.starts_with('/') {
        return Err(invalid("working directory", "it must be absolute"));
    }
    Ok(())
}

/// Adds what programs expect to find: a search path, and the user's home.
pub(crate) fn environment(env: &[String], ids: &Ids) -> Vec<String> {
    let mut env = env.to_vec();
    let has = |env: &[String], key: &str| env.iter().any(|one| one.starts_with(key));
    if !has(&env, "PATH=") {
        env.push(format!("PATH={DEFAULT_PATH}"));
    }
    if !has(&env, "HOME=") {
        env.push(format!("HOME={}", ids.home));
    }
    env
}

/// `/etc/resolv.conf` and `/etc/hosts`.
fn etc_mounts(
    process: &Process,
    setting: &Setting<'_>,
    handles: &mut Handles,
) -> Result<Vec<MountRef>, Error> {
    let resolv = etc_files::resolv_conf(
        &etc_files::host_resolv_conf(),
        process.dns.as_ref().or(setting.dns),
        process.network,
    );
    let host = setting.network.host();
    let host = host.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let hosts = etc_files::hosts(process.hostname(), &process.extra_hosts, host);
    let mut mounts = Vec::new();
    for (target, text) in [("/etc/resolv.conf", resolv), ("/etc/hosts", hosts)] {
        let asked = process.mounts.iter().any(|mount| mount.target == target);
        if asked || process.root.is_readonly() && !has(process, target) {
            continue;
        }
        let file = sys::memory_file(text.as_bytes()).map_err(setup("writing files for /etc"))?;
        let kind = MountKind::File {
            content: handles.push(file),
            mode: 0o644,
            uid: 0,
            gid: 0,
        };
        mounts.push(MountRef {
            target: target.to_string(),
            readonly: true,
            attributes: 0,
            kind,
        });
    }
    Ok(mounts)
}

fn has(process: &Process, target: &str) -> bool {
    let found = crate::walk::find(process.root.root().as_fd(), target);
    found.is_ok_and(|place| place.missing.is_empty())
}

fn open_mount(mount: &Mount, handles: &mut Handles) -> Result<MountRef, Error> {
    let failed = |path: &str, source: io::Error| Error::Source {
        source_path: path.to_string(),
        target: mount.target.clone(),
        source,
    };
    let bind = |fd: OwnedFd, detached, recursive, handles: &mut Handles| -> io::Result<MountKind> {
        let stat = rustix::fs::fstat(&fd)?;
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let tree = TreeRef {
            fd: handles.push(fd),
            detached,
            recursive,
            readonly: false,
        };
        Ok(MountKind::Bind { tree, is_dir })
    };
    let mut attributes = 0;
    let kind = match &mount.source {
        MountSource::Tree { tree, subpath } => {
            let named = open_beneath(tree.root().as_fd(), subpath)
                .map_err(|error| failed(subpath, error))?;
            let copy = tree
                .copy_of_mount(named.as_fd())
                .map_err(|error| failed(subpath, error))?;
            let fd = copy.unwrap_or(named);
            bind(fd, tree.is_mount(), false, handles).map_err(|error| failed(subpath, error))?
        }
        MountSource::Tmpfs { size } => MountKind::Tmpfs { size: *size },
        MountSource::File {
            bytes,
            mode,
            uid,
            gid,
        } => {
            let content = sys::memory_file(bytes).map_err(|error| failed("", error))?;
            MountKind::File {
                content: handles.push(content),
                mode: *mode,
                uid: *uid,
                gid: *gid,
            }
        }
        MountSource::Host { path, restrict } => {
            let asked = [
                (restrict.nosuid, sys::NOSUID),
                (restrict.nodev, sys::NODEV),
                (restrict.noexec, sys::NOEXEC),
            ];
            for (_, attribute) in asked.iter().filter(|(asked, _)| *asked) {
                attributes |= attribute;
            }
            let named = path.to_string_lossy();
            let fd = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
                .map_err(|error| failed(&named, error.into()))?;
            bind(fd, false, true, handles).map_err(|error| failed(&named, error))?
        }
        MountSource::Fd(fd) => {
            let fd = fd.try_clone().map_err(|error| failed("", error))?;
            bind(fd, false, true, handles).map_err(|error| failed("", error))?
        }
    };
    let by_tree = matches!(&mount.source, MountSource::Tree { tree, .. } if tree.is_readonly());
    Ok(MountRef {
        target: mount.target.clone(),
        readonly: mount.readonly || by_tree,
        attributes,
        kind,
    })
}

/// Opens `subpath` of a tree as a handle; what it names later no longer matters, so a
/// tree shared with a running container cannot be swapped under us (CVE-2024-23651).
fn open_beneath(root: std::os::fd::BorrowedFd<'_>, subpath: &str) -> io::Result<OwnedFd> {
    let path = subpath.trim_start_matches('/');
    let path = if path.is_empty() { "." } else { path };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    loop {
        match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
            // The kernel could not be sure while something was renamed; again.
            Err(rustix::io::Errno::AGAIN) => {}
            Err(error) => return Err(error.into()),
            Ok(fd) => return Ok(fd),
        }
    }
}

fn make_stubs(process: &Process, mounts: &[MountRef]) -> Result<Stubs, Error> {
    let system = ["/proc", "/dev", "/sys"].map(|target| Wanted {
        target,
        leaf: Leaf::Dir,
    });
    let asked = mounts.iter().map(|mount| Wanted {
        target: &mount.target,
        leaf: match &mount.kind {
            MountKind::Bind { is_dir: false, .. } | MountKind::File { .. } => Leaf::File,
            MountKind::Bind { .. } | MountKind::Tmpfs { .. } => Leaf::Dir,
        },
    });
    let wanted: Vec<Wanted<'_>> = system.into_iter().chain(asked).collect();
    let root = process.root.root().as_fd();
    if process.root.is_readonly() {
        return Stubs::none_needed(root, &wanted);
    }
    Stubs::make(root, &wanted, process.remove_mount_stubs_recursive)
}

/// Numbers of named limits.
pub(crate) fn rlimits(ulimits: &[Ulimit]) -> Result<Vec<(u32, u64, u64)>, Error> {
    const NAMES: [&str; 16] = [
        "cpu",
        "fsize",
        "data",
        "stack",
        "core",
        "rss",
        "nproc",
        "nofile",
        "memlock",
        "as",
        "locks",
        "sigpending",
        "msgqueue",
        "nice",
        "rtprio",
        "rttime",
    ];
    let unlimited = |value: i64| u64::try_from(value).unwrap_or(u64::MAX);
    let mut numbers = Vec::new();
    for Ulimit { name, soft, hard } in ulimits {
        let invalid = |reason: &str| Error::Invalid {
            what: format!("ulimit {name}={soft}:{hard}"),
            reason: reason.to_string(),
        };
        let lower = name.to_ascii_lowercase();
        let number = (0u32..).zip(NAMES).find(|(_, known)| *known == lower);
        let (number, _) = number.ok_or_else(|| invalid("there is no such limit"))?;
        if unlimited(*soft) > unlimited(*hard) {
            return Err(invalid("the soft limit is above the hard limit"));
        }
        numbers.push((number, unlimited(*soft), unlimited(*hard)));
    }
    Ok(numbers)
}

/// Our ends of the standard streams.
pub(crate) struct OurEnds {
    pub(crate) stdin: Option<(OwnedFd, tokio::sync::mpsc::Receiver<bytes::Bytes>)>,
    pub(crate) stdout: Option<(OwnedFd, tokio::sync::mpsc::Sender<bytes::Bytes>)>,
    pub(crate) stderr: Option<(OwnedFd, tokio::sync::mpsc::Sender<bytes::Bytes>)>,
}

/// Makes the process's ends (in `handles`) and ours.
pub(crate) fn streams(io: crate::Io, handles: &mut Handles) -> io::Result<(OurEnds, [FdIndex; 3])> {
    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
    let mut ours = OurEnds {
        stdin: None,
        stdout: None,
        stderr: None,
    };
    let stdin = match io.stdin {
        Input::Empty => open("/dev/null", OFlags::RDONLY)?,
        Input::Fd(fd) => fd,
        Input::Channel(from) => {
            let (read, write) = pipe()?;
            ours.stdin = Some((write, from));
            read
        }
    };
    let mut outputs = Vec::new();
    for (output, our) in [(io.stdout, &mut ours.stdout), (io.stderr, &mut ours.stderr)] {
        outputs.push(match output {
            Output::Discard => open("/dev/null", OFlags::WRONLY)?,
            Output::Fd(fd) => fd,
            Output::Channel(to) => {
                let (read, write) = pipe()?;
                *our = Some((read, to));
                write
            }
        });
    }
    let stdin = handles.push(stdin);
    let mut outputs = outputs.into_iter().map(|fd| handles.push(fd));
    let mut next = || outputs.next().expect("two outputs were made");
    let places = [stdin, next(), next()];
    Ok((ours, places))
}

fn open(path: &str, flags: OFlags) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(
        path,
        flags | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

pub(crate) fn setup(step: &str) -> impl FnOnce(io::Error) -> Error {
    let step = step.to_string();
    move |source| Error::Setup { step, source }
}

/// Checks that a tree is a directory.
fn check_root(root: std::os::fd::BorrowedFd<'_>) -> Result<(), Error> {
    let stat =
        rustix::fs::fstat(root.as_fd()).map_err(|e| setup("looking at the root")(e.into()))?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Ok(());
    }
    Err(Error::Invalid {
        what: "root".to_string(),
        reason: "it is not a directory".to_string(),
    })
}
