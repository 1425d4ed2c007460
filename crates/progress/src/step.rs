//! One step's part of the story, told to every build that has the step.

use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use oci::Digest;

use crate::Progress;
use crate::event::{CANCELED, Event, Log, Status, Step, Stream, Warning};
use crate::journal::Journal;
use crate::limits::{LogLimits, Meter};
use crate::spool::Spool;
use crate::trace::Trace;

/// The shortest time between two updates of one transfer.
const STATUS_INTERVAL: Duration = Duration::from_millis(100);

/// The handle through which a step tells what it does. Clones are the same step.
#[derive(Clone, Debug)]
pub struct StepProgress(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    digest: Digest,
    limits: LogLimits,
    spool: Arc<Spool>,
    /// That of the build which had it first.
    trace: Option<Arc<Trace>>,
    /// All that was told, for builds that come later.
    told: Journal,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    step: Step,
    out: Meter,
    err: Meter,
    builds: Vec<Weak<Journal>>,
    /// How many pieces of work go on after it ended.
    reopened: usize,
}

/// A step that may be nobody's by now.
#[derive(Clone, Debug)]
pub struct WeakStep(Weak<Shared>);

impl WeakStep {
    /// The step, if some build still has it.
    pub fn upgrade(&self) -> Option<StepProgress> {
        self.0.upgrade().map(StepProgress)
    }
}

/// Work that goes on in a step that had ended: the step is open until the last of these goes.
#[derive(Debug)]
pub struct Reopened(Option<StepProgress>);

impl Drop for Reopened {
    fn drop(&mut self) {
        let Some(step) = &self.0 else { return };
        let mut state = step.lock();
        state.reopened -= 1;
        if state.reopened == 0 {
            state.step.completed = Some(SystemTime::now());
            step.tell_step(&mut state);
        }
    }
}

impl StepProgress {
    pub(crate) fn new(
        step: Step,
        limits: LogLimits,
        spool: Arc<Spool>,
        trace: Option<Arc<Trace>>,
    ) -> StepProgress {
        let now = Instant::now();
        let told = Journal::default();
        told.push(spool.keep(Event::Step(step.clone())));
        StepProgress(Arc::new(Shared {
            digest: step.digest,
            limits,
            spool,
            trace,
            told,
            state: Mutex::new(State {
                step,
                out: Meter::new(limits, now),
                err: Meter::new(limits, now),
                builds: Vec::new(),
                reopened: 0,
            }),
        }))
    }

    /// The same step, without keeping it.
    pub fn downgrade(&self) -> WeakStep {
        WeakStep(Arc::downgrade(&self.0))
    }

    /// Whether some build watches both.
    pub fn is_seen_with(&self, other: &StepProgress) -> bool {
        let builds = |of: &StepProgress| of.lock().builds.clone();
        let theirs = builds(other);
        let living = |build: &&Weak<Journal>| build.strong_count() > 0;
        builds(self)
            .iter()
            .filter(living)
            .any(|build| theirs.iter().any(|one| one.ptr_eq(build)))
    }

    /// More is to be done in this step though it ended well, such as fetching what it found.
    /// One that has not ended, or that failed, stays as it is.
    pub fn reopen(&self) -> Reopened {
        let mut state = self.lock();
        let ended_well = state.step.completed.is_some() && state.step.error.is_empty();
        if state.reopened == 0 && !ended_well {
            return Reopened(None);
        }
        state.reopened += 1;
        if state.reopened == 1 {
            state.step.started = Some(SystemTime::now());
            state.step.completed = None;
            state.step.cached = false;
            self.tell_step(&mut state);
        }
        Reopened(Some(self.clone()))
    }

    /// A step nobody watches: for tests, and for work outside any build.
    pub fn none() -> StepProgress {
        let step = Step {
            digest: Digest::of(b""),
            name: String::new(),
            inputs: Vec::new(),
            group: None,
            cached: false,
            started: None,
            completed: None,
            error: String::new(),
        };
        StepProgress::new(step, LogLimits::default(), Arc::new(Spool::new(None)), None)
    }

    /// The environment by which programs in the step know where they are in the trace of the
    /// build that had the step first; empty if that is in none.
    pub fn trace_environment(&self) -> Vec<String> {
        let trace = self.0.trace.as_ref();
        trace.map_or_else(Vec::new, |trace| trace.environment(&self.0.digest))
    }

    /// The digest that names the step.
    pub fn digest(&self) -> Digest {
        self.0.digest
    }

    /// What the step is called.
    pub fn name(&self) -> String {
        self.lock().step.name.clone()
    }

    /// Lets another build watch this step: it gets all that was told so far, then
    /// all that comes. Attaching the same build twice changes nothing.
    pub fn attach(&self, build: &Progress) {
        let mut state = self.lock();
        state.builds.retain(|known| known.strong_count() > 0);
        if state
            .builds
            .iter()
            .any(|known| std::ptr::eq(known.as_ptr(), Arc::as_ptr(build.journal())))
        {
            return;
        }
        for kept in self.0.told.all() {
            build.journal().push(kept);
        }
        state.builds.push(Arc::downgrade(build.journal()));
    }

    /// The step begins (again): its log limits count from here.
    pub fn start(&self) {
        let mut state = self.lock();
        let now = Instant::now();
        state.out = Meter::new(self.0.limits, now);
        state.err = Meter::new(self.0.limits, now);
        state.step.started = Some(SystemTime::now());
        state.step.completed = None;
        state.step.cached = false;
        state.step.error.clear();
        self.tell_step(&mut state);
    }

    /// The step ended well; `cached` if its result was there already.
    pub fn complete(&self, cached: bool) {
        self.end(cached, String::new());
    }

    /// The step failed.
    pub fn fail(&self, error: &str) {
        self.end(false, error.to_owned());
    }

    /// The step ended because nobody waits for it any more.
    pub fn cancel(&self) {
        self.end(false, CANCELED.to_owned());
    }

    fn end(&self, cached: bool, error: String) {
        let mut state = self.lock();
        let now = SystemTime::now();
        state.step.started.get_or_insert(now);
        state.step.completed = Some(now);
        state.step.cached = cached;
        state.step.error = error;
        self.tell_step(&mut state);
    }

    /// The step printed something. Past its limits ([`LogLimits`]) the rest is cut
    /// off, with a notice where that begins.
    pub fn log(&self, stream: Stream, data: impl AsRef<[u8]>) {
        let data = data.as_ref();
        let mut state = self.lock();
        let meter = match stream {
            Stream::Out => &mut state.out,
            Stream::Err => &mut state.err,
        };
        let (pass, notice) = meter.admit(data.len(), Instant::now());
        let mut passed = data[..pass].to_vec();
        passed.extend_from_slice(notice.as_deref().unwrap_or_default().as_bytes());
        if !passed.is_empty() {
            let data = Bytes::from(passed);
            let log = Log {
                step: self.0.digest,
                stream,
                data,
                at: SystemTime::now(),
            };
            self.tell(&mut state, Event::Log(log));
        }
    }

    /// A writer whose bytes are this step's output.
    pub fn log_writer(&self, stream: Stream) -> LogWriter {
        LogWriter {
            step: self.clone(),
            stream,
        }
    }

    /// Begins something that moves on inside this step; `id` is what is shown.
    pub fn transfer(&self, id: impl Into<String>) -> Transfer {
        let now = SystemTime::now();
        let status = Status {
            step: self.0.digest,
            id: id.into(),
            name: String::new(),
            current: 0,
            total: 0,
            at: now,
            started: Some(now),
            completed: None,
        };
        self.tell(&mut self.lock(), Event::Status(status.clone()));
        Transfer {
            step: self.clone(),
            state: Mutex::new((status, Instant::now())),
        }
    }

    /// Tells why no earlier result stood in for this step.
    pub fn not_cached(&self, why: &str) {
        let status = Status::not_cached(self.0.digest, why);
        self.tell(&mut self.lock(), Event::Status(status));
    }

    /// Tells a remark about this step. The warning's `step` is set to this one.
    pub fn warn(&self, mut warning: Warning) {
        warning.step = self.0.digest;
        self.tell(&mut self.lock(), Event::Warning(warning));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell_step(&self, state: &mut State) {
        let step = state.step.clone();
        self.tell(state, Event::Step(step));
    }

    /// Under the lock, so that every build sees the same order.
    fn tell(&self, state: &mut State, event: Event) {
        let kept = self.0.spool.keep(event);
        state.builds.retain(|build| match build.upgrade() {
            Some(build) => {
                build.push(kept.clone());
                true
            }
            None => false,
        });
        self.0.told.push(kept);
    }
}

/// Something that moves on inside a step. Updates come at most ten times a second.
#[derive(Debug)]
pub struct Transfer {
    step: StepProgress,
    state: Mutex<(Status, Instant)>,
}

impl Transfer {
    /// `current` of `total` is done; a `total` of 0 says that it is not known.
    pub fn set(&self, current: u64, total: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (status, told) = &mut *state;
        let first = status.current == 0 && status.total == 0;
        status.current = current;
        status.total = total;
        status.at = SystemTime::now();
        if first || told.elapsed() >= STATUS_INTERVAL {
            *told = Instant::now();
            self.step
                .tell(&mut self.step.lock(), Event::Status(status.clone()));
        }
    }

    /// Adds to what is done.
    pub fn advance(&self, by: u64) {
        let (current, total) = {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            (state.0.current, state.0.total)
        };
        self.set(current + by, total);
    }

    /// It is done. A transfer dropped without this is shown as not finished.
    pub fn done(self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let status = &mut state.0;
        status.at = SystemTime::now();
        status.completed = Some(status.at);
        let status = status.clone();
        self.step.tell(&mut self.step.lock(), Event::Status(status));
    }
}

/// Turns written bytes into a step's output.
#[derive(Clone, Debug)]
pub struct LogWriter {
    step: StepProgress,
    stream: Stream,
}

impl io::Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.step.log(self.stream, bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
