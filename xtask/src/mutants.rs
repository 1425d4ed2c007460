//! `cargo xtask mutants -p CRATE`: breaks the code on purpose, everywhere, and says which of it no
//! test of the crate notices.
//!
//! cargo-mutants says what to break and how. It would build the crate anew for each fault, which
//! takes hours; here one program holds all of them and an environment variable picks one, so that
//! trying one costs a run of the tests.

mod list;
mod play;
mod weave;

use std::path::PathBuf;

use crate::{Error, Result, repo, shell};

/// What to break.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The crate whose code is broken and whose tests are run
    #[arg(short, long)]
    package: String,
    /// Files to break, as cargo-mutants takes them: `crates/solver/src/state/*.rs`
    #[arg(short, long, required = true)]
    file: Vec<String>,
    /// Also leave out each line that is a statement of its own
    #[arg(long)]
    lines: bool,
    /// Only those whose description contains this
    #[arg(long, default_value = "")]
    only: String,
}

/// Builds the program, tries every fault and prints those that pass.
pub(crate) fn run(args: &Args) -> Result<()> {
    let (mut mutants, sources) = list::of(&args.package, &args.file)?;
    if args.lines {
        let lines = list::lines(&mutants, &sources);
        mutants.extend(lines);
    }
    mutants.retain(|mutant| mutant.name.contains(&args.only));
    let tree = repo::root().join("target/mutants");
    copy(&tree.join("tree"))?;
    let woven = weave::all(&tree, &args.package, &mutants, &sources)?;
    println!("{} of {} compile", woven.compile.len(), mutants.len());
    for program in &woven.programs {
        if let Some(failed) = play::one(program, 0)? {
            return Err(Error::Chore(format!("without any fault: {failed}")));
        }
    }
    let mut passed = 0;
    for number in &woven.compile {
        let mut noticed = None;
        for program in &woven.programs {
            noticed = play::one(program, *number)?;
            if noticed.is_some() {
                break;
            }
        }
        if noticed.is_none() {
            passed += 1;
            println!("nobody noticed: {}", mutants[*number - 1].name);
        }
    }
    let (all, compile) = (mutants.len(), woven.compile.len());
    println!(
        "{all} tried, {compile} compile, {} noticed",
        compile - passed
    );
    Ok(())
}

/// Copies the repository as it is, without what git ignores. Files that did not change keep their
/// time, so that cargo builds the same thing once.
fn copy(to: &std::path::Path) -> Result<()> {
    let words = ["ls-files", "--cached", "--others", "--exclude-standard"];
    let files = shell::output(&mut shell::command("git", &words))?;
    for file in files.lines().map(PathBuf::from) {
        let (from, to) = (repo::root().join(&file), to.join(&file));
        // Links and files that are deleted but not committed are of no use here.
        if !from.is_file() || from.is_symlink() {
            continue;
        }
        let bytes = std::fs::read(&from).map_err(Error::file(&from))?;
        if std::fs::read(&to).is_ok_and(|there| there == bytes) {
            continue;
        }
        let dir = to.parent().expect("it lies in the tree");
        std::fs::create_dir_all(dir).map_err(Error::file(dir))?;
        std::fs::write(&to, bytes).map_err(Error::file(&to))?;
    }
    Ok(())
}
