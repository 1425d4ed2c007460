//! How each op of a graph is done: exec, file, source, build, merge, diff.
//!
//! [`Deeds`] makes, from a vertex of a [graph](llb::Graph), the [`solver::Op`] that knows
//! its cache key and does its work. What the work needs is of two kinds: [`Parts`], the same
//! for every build of a daemon, and a [`Build`], what one build has of its own (its client's
//! sessions, its logins, what it is allowed).
#![forbid(unsafe_code)]

mod build_op;
mod contents;
mod error;
mod exec;
mod file;
mod graph;
mod output;
mod proxied;
mod read;
mod remains;
mod source_op;
mod stack;
mod usage;
mod why;

use std::path::PathBuf;
use std::sync::Arc;

use ::source::{Resolutions, Sources};
use content::Provider;
use executor::Executor;
use executor::cdi::{Cdi, Grants};
use oci::Platform;
use refs::Refs;
use registry::Credentials;
use session::{Group, Sessions};

pub use build_op::{Nested, NestedError};
pub use contents::ContentsCache;
pub use error::{Error, ExitError};
pub use exec::Container;
pub use graph::Deeds;
pub use output::{Output, Results};
pub use proxied::Proxied;
pub use read::{DirEntry, EntryKind, read_dir, read_file, stat};
pub use remains::{Remains, StepError};
pub use usage::StepUsage;
pub use why::LastTimes;

/// The result of anything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What ops of all builds work with.
pub struct Parts {
    /// Where results are.
    pub refs: Refs,
    /// Where files come from.
    pub sources: Sources,
    /// What runs processes.
    pub executor: Arc<dyn Executor>,
    /// What is known of trees by content.
    pub contents: ContentsCache,
    /// What steps were like when they were last done.
    pub last_times: LastTimes,
    /// The platform of ops that name none.
    pub platform: Platform,
    /// DNS settings of sandboxes instead of the host's.
    pub dns: Option<executor::Dns>,
    /// Parent of the cgroups of steps that name none.
    pub cgroup_parent: Option<String>,
    /// A folder of the state for what lives no longer than a step.
    pub scratch: PathBuf,
    /// Devices that steps can ask for.
    pub cdi: Cdi,
    /// A socket that takes the spans of programs in steps, by OTLP.
    pub trace_socket: Option<PathBuf>,
}

/// What one build has of its own.
pub struct Build {
    /// All sessions.
    pub sessions: Sessions,
    /// Those of this build.
    pub group: Group,
    /// What it is of, beside its client's directory: steps of the same text in another project
    /// are other steps.
    pub project: String,
    /// Its logins.
    pub credentials: Arc<dyn Credentials>,
    /// What names meant so far in it.
    pub resolutions: Arc<Resolutions>,
    /// Where blobs of lazy results are fetched from: the store, then wherever a
    /// descriptor says it came from, with this build's logins.
    pub provider: Arc<dyn Provider>,
    /// `RUN --network=host` is allowed.
    pub allow_network_host: bool,
    /// `RUN --security=insecure` is allowed.
    pub allow_security_insecure: bool,
    /// Devices that are allowed beside those that all builds may use.
    pub devices: Grants,
    /// What its steps use, if anybody wants to know.
    pub usage: Option<StepUsage>,
    /// Its steps reach the network by this and in no other way, if it is given.
    pub proxy: Option<Proxied>,
}
