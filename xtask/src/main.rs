//! `cargo xtask …`: the chores of this repository, in Rust.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "chores talk to the terminal"
)]

mod bench;
mod coverage;
mod demo;
mod error;
mod fuzz;
mod licences;
mod metrics;
mod mutants;
mod repo;
mod rust;
mod setup;
mod shell;
mod test;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub(crate) use error::{Error, Result};

#[derive(Debug, Parser)]
#[command(
    name = "xtask",
    bin_name = "cargo xtask",
    about = "The chores of this repository"
)]
struct Xtask {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Build an example, push it, build it again from cache and run the image
    Demo(demo::Args),
    /// Everything that must pass: set-up, formatting, lints, docs, all tests, tidy, licences
    Test(test::Args),
    /// What a compiler does not see: floors, file headers, forgotten tests, unknown rows
    Tidy,
    /// Rows of docs/spec that tests name
    Coverage(coverage::Args),
    /// Bad input for every door, guided by what it reaches
    Fuzz(fuzz::Args),
    /// Break the code on purpose, and see which faults no test notices
    Mutants(mutants::Args),
    /// How long files and functions are, and how much is documented
    Metrics,
    /// kiln beside other builders, on this machine
    Bench(bench::Args),
}

fn main() -> ExitCode {
    let ended = match Xtask::parse().chore {
        Chore::Demo(args) => demo::run(&args),
        Chore::Test(args) => test::run(&args),
        Chore::Tidy => tidy::run(),
        Chore::Coverage(args) => coverage::run(&args),
        Chore::Fuzz(args) => fuzz::run(&args),
        Chore::Mutants(args) => mutants::run(&args),
        Chore::Metrics => metrics::run(),
        Chore::Bench(args) => bench::run(args).map_err(|error| Error::Chore(error.to_string())),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
