//! From text to a tree: what the lines of a Dockerfile are, before anyone asks what
//! they mean.
//!
//! Parsing never stops at a mistake. It gives a [`Tree`] of what could be read and a
//! list of [`Fault`]s, so that one typo does not hide the next.

mod directive;
mod flag;
mod heredoc;
mod line;
mod word;

pub use directive::{Directive, Syntax, detect_syntax, directives};
pub use heredoc::Heredoc;
pub(crate) use heredoc::{chomp, parse_heredoc};
pub use line::parse;

use crate::Error;

/// First and last line of something, counted from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lines {
    /// First line.
    pub first: u32,
    /// Last line, at least `first`.
    pub last: u32,
}

impl Lines {
    /// One line.
    pub fn one(line: u32) -> Lines {
        Lines {
            first: line,
            last: line,
        }
    }

    /// A range for each line, as BuildKit's clients expect them.
    pub fn ranges(self) -> Vec<frontend::Range> {
        if self.first == 0 {
            return Vec::new();
        }
        (self.first..=self.last)
            .map(frontend::Range::line)
            .collect()
    }
}

/// Something wrong in the text, and where.
#[derive(Clone, Debug)]
pub struct Fault {
    /// What is wrong.
    pub error: Error,
    /// Where.
    pub lines: Lines,
}

/// What stands behind an instruction's keyword and flags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Arguments {
    /// Nothing.
    #[default]
    None,
    /// One text, spaces included: `RUN` in shell form, `WORKDIR`, `USER`.
    Text(String),
    /// Words: `COPY`, `FROM`, `EXPOSE`, `ARG`.
    Words(Vec<String>),
    /// A JSON array: `CMD ["a", "b"]`.
    Json(Vec<String>),
    /// `key=value` pairs of `ENV` and `LABEL`.
    Pairs(Vec<Pair>),
    /// `HEALTHCHECK`: its kind and what follows it.
    Health(String, Box<Arguments>),
    /// `ONBUILD`: the instruction inside.
    Trigger(Box<Node>),
}

/// A key and a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Left of the `=`.
    pub key: String,
    /// Right of it.
    pub value: String,
    /// Written in the old form, `ENV key value`.
    pub legacy: bool,
}

/// One instruction, as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// The keyword in its own case: `RUN`, `from`.
    pub keyword: String,
    /// The flags, without quotes and escapes: `--from=build`.
    pub flags: Vec<String>,
    /// What follows.
    pub arguments: Arguments,
    /// The whole instruction on one line, continuation lines joined, without here-docs.
    pub text: String,
    /// Here-docs, in order.
    pub heredocs: Vec<Heredoc>,
    /// Where it stands, here-docs included.
    pub lines: Lines,
    /// Comment lines right above it, without `#`.
    pub comments: Vec<String>,
}

/// A parsed file.
#[derive(Clone, Debug)]
pub struct Tree {
    /// The instructions that could be read, in order.
    pub nodes: Vec<Node>,
    /// The character that escapes and continues lines: `\` or a backtick.
    pub escape: char,
    /// The value of the `check` directive.
    pub check: Option<String>,
    /// Last lines of instructions with an empty line inside a continuation.
    pub empty_continuations: Vec<Lines>,
    /// What is wrong.
    pub faults: Vec<Fault>,
}
