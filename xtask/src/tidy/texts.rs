//! What every file must have, and what none may have.

use std::path::Path;

use crate::coverage::{self, Rows};
use crate::{Result, repo, rust};

/// Complaints about the text of files.
pub(super) fn complaints() -> Result<Vec<String>> {
    let mut complaints = Vec::new();
    let rows = Rows::read()?;
    for dir in ["crates", "tests", "xtask"] {
        for path in repo::files(dir, ".rs")? {
            let text = repo::read(&path)?;
            let found = of_rust(&text, &rows);
            complaints.extend(
                found
                    .into_iter()
                    .map(|it| format!("{}: {it}", path.display())),
            );
        }
    }
    for dir in [
        "crates",
        "docs",
        "tests/it",
        "xtask",
        "examples",
        "changelog",
        ".ci",
    ] {
        for ending in [".rs", ".md", ".toml", "Dockerfile", "run"] {
            for path in repo::files(dir, ending)? {
                let found = strangers(&repo::read(&path)?);
                complaints.extend(
                    found
                        .into_iter()
                        .map(|it| format!("{}: {it}", path.display())),
                );
            }
        }
    }
    complaints.extend(forgotten_tests()?);
    Ok(complaints)
}

fn of_rust(text: &str, rows: &Rows) -> Vec<String> {
    let mut complaints = Vec::new();
    if !text.trim_start().starts_with("//!") {
        complaints.push("line 1: says nothing about itself (`//!`)".to_owned());
    }
    let code = rust::code_only(text);
    for (at, line) in code.lines().enumerate() {
        for unfinished in ["todo!(", "unimplemented!(", "dbg!("] {
            if line.contains(unfinished) {
                complaints.push(format!("line {}: unfinished: {unfinished})", at + 1));
            }
        }
    }
    for (at, line) in text.lines().enumerate() {
        // A test that another test starts as a process of its own is not a forgotten one.
        if line.trim_start().starts_with("#[ignore") && !line.contains("started by") {
            complaints.push(format!("line {}: a test that never runs", at + 1));
        }
    }
    for (line, list) in coverage::lists(text) {
        for unknown in rows.named(&list).1 {
            complaints.push(format!("line {line}: docs/spec has no row {unknown}"));
        }
    }
    complaints
}

/// Paths of some machine, which mean nothing to a reader.
fn strangers(text: &str) -> Vec<String> {
    let places = ["main", "shared", "team", "t", ".library"].map(|it| format!("/work/{it}/"));
    let found = |line: &&str| places.iter().any(|place| line.contains(place));
    text.lines()
        .filter(found)
        .map(|line| format!("a path of some machine: {}", line.trim()))
        .collect()
}

/// Files beside a `tests/it/main.rs` that it does not name.
fn forgotten_tests() -> Result<Vec<String>> {
    let mut complaints = Vec::new();
    for main in repo::files("crates", "main.rs")?
        .into_iter()
        .chain(repo::files("tests", "main.rs")?)
    {
        let dir = main.parent().unwrap_or(Path::new(""));
        if !dir.ends_with("tests/it") {
            continue;
        }
        let named = repo::read(&main)?;
        for file in repo::files(&dir.to_string_lossy(), ".rs")? {
            let name = file.file_stem().unwrap_or_default().to_string_lossy();
            if file.parent() == Some(dir) && name != "main" && !names_module(&named, &name) {
                complaints.push(format!(
                    "{}: {} does not name it",
                    file.display(),
                    main.display()
                ));
            }
        }
    }
    Ok(complaints)
}

fn names_module(text: &str, name: &str) -> bool {
    text.lines().any(|line| {
        let line = line
            .trim()
            .trim_start_matches("pub(crate) ")
            .trim_start_matches("pub ");
        line == format!("mod {name};")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planted_faults_are_found() {
        let text = [
            "fn a() { to",
            "do!() }\n#[ig",
            "nore]\n/// Row",
            "s: X999\n",
        ]
        .concat();
        let complaints = of_rust(&text, &Rows::default());
        assert_eq!(
            complaints,
            [
                "line 1: says nothing about itself (`//!`)",
                &["line 1: unfinished: to", "do!()"].concat(),
                "line 2: a test that never runs",
                "line 3: docs/spec has no row X999",
            ]
        );
        assert_eq!(
            of_rust("//! Says.\n// todo!() is a word here\n", &Rows::default()),
            [""; 0]
        );
        assert_eq!(strangers(&["see /wo", "rk/shared/x\n"].concat()).len(), 1);
        assert!(names_module("mod a;\npub(crate) mod b;\n", "b") && !names_module("mod ab;", "b"));
    }
}
