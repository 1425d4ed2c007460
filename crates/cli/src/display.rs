//! The progress display: what a build tells, on a terminal, as lines, or as JSON.
//!
//! [`Display`] takes events and writes to a stream; it reads no clock and no
//! environment, so a test plays a build and looks at the screen.

pub mod color;
pub mod plain;
pub mod rawjson;
pub mod trace;
pub mod tty;
pub mod units;

use std::io::{self, Write};
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use progress::Event;

use crate::display::color::Palette;
use crate::display::plain::Plain;
use crate::display::trace::Trace;
use crate::display::tty::Tty;

/// How progress is shown (`--progress`, `BUILDKIT_PROGRESS`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// A live view if standard error is a terminal, else lines.
    #[default]
    Auto,
    /// A live view; an error if there is no terminal.
    Tty,
    /// Lines as BuildKit's clients write them: `#3 DONE 0.1s`.
    Plain,
    /// Nothing but errors, and the image's digest on standard output.
    Quiet,
    /// Every update as one line of JSON (BuildKit's `SolveStatus`).
    RawJson,
}

/// The text names no mode.
#[derive(Debug, thiserror::Error)]
#[error("progress mode {0:?} is not one of auto, tty, plain, quiet, rawjson")]
pub struct UnknownMode(String);

impl FromStr for Mode {
    type Err = UnknownMode;

    fn from_str(text: &str) -> Result<Mode, UnknownMode> {
        Ok(match text {
            "" | "auto" => Mode::Auto,
            "tty" => Mode::Tty,
            "plain" => Mode::Plain,
            "quiet" | "none" => Mode::Quiet,
            "rawjson" => Mode::RawJson,
            other => return Err(UnknownMode(other.to_owned())),
        })
    }
}

/// What the environment says about the display (row B06), read at the rim.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Colours, none with `NO_COLOR`.
    pub palette: Palette,
    /// Lines of output shown per running step (`BUILDKIT_TTY_LOG_LINES`).
    pub log_lines: u16,
    /// The shortest time between two repaints (`TTY_DISPLAY_RATE`, milliseconds).
    pub interval: Duration,
    /// Cut step names to 72 characters in plain lines (`PROGRESS_NO_TRUNC=0`).
    pub truncate: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            palette: Palette::default(),
            log_lines: 6,
            interval: Duration::from_millis(100),
            truncate: false,
        }
    }
}

/// Width and height of a terminal in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// Shows one build.
pub struct Display {
    kind: Kind,
    out: Box<dyn Write + Send>,
    trace: Trace,
    interval: Duration,
}

enum Kind {
    Tty(Box<Tty>),
    Plain(Plain),
    RawJson,
    Quiet,
}

impl Display {
    /// A display writing to `out`. `size` asks the terminal for its size, if there is one:
    /// without one, `Auto` means `Plain`.
    pub fn new(
        mode: Mode,
        settings: Settings,
        out: Box<dyn Write + Send>,
        size: Option<Box<dyn Fn() -> Size + Send>>,
    ) -> Result<Display, crate::Error> {
        let kind = match (mode, size) {
            (Mode::Auto | Mode::Tty, Some(size)) => {
                Kind::Tty(Box::new(Tty::new(settings.clone(), size)))
            }
            (Mode::Tty, None) => return Err(crate::Error::NoTerminal),
            (Mode::Auto | Mode::Plain, _) => Kind::Plain(Plain::new(settings.truncate)),
            (Mode::Quiet, _) => Kind::Quiet,
            (Mode::RawJson, _) => Kind::RawJson,
        };
        let trace = Trace::new(matches!(kind, Kind::Plain(_)));
        Ok(Display {
            kind,
            out,
            trace,
            interval: settings.interval,
        })
    }

    /// Takes in events that happened; shows them at the next [`Display::refresh`],
    /// JSON at once.
    pub fn update(&mut self, events: &[Event]) -> io::Result<()> {
        if let Kind::RawJson = self.kind {
            rawjson::write(&mut self.out, events)?;
        }
        self.trace.update(events);
        Ok(())
    }

    /// Brings what is shown up to date.
    pub fn refresh(&mut self, now: SystemTime) -> io::Result<()> {
        match &mut self.kind {
            Kind::Tty(tty) => tty.paint(&mut self.out, &mut self.trace, now),
            Kind::Plain(plain) => plain.flush(&mut self.out, &mut self.trace, now),
            Kind::RawJson | Kind::Quiet => Ok(()),
        }
    }

    /// Shows the end of the build and, if it failed, the last output of the steps that did.
    pub fn finish(&mut self, now: SystemTime) -> io::Result<()> {
        match &mut self.kind {
            Kind::Tty(tty) => tty.finish(&mut self.out, &mut self.trace, now)?,
            Kind::Plain(plain) => plain.finish(&mut self.out, &mut self.trace, now)?,
            Kind::RawJson => return self.out.flush(),
            Kind::Quiet => {}
        }
        self.trace.write_failures(&mut self.out)?;
        if !matches!(self.kind, Kind::Quiet) {
            self.trace.write_warnings(&mut self.out)?;
        }
        self.out.flush()
    }

    /// Shows all that `build` tells, until nothing more happens.
    pub async fn show(&mut self, build: &mut client::Build) -> io::Result<()> {
        let mut ticks = tokio::time::interval(self.interval.max(Duration::from_millis(10)));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = build.next() => match event {
                    Some(event) => {
                        let mut events = vec![event];
                        while let Some(event) = build.ready() {
                            events.push(event);
                        }
                        self.update(&events)?;
                    }
                    None => return self.finish(SystemTime::now()),
                },
                _ = ticks.tick() => self.refresh(SystemTime::now())?,
            }
        }
    }
}
