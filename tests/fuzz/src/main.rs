//! `fuzz TARGET SECONDS [SEED]`, as `cargo xtask fuzz` runs it: one target for a while.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a chore talks to the terminal"
)]

use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let wanted = args.next().unwrap_or_default();
    let seconds = args.next().and_then(|text| text.parse().ok()).unwrap_or(60);
    let seed = args.next().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(0, |since| since.as_nanos() as u64)
    });
    let targets = fuzz::all();
    let chosen: Vec<_> = targets
        .iter()
        .filter(|target| wanted == "all" || target.name == wanted)
        .collect();
    if chosen.is_empty() {
        let names: Vec<_> = targets.iter().map(|target| target.name).collect();
        eprintln!("no target {wanted:?}: there are all, {}", names.join(", "));
        return ExitCode::FAILURE;
    }
    let mut code = ExitCode::SUCCESS;
    for target in chosen {
        let time = Duration::from_secs(seconds);
        let until = fuzz::Until::Passed(time);
        match fuzz::run(target, fuzz::Budget { until, seed }) {
            Ok(outcome) => println!("{} (seed {seed}): {outcome:?}", target.name),
            Err(error) => {
                eprintln!("seed {seed}: {error}");
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}
