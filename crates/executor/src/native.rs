//! The executor built into this program.

pub(crate) mod link;
mod running;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::sync::oneshot;

use crate::cgroup::Cgroups;
use crate::error::Error;
use crate::network::{Networks, SandboxNetwork};
use crate::process::{Dns, ExecProcess, Process};
use crate::{Control, Executor, Exit, Io, Result};
pub use link::HelperProgram;
use link::Link;

/// Parent of all cgroups unless told otherwise.
pub(crate) const CGROUP_PARENT: &str = "/kiln";

/// How the built-in executor works.
#[derive(Clone, Debug)]
pub struct NativeOptions {
    /// The program that becomes the helper.
    pub helper: HelperProgram,
    /// Parent of all its cgroups.
    pub cgroup_parent: String,
    /// DNS settings of containers that bring none.
    pub dns: Option<Dns>,
    /// Network of containers in the sandbox.
    pub network: SandboxNetwork,
    /// AppArmor profile of containers in the sandbox.
    pub apparmor: Option<String>,
}

impl Default for NativeOptions {
    fn default() -> NativeOptions {
        NativeOptions {
            helper: HelperProgram::ThisProgram,
            cgroup_parent: CGROUP_PARENT.to_string(),
            dns: None,
            network: SandboxNetwork::Host,
            apparmor: None,
        }
    }
}

/// Runs containers itself: no other program is needed.
///
/// Cheap to clone. When the last clone goes, so does the helper, with every container
/// that still runs.
#[derive(Clone)]
pub struct Native {
    shared: Arc<Shared>,
}

struct Shared {
    options: NativeOptions,
    link: tokio::sync::Mutex<Option<Arc<Link>>>,
    cgroups: Arc<Cgroups>,
    networks: Option<Arc<Networks>>,
    named: Mutex<HashMap<String, Named>>,
    next_id: AtomicU64,
}

/// A running container that can be entered.
#[derive(Clone)]
struct Named {
    process: Arc<Process>,
    pidfd: Arc<OwnedFd>,
    cgroup: Option<Arc<OwnedFd>>,
    nodev: bool,
    apparmor: Option<String>,
}

impl Native {
    /// Starts the helper, and removes what an earlier, killed executor left behind.
    pub async fn start(options: NativeOptions) -> Result<Native> {
        let parent = options.cgroup_parent.clone();
        let cgroups = stdx::task::blocking(move || Cgroups::start(&parent)).await?;
        let link = Link::start(&options.helper, &cgroups).await?;
        let networks = Networks::of(&options.network).await?;
        let shared = Shared {
            networks,
            options,
            link: tokio::sync::Mutex::new(Some(Arc::new(link))),
            cgroups: Arc::new(cgroups),
            named: Mutex::new(HashMap::new()),
            next_id: AtomicU64::new(1),
        };
        Ok(Native {
            shared: Arc::new(shared),
        })
    }

    /// The helper; another one when the last has died.
    async fn link(&self) -> Result<Arc<Link>> {
        let mut link = self.shared.link.lock().await;
        match &*link {
            Some(link) if !link.is_broken() => Ok(link.clone()),
            _ => {
                let fresh = Link::start(&self.shared.options.helper, &self.shared.cgroups).await?;
                Ok(link.insert(Arc::new(fresh)).clone())
            }
        }
    }

    fn next_id(&self) -> u64 {
        self.shared.next_id.fetch_add(1, Ordering::Relaxed)
    }

    fn named(&self, name: &str) -> Result<Named> {
        let named = self.shared.named.lock().expect("never panics while held");
        named.get(name).cloned().ok_or_else(|| Error::NoContainer {
            name: name.to_string(),
        })
    }
}

/// Runs `work` as a task that survives its caller: when the caller goes away, the work
/// hears of it, kills the container and cleans up.
pub(crate) async fn owned<F>(work: impl FnOnce(oneshot::Receiver<()>) -> F) -> Result<Exit>
where
    F: Future<Output = Result<Exit>> + Send + 'static,
{
    let (alive, abandoned) = oneshot::channel();
    let result = stdx::task::to_the_end("container", work(abandoned)).await;
    drop(alive);
    result
}

#[async_trait]
impl Executor for Native {
    async fn run(&self, process: Process, io: Io, control: Control) -> Result<Exit> {
        let native = self.clone();
        owned(move |abandoned| async move {
            native.run_container(process, io, control, abandoned).await
        })
        .await
    }

    async fn exec(&self, name: &str, exec: ExecProcess, io: Io, control: Control) -> Result<Exit> {
        let (native, name) = (self.clone(), name.to_string());
        owned(
            move |abandoned| async move { native.enter(&name, exec, io, control, abandoned).await },
        )
        .await
    }

    async fn close(&self) {
        if let Some(networks) = &self.shared.networks {
            networks.close().await;
        }
    }
}
