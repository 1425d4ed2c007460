//! Events of a running build, and the handle one sends them to.
//!
//! A [`Progress`] is one build's story. Work done for the build gets a
//! [`StepProgress`] from it and tells what happens: started, moved so many bytes,
//! printed a line, ended. Who wants to watch takes a [`Follower`]: it sees the
//! story from its first event, then live, until the build is closed.
//!
//! A step may belong to several builds at once (equal work is done once):
//! [`StepProgress::attach`] gives another build everything the step has told so
//! far and all that comes.
//!
//! Memory stays bounded: of many updates of one transfer only the newest is kept
//! for those who come later, and what steps print moves to an unlinked file once
//! it is large.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let build = progress::Progress::new(progress::Options::default());
//! let step = build.step(oci::Digest::of(b"op"), "RUN make", &[]);
//! step.start();
//! step.log(progress::Stream::Out, b"cc main.c\n");
//! step.complete(false);
//! build.close();
//! let mut told = build.follow();
//! while let Some(event) = told.next().await { let _ = event; }
//! # });
//! ```
#![forbid(unsafe_code)]

mod event;
mod journal;
mod limits;
mod spool;
mod step;
mod trace;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use oci::Digest;

pub use event::{
    CANCELED, Event, Group, Log, Position, Range, Source, Status, Step, Stream, Warning,
};
pub use journal::Follower;
pub use limits::LogLimits;
pub use step::{LogWriter, Reopened, StepProgress, Transfer, WeakStep};
pub use trace::Trace;

use journal::Journal;
use spool::Spool;

/// How a build's progress is kept.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How much each step may print.
    pub limits: LogLimits,
    /// Where printed output goes once it is too large for memory; the system's
    /// temporary directory if `None`. The file has no name, so nothing is left behind.
    pub spool_dir: Option<PathBuf>,
    /// Where the build is in a trace, if it is in one.
    pub trace: Option<Trace>,
}

/// How many steps a build has, and how they went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All that started.
    pub steps: usize,
    /// Those that ended well.
    pub completed: usize,
    /// Those whose result was there already.
    pub cached: usize,
    /// Remarks.
    pub warnings: usize,
}

/// One build's story: the handle events are sent to. Clones are the same build.
#[derive(Clone, Debug)]
pub struct Progress {
    journal: Arc<Journal>,
    spool: Arc<Spool>,
    limits: LogLimits,
    trace: Option<Arc<Trace>>,
}

impl Default for Progress {
    fn default() -> Progress {
        Progress::new(Options::default())
    }
}

impl Progress {
    /// A new build without any event.
    pub fn new(options: Options) -> Progress {
        Progress {
            journal: Arc::new(Journal::default()),
            spool: Arc::new(Spool::new(options.spool_dir)),
            limits: options.limits,
            trace: options.trace.map(Arc::new),
        }
    }

    /// A step of this build, told at once as not yet started.
    pub fn step(&self, digest: Digest, name: impl Into<String>, inputs: &[Digest]) -> StepProgress {
        self.step_in_group(digest, name, inputs, None)
    }

    /// As [`Progress::step`], shown as a part of `group`.
    pub fn step_in_group(
        &self,
        digest: Digest,
        name: impl Into<String>,
        inputs: &[Digest],
        group: Option<Group>,
    ) -> StepProgress {
        let step = Step {
            digest,
            name: name.into(),
            inputs: inputs.to_vec(),
            group,
            cached: false,
            started: None,
            completed: None,
            error: String::new(),
        };
        let trace = self.trace.clone();
        let step = StepProgress::new(step, self.limits, self.spool.clone(), trace);
        step.attach(self);
        step
    }

    /// A step that no graph has: `[internal] load build context`, `exporting to image`.
    /// Its digest is made up, and it has not yet started.
    pub fn internal_step(&self, name: impl Into<String>) -> StepProgress {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = name.into();
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_nanos();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let made_up = format!("{} {now} {count} {name}", std::process::id());
        self.step(Digest::of(made_up), name, &[])
    }

    /// Tells an event as it is: for events that come from elsewhere, over a wire.
    pub fn emit(&self, event: Event) {
        self.journal.push(self.spool.keep(event));
    }

    /// Everything from the first event on, then live until the build is closed.
    pub fn follow(&self) -> Follower {
        Follower::new(self.journal.clone())
    }

    /// How many steps there were, and how they went.
    pub fn counts(&self) -> Counts {
        self.journal.counts()
    }

    /// Ends the story: followers end once they have seen all. What is told after
    /// this is dropped.
    pub fn close(&self) {
        self.journal.close();
    }

    /// Whether [`Progress::close`] was called.
    pub fn is_closed(&self) -> bool {
        self.journal.is_closed()
    }

    pub(crate) fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }
}
