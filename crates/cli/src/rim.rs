//! What the program is surrounded by: environment and terminal, read once.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::time::Duration;

use crate::build::plan::Environment;
use crate::display::color::Palette;
use crate::display::{Settings, Size};

/// The environment, standard streams and the terminal.
#[derive(Clone, Debug)]
pub struct Rim {
    /// Variables, and whether standard output is a terminal.
    pub environment: Environment,
    /// Standard error is a terminal.
    pub terminal: bool,
    /// Standard input is a terminal.
    pub stdin_is_terminal: bool,
}

impl Rim {
    /// Reads it.
    pub fn read() -> Rim {
        let variables: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Rim {
            environment: Environment {
                variables,
                stdout_is_terminal: std::io::stdout().is_terminal(),
            },
            terminal: std::io::stderr().is_terminal(),
            stdin_is_terminal: std::io::stdin().is_terminal(),
        }
    }

    /// A variable that is set and not empty.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.environment
            .variables
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// How progress is shown (row B06), and remarks on what could not be understood.
    pub fn display_settings(&self) -> (Settings, Vec<String>) {
        let mut settings = Settings::default();
        let mut remarks = Vec::new();
        if self.variable("NO_COLOR").is_some() {
            settings.palette = Palette::none();
        } else if let Some(colors) = self.variable("BUILDKIT_COLORS") {
            remarks = settings.palette.customize(colors);
        }
        let number = |name: &str| {
            self.variable(name)
                .and_then(|text| text.parse::<u64>().ok())
        };
        if let Some(lines) = number("BUILDKIT_TTY_LOG_LINES") {
            settings.log_lines = u16::try_from(lines).unwrap_or(u16::MAX);
        }
        if let Some(rate) = number("TTY_DISPLAY_RATE") {
            settings.interval = Duration::from_millis(rate);
        }
        settings.truncate = self.variable("PROGRESS_NO_TRUNC") == Some("0");
        (settings, remarks)
    }

    /// Asks the terminal for its size, if there is one.
    pub fn terminal_size(&self) -> Option<Box<dyn Fn() -> Size + Send>> {
        self.terminal.then(|| -> Box<dyn Fn() -> Size + Send> {
            Box::new(|| match rustix::termios::tcgetwinsize(std::io::stderr()) {
                Ok(size) if size.ws_col > 0 && size.ws_row > 0 => Size {
                    width: size.ws_col,
                    height: size.ws_row,
                },
                _ => Size {
                    width: 80,
                    height: 24,
                },
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows: B06
    #[test]
    fn the_environment_shapes_the_display() {
        let variables = [
            ("BUILDKIT_COLORS", "run=green:oops"),
            ("BUILDKIT_TTY_LOG_LINES", "3"),
            ("TTY_DISPLAY_RATE", "50"),
            ("PROGRESS_NO_TRUNC", "0"),
        ];
        let mut rim = Rim {
            environment: Environment {
                variables: variables
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .into(),
                stdout_is_terminal: false,
            },
            terminal: false,
            stdin_is_terminal: false,
        };
        let (settings, remarks) = rim.display_settings();
        assert_eq!(
            (settings.log_lines, settings.interval, settings.truncate),
            (3, Duration::from_millis(50), true)
        );
        assert_eq!((settings.palette.run.as_str(), remarks.len()), ("32", 1));
        rim.environment
            .variables
            .insert("NO_COLOR".to_owned(), "1".to_owned());
        assert_eq!(rim.display_settings().0.palette, Palette::none());
    }
}
