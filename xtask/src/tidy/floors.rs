//! The floors: a crate leans only on those below it.

use std::collections::BTreeSet;

use toml::{Table, Value};

use crate::{Error, Result, repo};

/// The house, ground floor first. A crate may use crates on lower floors. ARCHITECTURE.md has
/// the picture.
const FLOORS: &[&[&str]] = &[
    &["stdx", "proto"],
    &["oci", "db"],
    &[
        "llb",
        "progress",
        "layer",
        "contenthash",
        "content",
        "snapshot",
        "attest",
        "verify",
    ],
    &[
        "registry", "session", "lease", "solver", "executor", "frontend",
    ],
    &["refs", "dockerfile", "client", "netproxy"],
    &["source", "exporter", "remotecache", "cli"],
    &["ops"],
    &["engine"],
    &["daemon"],
    &["kiln"],
];

/// Crates beside the house: others may use them in tests only.
const BESIDE: &[&str] = &["testkit"];

/// Who may see the wire's messages.
const WIRE: &[&str] = &["llb", "session", "client", "engine", "daemon"];

/// Crates with `unsafe` code; the others forbid it.
const UNSAFE: &[&str] = &["stdx", "layer", "snapshot", "executor"];

/// Complaints about Cargo.toml files and crate roots.
pub(super) fn complaints() -> Result<Vec<String>> {
    let mut complaints = Vec::new();
    let mut seen = BTreeSet::new();
    for path in repo::files("crates", "Cargo.toml")? {
        let name = path
            .iter()
            .nth(1)
            .and_then(|name| name.to_str())
            .unwrap_or_default()
            .to_owned();
        let manifest: Table = repo::read(&path)?
            .parse()
            .map_err(|error| Error::Chore(format!("{}: {error}", path.display())))?;
        complaints.extend(of_manifest(&name, &manifest));
        complaints.extend(of_root(&name)?);
        seen.insert(name);
    }
    for name in FLOORS.iter().flat_map(|floor| *floor).chain(BESIDE) {
        if !seen.contains(*name) {
            complaints.push(format!("{name} is on a floor but not in crates/"));
        }
    }
    Ok(complaints)
}

fn floor(name: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&name))
}

fn of_manifest(name: &str, manifest: &Table) -> Vec<String> {
    let mut complaints = Vec::new();
    let table = |key: &str| manifest.get(key).and_then(Value::as_table);
    let beside = BESIDE.contains(&name);
    let own = floor(name);
    if own.is_none() && !beside {
        complaints.push(format!("{name} has no floor: see xtask/src/tidy/floors.rs"));
    }
    for other in ["dependencies", "build-dependencies"]
        .iter()
        .filter_map(|key| table(key))
        .flat_map(Table::keys)
    {
        if BESIDE.contains(&other.as_str()) {
            complaints.push(format!("{name} leans on {other}, which is for tests"));
        }
        if let (Some(own), Some(others)) = (own, floor(other))
            && others >= own
        {
            complaints.push(format!(
                "{name} (floor {own}) leans on {other} (floor {others}): see ARCHITECTURE.md"
            ));
        }
        if other == "proto" && !WIRE.contains(&name) {
            complaints.push(format!("{name} sees proto; only {} may", WIRE.join(", ")));
        }
    }
    let lints = table("lints").and_then(|it| it.get("workspace"));
    if lints.and_then(Value::as_bool) != Some(true) {
        complaints.push(format!("{name} does not take the workspace's lints"));
    }
    let named = table("package")
        .and_then(|it| it.get("name"))
        .and_then(Value::as_str);
    if named != Some(name) {
        complaints.push(format!(
            "crates/{name} is called {}",
            named.unwrap_or("nothing")
        ));
    }
    complaints
}

fn of_root(name: &str) -> Result<Vec<String>> {
    let mut complaints = Vec::new();
    let roots = ["src/lib.rs", "src/main.rs"].map(|root| format!("crates/{name}/{root}"));
    for root in roots
        .iter()
        .filter(|root| repo::root().join(root).is_file())
    {
        let forbids = repo::read(root)?.contains("#![forbid(unsafe_code)]");
        if !forbids && !UNSAFE.contains(&name) && name != "proto" {
            complaints.push(format!("{root} does not say #![forbid(unsafe_code)]"));
        }
    }
    Ok(complaints)
}

#[cfg(test)]
mod tests {
    use super::of_manifest;

    #[track_caller]
    fn check(name: &str, dependencies: &str, expected: &[&str]) {
        let text = format!(
            "package.name = '{name}'\nlints.workspace = true\n[dependencies]\n{dependencies}"
        );
        assert_eq!(of_manifest(name, &text.parse().unwrap()), expected);
    }

    #[test]
    fn a_planted_dependency_is_found() {
        check(
            "solver",
            "oci.workspace = true\ntokio.workspace = true",
            &[],
        );
        check(
            "solver",
            "session.workspace = true",
            &["solver (floor 3) leans on session (floor 3): see ARCHITECTURE.md"],
        );
        check(
            "solver",
            "testkit.workspace = true",
            &["solver leans on testkit, which is for tests"],
        );
        check(
            "solver",
            "proto.workspace = true",
            &["solver sees proto; only llb, session, client, engine, daemon may"],
        );
        check(
            "attic",
            "",
            &["attic has no floor: see xtask/src/tidy/floors.rs"],
        );
    }
}
