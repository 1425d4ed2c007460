//! `cargo xtask coverage`: which rows of docs/spec the tests name.
//!
//! A test names the rows it shows in its doc comment, after the word `Rows:` (C02, W1–W13). An
//! id is written as its table has it: `B05` is a row of features.md, `B5` one of core.md. The few ids that are
//! in both (X10–X19, P10, P11) mean features.md; those of core.md are written `core:X12`.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Result, repo};

/// What to print.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Also list the rows no test names
    #[arg(long)]
    missing: bool,
}

/// A file of docs/spec.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Document {
    Features,
    Core,
    Demands,
}

const DOCUMENTS: [(Document, &str); 3] = [
    (Document::Features, "docs/spec/features.md"),
    (Document::Core, "docs/spec/core.md"),
    (Document::Demands, "docs/spec/demands.md"),
];

/// One row: its document and its id as written there.
pub(crate) type Row = (Document, String);

/// Rows under one letter, in the order of the document.
#[derive(Debug)]
struct Group {
    document: Document,
    letter: String,
    title: String,
    ids: Vec<String>,
}

/// All rows there are.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    groups: Vec<Group>,
}

impl Rows {
    /// Reads docs/spec.
    pub(crate) fn read() -> Result<Rows> {
        let mut rows = Rows::default();
        for (document, path) in DOCUMENTS {
            rows.add(document, &repo::read(path)?);
        }
        Ok(rows)
    }

    fn add(&mut self, document: Document, text: &str) {
        let heading = if document == Document::Core {
            "# "
        } else {
            "## "
        };
        let mut title = "";
        for line in text.lines() {
            if let Some(words) = line.strip_prefix(heading) {
                title = words;
            }
            let Some(id) = line
                .strip_prefix('|')
                .and_then(|rest| rest.split('|').next())
            else {
                continue;
            };
            let Some((letter, _)) = split(id.trim()) else {
                continue;
            };
            let same = |group: &&mut Group| group.document == document && group.letter == letter;
            match self.groups.iter_mut().find(same) {
                Some(group) => group.ids.push(id.trim().to_owned()),
                None => self.groups.push(Group {
                    document,
                    letter: letter.to_owned(),
                    title: title
                        .trim_start_matches(|c: char| c.is_ascii_digit() || ". ".contains(c))
                        .to_owned(),
                    ids: vec![id.trim().to_owned()],
                }),
            }
        }
    }

    /// The row an id means.
    fn find(&self, id: &str) -> Option<Row> {
        let (only, id) = match id.strip_prefix("core:") {
            Some(id) => (Some(Document::Core), id),
            None => (None, id),
        };
        let group = self.groups.iter().find(|group| {
            only.is_none_or(|only| only == group.document) && group.ids.iter().any(|it| it == id)
        })?;
        Some((group.document, id.to_owned()))
    }

    /// The rows a list names, and the names that are of no row.
    pub(crate) fn named(&self, list: &str) -> (Vec<Row>, Vec<String>) {
        let (mut rows, mut unknown) = (Vec::new(), Vec::new());
        for name in names(list) {
            match self.find(&name) {
                Some(row) => rows.push(row),
                None => unknown.push(name),
            }
        }
        (rows, unknown)
    }
}

/// `D01` is `D` and `01`.
fn split(id: &str) -> Option<(&str, &str)> {
    let digits = id.find(|c: char| c.is_ascii_digit())?;
    let (letter, number) = id.split_at(digits);
    let good = !letter.is_empty()
        && letter.chars().all(|c| c.is_ascii_uppercase())
        && number.chars().all(|c| c.is_ascii_digit());
    good.then_some((letter, number))
}

fn begins_with_id(list: &str) -> bool {
    let first = list
        .split([',', ' ', '–', '-', '.'])
        .find(|word| !word.is_empty());
    first.is_some_and(|word| split(word.trim_start_matches("core:")).is_some())
}

/// The ids of a list, ranges written out.
fn names(list: &str) -> Vec<String> {
    let mut names = Vec::new();
    for word in list.split([',', ' ']).filter(|word| !word.is_empty()) {
        let word = word.trim_end_matches(['.', ';']);
        let ends = word.split_once('–').or_else(|| word.split_once('-'));
        let (document, first) = match ends.map_or(word, |(first, _)| first).strip_prefix("core:") {
            Some(rest) => ("core:", rest),
            None => ("", ends.map_or(word, |(first, _)| first)),
        };
        let range = ends.and_then(|(_, last)| {
            let (letter, from) = split(first)?;
            let to = last.trim_start_matches(letter);
            Some((
                letter,
                from.len(),
                from.parse::<u32>().ok()?,
                to.parse::<u32>().ok()?,
            ))
        });
        match range {
            Some((letter, width, from, to)) => {
                names.extend((from..=to).map(|n| {
                    format!(
                        "{document}{letter}{n:0width$}",
                        width = width_of(width, first)
                    )
                }));
            }
            None => names.push(word.to_owned()),
        }
    }
    names
}

/// Ids that begin with a nought keep their width.
fn width_of(width: usize, first: &str) -> usize {
    let padded = split(first).is_some_and(|(_, number)| number.starts_with('0'));
    if padded { width } else { 1 }
}

/// What stands after `Rows:` in doc comments, if it begins with an id: line (from 1) and list.
pub(crate) fn lists(text: &str) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    let mut goes_on = false;
    for (at, line) in text.lines().enumerate() {
        let line = line.trim_start();
        let Some(words) = line
            .strip_prefix("///")
            .or_else(|| line.strip_prefix("//!"))
        else {
            goes_on = false;
            continue;
        };
        if let Some((_, list)) = words
            .split_once("Rows:")
            .filter(|(_, list)| begins_with_id(list))
        {
            found.push((at + 1, list.trim().to_owned()));
        } else if goes_on && let Some((_, list)) = found.last_mut() {
            list.push(' ');
            list.push_str(words.trim());
        } else {
            continue;
        }
        goes_on = found.last().is_some_and(|(_, list)| list.ends_with(','));
    }
    found
}

/// Every row a test names, with how many tests name it.
fn done(rows: &Rows) -> Result<BTreeMap<Row, usize>> {
    let mut done = BTreeMap::new();
    for dir in ["crates", "tests"] {
        for path in repo::files(dir, ".rs")? {
            for (_, list) in lists(&repo::read(path)?) {
                let named: BTreeSet<Row> = rows.named(&list).0.into_iter().collect();
                for row in named {
                    *done.entry(row).or_default() += 1;
                }
            }
        }
    }
    Ok(done)
}

/// Prints rows done and rows there are, per group.
pub(crate) fn run(args: &Args) -> Result<()> {
    let rows = Rows::read()?;
    let done = done(&rows)?;
    let mut document = None;
    let mut all = (0, 0);
    for group in &rows.groups {
        if document.replace(group.document) != Some(group.document) {
            let (_, path) = DOCUMENTS
                .iter()
                .find(|(it, _)| *it == group.document)
                .expect("every document is in the list");
            println!("\n{path}");
        }
        let has = |id: &&String| done.contains_key(&(group.document, (*id).clone()));
        let count = group.ids.iter().filter(has).count();
        println!(
            "  {:<2} {:>4} of {:<4} {}",
            group.letter,
            count,
            group.ids.len(),
            group.title
        );
        if args.missing {
            let missing: Vec<&str> = group
                .ids
                .iter()
                .filter(|id| !has(id))
                .map(String::as_str)
                .collect();
            if !missing.is_empty() {
                println!("     no test names {}", missing.join(" "));
            }
        }
        all.0 += count;
        all.1 += group.ids.len();
    }
    let tests: usize = done.values().sum();
    println!(
        "\nrows: {} of {} are named by tests ({} times)",
        all.0, all.1, tests
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Rows {
        let mut rows = Rows::default();
        rows.add(Document::Features, "## 6. Executor\n| id | x |\n|---|---|\n| X01 | a |\n| X12 | b |\n## 9. Buildctl\n| B05 | c |\n");
        rows.add(
            Document::Core,
            "# 2. Export\n## 2.1 Object\n| X1 | a |\n| X12 | b |\n# 4. Blobs\n| B5 | c |\n",
        );
        rows
    }

    #[test]
    fn an_id_is_what_its_table_has() {
        let rows = rows();
        let (found, unknown) = rows.named("X12, core:X12, X1 B05,B5. X99");
        let shown: Vec<String> = found
            .iter()
            .map(|(document, id)| format!("{document:?} {id}"))
            .collect();
        assert_eq!(
            shown,
            [
                "Features X12",
                "Core X12",
                "Core X1",
                "Features B05",
                "Core B5"
            ]
        );
        assert_eq!(unknown, ["X99"]);
        let titles: Vec<&str> = rows
            .groups
            .iter()
            .map(|group| group.title.as_str())
            .collect();
        assert_eq!(titles, ["Executor", "Buildctl", "Export", "Blobs"]);
    }

    #[test]
    fn ranges_are_written_out() {
        assert_eq!(names("W9–W11"), ["W9", "W10", "W11"]);
        assert_eq!(
            names("D08-D10, core:X1–3"),
            ["D08", "D09", "D10", "core:X1", "core:X2", "core:X3"]
        );
        assert_eq!(names("W1-"), ["W1-"]);
    }

    #[test]
    fn lists_may_go_on() {
        let text = "/// Rows: A01,\n/// A02\n/// And so on, A03\nfn a() {}\n    // Rows: no\n/// Rows: are not words\n//! Says. Rows: B1\n";
        assert_eq!(
            lists(text),
            [(1, "A01, A02".to_owned()), (7, "B1".to_owned())]
        );
    }
}
