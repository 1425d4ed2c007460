//! Cgroups of containers: finding what the host has, limits, killing, and sweeping
//! what a dead program left behind.
//!
//! Every container gets a directory in the cgroup v2 hierarchy, also on hosts whose
//! controllers are still in v1: it needs no controller to carry the device rules and
//! to kill everything in it at once. A v1 directory is made only for a limit whose
//! controller lives there, and to tell what a process uses. Layout: `<parent>/<instance>/{sandbox,insecure}/<container>`,
//! and an instance is alive as long as someone holds a lock on its directory.

mod asked;
mod dir;
mod hold;
mod limits;
mod top;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::Error;
use crate::process::{Process, Security};
use crate::usage;
use asked::{Asked, Use};
pub(crate) use dir::Dir;
use hold::Made;
pub(crate) use hold::{Hold, Left};
pub use top::free_top;

/// Controllers that limits may need.
const CONTROLLERS: &[&str] = &["memory", "cpu", "cpuset", "pids", "io"];
/// Hierarchies of the first version that only tell what was used; processors tell it in the
/// second one in any case.
const TELLING: &[&str] = &["memory", "pids", "blkio"];

/// What device rules can rest on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeviceRules {
    /// A program on the sandbox cgroup answers each access.
    Cgroup,
    /// No cgroup can carry it: mounts are `nodev` and `CAP_MKNOD` is dropped, which
    /// leaves only the nodes of the container's own `/dev`.
    NoDev,
}

/// The cgroups of one executor.
pub(crate) struct Cgroups {
    v2: Option<V2>,
    /// By controller.
    v1: Vec<(String, Hold)>,
    parents: Parents,
    /// Beneath parents that containers ask for.
    asked: Arc<Asked>,
}

/// Our part of the v2 hierarchy beneath one parent.
struct V2 {
    // Fields are dropped in this order: what is inside goes first.
    sandbox: Dir,
    insecure: Dir,
    instance: Hold,
}

/// Roots of the hierarchies, for containers that ask for another parent.
struct Parents {
    v2: Option<OwnedFd>,
    v1: Vec<(String, OwnedFd)>,
}

/// The cgroups of one container. Dropped: everything in them is killed, and they go.
pub(crate) struct ContainerCgroup {
    v2: Option<Dir>,
    v1: Vec<(String, Dir)>,
    /// The parent it asked for. Goes after what is in it.
    _parent: Option<Use>,
    /// Device rules that hold for this container.
    pub(crate) devices: DeviceRules,
}

impl Cgroups {
    /// Finds the host's hierarchies, sweeps what dead instances left beneath `parent`,
    /// and makes this instance's directories. A host where none can be made gives
    /// none: containers then do without, see [`DeviceRules::NoDev`].
    pub(crate) fn start(parent: &str) -> Result<Cgroups, Error> {
        let parent = check_parent(parent)?;
        let hosts = Parents::discover();
        let name = instance_name();
        let asked = Arc::<Asked>::default();
        let v2 = hosts.v2.as_ref().and_then(|root| {
            V2::start(root.as_fd(), &parent, &name, &asked.made)
                .inspect_err(|error| tracing::warn!(%error, "no cgroup v2 directory can be made"))
                .ok()
        });
        let v1 = hosts.v1.iter().filter_map(|(controller, root)| {
            let hold = Hold::claim(root.as_fd(), &parent, &name, &Arc::default()).ok()?;
            if controller == "cpuset" {
                limits::inherit_cpuset(hold.base(), hold.dir());
            }
            Some((controller.clone(), hold))
        });
        let v1: Vec<(String, Hold)> = v1.collect();
        let holds = v2.iter().map(|v2| &v2.instance);
        for hold in holds.chain(v1.iter().map(|(_, hold)| hold)) {
            let left = hold.left().map_err(|source| Error::Cgroup {
                path: parent.iter().collect(),
                source,
            })?;
            asked.kept.add(left);
        }
        Ok(Cgroups {
            v2,
            v1,
            parents: hosts,
            asked,
        })
    }

    /// Removes `parent` if it is ours alone and empty; with `instances` first what dead
    /// ones left beneath it.
    pub(crate) fn sweep(parent: &str, instances: bool) {
        let Ok(parent) = check_parent(parent) else {
            return;
        };
        // In all of them: a runtime binary has cgroups also where we need none.
        let mut roots: Vec<OwnedFd> = mounted().into_iter().map(|(_, root)| root).collect();
        roots.extend(Parents::discover().v2);
        for root in roots {
            Hold::sweep(root.as_fd(), &parent, instances);
        }
    }

    /// Kills what is in a cgroup of somebody else's making, and removes it, in all hierarchies.
    pub(crate) fn remove(path: &str) {
        let Ok(path) = check_parent(path) else {
            return;
        };
        for (_, root) in mounted() {
            let top = Dir::root(root.as_fd());
            let found = path
                .iter()
                .fold(top, |at, name| at.and_then(|at| at.child(name)));
            if let Ok(dir) = found {
                dir.kill_and_remove();
            }
        }
    }

    /// What the helper removes when we are gone, by numbers that are never given again. More come
    /// and go with the parents that containers ask for.
    pub(crate) fn left(&self) -> BTreeMap<u64, Arc<Vec<Left>>> {
        self.asked.kept.all().clone()
    }

    /// The cgroups of a new container called `id`, with its limits set.
    pub(crate) fn container(&self, id: &str, process: &Process) -> Result<ContainerCgroup, Error> {
        let (security, allowed) = (process.security, &process.devices[..]);
        let parent = process.cgroup_parent.as_deref();
        let failed = |source| Error::Cgroup {
            path: PathBuf::from(id),
            source,
        };
        let mut devices = DeviceRules::Cgroup;
        let asked = match (parent, &self.v2, &self.parents.v2) {
            (Some(parent), Some(_), Some(root)) => Some(self.asked.beneath(root.as_fd(), parent)?),
            (Some(parent), ..) => {
                let what =
                    format!("cgroup parent {parent}: no cgroup v2 directory can be made here");
                return Err(Error::Unsupported { what });
            }
            (None, ..) => None,
        };
        let v2 = match asked.as_ref().map(Use::v2).or(self.v2.as_ref()) {
            Some(v2) if security == Security::Sandbox && allowed.is_empty() => {
                Some(v2.sandbox.make(id).map_err(failed)?)
            }
            Some(v2) => {
                let dir = v2.insecure.make(id).map_err(failed)?;
                if security == Security::Sandbox {
                    crate::devices::attach(dir.fd(), allowed).map_err(failed)?;
                }
                Some(dir)
            }
            None => {
                devices = DeviceRules::NoDev;
                None
            }
        };
        let mut container = ContainerCgroup {
            v2,
            v1: Vec::new(),
            _parent: asked,
            devices,
        };
        limits::set(&mut container, &self.v1, id, &process.resources)?;
        if process.usage.is_some() {
            for controller in TELLING {
                // What this host cannot tell is not told.
                let limits = container.v1.len();
                let _untold = limits::join(&mut container, &self.v1, id, controller);
                if container.v1.len() > limits && container.joins().is_err() {
                    container.v1.truncate(limits);
                }
            }
        }
        Ok(container)
    }
}

impl V2 {
    fn start(
        root: BorrowedFd<'_>,
        parent: &[String],
        name: &str,
        made: &Arc<Made>,
    ) -> io::Result<V2> {
        let instance = Hold::claim(root, parent, name, made)?;
        instance.dir().enable(CONTROLLERS);
        let sandbox = instance.dir().make("sandbox")?;
        let insecure = instance.dir().make("insecure")?;
        sandbox.enable(CONTROLLERS);
        insecure.enable(CONTROLLERS);
        crate::devices::attach(sandbox.fd(), &[])?;
        Ok(V2 {
            sandbox,
            insecure,
            instance,
        })
    }
}

impl Parents {
    /// Reads the mount table. A host without a cgroup v2 mount still has the
    /// hierarchy: it is then mounted for us alone.
    fn discover() -> Parents {
        let mut parents = Parents {
            v2: None,
            v1: Vec::new(),
        };
        for (options, root) in mounted() {
            let Some(options) = options else {
                parents.v2.get_or_insert(root);
                continue;
            };
            for controller in CONTROLLERS.iter().chain(&["blkio"]) {
                if options.split(',').any(|option| option == *controller)
                    && let Ok(root) = root.try_clone()
                {
                    parents.v1.push(((*controller).to_string(), root));
                }
            }
        }
        if parents.v2.is_none() {
            parents.v2 = crate::sys::detached("cgroup2", &[], 0).ok();
        }
        parents
    }
}

/// The roots of all hierarchies that are mounted: of those of the first version with their mount
/// options, which name the controllers.
fn mounted() -> Vec<(Option<String>, OwnedFd)> {
    let table = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let found = table.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (path, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
        let options = match kind {
            "cgroup" => Some(options.to_string()),
            "cgroup2" => None,
            _ => return None,
        };
        Some((options, dir::open(path).ok()?))
    });
    found.collect()
}

impl ContainerCgroup {
    /// Directory the process is born into.
    pub(crate) fn birth(&self) -> Option<OwnedFd> {
        self.v2
            .as_ref()
            .and_then(|dir| dir.fd().try_clone_to_owned().ok())
    }

    /// `cgroup.procs` of the v1 directories the process must join.
    pub(crate) fn joins(&self) -> Result<Vec<OwnedFd>, Error> {
        let open = |(controller, dir): &(String, Dir)| {
            dir.open_file("cgroup.procs", rustix::fs::OFlags::WRONLY)
                .map_err(|source| Error::Cgroup {
                    path: PathBuf::from(controller),
                    source,
                })
        };
        self.v1.iter().map(open).collect()
    }

    /// Where it can be read what it uses, also when its processes have ended.
    pub(crate) fn told(&self) -> usage::Cgroups {
        let again = |dir: &Dir| dir.again().ok();
        let v1 = self
            .v1
            .iter()
            .filter_map(|(name, dir)| Some((name.clone(), again(dir)?)));
        usage::Cgroups::Dirs(self.v2.as_ref().and_then(again), v1.collect())
    }

    /// Whether the kernel killed something in here for lack of memory.
    pub(crate) fn saw_oom(&self) -> bool {
        let v1 = self
            .v1
            .iter()
            .find(|(controller, _)| controller == "memory");
        let texts = [
            self.v2
                .as_ref()
                .and_then(|dir| dir.read("memory.events").ok()),
            v1.and_then(|(_, dir)| dir.read("memory.oom_control").ok()),
        ];
        texts.into_iter().flatten().any(|text| {
            text.lines().any(|line| {
                line.strip_prefix("oom_kill ")
                    .is_some_and(|count| count.trim() != "0")
            })
        })
    }

    /// Kills everything inside.
    pub(crate) fn kill(&self) {
        if let Some(dir) = &self.v2 {
            dir.kill();
        }
    }
}

impl Drop for ContainerCgroup {
    fn drop(&mut self) {
        for dir in self.v2.iter().chain(self.v1.iter().map(|(_, dir)| dir)) {
            dir.kill_and_remove();
        }
    }
}

/// The directory names of a parent such as `/kiln` or `builds/nightly`.
fn check_parent(parent: &str) -> Result<Vec<String>, Error> {
    let names: Vec<String> = parent
        .split('/')
        .filter(|name| !name.is_empty())
        .map(str::to_string)
        .collect();
    if parent.contains(':') {
        let what = format!("cgroup parent {parent:?}: systemd slices are not; give a path");
        return Err(Error::Unsupported { what });
    }
    if names.iter().any(|name| name == "." || name == "..") {
        let what = format!("cgroup parent {parent:?}");
        return Err(Error::Invalid {
            what,
            reason: "it must not contain . or ..".to_string(),
        });
    }
    Ok(names)
}

/// How the names of instances begin. Only such directories are ever swept: a parent may
/// be one that others use, too.
pub(crate) const INSTANCE: &str = "kiln-instance-";

/// A name no other instance has: the process, and how many it started before.
pub(crate) fn instance_name() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let time = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos());
    format!(
        "{INSTANCE}{}-{}-{time:x}",
        std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    )
}
