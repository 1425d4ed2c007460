//! How a failure reads: the lines of the file it came from, what went wrong, and
//! what to try next.

use std::fmt::Write as _;

/// A failed build or command, in plain words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    /// What went wrong, one line.
    pub message: String,
    /// Where in which file.
    pub places: Vec<Place>,
    /// What to try next, each a full sentence.
    pub hints: Vec<String>,
}

/// Lines of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The file's name.
    pub filename: String,
    /// Its text.
    pub text: String,
    /// First and last line of each part, from 1.
    pub lines: Vec<(usize, usize)>,
}

impl Place {
    /// The lines with their neighbours, marked with `>>>`; empty if they are not in the file.
    pub fn excerpt(&self) -> String {
        let all: Vec<&str> = self.text.lines().collect();
        let first = self
            .lines
            .iter()
            .map(|(first, _)| *first)
            .min()
            .unwrap_or(0);
        let last = self
            .lines
            .iter()
            .map(|(first, last)| (*last).max(*first))
            .max()
            .unwrap_or(0);
        if first < 1 || first > all.len() {
            return String::new();
        }
        let last = last.min(all.len());
        let around = if first == last { 2 } else { 1 };
        let (from, until) = (
            first.saturating_sub(around).max(1),
            (last + around).min(all.len()),
        );
        let mut text = format!("{}:{first}\n--------------------\n", self.filename);
        for number in from..=until {
            let meant = self
                .lines
                .iter()
                .any(|(first, last)| (*first..=(*last).max(*first)).contains(&number));
            let mark = if meant { ">>>" } else { "   " };
            let line = format!(" {number:3} | {mark} {}", all[number - 1]);
            let _ = writeln!(text, "{}", line.trim_end());
        }
        text.push_str("--------------------\n");
        text
    }
}

impl Failure {
    /// The whole report, as it goes to standard error.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for place in &self.places {
            text.push_str(&place.excerpt());
        }
        let _ = writeln!(text, "error: {}", self.message);
        // The daemon knows better than we can guess.
        let guessed = match self.hints.is_empty() {
            true => hints(&self.message),
            false => Vec::new(),
        };
        for hint in self.hints.iter().chain(&guessed) {
            let _ = writeln!(text, "  hint: {hint}");
        }
        text
    }
}

impl From<&crate::Error> for Failure {
    fn from(error: &crate::Error) -> Failure {
        let mut failure = Failure {
            message: stdx::text::sentence(error),
            ..Failure::default()
        };
        let crate::Error::Client(error) = error else {
            return failure;
        };
        if let client::Error::Connect { .. } = error {
            failure.hints.push(
                "Is the daemon running? Without --addr, kiln builds in this process.".to_owned(),
            );
        }
        let told = error.failure().map(|failure| failure.hints.clone());
        failure.hints.extend(told.unwrap_or_default());
        for excerpt in error
            .failure()
            .map(|failure| failure.excerpts.as_slice())
            .unwrap_or_default()
        {
            let place = Place {
                filename: excerpt.source.filename.clone(),
                text: String::from_utf8_lossy(&excerpt.source.data).into_owned(),
                lines: excerpt
                    .ranges
                    .iter()
                    .map(|range| (range.start.line as usize, range.end.line as usize))
                    .collect(),
            };
            if !failure.places.contains(&place) {
                failure.places.push(place);
            }
        }
        failure
    }
}

/// Advice for what people run into most.
fn hints(message: &str) -> Vec<String> {
    let code = message.rsplit_once("exit code: ").and_then(|(_, rest)| {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        rest[..digits].parse::<u32>().ok()
    });
    let hint = match code {
        Some(126) => {
            "The file was found but could not be run: is it executable, and for this platform?"
        }
        Some(127) => {
            "A command was not found: is it installed in the image at this step, and in PATH?"
        }
        Some(137) => "The process was killed, often because memory ran out.",
        _ => return Vec::new(),
    };
    vec![hint.to_owned()]
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    /// Rows: A16, L17
    #[test]
    fn a_failure_shows_its_lines_and_a_hint() {
        let failure = Failure {
            message: "process \"/bin/sh -c mak\" did not complete successfully: exit code: 127"
                .into(),
            places: vec![Place {
                filename: "Dockerfile".into(),
                text: "FROM alpine\nWORKDIR /src\nCOPY . .\nRUN mak\nCMD x\n".into(),
                lines: vec![(4, 4)],
            }],
            hints: vec!["Look again.".into()],
        };
        expect![[r#"
            Dockerfile:4
            --------------------
               2 |     WORKDIR /src
               3 |     COPY . .
               4 | >>> RUN mak
               5 |     CMD x
            --------------------
            error: process "/bin/sh -c mak" did not complete successfully: exit code: 127
              hint: Look again.
        "#]]
        .assert_eq(&failure.text());
        let guessing = Failure {
            hints: Vec::new(),
            places: Vec::new(),
            ..failure
        };
        assert!(
            guessing.text().contains("  hint: A command was not found"),
            "{}",
            guessing.text()
        );
    }

    #[test]
    fn places_outside_the_file_are_left_out() {
        let place = Place {
            filename: "Dockerfile".into(),
            text: "FROM x".into(),
            lines: vec![(7, 9)],
        };
        assert_eq!(place.excerpt(), "");
        assert_eq!(
            Place {
                lines: vec![],
                ..place
            }
            .excerpt(),
            ""
        );
    }
}
