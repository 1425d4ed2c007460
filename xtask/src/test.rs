//! `cargo xtask test`: what the desk and the build server both ask of a change.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Instant;

use crate::{Error, Result, licences, setup, shell, tidy};

/// Which parts to run.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Only the tests, not formatting, lints, docs and licences
    #[arg(long)]
    only_tests: bool,
}

/// Runs everything; the first part that fails ends it, but all tests are run.
pub(crate) fn run(args: &Args) -> Result<()> {
    let begun = Instant::now();
    setup::ensure(&[&setup::BUSYBOX, &setup::GIT, &setup::RUNC, &setup::CRUN])?;
    if !setup::is_root() {
        println!("not root: tests named privileged_… say so and pass without looking");
    }
    if !args.only_tests {
        tidy::run()?;
        licences::run()?;
        shell::run(&mut shell::cargo(&["fmt", "--all", "--check"]))?;
        shell::run(&mut shell::cargo(&[
            "clippy",
            "--quiet",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]))?;
        let mut doc = shell::cargo(&["doc", "--quiet", "--workspace", "--no-deps"]);
        shell::run(doc.env("RUSTDOCFLAGS", "-D warnings"))?;
    }
    let peers = peers();
    let sum = tests(peers)?;
    println!(
        "\ntest summary: {} passed, {} failed, {} ignored in {} test programs; {:.0} s in all",
        sum.passed,
        sum.failed,
        sum.ignored,
        sum.programs,
        begun.elapsed().as_secs_f64()
    );
    if !sum.success || sum.failed > 0 {
        return Err(Error::Chore("not all tests passed".to_owned()));
    }
    Ok(())
}

#[derive(Debug, Default, PartialEq)]
struct Sum {
    passed: u32,
    failed: u32,
    ignored: u32,
    programs: u32,
    success: bool,
}

impl Sum {
    /// Reads `test result: ok. 5 passed; 0 failed; 1 ignored; …`.
    fn add(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else {
            return;
        };
        let counts = result.split_once(". ").map_or("", |(_, counts)| counts);
        self.programs += 1;
        for count in counts.split("; ") {
            let Some((number, what)) = count.trim().split_once(' ') else {
                continue;
            };
            let number = number.parse::<u32>().unwrap_or(0);
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

/// Makes the folder of other people's tools; says if there will be none.
fn peers() -> bool {
    if std::env::var_os("KILN_E2E_PEERS").is_some_and(|value| value == "0") {
        return false;
    }
    let made = shell::run(&mut shell::command("tests/peers", &["setup"]));
    if let Err(error) = &made {
        println!(
            "\nWARNING: tests with docker, buildx, skopeo, crane and umoci are skipped: {error}\n"
        );
    }
    if made.is_ok() {
        let built = shell::run(&mut shell::command("tests/peers", &["frontend"]));
        if let Err(error) = built {
            println!("\nWARNING: tests with BuildKit's Dockerfile frontend are skipped: {error}\n");
        }
    }
    made.is_ok()
}

/// All tests of all crates, their output shown as it comes.
fn tests(peers: bool) -> Result<Sum> {
    let mut command = shell::cargo(&["test", "--workspace", "--no-fail-fast"]);
    if !peers {
        command.env("KILN_E2E_PEERS", "0");
    }
    let name = shell::shown(&command);
    println!("\n$ {name}");
    let start = |source| Error::Start {
        command: name.clone(),
        source,
    };
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(start)?;
    let mut sum = Sum::default();
    let out = child.stdout.take().expect("it was piped");
    for line in BufReader::new(out).split(b'\n') {
        let line = line.map_err(Error::file("cargo test"))?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        sum.add(&line);
    }
    sum.success = child.wait().map_err(Error::file("cargo test"))?.success();
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::Sum;

    #[test]
    fn results_are_summed() {
        let mut sum = Sum::default();
        sum.add("test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.01s");
        sum.add("running 3 tests");
        sum.add("test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.2s");
        let expected = Sum {
            passed: 7,
            failed: 1,
            ignored: 1,
            programs: 2,
            success: false,
        };
        assert_eq!(sum, expected);
    }
}
