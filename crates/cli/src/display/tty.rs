//! The live view on a terminal.
//!
//! Steps that ended stay above as ordinary lines and scroll away; below them a
//! small region is painted again and again: the running steps, what each moves
//! and the last lines it printed, and one line of sums. So the whole story can be
//! read back afterwards, and the region never outgrows the screen.

use std::collections::HashMap;
use std::io::{self, Write};
use std::num::NonZeroU16;
use std::time::{Duration, SystemTime};

use crate::display::color::paint;
use crate::display::trace::{StepView, Trace};
use crate::display::{Settings, Size, units};

const SPINNER: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];
/// A step that ran this short is not painted as running: it would only flicker.
const FLICKER: Duration = Duration::from_millis(150);

/// Paints.
pub struct Tty {
    settings: Settings,
    size: Box<dyn Fn() -> Size + Send>,
    /// Lines of the region painted last.
    painted: usize,
    /// Steps whose end was written, with when that end was.
    written: HashMap<usize, SystemTime>,
    windows: HashMap<usize, vt100::Parser>,
    frame: usize,
}

impl Tty {
    /// A view of the size the terminal says it has.
    pub fn new(settings: Settings, size: Box<dyn Fn() -> Size + Send>) -> Tty {
        Tty {
            settings,
            size,
            painted: 0,
            written: HashMap::new(),
            windows: HashMap::new(),
            frame: 0,
        }
    }

    /// Brings the screen up to date.
    pub fn paint(
        &mut self,
        out: &mut dyn Write,
        trace: &mut Trace,
        now: SystemTime,
    ) -> io::Result<()> {
        let size = (self.size)();
        self.frame += 1;
        self.feed_windows(trace, size);
        let mut bytes = Vec::new();
        self.erase(&mut bytes)?;
        self.write_ended(&mut bytes, trace, size, now)?;
        let region = self.region(trace, size, now);
        for line in &region {
            writeln!(bytes, "{line}")?;
        }
        self.painted = region.len();
        // One write, so that no half-painted screen is seen.
        out.write_all(&bytes)?;
        out.flush()
    }

    /// Leaves the story on the screen, without the region, and its sum below.
    pub fn finish(
        &mut self,
        out: &mut dyn Write,
        trace: &mut Trace,
        now: SystemTime,
    ) -> io::Result<()> {
        let size = (self.size)();
        let mut bytes = Vec::new();
        self.erase(&mut bytes)?;
        self.painted = 0;
        self.write_ended(&mut bytes, trace, size, now)?;
        for step in trace
            .steps()
            .iter()
            .filter(|step| step.is_running() && !step.hidden)
        {
            let line = self.line("-", &step.name, &units::duration(step.duration(now)), size);
            writeln!(bytes, "{}", paint(&line, &self.settings.palette.cancel))?;
        }
        writeln!(bytes, "{}", clip(&sums(trace, now, "built"), size.width))?;
        out.write_all(&bytes)?;
        out.flush()
    }

    fn erase(&self, bytes: &mut Vec<u8>) -> io::Result<()> {
        if self.painted > 0 {
            write!(bytes, "\x1b[{}A\r\x1b[J", self.painted)?;
        }
        Ok(())
    }

    fn feed_windows(&mut self, trace: &mut Trace, size: Size) {
        let rows = NonZeroU16::new(self.settings.log_lines).unwrap_or(NonZeroU16::MIN);
        let columns =
            NonZeroU16::new(size.width.saturating_sub(6).max(20)).unwrap_or(NonZeroU16::MIN);
        for at in 0..trace.steps().len() {
            let step = trace.step_mut(at);
            let output = std::mem::take(&mut step.fresh);
            step.fresh_statuses.clear();
            step.changed = false;
            if !step.is_running() {
                self.windows.remove(&at);
            } else if !output.is_empty() {
                let window = self
                    .windows
                    .entry(at)
                    .or_insert_with(|| vt100::Parser::new(rows, columns, 0));
                for line in output.split_inclusive(|byte| *byte == b'\n') {
                    window.process(line.strip_suffix(b"\n").unwrap_or(line));
                    if line.ends_with(b"\n") {
                        window.process(b"\r\n");
                    }
                }
            }
        }
    }

    /// One lasting line for each step that ended since last time.
    fn write_ended(
        &mut self,
        bytes: &mut Vec<u8>,
        trace: &Trace,
        size: Size,
        now: SystemTime,
    ) -> io::Result<()> {
        let mut ended: Vec<(SystemTime, usize)> = trace
            .steps()
            .iter()
            .enumerate()
            .filter(|(_, step)| !step.hidden && step.started.is_some())
            .filter_map(|(at, step)| step.completed.map(|end| (end, at)))
            .filter(|(end, at)| self.is_news(*end, *at, &trace.steps()[*at]))
            .collect();
        ended.sort();
        for (end, at) in ended {
            self.written.insert(at, end);
            let step = &trace.steps()[at];
            let palette = &self.settings.palette;
            let (mark, note, color) = match step {
                step if step.is_canceled() => ("-", " canceled", &palette.cancel),
                step if step.has_failed() => ("✗", "", &palette.error),
                step if step.cached => ("=", " cached", &palette.cached),
                _ => ("✓", "", &palette.run),
            };
            let mut right = String::new();
            if step.moved() > 0 {
                right = format!("{} ", units::bytes(step.moved()));
            }
            right.push_str(&units::duration(step.duration(now)));
            if !note.is_empty() {
                right = note.trim_start().to_owned();
            }
            let line = self.line(mark, &step.name, &right, size);
            writeln!(bytes, "{}", paint(&line, color))?;
            for why in why_not_cached(step) {
                let text = clip(&why, size.width);
                writeln!(bytes, "{}", paint(&text, &palette.faint))?;
            }
            for remark in &step.remarks {
                let text = clip(&format!("   ! {remark}"), size.width);
                writeln!(bytes, "{}", paint(&text, &palette.warning))?;
            }
        }
        Ok(())
    }

    /// A step that ended again (it was looked up, then run) is told again only if
    /// there is something new to say.
    fn is_news(&self, end: SystemTime, at: usize, step: &StepView) -> bool {
        match self.written.get(&at) {
            None => true,
            Some(told) => {
                *told != end
                    && (step.has_failed() || units::between(*told, end) > Duration::from_secs(1))
            }
        }
    }

    fn region(&self, trace: &Trace, size: Size, now: SystemTime) -> Vec<String> {
        let room = usize::from(size.height.saturating_sub(2)).max(1);
        let running: Vec<(usize, &StepView)> = trace
            .steps()
            .iter()
            .enumerate()
            .filter(|(_, step)| step.is_running() && !step.hidden && step.duration(now) >= FLICKER)
            .collect();
        let shown = running.len().min(room.saturating_sub(1).max(1));
        let mut spare = room.saturating_sub(shown + 1);
        let mut lines = Vec::new();
        for (at, step) in running.iter().take(shown) {
            let mark = SPINNER[self.frame % SPINNER.len()];
            lines.push(self.line(mark, &step.name, &units::duration(step.duration(now)), size));
            let details = self.details(*at, step, size, now);
            let take = details.len().min(spare);
            spare -= take;
            // The newest are at the end.
            for detail in &details[details.len() - take..] {
                lines.push(paint(detail, &self.settings.palette.faint));
            }
        }
        let mut sum = sums(trace, now, "building");
        if running.len() > shown {
            sum.push_str(&format!(", {} more running", running.len() - shown));
        }
        lines.push(clip(&sum, size.width));
        lines
    }

    /// What a running step moves and the last it printed.
    fn details(&self, at: usize, step: &StepView, size: Size, now: SystemTime) -> Vec<String> {
        let moving = step
            .statuses
            .iter()
            .filter(|status| status.completed.is_none());
        let mut lines: Vec<String> = why_not_cached(step)
            .map(|why| clip(&why, size.width))
            .collect();
        lines.extend(moving.map(|status| {
            let mut text = format!("   ↳ {}", status.id);
            if let Some(amount) = units::amount(status.current, status.total) {
                text.push_str(&format!(" {amount}"));
            }
            let time = status
                .started
                .map(|from| units::between(from, now))
                .unwrap_or_default();
            if status.current > 0 && time > Duration::from_secs(1) {
                let rate = status.current as f64 / time.as_secs_f64();
                text.push_str(&format!(" ({}/s)", units::bytes(rate as u64)));
            }
            clip(&text, size.width)
        }));
        if let Some(window) = self.windows.get(&at) {
            let (_, columns) = window.screen().size();
            let rows: Vec<String> = window.screen().rows(0, columns.get()).collect();
            let printed = rows.iter().filter(|row| !row.trim().is_empty());
            lines.extend(printed.map(|row| clip(&format!("   │ {}", row.trim_end()), size.width)));
        }
        lines
    }

    fn line(&self, mark: &str, name: &str, right: &str, size: Size) -> String {
        let width = usize::from(size.width).max(20);
        let left = width.saturating_sub(right.chars().count() + 5);
        let name = clip(name, u16::try_from(left).unwrap_or(u16::MAX));
        format!(" {mark} {name:<left$} {right}")
    }
}

fn why_not_cached(step: &StepView) -> impl Iterator<Item = String> {
    let statuses = step.statuses.iter();
    statuses
        .filter_map(|status| status.why_not_cached())
        .map(|why| format!("   · not cached: {why}"))
}

fn sums(trace: &Trace, now: SystemTime, verb: &str) -> String {
    let (all, ended, cached) = trace.counts();
    let time = trace
        .started()
        .map(|from| units::between(from, now))
        .unwrap_or_default();
    let mut text = format!("[+] {verb} {}: {ended}/{all} steps", units::duration(time));
    if cached > 0 {
        text.push_str(&format!(", {cached} cached"));
    }
    let moved: u64 = trace.steps().iter().map(StepView::moved).sum();
    if moved > 0 {
        text.push_str(&format!(", {} moved", units::bytes(moved)));
    }
    text
}

/// The first `width` characters. A cell each is assumed; wide ones may be cut late,
/// which the next repaint mends.
fn clip(text: &str, width: u16) -> String {
    let width = usize::from(width);
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(width.saturating_sub(1)).collect();
    cut.push('…');
    cut
}
