//! Lines to nodes: comments, continuations, here-docs.

use super::directive::directive;
use super::flag::take_flags;
use super::heredoc::{Heredoc, announced};
use super::word::{blank_separated, is_blank, json_or, pairs, quoted_words, text};
use super::{Arguments, Fault, Lines, Node, Tree};
use crate::Error;

/// Parses a Dockerfile. Bytes that are no UTF-8 are read as replacement characters.
pub fn parse(data: &[u8]) -> Tree {
    let data = String::from_utf8_lossy(data);
    let body = data.strip_prefix('\u{feff}').unwrap_or(&data);
    let mut parser = Parser::new(body);
    parser.directives();
    while let Some(line) = parser.next_line() {
        parser.instruction(line);
    }
    parser.tree
}

struct Parser<'a> {
    lines: std::iter::Peekable<std::str::SplitInclusive<'a, char>>,
    /// The line read last, from 1.
    number: u32,
    comments: Vec<String>,
    tree: Tree,
}

impl<'a> Parser<'a> {
    fn new(body: &'a str) -> Parser<'a> {
        let tree = Tree {
            nodes: Vec::new(),
            escape: '\\',
            check: None,
            empty_continuations: Vec::new(),
            faults: Vec::new(),
        };
        let lines = body.split_inclusive('\n').peekable();
        Parser {
            lines,
            number: 0,
            comments: Vec::new(),
            tree,
        }
    }

    /// The next line with its end.
    fn next_line(&mut self) -> Option<&'a str> {
        let line = self.lines.next()?;
        self.number += 1;
        Some(line)
    }

    fn fault(&mut self, error: Error, lines: Lines) {
        self.tree.faults.push(Fault { error, lines });
    }

    /// Reads the directives at the top and leaves the rest.
    fn directives(&mut self) {
        if self.lines.peek().is_some_and(|line| line.starts_with("#!")) {
            self.next_line();
        }
        let mut seen: Vec<String> = Vec::new();
        while let Some((name, value)) = self
            .lines
            .peek()
            .and_then(|line| directive(line.trim_start().trim_end_matches(['\r', '\n']), "#"))
        {
            self.next_line();
            let here = Lines::one(self.number);
            if seen.contains(&name) {
                self.fault(Error::DirectiveTwice { name }, here);
                continue;
            }
            match (name.as_str(), value.as_str()) {
                ("escape", "\\") => self.tree.escape = '\\',
                ("escape", "`") => self.tree.escape = '`',
                ("escape", _) => self.fault(Error::BadEscape { value }, here),
                ("check", _) => self.tree.check = Some(value),
                _ => {}
            }
            seen.push(name);
        }
    }

    /// Reads the instruction that begins with `line`, if one does.
    fn instruction(&mut self, line: &str) {
        let first = self.number;
        let line = trim_end(line).trim_start();
        if let Some(comment) = line.strip_prefix('#') {
            match comment.trim() {
                "" => self.comments.clear(),
                comment => self.comments.push(comment.to_owned()),
            }
            return;
        }
        if line.is_empty() {
            self.comments.clear();
            return;
        }
        let text = self.joined(line);
        let comments = std::mem::take(&mut self.comments);
        let lines = Lines {
            first,
            last: self.number,
        };
        let mut node = match node(&text, self.tree.escape) {
            Ok(node) => node,
            Err(error) => return self.fault(error, lines),
        };
        (node.lines, node.comments) = (lines, comments);
        if takes_heredocs(&node) {
            node.heredocs = announced(&text);
            self.heredocs(&mut node);
        }
        if node.keyword.is_empty() {
            return;
        }
        self.tree.nodes.push(node);
    }

    /// Joins `line` with the lines that continue it.
    fn joined(&mut self, line: &str) -> String {
        let (part, mut more) = without_continuation(line, self.tree.escape);
        let mut text = part.to_owned();
        let mut empty = false;
        while more {
            let Some(line) = self.next_line() else { break };
            let line = trim_end(line);
            if line.trim_start().starts_with('#') {
                continue;
            }
            if line.trim_start().is_empty() {
                empty = true;
                continue;
            }
            let (part, continues) = without_continuation(line, self.tree.escape);
            text.push_str(part);
            more = continues;
        }
        if empty {
            self.tree.empty_continuations.push(Lines::one(self.number));
        }
        text
    }

    /// Reads the bodies of the node's here-docs.
    fn heredocs(&mut self, node: &mut Node) {
        for heredoc in &mut node.heredocs {
            if !self.body(heredoc) {
                let error = Error::UnterminatedHeredoc {
                    name: heredoc.name.clone(),
                };
                self.tree.faults.push(Fault {
                    error,
                    lines: node.lines,
                });
            }
            node.lines.last = self.number;
        }
    }

    /// Reads one body; false if the file ends before it does.
    fn body(&mut self, heredoc: &mut Heredoc) -> bool {
        while let Some(line) = self.next_line() {
            let mut end = trim_end(line);
            if heredoc.chomp {
                end = end.trim_start_matches('\t');
            }
            if end == heredoc.name {
                return true;
            }
            heredoc.content.push_str(line);
        }
        false
    }
}

fn trim_end(line: &str) -> &str {
    line.trim_end_matches(['\r', '\n'])
}

/// The line without its continuation sign, and whether it had one. An escaped escape
/// at the end is none.
fn without_continuation(line: &str, escape: char) -> (&str, bool) {
    match line.trim_end_matches([' ', '\t']).strip_suffix(escape) {
        Some(rest) if !rest.ends_with(escape) => (rest, true),
        _ => (line, false),
    }
}

fn takes_heredocs(node: &Node) -> bool {
    match &node.arguments {
        Arguments::Json(_) => false,
        Arguments::Trigger(inner) => takes_heredocs(inner),
        _ => ["add", "copy", "run"]
            .iter()
            .any(|k| node.keyword.eq_ignore_ascii_case(k)),
    }
}

/// Reads one joined line. Unknown keywords pass; the next stage names them.
fn node(line: &str, escape: char) -> Result<Node, Error> {
    let line_text = line.trim();
    let (keyword, rest) = line_text.split_once(is_blank).unwrap_or((line_text, ""));
    let (flags, rest) = take_flags(rest);
    let rest = rest.trim();
    let lower = keyword.to_ascii_lowercase();
    let arguments = match lower.as_str() {
        "add" | "copy" | "volume" => json_or(rest, blank_separated)?,
        "cmd" | "entrypoint" | "run" | "shell" => json_or(rest, text)?,
        "expose" | "from" => blank_separated(rest),
        "maintainer" | "stopsignal" | "user" | "workdir" => text(rest),
        "env" | "label" => pairs(keyword, rest, escape)?,
        "arg" => match quoted_words(rest, escape) {
            words if words.is_empty() => Arguments::None,
            words => Arguments::Words(words),
        },
        "healthcheck" => health(rest)?,
        "onbuild" if !rest.is_empty() => {
            // One level is all there may be: the next stage refuses ONBUILD ONBUILD, and
            // nothing below is read, however deep it goes.
            let inner = rest.split(is_blank).next().unwrap_or_default();
            if inner.eq_ignore_ascii_case("onbuild") {
                return Err(Error::OnbuildChained);
            }
            Arguments::Trigger(Box::new(node(rest, escape)?))
        }
        _ => Arguments::None,
    };
    Ok(Node {
        keyword: keyword.to_owned(),
        flags,
        arguments,
        text: line.to_owned(),
        ..Node::default()
    })
}

fn health(rest: &str) -> Result<Arguments, Error> {
    if rest.is_empty() {
        return Ok(Arguments::None);
    }
    let (kind, command) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    Ok(Arguments::Health(
        kind.to_owned(),
        Box::new(json_or(command.trim_start(), text)?),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(source: &str) -> Vec<String> {
        let tree = parse(source.as_bytes());
        assert!(tree.faults.is_empty(), "{:?}", tree.faults);
        tree.nodes.into_iter().map(|n| n.text).collect()
    }

    /// Rows: F15
    #[test]
    fn lines_are_joined_and_comments_inside_are_skipped() {
        let source = "FROM a\nRUN x \\\n# no\n  y \\ \n\n z\nRUN w\\\\\n";
        assert_eq!(texts(source), ["FROM a", "RUN x   y  z", "RUN w\\\\"]);
        let tree = parse(source.as_bytes());
        assert_eq!(tree.nodes[1].lines, Lines { first: 2, last: 6 });
        assert_eq!(tree.empty_continuations, [Lines::one(6)]);
    }

    /// Rows: F10, F15
    #[test]
    fn the_escape_directive_changes_the_continuation_sign() {
        assert_eq!(texts("# escape=`\nRUN a `\nb\\\n"), ["RUN a b\\"]);
        let tree = parse(b"# escape=x\n# escape=`\nFROM a");
        assert_eq!(tree.faults.len(), 2);
        assert!(matches!(tree.faults[0].error, Error::BadEscape { .. }));
        assert!(matches!(tree.faults[1].error, Error::DirectiveTwice { .. }));
        assert_eq!(tree.nodes.len(), 1, "a fault does not hide what follows");
    }

    /// Rows: F13
    #[test]
    fn heredocs_belong_to_their_instruction() {
        let tree = parse(b"RUN <<E cat\nFROM no\n\tE\nE\nCOPY <<-a <<b /x\n1\n\ta\n2\nb\nFROM y\n");
        assert!(tree.faults.is_empty());
        assert_eq!(tree.nodes.len(), 3);
        assert_eq!(tree.nodes[0].heredocs[0].content, "FROM no\n\tE\n");
        assert_eq!(tree.nodes[0].lines, Lines { first: 1, last: 4 });
        assert_eq!(tree.nodes[1].heredocs[1].content, "2\n");
        assert_eq!(tree.nodes[2].keyword, "FROM");
        let open = parse(b"RUN <<E\nx");
        assert!(matches!(
            open.faults[0].error,
            Error::UnterminatedHeredoc { .. }
        ));
    }

    #[test]
    fn json_form_takes_no_heredoc() {
        let tree = parse(b"RUN [\"echo\", \"<<E\"]\nRUN x\n");
        assert_eq!(tree.nodes.len(), 2);
    }

    #[test]
    fn windows_line_ends_and_comments_above() {
        let tree = parse(b"# about a\r\nARG a=1\r\n#\r\n# gone\r\n\r\nFROM x\r\n");
        assert_eq!(tree.nodes[0].comments, ["about a"]);
        assert_eq!(
            tree.nodes[0].arguments,
            Arguments::Words(vec!["a=1".into()])
        );
        assert!(tree.nodes[1].comments.is_empty());
    }
}
