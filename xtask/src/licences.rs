//! Licences of everything we depend on, against the list in deny.toml.
//!
//! cargo-deny does this and more (advisories, sources); where it is installed it is asked
//! too. This part needs neither it nor a network.

use serde::Deserialize;

use crate::{Error, Result, repo, shell};

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
}

#[derive(Deserialize)]
struct Deny {
    licenses: Licenses,
}

#[derive(Deserialize)]
struct Licenses {
    allow: Vec<String>,
}

/// Complains about packages under other licences; then asks cargo-deny.
pub(crate) fn run() -> Result<()> {
    let deny: Deny = toml::from_str(&repo::read("deny.toml")?)
        .map_err(|error| Error::Chore(format!("deny.toml: {error}")))?;
    // Only what is built here: packages for other systems would have to be fetched to be read.
    let here = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let metadata = shell::output(&mut shell::cargo(&[
        "metadata",
        "--filter-platform",
        &here,
        "--format-version",
        "1",
        "--locked",
    ]))?;
    let metadata: Metadata = serde_json::from_str(&metadata)
        .map_err(|error| Error::Chore(format!("cargo metadata: {error}")))?;
    let refused: Vec<String> = metadata
        .packages
        .iter()
        .filter(|package| {
            let licence = package.license.as_deref().unwrap_or_default();
            !allowed(licence, &deny.licenses.allow)
        })
        .map(|it| {
            format!(
                "{} {}: {}",
                it.name,
                it.version,
                it.license.as_deref().unwrap_or("none")
            )
        })
        .collect();
    if !refused.is_empty() {
        return Err(Error::Chore(format!(
            "licences not in deny.toml:\n  {}",
            refused.join("\n  ")
        )));
    }
    println!(
        "licences: {} packages, all allowed",
        metadata.packages.len()
    );
    if !shell::has("cargo-deny") {
        println!("advisories: not looked at, cargo-deny is not installed");
        return Ok(());
    }
    shell::run(&mut shell::cargo(&[
        "deny", "check", "licenses", "bans", "sources",
    ]))?;
    if let Err(error) = shell::output(&mut shell::cargo(&["deny", "fetch"])) {
        println!("advisories: not looked at, their list is out of reach ({error})");
        return Ok(());
    }
    shell::run(&mut shell::cargo(&["deny", "check", "advisories"]))
}

/// Whether an SPDX expression can be met with the allowed licences.
fn allowed(expression: &str, allow: &[String]) -> bool {
    let words = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let words: Vec<&str> = words.split_whitespace().collect();
    let mut rest = &words[..];
    either(&mut rest, allow) && rest.is_empty()
}

fn either(words: &mut &[&str], allow: &[String]) -> bool {
    let mut met = both(words, allow);
    while let Some((&"OR", rest)) = words.split_first() {
        *words = rest;
        met |= both(words, allow);
    }
    met
}

fn both(words: &mut &[&str], allow: &[String]) -> bool {
    let mut met = one(words, allow);
    while let Some((&"AND", rest)) = words.split_first() {
        *words = rest;
        met &= one(words, allow);
    }
    met
}

fn one(words: &mut &[&str], allow: &[String]) -> bool {
    let Some((&first, rest)) = words.split_first() else {
        return false;
    };
    *words = rest;
    if first == "(" {
        let met = either(words, allow);
        let closed = words.first() == Some(&")");
        *words = words.get(1..).unwrap_or_default();
        return met && closed;
    }
    let mut name = first.to_owned();
    if let [with @ "WITH", exception, rest @ ..] = *words {
        name = format!("{first} {with} {exception}");
        *words = rest;
    }
    // A licence also covers the same with an exception: exceptions only permit more.
    allow.iter().any(|it| *it == name || *it == first)
}

#[cfg(test)]
mod tests {
    use super::allowed;

    #[track_caller]
    fn check(expression: &str, expected: bool) {
        let allow = ["MIT".to_owned(), "Apache-2.0".to_owned()];
        assert_eq!(allowed(expression, &allow), expected, "{expression}");
    }

    #[test]
    fn expressions() {
        check("MIT", true);
        check("MIT/Unlicense", true);
        check("GPL-3.0 OR MIT", true);
        check("GPL-3.0 AND MIT", false);
        check("(GPL-3.0 OR MIT) AND Apache-2.0 WITH LLVM-exception", true);
        check("(GPL-3.0 OR MIT", false);
        check("GPL-3.0", false);
        check("", false);
    }
}
