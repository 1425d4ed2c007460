//! What to break: what cargo-mutants lists, and lines.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Deserialize;

use crate::{Error, Result, repo, shell};

/// One fault.
#[derive(Clone, Debug)]
pub(super) struct Mutant {
    /// Where and what, for people.
    pub(super) name: String,
    pub(super) file: String,
    /// The function it is in, in characters from the beginning of the file. Nothing for a constant,
    /// which cannot be chosen while the program runs.
    pub(super) function: Option<Range<usize>>,
    /// What is replaced, in characters.
    pub(super) span: Range<usize>,
    pub(super) replacement: String,
}

#[derive(Deserialize)]
struct Listed {
    name: String,
    file: String,
    function: Option<Function>,
    span: Span,
    replacement: String,
}

#[derive(Deserialize)]
struct Function {
    span: Span,
}

#[derive(Deserialize)]
struct Span {
    start: Place,
    end: Place,
}

#[derive(Deserialize)]
struct Place {
    line: usize,
    column: usize,
}

/// A file's characters, and where its lines begin.
pub(super) struct Text {
    pub(super) chars: Vec<char>,
    lines: Vec<usize>,
}

impl Text {
    fn read(file: &str) -> Result<Text> {
        Ok(Text::new(&repo::read(file)?))
    }

    pub(super) fn new(text: &str) -> Text {
        let chars: Vec<char> = text.chars().collect();
        let ends = chars.iter().enumerate().filter(|(_, c)| **c == '\n');
        let lines = std::iter::once(0).chain(ends.map(|(at, _)| at + 1));
        let lines = lines.collect();
        Text { chars, lines }
    }

    fn at(&self, place: &Place) -> usize {
        self.lines[place.line - 1] + place.column - 1
    }

    fn range(&self, span: &Span) -> Range<usize> {
        self.at(&span.start)..self.at(&span.end)
    }

    pub(super) fn part(&self, range: Range<usize>) -> String {
        self.chars[range].iter().collect()
    }
}

/// The files that are broken, as they were when this began.
pub(super) type Sources = BTreeMap<String, Text>;

/// What cargo-mutants would do, and to which files.
pub(super) fn of(package: &str, files: &[String]) -> Result<(Vec<Mutant>, Sources)> {
    if !shell::has("cargo-mutants") {
        let how = "cargo-mutants (`cargo install cargo-mutants --locked`)";
        return Err(Error::Missing(how.to_owned()));
    }
    let mut words = vec!["mutants", "--list", "--json", "-p", package];
    for file in files {
        words.extend(["-f", file]);
    }
    let listed = shell::output(&mut shell::cargo(&words))?;
    let listed: Vec<Listed> = serde_json::from_str(&listed)
        .map_err(|error| Error::Chore(format!("what cargo-mutants lists: {error}")))?;
    let mut sources = Sources::new();
    let mut mutants = Vec::with_capacity(listed.len());
    for one in listed {
        if !sources.contains_key(&one.file) {
            sources.insert(one.file.clone(), Text::read(&one.file)?);
        }
        let text = &sources[&one.file];
        mutants.push(Mutant {
            name: one.name,
            function: one.function.map(|function| text.range(&function.span)),
            span: text.range(&one.span),
            file: one.file,
            replacement: one.replacement,
        });
    }
    Ok((mutants, sources))
}

/// Each line that is a statement of its own, in the same functions: left out.
pub(super) fn lines(mutants: &[Mutant], sources: &Sources) -> Vec<Mutant> {
    let mut functions: BTreeMap<&str, Vec<Range<usize>>> = BTreeMap::new();
    for mutant in mutants {
        let of = functions.entry(&mutant.file).or_default();
        of.extend(mutant.function.clone().filter(|f| !of.contains(f)));
    }
    let mut found = Vec::new();
    for (file, functions) in functions {
        let text = &sources[file];
        let mut before = String::new();
        for (number, start) in text.lines.iter().enumerate() {
            let end = text
                .lines
                .get(number + 1)
                .map_or(text.chars.len(), |end| end - 1);
            let line = text.part(*start..end);
            let words = line.trim();
            if words.is_empty() || words.starts_with("//") {
                continue;
            }
            let function = functions.iter().find(|f| f.contains(start));
            if let Some(function) = function.filter(|_| is_statement(words, &before)) {
                let indent = line.chars().take_while(|c| c.is_whitespace()).count();
                found.push(Mutant {
                    name: format!("{file}:{}: leave out `{words}`", number + 1),
                    file: file.to_owned(),
                    function: Some(function.clone()),
                    span: start + indent..end,
                    replacement: ";".to_owned(),
                });
            }
            before = words.to_owned();
        }
    }
    found
}

/// Whether a line is all of a statement that may be missing, given the one before.
fn is_statement(line: &str, before: &str) -> bool {
    let begins = [
        "let ", "return", "break", "continue", "use ", "const ", ".", "panic!",
    ];
    line.ends_with(';')
        && !line.contains(['{', '}'])
        && !line.contains("=>")
        && !begins.iter().any(|word| line.starts_with(word))
        && before.ends_with([';', '{', '}'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_are_statements_are_found() {
        let text = "fn f() {\n    let a = 1;\n    self.go(a);\n\n    // why\n    self.x\n        .y();\n    if a {\n        *b += 1;\n        return;\n    }\n}\n";
        let text = Text::new(text);
        let mutant = Mutant {
            name: String::new(),
            file: "f.rs".to_owned(),
            function: Some(0..text.chars.len()),
            span: 0..0,
            replacement: String::new(),
        };
        let found = lines(&[mutant], &Sources::from([("f.rs".to_owned(), text)]));
        let names: Vec<_> = found.iter().map(|one| one.name.as_str()).collect();
        let expected = [
            "f.rs:3: leave out `self.go(a);`",
            "f.rs:9: leave out `*b += 1;`",
        ];
        assert_eq!(names, expected);
    }
}
