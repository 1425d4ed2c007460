//! `cargo xtask bench`: kiln beside BuildKit and buildah, on the same machine in the same run.

/// What to measure.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Small sizes: is the harness itself in order?
    #[arg(long)]
    quick: bool,
    /// Only these cases (may be given several times)
    #[arg(long, value_name = "CASE")]
    only: Vec<String>,
}

/// Why nothing was measured.
#[derive(thiserror::Error, Debug)]
pub(crate) enum Error {}

/// Measures, and prints the table.
pub(crate) fn run(args: Args) -> Result<(), Error> {
    let _ = args;
    Ok(())
}
