//! Plain lines, in the form BuildKit's clients write and CI parsers read:
//!
//! ```text
//! #5 [build 2/3] RUN make
//! #5 0.213 cc main.c
//! #5 DONE 1.2s
//! ```
//!
//! One step holds the floor at a time; steps that end speak at once, others wait
//! until the floor is free or they have waited long.

use std::collections::HashMap;
use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use progress::Status;

use crate::display::trace::Trace;
use crate::display::units;

/// A step keeps the floor at least this long while others wait.
const HOLD: Duration = Duration::from_secs(5);
/// A step that waited this long is heard.
const PATIENCE: Duration = Duration::from_secs(10);
/// A transfer is told again after this time …
const STATUS_TIME: Duration = Duration::from_secs(5);
/// … or after this part of it moved.
const STATUS_SHARE: f64 = 0.05;

/// Writes lines.
#[derive(Default)]
pub struct Plain {
    truncate: bool,
    /// Numbers of the steps told so far, in order of their first line.
    numbers: HashMap<usize, usize>,
    /// The step that holds the floor and since when.
    floor: Option<(usize, SystemTime)>,
    /// Since when a step has something to tell.
    waiting: HashMap<usize, SystemTime>,
    /// What was told last of each transfer.
    told: HashMap<(usize, String), (SystemTime, u64)>,
    /// The last byte written was not a line's end.
    open_line: bool,
    spoke: bool,
}

impl Plain {
    /// Lines; with `truncate`, step names are cut to 72 characters.
    pub fn new(truncate: bool) -> Plain {
        Plain {
            truncate,
            ..Plain::default()
        }
    }

    /// Writes what is due.
    pub fn flush(
        &mut self,
        out: &mut dyn Write,
        trace: &mut Trace,
        now: SystemTime,
    ) -> io::Result<()> {
        for at in self.completed(trace) {
            self.speak(out, trace, at, now)?;
        }
        let pending: Vec<usize> = pending(trace).collect();
        for at in &pending {
            self.waiting.entry(*at).or_insert(now);
        }
        if let Some(next) = self.next_speaker(trace, &pending, now) {
            self.speak(out, trace, next, now)?;
        }
        out.flush()
    }

    /// Writes all that is left.
    pub fn finish(
        &mut self,
        out: &mut dyn Write,
        trace: &mut Trace,
        now: SystemTime,
    ) -> io::Result<()> {
        self.flush(out, trace, now)?;
        let left: Vec<usize> = pending(trace).collect();
        for at in left {
            self.speak(out, trace, at, now)?;
        }
        self.end_line(out)
    }

    /// Steps that ended and were not told so: who holds the floor first, then by their end.
    fn completed(&self, trace: &Trace) -> Vec<usize> {
        let mut ended: Vec<usize> = pending(trace)
            .filter(|at| trace.steps()[*at].completed.is_some())
            .collect();
        let holder = self.floor.map(|(at, _)| at);
        ended.sort_by_key(|at| (Some(*at) != holder, trace.steps()[*at].completed, *at));
        ended
    }

    fn next_speaker(&self, trace: &Trace, pending: &[usize], now: SystemTime) -> Option<usize> {
        let waited = |at: &usize| {
            self.waiting
                .get(at)
                .map(|since| units::between(*since, now))
                .unwrap_or_default()
        };
        let longest = pending
            .iter()
            .copied()
            .max_by_key(|at| (waited(at), usize::MAX - at));
        let Some((holder, since)) = self.floor else {
            // Nobody speaks: whoever waits, or whoever runs, so that one sees what is going on.
            return longest.or_else(|| {
                trace
                    .steps()
                    .iter()
                    .position(|step| step.is_running() && !step.hidden)
            });
        };
        let other = pending
            .iter()
            .copied()
            .filter(|at| *at != holder)
            .max_by_key(|at| (waited(at), usize::MAX - at));
        match other {
            Some(other) if waited(&other) >= PATIENCE => Some(other),
            Some(other) if units::between(since, now) >= HOLD && !pending.contains(&holder) => {
                Some(other)
            }
            _ => pending.contains(&holder).then_some(holder),
        }
    }

    fn speak(
        &mut self,
        out: &mut dyn Write,
        trace: &mut Trace,
        at: usize,
        now: SystemTime,
    ) -> io::Result<()> {
        let next = self.numbers.len() + 1;
        let number = *self.numbers.entry(at).or_insert(next);
        self.take_floor(out, trace, at, number, now)?;
        self.waiting.remove(&at);
        let step = trace.step_mut(at);
        step.changed = false;
        let fresh: Vec<Status> = std::mem::take(&mut step.fresh_statuses)
            .into_iter()
            .map(|place| step.statuses[place].clone())
            .collect();
        for status in fresh {
            self.status(out, at, number, &status)?;
        }
        let output = std::mem::take(&mut trace.step_mut(at).fresh);
        self.output(out, number, &output)?;
        let step = &trace.steps()[at];
        if let (Some(_), true) = (step.completed, step.started.is_some()) {
            self.end_line(out)?;
            let end = if step.is_canceled() {
                "CANCELED".to_owned()
            } else if step.has_failed() {
                format!("ERROR: {}", step.error)
            } else if step.cached {
                "CACHED".to_owned()
            } else {
                format!("DONE {:.1}s", step.duration(now).as_secs_f64())
            };
            writeln!(out, "#{number} {end}")?;
            self.floor = None;
        }
        Ok(())
    }

    fn take_floor(
        &mut self,
        out: &mut dyn Write,
        trace: &Trace,
        at: usize,
        number: usize,
        now: SystemTime,
    ) -> io::Result<()> {
        if self.floor.is_some_and(|(holder, _)| holder == at) {
            return Ok(());
        }
        self.end_line(out)?;
        if let Some((holder, _)) = self.floor {
            writeln!(out, "#{} ...", self.numbers[&holder])?;
        }
        if self.spoke {
            writeln!(out)?;
        }
        self.spoke = true;
        self.floor = Some((at, now));
        let name = &trace.steps()[at].name;
        match name.char_indices().nth(72) {
            Some((cut, _)) if self.truncate => writeln!(out, "#{number} {}...", &name[..cut]),
            _ => writeln!(out, "#{number} {name}"),
        }
    }

    fn status(
        &mut self,
        out: &mut dyn Write,
        at: usize,
        number: usize,
        status: &Status,
    ) -> io::Result<()> {
        let key = (at, status.id.clone());
        if let (Some((when, current)), None) = (self.told.get(&key), status.completed) {
            let moved = status.current.saturating_sub(*current) as f64 / status.total.max(1) as f64;
            let due = (status.total > 0 && moved >= STATUS_SHARE)
                || units::between(*when, status.at) >= STATUS_TIME;
            if !due {
                return Ok(());
            }
        }
        self.told.insert(key, (status.at, status.current));
        self.end_line(out)?;
        if status.why_not_cached().is_some() {
            return writeln!(out, "#{number} {}", status.id);
        }
        write!(out, "#{number} {}", status.id)?;
        if let Some(amount) = units::amount(status.current, status.total) {
            write!(out, " {amount}")?;
        }
        if let Some(started) = status.started {
            let time = units::between(started, status.completed.unwrap_or(status.at)).as_secs_f64();
            if time > 0.01 {
                write!(out, " {time:.1}s")?;
            }
        }
        writeln!(
            out,
            "{}",
            if status.completed.is_some() {
                " done"
            } else {
                ""
            }
        )
    }

    fn output(&mut self, out: &mut dyn Write, number: usize, output: &[u8]) -> io::Result<()> {
        for line in output.split_inclusive(|byte| *byte == b'\n') {
            if !self.open_line {
                write!(out, "#{number} ")?;
            }
            out.write_all(line)?;
            self.open_line = !line.ends_with(b"\n");
        }
        Ok(())
    }

    fn end_line(&mut self, out: &mut dyn Write) -> io::Result<()> {
        if std::mem::take(&mut self.open_line) {
            writeln!(out)
        } else {
            Ok(())
        }
    }
}

fn pending(trace: &Trace) -> impl Iterator<Item = usize> + '_ {
    let shown = |step: &crate::display::trace::StepView| {
        step.changed && !step.hidden && step.started.is_some()
    };
    trace
        .steps()
        .iter()
        .enumerate()
        .filter(move |(_, step)| shown(step))
        .map(|(at, _)| at)
}
