//! Places in what people wrote, so that an error or a warning can show the line.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

/// One place: a line, counted from 1, and a character of it, counted from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// Line, from 1.
    pub line: u32,
    /// Character in the line, from 0.
    pub character: u32,
}

/// From one place to another, the last line included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Range {
    /// Where it starts.
    pub start: Position,
    /// Where it ends.
    pub end: Position,
}

impl Range {
    /// Whole lines, from `first` to `last`.
    pub fn lines(first: u32, last: u32) -> Range {
        Range {
            start: Position {
                line: first,
                character: 0,
            },
            end: Position {
                line: last,
                character: 0,
            },
        }
    }

    /// One whole line.
    pub fn line(line: u32) -> Range {
        Range::lines(line, line)
    }
}

/// A file somebody wrote.
#[derive(Clone, Debug, Default)]
pub struct SourceFile {
    /// Its name as the client knows it: `Dockerfile`.
    pub name: String,
    /// `Dockerfile`.
    pub language: String,
    /// All of it.
    pub data: Bytes,
    /// The graph that loads it, if it came through one.
    pub definition: Option<llb::Definition>,
}

/// Lines of a file.
#[derive(Clone, Debug)]
pub struct SourceLocation {
    /// The file.
    pub file: Arc<SourceFile>,
    /// The lines, in order.
    pub ranges: Vec<Range>,
}

impl SourceLocation {
    /// The lines with `around` neighbours on both sides: number, text, and whether the
    /// line itself is meant. Empty if the ranges lie outside the file.
    pub fn excerpt(&self, around: u32) -> Vec<(u32, String, bool)> {
        let Some(first) = self.ranges.iter().map(|r| r.start.line).min() else {
            return Vec::new();
        };
        let last = self
            .ranges
            .iter()
            .map(|r| r.end.line.max(r.start.line))
            .max()
            .unwrap_or(first);
        let from = first.saturating_sub(around).max(1);
        let until = last.saturating_add(around);
        let meant = |line: u32| {
            self.ranges
                .iter()
                .any(|r| r.start.line <= line && line <= r.end.line.max(r.start.line))
        };
        String::from_utf8_lossy(&self.data())
            .split('\n')
            .zip(1u32..)
            .filter(|(_, number)| (from..=until).contains(number))
            .map(|(text, number)| {
                (
                    number,
                    text.trim_end_matches('\r').to_owned(),
                    meant(number),
                )
            })
            .collect()
    }

    fn data(&self) -> Bytes {
        let data = self.file.data.clone();
        match data.strip_suffix(b"\n") {
            Some(rest) => data.slice(..rest.len()),
            None => data,
        }
    }
}

impl fmt::Display for SourceLocation {
    /// `Dockerfile:3`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ranges.first() {
            Some(range) => write!(f, "{}:{}", self.file.name, range.start.line),
            None => f.write_str(&self.file.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ranges: Vec<Range>) -> SourceLocation {
        let file = SourceFile {
            name: "Dockerfile".into(),
            data: Bytes::from_static(b"FROM a\r\nRUN b\nRUN c\n"),
            ..SourceFile::default()
        };
        SourceLocation {
            file: Arc::new(file),
            ranges,
        }
    }

    #[test]
    fn an_excerpt_has_the_line_and_its_neighbours() {
        let lines = at(vec![Range::line(2)]).excerpt(1);
        let expected = [
            (1, "FROM a", false),
            (2, "RUN b", true),
            (3, "RUN c", false),
        ];
        assert_eq!(lines, expected.map(|(n, t, m)| (n, t.to_owned(), m)));
        assert_eq!(
            at(vec![Range::line(3)]).excerpt(0),
            [(3, "RUN c".to_owned(), true)]
        );
    }

    #[test]
    fn a_place_outside_the_file_has_no_excerpt() {
        assert_eq!(at(vec![Range::line(90)]).excerpt(2), []);
        assert_eq!(at(vec![]).excerpt(2), []);
        assert_eq!(at(vec![Range::line(2)]).to_string(), "Dockerfile:2");
    }
}
