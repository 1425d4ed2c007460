//! What is known of a build from the events seen so far.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use oci::Digest;
use progress::{Event, Log, Status, Step, Warning};

use crate::display::units;

/// Lines of output kept per step to be shown if it fails.
const TAIL_LINES: usize = 100;
/// A longer line is cut when kept.
const TAIL_WIDTH: usize = 4096;
/// Output not yet written by the plain display; past this the oldest goes.
const FRESH_BYTES: usize = 4 * 1024 * 1024;

/// A build as seen so far.
#[derive(Default)]
pub struct Trace {
    steps: Vec<StepView>,
    by_digest: HashMap<Digest, usize>,
    by_group: HashMap<String, usize>,
    warnings: Vec<Warning>,
    started: Option<SystemTime>,
    /// Lines of output get the time since the step began in front.
    timed: bool,
}

/// A step (or a group of steps shown as one) as seen so far.
pub struct StepView {
    /// What is shown.
    pub name: String,
    /// When it began, the last time.
    pub started: Option<SystemTime>,
    /// When it ended.
    pub completed: Option<SystemTime>,
    /// Its result was there already.
    pub cached: bool,
    /// Why it failed; empty if not.
    pub error: String,
    /// What moves on inside it, in order of appearance.
    pub statuses: Vec<Status>,
    /// Something changed since the display last looked.
    pub changed: bool,
    /// Not to be shown (yet): a group of which only weak members started.
    pub hidden: bool,
    /// Output since the display last took it.
    pub fresh: Vec<u8>,
    /// Statuses changed since the display last took them, by their place in `statuses`.
    pub fresh_statuses: Vec<usize>,
    /// Warnings about this step, one line each.
    pub remarks: Vec<String>,
    spent: Duration,
    members: HashMap<Digest, Step>,
    tail: Tail,
    at_line_start: bool,
}

/// The last lines a step printed.
#[derive(Default)]
struct Tail {
    lines: VecDeque<Vec<u8>>,
    open: bool,
    lost: bool,
}

impl StepView {
    fn new(name: &str) -> StepView {
        StepView {
            name: name.replace(['\t', '\n', '\r'], " "),
            started: None,
            completed: None,
            cached: false,
            error: String::new(),
            statuses: Vec::new(),
            changed: false,
            hidden: false,
            fresh: Vec::new(),
            fresh_statuses: Vec::new(),
            remarks: Vec::new(),
            spent: Duration::ZERO,
            members: HashMap::new(),
            tail: Tail::default(),
            at_line_start: true,
        }
    }

    /// It runs now.
    pub fn is_running(&self) -> bool {
        self.started.is_some() && self.completed.is_none()
    }

    /// It failed, and not because it was cancelled.
    pub fn has_failed(&self) -> bool {
        !self.error.is_empty() && !self.is_canceled()
    }

    /// Nobody waited for it any more.
    pub fn is_canceled(&self) -> bool {
        self.error.ends_with(progress::CANCELED)
    }

    /// How long it ran in all, until `now` if it still runs.
    pub fn duration(&self, now: SystemTime) -> Duration {
        let last = match (self.started, self.completed) {
            (Some(from), Some(to)) => units::between(from, to),
            (Some(from), None) => units::between(from, now),
            (None, _) => Duration::ZERO,
        };
        self.spent + last
    }

    /// Bytes moved inside it.
    pub fn moved(&self) -> u64 {
        self.statuses.iter().map(|status| status.current).sum()
    }

    fn set(&mut self, step: &Step) {
        if let (Some(old), Some(new)) = (self.started, step.started)
            && old != new
            && let Some(end) = self.completed
        {
            self.spent += units::between(old, end);
        }
        // The first word on a step comes again when another build joins it.
        if self.started.is_some() && step.started.is_none() {
            return;
        }
        self.started = step.started;
        self.completed = step.completed;
        self.cached = step.cached;
        self.error.clone_from(&step.error);
        self.changed |= step.started.is_some();
    }

    fn set_member(&mut self, step: &Step) {
        self.members.insert(step.digest, step.clone());
        let members = || self.members.values();
        let running = members().any(|m| m.started.is_some() && m.completed.is_none());
        self.started = members().filter_map(|m| m.started).min();
        self.completed = if running {
            None
        } else {
            members().filter_map(|m| m.completed).max()
        };
        self.cached = members().all(|m| m.cached);
        self.error = members()
            .find(|m| !m.error.is_empty())
            .map(|m| m.error.clone())
            .unwrap_or_default();
        let strong = |m: &Step| m.group.as_ref().is_none_or(|group| !group.weak);
        self.hidden = self.error.is_empty() && !members().any(|m| m.started.is_some() && strong(m));
        self.changed |= self.started.is_some() && !self.hidden;
    }

    fn status(&mut self, status: &Status) {
        let at = match self.statuses.iter().position(|known| known.id == status.id) {
            Some(at) => {
                self.statuses[at] = status.clone();
                at
            }
            None => {
                self.statuses.push(status.clone());
                self.statuses.len() - 1
            }
        };
        if !self.fresh_statuses.contains(&at) {
            self.fresh_statuses.push(at);
        }
        self.changed = true;
    }

    fn log(&mut self, log: &Log, timed: bool) {
        self.tail.push(&log.data);
        let time = units::log_time(
            self.started
                .map(|from| units::between(from, log.at))
                .unwrap_or_default(),
        );
        for line in log.data.split_inclusive(|byte| *byte == b'\n') {
            if self.at_line_start && timed {
                self.fresh.extend_from_slice(time.as_bytes());
                self.fresh.push(b' ');
            }
            self.fresh.extend_from_slice(line);
            self.at_line_start = line.ends_with(b"\n");
        }
        if self.fresh.len() > FRESH_BYTES {
            let cut = self.fresh.len() - FRESH_BYTES / 2;
            let line = self.fresh[cut..]
                .iter()
                .position(|b| *b == b'\n')
                .map_or(cut, |at| cut + at + 1);
            self.fresh.drain(..line);
        }
        self.changed = true;
    }
}

impl Tail {
    fn push(&mut self, data: &[u8]) {
        for piece in data.split_inclusive(|byte| *byte == b'\n') {
            let text = piece.strip_suffix(b"\n").unwrap_or(piece);
            if !self.open {
                self.lines.push_back(Vec::new());
            }
            if let Some(last) = self.lines.back_mut() {
                let room = TAIL_WIDTH.saturating_sub(last.len());
                last.extend_from_slice(&text[..text.len().min(room)]);
            }
            self.open = !piece.ends_with(b"\n");
        }
        while self.lines.len() > TAIL_LINES {
            self.lines.pop_front();
            self.lost = true;
        }
    }
}

impl Trace {
    /// Nothing seen yet. With `timed`, lines of output get the time since their step
    /// began in front.
    pub fn new(timed: bool) -> Trace {
        Trace {
            timed,
            ..Trace::default()
        }
    }

    /// Takes in what happened.
    pub fn update(&mut self, events: &[Event]) {
        for event in events {
            match event {
                Event::Step(step) => self.step(step),
                Event::Status(status) => self.on(&status.step, |view| view.status(status)),
                Event::Log(log) => {
                    let timed = self.timed;
                    self.on(&log.step, |view| view.log(log, timed));
                }
                Event::Warning(warning) => {
                    let remark = warning.short.clone();
                    self.on(&warning.step, |view| {
                        view.remarks.push(remark);
                        view.changed = true;
                    });
                    self.warnings.push(warning.clone());
                }
            }
        }
    }

    fn on(&mut self, digest: &Digest, apply: impl FnOnce(&mut StepView)) {
        if let Some(at) = self.by_digest.get(digest) {
            apply(&mut self.steps[*at]);
        }
    }

    fn step(&mut self, step: &Step) {
        if self.started.is_none() {
            self.started = step.started;
        }
        if let Some(group) = &step.group {
            let at = *self.by_group.entry(group.id.clone()).or_insert_with(|| {
                let mut view = StepView::new(&group.name);
                view.hidden = true;
                self.steps.push(view);
                self.steps.len() - 1
            });
            self.by_digest.insert(step.digest, at);
            self.steps[at].set_member(step);
            return;
        }
        let at = *self.by_digest.entry(step.digest).or_insert_with(|| {
            self.steps.push(StepView::new(&step.name));
            self.steps.len() - 1
        });
        self.steps[at].set(step);
    }

    /// All steps, in order of appearance.
    pub fn steps(&self) -> &[StepView] {
        &self.steps
    }

    /// One step, by its place.
    pub fn step_mut(&mut self, at: usize) -> &mut StepView {
        &mut self.steps[at]
    }

    /// When the first step began.
    pub fn started(&self) -> Option<SystemTime> {
        self.started
    }

    /// How many steps there are, have ended, were cached.
    pub fn counts(&self) -> (usize, usize, usize) {
        let shown = || self.steps.iter().filter(|step| !step.hidden);
        let ended = shown().filter(|step| step.completed.is_some()).count();
        let cached = shown()
            .filter(|step| step.cached && step.completed.is_some())
            .count();
        (shown().count(), ended, cached)
    }

    /// The last output of the steps that failed, each between two lines.
    pub fn write_failures(&self, out: &mut dyn Write) -> io::Result<()> {
        for step in self.steps.iter().filter(|step| step.has_failed()) {
            writeln!(out, "------\n > {}:", step.name)?;
            if step.tail.lost {
                writeln!(out, "(earlier output left out)")?;
            }
            for line in &step.tail.lines {
                writeln!(out, "{}", tame(line))?;
            }
            writeln!(out, "------")?;
        }
        Ok(())
    }

    /// The remarks, each once, with their place in the file.
    pub fn write_warnings(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut told: Vec<String> = Vec::new();
        for warning in &self.warnings {
            let mut text = format!(" - {}", warning.short);
            if let (Some(source), Some(range)) = (&warning.source, warning.ranges.first())
                && !warning.short.contains("(line ")
            {
                text.push_str(&format!(" ({}:{})", source.filename, range.start.line));
            }
            if !warning.url.is_empty() {
                text.push_str(&format!("\n   {}", warning.url));
            }
            if !told.contains(&text) {
                told.push(text);
            }
        }
        if !told.is_empty() {
            let plural = if told.len() == 1 { "" } else { "s" };
            writeln!(out, "\n {} warning{plural} found:", told.len())?;
            for text in told {
                writeln!(out, "{text}")?;
            }
        }
        Ok(())
    }
}

/// Output without what could move the cursor or talk to the terminal. Of a line
/// written over with `\r` the last writing is kept.
fn tame(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let line = line.rsplit(|byte| *byte == b'\r').next().unwrap_or(line);
    let text = String::from_utf8_lossy(line);
    let mut tamed = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '\x1b' => skip_sequence(&mut chars),
            '\t' => tamed.push('\t'),
            c if c.is_control() => {}
            c => tamed.push(c),
        }
    }
    tamed
}

fn skip_sequence(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match chars.next() {
        // A control sequence ends with a letter or one of @ [ \ ] ^ _ ` { | } ~.
        Some('[') => while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {},
        // An operating-system command ends with BEL or ESC \.
        Some(']') => {
            while let Some(c) = chars.next() {
                if c == '\x07' {
                    break;
                }
                if c == '\x1b' {
                    chars.next();
                    break;
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_of_a_program_do_not_reach_the_terminal() {
        assert_eq!(tame(b"a\x1b[31mred\x1b[0m\x1b]0;title\x07b\x08"), "aredb");
        assert_eq!(tame(b"10%\r50%\r100%\r"), "100%");
    }

    #[test]
    fn the_tail_keeps_the_last_lines_and_joins_pieces() {
        let mut tail = Tail::default();
        tail.push(b"one\ntw");
        tail.push(b"o\nthree\n");
        assert_eq!(
            tail.lines,
            [b"one".to_vec(), b"two".to_vec(), b"three".to_vec()]
        );
        for _ in 0..200 {
            tail.push(b"more\n");
        }
        assert_eq!(tail.lines.len(), TAIL_LINES);
        assert!(tail.lost);
    }
}
