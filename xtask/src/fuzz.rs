//! `cargo xtask fuzz TARGET`: bad input for one door for as long as one likes, guided by which
//! code it reaches. The tests play the kept corpus and a little more; this looks for new faults.

use std::path::Path;

use crate::{Result, repo, shell};

/// What to play.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// A target of tests/fuzz, or `all`
    #[arg(default_value = "all")]
    target: String,
    /// For each target
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Where the dice begin; by default where the clock stands
    #[arg(long)]
    seed: Option<u64>,
}

/// Builds our own crates with counters, beside the ordinary build, and plays.
pub(crate) fn run(args: &Args) -> Result<()> {
    let wrapper = repo::root().join(Path::new("tests/fuzz/rustc-with-coverage"));
    let seconds = args.seconds.to_string();
    let seed = args.seed.map(|seed| seed.to_string());
    let mut words = vec![
        "run",
        "--quiet",
        "--package",
        "fuzz",
        "--",
        &args.target,
        &seconds,
    ];
    words.extend(seed.as_deref());
    shell::run(shell::cargo(&words).env("RUSTC_WORKSPACE_WRAPPER", wrapper))
}
