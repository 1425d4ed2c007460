//! `cargo xtask metrics`: how long files and functions are, and how much is documented.
//! A view for people, not a gate.

use std::path::Path;

use crate::{Result, repo, rust};

/// What was counted in one crate, or in all.
#[derive(Debug, Default)]
struct Counted {
    files: Vec<usize>,
    functions: Vec<usize>,
    public: usize,
    documented: usize,
    longest: Vec<(usize, String)>,
}

/// Prints one line per crate and one for all.
pub(crate) fn run() -> Result<()> {
    println!(
        "{:<12} {:>6} {:>15} {:>15} {:>13}",
        "", "", "file length", "function length", "public items"
    );
    println!(
        "{:<12} {:>6} {:>7} {:>7} {:>7} {:>7} {:>6} {:>6}",
        "crate", "files", "median", "90 %", "median", "90 %", "all", "docs"
    );
    let mut all = Counted::default();
    let mut crates: Vec<(String, Counted)> = Vec::new();
    for path in repo::files("crates", ".rs")?
        .iter()
        .chain(&repo::files("xtask", ".rs")?)
    {
        if is_test(path) {
            continue;
        }
        let text = repo::read(path)?;
        let name = crate_of(path);
        if crates.last().is_none_or(|(last, _)| *last != name) {
            crates.push((name, Counted::default()));
        }
        let (_, one) = crates.last_mut().expect("it was just pushed");
        count(&text, path, one);
        count(&text, path, &mut all);
    }
    for (name, counted) in &crates {
        print(name, counted);
    }
    print("all", &all);
    println!("\nlongest functions:");
    all.longest.sort_by(|a, b| b.cmp(a));
    for (length, place) in all.longest.iter().take(10) {
        println!("{length:>5}  {place}");
    }
    Ok(())
}

fn print(name: &str, counted: &Counted) {
    let share = |part: usize, of: usize| (part * 100).checked_div(of).unwrap_or(100);
    println!(
        "{name:<12} {:>6} {:>7} {:>7} {:>7} {:>7} {:>6} {:>4} %",
        counted.files.len(),
        quantile(&counted.files, 50),
        quantile(&counted.files, 90),
        quantile(&counted.functions, 50),
        quantile(&counted.functions, 90),
        counted.public,
        share(counted.documented, counted.public),
    );
}

fn crate_of(path: &Path) -> String {
    let mut parts = path.iter().map(|it| it.to_string_lossy().into_owned());
    let first = parts.next().unwrap_or_default();
    if first == "crates" {
        parts.next().unwrap_or_default()
    } else {
        first
    }
}

/// Files that are tests, benches or examples as a whole.
fn is_test(path: &Path) -> bool {
    path.iter().any(|part| {
        matches!(
            part.to_str(),
            Some(
                "tests"
                    | "benches"
                    | "examples"
                    | "tests.rs"
                    | "testing"
                    | "testing.rs"
                    | "build.rs"
            )
        )
    })
}

fn count(text: &str, path: &Path, into: &mut Counted) {
    let code = rust::code_only(text);
    let tests = rust::test_modules(&code);
    let in_tests = |line: usize| tests.iter().any(|it| it.contains(&line));
    let lines = text.lines().count();
    into.files
        .push((0..lines).filter(|&line| !in_tests(line)).count());
    for function in rust::functions(&code) {
        if !in_tests(function.lines.start) {
            into.functions.push(function.lines.len());
            let place = format!(
                "{}:{} {}",
                path.display(),
                function.lines.start + 1,
                function.name
            );
            into.longest.push((function.lines.len(), place));
        }
    }
    let texts: Vec<&str> = text.lines().collect();
    for (at, line) in code.lines().enumerate() {
        if is_public_item(line) && !in_tests(at) {
            into.public += 1;
            into.documented += usize::from(is_documented(&texts, at));
        }
    }
}

fn is_public_item(line: &str) -> bool {
    let Some(rest) = line.trim_start().strip_prefix("pub ") else {
        return false;
    };
    let word = rest.split_whitespace().next().unwrap_or_default();
    matches!(
        word,
        "fn" | "async"
            | "unsafe"
            | "const"
            | "extern"
            | "struct"
            | "enum"
            | "trait"
            | "type"
            | "static"
            | "mod"
    )
}

/// Whether `///` stands above, attributes between; a module's words stand in its own file.
fn is_documented(lines: &[&str], at: usize) -> bool {
    let line = lines[at].trim();
    if line.starts_with("pub mod ") && line.ends_with(';') {
        return true;
    }
    let mut in_attribute = false;
    for line in lines[..at].iter().rev().map(|line| line.trim()) {
        if line.starts_with("///") {
            return true;
        }
        if line.starts_with("#[") {
            in_attribute = false;
        } else if line.ends_with(")]") {
            in_attribute = true;
        } else if !in_attribute {
            return false;
        }
    }
    false
}

/// The value below which this many of a hundred lie.
fn quantile(values: &[usize], percent: usize) -> usize {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    match sorted.len() {
        0 => 0,
        length => sorted[(length - 1) * percent / 100],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_do_not_count() {
        let text = "//! x\n\n/// Says.\n#[derive(Debug)]\npub struct A;\n\npub fn b() {\n}\n\n#[cfg(test)]\nmod tests {\n    pub fn c() {}\n}\n";
        let mut counted = Counted::default();
        count(text, Path::new("a.rs"), &mut counted);
        assert_eq!((counted.files, counted.functions), (vec![9], vec![2]));
        assert_eq!((counted.public, counted.documented), (2, 1));
    }

    #[test]
    fn quantiles() {
        let values: Vec<usize> = (1..=101).collect();
        assert_eq!(
            (
                quantile(&values, 50),
                quantile(&values, 90),
                quantile(&[], 50)
            ),
            (51, 91, 0)
        );
    }
}
