//! What the helper is told: plain numbers and names, and descriptors by their place in
//! the message.

use std::os::fd::AsFd;

use serde::{Deserialize, Serialize};

use crate::process::{Device, ExecProcess, Process, Security};
use crate::proxy::with_variables;
use crate::user::Ids;
use crate::{Result, prepare};

/// Place of a descriptor in the message it came with.
pub(crate) type FdIndex = usize;

/// First part of a message to the helper.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) id: u64,
    pub(crate) order: Order,
}

/// What the helper shall do.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Remember these cgroups (pairs of parent and directory handles follow) and clean
    /// them up, in this order, when the socket closes. With each name, whether it goes
    /// only when it is empty.
    Keep {
        number: u64,
        kept: Vec<(String, bool)>,
    },
    /// What was kept under a number has gone.
    Forget { number: u64 },
    /// Start a container; handle 0 holds the [`Spec`].
    Run,
    /// Start one more process in a container; handle 0 holds the [`Spec`], handle 1 is
    /// a pidfd of the container's first process.
    Enter,
}

/// The helper's answers. A `Started` carries the pidfd.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    Started {
        id: u64,
    },
    /// It could not even be forked.
    Refused {
        id: u64,
        step: String,
        errno: i32,
    },
    Ended {
        id: u64,
        status: i32,
    },
}

/// Everything about one process and its container.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Spec {
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<String>,
    pub(crate) cwd: String,
    pub(crate) ids: Ids,
    pub(crate) hostname: String,
    pub(crate) root: TreeRef,
    pub(crate) readonly_root: bool,
    pub(crate) mounts: Vec<MountRef>,
    /// Cgroup (v2) to be born into.
    pub(crate) cgroup: Option<FdIndex>,
    /// `cgroup.procs` files to join.
    pub(crate) joins: Vec<FdIndex>,
    /// A network namespace of its own, with a loopback only.
    pub(crate) own_network: bool,
    /// The network namespace to be in.
    pub(crate) network: Option<FdIndex>,
    /// Device nodes beside the usual ones.
    pub(crate) devices: Vec<Device>,
    /// AppArmor profile to run the program under.
    pub(crate) apparmor: Option<String>,
    pub(crate) insecure: bool,
    /// No cgroup guards devices: see `cgroup::DeviceRules::NoDev`.
    pub(crate) nodev: bool,
    pub(crate) rlimits: Vec<(u32, u64, u64)>,
    pub(crate) shm_size: u64,
    pub(crate) stdio: [FdIndex; 3],
    /// Where the master of a new terminal is sent.
    pub(crate) console: Option<FdIndex>,
    /// Failures before the program runs are written here; closed by exec.
    pub(crate) failures: FdIndex,
}

impl Spec {
    /// One more process in the container of `first`: what it does not say for itself is as there.
    /// It comes without handles.
    pub(crate) fn of_exec(first: &Process, exec: &ExecProcess) -> Result<Spec> {
        fn or<'a>(own: &'a str, other: &'a str) -> &'a str {
            if own.is_empty() { other } else { own }
        }
        let env = match exec.env.is_empty() {
            true => &first.env,
            false => &exec.env,
        };
        let cwd = or(or(&exec.cwd, &first.cwd), "/");
        prepare::check_command(&exec.args, env, cwd)?;
        let ids = crate::user::find(first.root.root().as_fd(), or(&exec.user, &first.user))?;
        Ok(Spec {
            args: exec.args.clone(),
            env: prepare::environment(&with_variables(env, &first.proxied), &ids),
            cwd: cwd.to_string(),
            ids,
            hostname: String::new(),
            root: TreeRef {
                fd: 0,
                detached: false,
                recursive: false,
                readonly: false,
            },
            readonly_root: false,
            mounts: Vec::new(),
            cgroup: None,
            joins: Vec::new(),
            own_network: false,
            network: None,
            devices: Vec::new(),
            apparmor: None,
            insecure: exec.security == Security::Insecure,
            nodev: false,
            rlimits: prepare::rlimits(&exec.ulimits)?,
            shm_size: 0,
            stdio: [0; 3],
            console: None,
            failures: 0,
        })
    }
}

/// A tree, directory or file to mount.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct TreeRef {
    pub(crate) fd: FdIndex,
    /// A detached mount: where the kernel cannot copy one, it is moved.
    pub(crate) detached: bool,
    /// With the mounts beneath it.
    pub(crate) recursive: bool,
    /// Never to be written, not even mount points.
    pub(crate) readonly: bool,
}

/// One mount.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct MountRef {
    pub(crate) target: String,
    pub(crate) readonly: bool,
    /// Further attributes of the mount.
    pub(crate) attributes: u64,
    pub(crate) kind: MountKind,
}

/// What is mounted.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum MountKind {
    Bind {
        tree: TreeRef,
        is_dir: bool,
    },
    Tmpfs {
        size: Option<u64>,
    },
    /// Content from a memory file, copied into a memory filesystem.
    File {
        content: FdIndex,
        mode: u32,
        uid: u32,
        gid: u32,
    },
}

/// Why a container did not come to run its program.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) part: Part,
    pub(crate) errno: i32,
}

/// Which part of it failed.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Part {
    Step(String),
    Target { target: String, reason: String },
    Cwd,
    Program,
}
