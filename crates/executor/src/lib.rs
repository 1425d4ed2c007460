//! Runs one process in a container: spec, namespaces, network, cgroups, seccomp, runc.
//!
//! A caller describes what to run as a [`Process`], says where its output goes with
//! [`Io`], keeps the other end of a [`Control`] to signal, resize or cancel it, and
//! gets an [`Exit`]. Two kinds of [`Executor`] keep the same promises
//! (see [`testing`]): [`Native`], built into this program, and [`Runtime`], which
//! drives an OCI runtime binary such as runc or crun.
//!
//! ```no_run
//! # async fn example(root: std::sync::Arc<snapshot::Tree>) -> Result<(), executor::Error> {
//! use executor::{Control, Executor, Io, Native, Process};
//! let native = Native::start(executor::NativeOptions::default()).await?;
//! let process = Process::new(root, ["/bin/sh", "-c", "echo hello"]);
//! let exit = native.run(process, Io::none(), Control::none()).await?;
//! assert!(exit.success());
//! # Ok(()) }
//! ```
//!
//! Whoever owns `main` calls [`helper_main`] first: containers are started by a
//! single-threaded copy of this same program.

mod apparmor;
pub mod cdi;
mod cgroup;
mod control;
mod devices;
mod error;
mod etc_files;
mod helper;
mod io;
mod native;
mod network;
mod prepare;
mod process;
mod proxy;
mod runtime;
mod seccomp;
mod spec;
mod streams;
mod stubs;
mod sys;
pub mod testing;
pub mod usage;
mod user;
mod walk;

use async_trait::async_trait;

pub use cgroup::free_top;
pub use control::{Control, Controller, Exit, WinSize};
pub use error::Error;
pub use helper::{HELPER_NAME, helper_main};
pub use io::{Input, Io, Output};
pub use native::{HelperProgram, Native, NativeOptions};
pub use network::{
    BRIDGE_NAME, BRIDGE_SUBNET, CNI_CONFIG, CNI_PLUGINS, CniNetwork, CniOptions, SandboxNetwork,
};
pub use process::{
    DEFAULT_HOSTNAME, DEFAULT_PATH, Device, DeviceKind, Dns, ExecProcess, Hook, HostIp, Mount,
    MountSource, Network, Process, Resources, Restrict, Security, Ulimit,
};
pub use proxy::{NetworkProxy, Outside};
pub use runtime::{Runtime, RuntimeOptions};

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Runs processes in containers.
///
/// Whatever a process leaves behind (children, mounts, cgroups, mount-point stubs) is
/// gone when `run` returns. Dropping the future kills the container; its remains are
/// cleaned up in the background, and the trees it uses are held until then.
#[async_trait]
pub trait Executor: Send + Sync {
    /// Runs `process` in a new container and waits for its end.
    ///
    /// A process that ran and failed is an `Ok(Exit)`; `Err` means that it was
    /// not (or no longer) possible to run it, or that `control` cancelled it.
    async fn run(&self, process: Process, io: Io, control: Control) -> Result<Exit>;

    /// Runs one more process inside the running container called `name`
    /// ([`Process::name`]).
    async fn exec(&self, name: &str, exec: ExecProcess, io: Io, control: Control) -> Result<Exit>;

    /// Lets go of what is kept ready for further runs, such as networks. The last call.
    async fn close(&self) {}
}

/// Removes the cgroups of executors that were killed, beneath the parents they have
/// unless told otherwise. Blocks for as long as what is still in one needs to die.
pub fn sweep() {
    cgroup::Cgroups::sweep(native::CGROUP_PARENT, true);
    // What is in there is a runtime binary's.
    cgroup::Cgroups::sweep(runtime::CGROUP_PARENT, false);
}
