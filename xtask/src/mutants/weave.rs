//! One program with all faults: each function chooses, when it is called, which of its bodies runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::list::{Mutant, Sources, Text};
use crate::{Error, Result, shell};

/// The programs to run, and the numbers (from 1) of the faults that are in them.
pub(super) struct Woven {
    pub(super) programs: Vec<PathBuf>,
    pub(super) compile: Vec<usize>,
}

/// What says, in the crate, which fault is chosen.
const CHOICE: &str = r#"
pub(crate) fn mutant() -> u32 {
    static NUMBER: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    *NUMBER.get_or_init(|| {
        let number = std::env::var("MUTANT").ok();
        number.and_then(|number| number.parse().ok()).unwrap_or(0)
    })
}
"#;

/// Lines of a woven file and the faults they belong to: one, or all of a function.
type Place = (RangeInclusive<usize>, Vec<usize>);
type Places = BTreeMap<String, Vec<Place>>;

/// Functions, from where to where, and their faults.
type Functions = BTreeMap<(usize, usize), Vec<usize>>;

/// Weaves until all of it compiles, leaving out what does not.
pub(super) fn all(
    dir: &Path,
    package: &str,
    mutants: &[Mutant],
    sources: &Sources,
) -> Result<Woven> {
    let tree = dir.join("tree");
    let lib = tree.join(format!("crates/{package}/src/lib.rs"));
    let text = std::fs::read_to_string(&lib).map_err(Error::file(&lib))?;
    if !text.ends_with(CHOICE) {
        std::fs::write(&lib, text + CHOICE).map_err(Error::file(&lib))?;
    }
    let mut compile: BTreeSet<usize> = (1..=mutants.len())
        .filter(|number| mutants[number - 1].function.is_some())
        .collect();
    loop {
        let places = write(&tree, mutants, &compile, sources)?;
        let told = cargo(dir, &["check", "-p", package, "--lib"])?;
        let faults = faults(&told, &places)?;
        if faults.is_empty() {
            break;
        }
        compile.retain(|number| !faults.contains(number));
    }
    let told = cargo(dir, &["test", "-p", package, "--no-run"])?;
    let made = told.iter().filter(|line| line["profile"]["test"] == true);
    let programs = made.filter_map(|line| line["executable"].as_str());
    Ok(Woven {
        programs: programs.map(PathBuf::from).collect(),
        compile: compile.into_iter().collect(),
    })
}

/// Writes the files with these faults.
fn write(
    tree: &Path,
    mutants: &[Mutant],
    chosen: &BTreeSet<usize>,
    sources: &Sources,
) -> Result<Places> {
    let mut files: BTreeMap<&str, Functions> = BTreeMap::new();
    for (at, mutant) in mutants.iter().enumerate() {
        let functions = files.entry(&mutant.file).or_default();
        if let Some(function) = &mutant.function
            && chosen.contains(&(at + 1))
        {
            let all = functions.entry((function.start, function.end)).or_default();
            all.push(at + 1);
        }
    }
    let mut places = Places::new();
    for (file, functions) in files {
        let (woven, of_file) = woven(&sources[file], &functions, mutants);
        places.insert(file.to_owned(), of_file);
        let path = tree.join(file);
        std::fs::write(&path, woven).map_err(Error::file(&path))?;
    }
    Ok(places)
}

/// A file with these faults in these functions, and the lines they are on.
fn woven(text: &Text, functions: &Functions, mutants: &[Mutant]) -> (String, Vec<Place>) {
    let (mut woven, mut done, mut places) = (String::new(), 0, Vec::new());
    let line = |woven: &String| woven.matches('\n').count() + 1;
    for ((start, end), numbers) in functions {
        let body = body(&text.chars, *start);
        woven += &text.part(done..body);
        let first = line(&woven);
        woven += "{ match crate::mutant() {\n";
        for number in numbers {
            let mutant = &mutants[number - 1];
            let (before, after) = (body..mutant.span.start, mutant.span.end..*end);
            let (before, after) = (text.part(before), text.part(after));
            let from = line(&woven);
            let with = &mutant.replacement;
            writeln!(woven, "{number} => {before}{with}{after}").expect("memory takes it");
            places.push((from..=line(&woven) - 1, vec![*number]));
        }
        woven += &format!("_ => {}\n}} }}", text.part(body..*end));
        places.push((first..=line(&woven), numbers.clone()));
        done = *end;
    }
    woven += &text.part(done..text.chars.len());
    (woven, places)
}

/// Where the body of a function begins: at the first brace outside of its arguments.
fn body(text: &[char], function: usize) -> usize {
    let (mut at, mut depth) = (function, 0);
    loop {
        match text[at] {
            '/' if text[at + 1] == '/' => {
                while text[at] != '\n' {
                    at += 1;
                }
            }
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            '{' if depth == 0 => return at,
            _ => {}
        }
        at += 1;
    }
}

/// What cargo says, a line each.
fn cargo(dir: &Path, words: &[&str]) -> Result<Vec<Value>> {
    let mut command = shell::cargo(words);
    command
        .current_dir(dir.join("tree"))
        .args(["--message-format", "json"])
        .env("CARGO_TARGET_DIR", dir.join("target"))
        .env("CARGO_INCREMENTAL", "1")
        .env("CARGO_PROFILE_DEV_DEBUG", "false")
        .env("CARGO_PROFILE_DEV_OPT_LEVEL", "1")
        .env("RUSTFLAGS", "--cap-lints=allow");
    let output = command.output().map_err(|source| Error::Start {
        command: shell::shown(&command),
        source,
    })?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect())
}

/// The faults the compiler complains about.
fn faults(told: &[Value], places: &Places) -> Result<BTreeSet<usize>> {
    let mut found = BTreeSet::new();
    let messages = told.iter().map(|line| &line["message"]);
    for message in messages.filter(|message| message["level"] == "error") {
        let spans = message["spans"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let mut whose = Vec::new();
        for span in spans.iter().filter(|span| span["is_primary"] == true) {
            let line = span["line_start"].as_u64().unwrap_or(0) as usize;
            let file = span["file_name"].as_str().unwrap_or_default();
            let of_file = places.get(file).into_iter().flatten();
            whose.extend(
                of_file
                    .filter(|(lines, _)| lines.contains(&line))
                    .map(|(_, n)| n),
            );
        }
        match whose.iter().min_by_key(|numbers| numbers.len()) {
            Some(numbers) => found.extend(numbers.iter().copied()),
            None if spans.is_empty() => {}
            None => {
                let text = message["rendered"]
                    .as_str()
                    .unwrap_or("it does not compile");
                return Err(Error::Chore(text.to_owned()));
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_chooses_its_body() {
        let text =
            "fn one() {}\n\n/// Says {so}.\nfn two(a: [u8; 2]) -> bool {\n    a[0] == 1\n}\n";
        let text = Text::new(text);
        let at = |part: &str| {
            let whole = text.part(0..text.chars.len());
            let start = whole.find(part).unwrap();
            start..start + part.len()
        };
        let function = at("/// Says").start..at("1\n}").end;
        let mutant = |span, with: &str| Mutant {
            name: String::new(),
            file: String::new(),
            function: Some(function.clone()),
            span,
            replacement: with.to_owned(),
        };
        let mutants = [mutant(at("=="), "!="), mutant(at("a[0] == 1"), "true")];
        let functions = Functions::from([((function.start, function.end), vec![1, 2])]);
        let (woven, places) = woven(&text, &functions, &mutants);
        let expected = "fn one() {}\n\n/// Says {so}.\nfn two(a: [u8; 2]) -> bool { match crate::mutant() {\n\
            1 => {\n    a[0] != 1\n}\n\
            2 => {\n    true\n}\n\
            _ => {\n    a[0] == 1\n}\n} }\n";
        assert_eq!(woven, expected);
        assert_eq!(
            places,
            [(5..=7, vec![1]), (8..=10, vec![2]), (4..=14, vec![1, 2])]
        );
    }
}
