//! `cargo xtask bench`: kiln beside BuildKit and buildah, on the same machine in the same run.
//!
//! Nothing here judges: it measures and prints. What the numbers mean is in `docs/benchmarks.md`.

mod aside;
mod case;
mod daemons;
mod inputs;
mod machine;
mod measure;
mod peers;
mod subject;
mod table;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use case::Case;
use inputs::{Inputs, Sizes};
use measure::Sample;
use peers::Peers;
use subject::{Subject, Who};
use table::Row;

/// After so long on one case, a subject is not asked again: the slowest would take hours.
const ENOUGH: Duration = Duration::from_secs(120);

/// What to measure.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Small sizes: is the harness itself in order?
    #[arg(long)]
    quick: bool,
    /// Only these cases (may be given several times, or with commas)
    #[arg(long, value_name = "CASE", value_delimiter = ',')]
    only: Vec<String>,
    /// Only these tools: kiln, kiln-daemon, kiln-buildx, buildkit, buildah
    #[arg(long, value_name = "TOOL", value_delimiter = ',')]
    with: Vec<String>,
    /// How often each is measured
    #[arg(long, value_name = "N", default_value_t = 5)]
    runs: u32,
    /// The kiln to measure [default: the release build next to this program]
    #[arg(long, value_name = "FILE")]
    kiln: Option<PathBuf>,
    /// Where the peers are (a root directory with dockerd, buildx, buildah, docker-registry)
    #[arg(long, value_name = "DIR", env = "KILN_PEERS")]
    peers: Option<PathBuf>,
    /// Where a directory is made for what is measured; needs about 15 GB [default: /var/tmp]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Write the table to this file, too
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
}

/// Why something was not measured.
#[derive(thiserror::Error, Debug)]
pub(crate) enum Error {
    #[error("{what} {}", path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("starting {program}")]
    Start {
        program: String,
        source: std::io::Error,
    },
    #[error("{command} ended with {status}; its last words:\n{last_words}")]
    Failed {
        command: String,
        status: String,
        last_words: String,
    },
    #[error("{who} was not ready after {} s; see {}", after.as_secs(), log.display())]
    NotReady {
        who: &'static str,
        after: Duration,
        log: PathBuf,
    },
    #[error("no peers in {}: make them first, or name their folder with KILN_PEERS", .0.display())]
    NoPeers(PathBuf),
    #[error("no kiln at {}: build it with `cargo build --release -p kiln`, or name one with --kiln", .0.display())]
    NoKiln(PathBuf),
    #[error("no case is called {0:?}; there are: {all}", all = Case::names().join(", "))]
    NoCase(String),
    #[error("no tool is called {0:?}; there are: {all}", all = Who::names().join(", "))]
    NoTool(String),
    #[error("mounts and containers need root")]
    NotRoot,
}

impl Error {
    fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::Io { what, path, source }
    }
}

/// Measures, and prints the table.
pub(crate) fn run(args: Args) -> Result<(), Error> {
    if !machine::is_root() {
        return Err(Error::NotRoot);
    }
    let cases = Case::chosen(&args.only)?;
    let tools = Who::chosen(&args.with)?;
    let kiln = kiln_binary(args.kiln.as_deref())?;
    let dir = Dir::new(args.dir.clone())?;
    let peers = Peers::enter(args.peers.clone(), &dir.path)?;
    let registry = daemons::Registry::start(&peers, &dir.path)?;
    let sizes = if args.quick {
        Sizes::quick()
    } else {
        Sizes::full()
    };
    let inputs = Inputs::new(&dir.path, registry.host.clone(), sizes)?;
    say("making the inputs");
    inputs.push_images(&peers, &registry)?;

    let mut rows = Vec::new();
    for case in cases {
        inputs.make(case)?;
        rows.push(one_case(case, &tools, &inputs, &peers, &kiln, &args)?);
    }
    let text = table::markdown(&machine::describe(&peers, &kiln), &tools, &rows);
    say(&text);
    if let Some(path) = &args.table {
        std::fs::write(path, &text).map_err(Error::io("writing", path))?;
    }
    Ok(())
}

/// All tools on one case. The runs of the tools take turns, so that whatever else the machine
/// does hits all of them alike.
fn one_case(
    case: Case,
    tools: &[Who],
    inputs: &Inputs,
    peers: &Peers,
    kiln: &Path,
    args: &Args,
) -> Result<Row, Error> {
    let mut subjects = Vec::new();
    for who in tools.iter().filter(|who| case.suits(**who)) {
        subjects.push(Subject::new(*who, kiln, peers, inputs)?);
    }
    let mut row = Row::new(case, inputs.sizes());
    let mut spent = vec![Duration::ZERO; subjects.len()];
    for run in 0..args.runs.max(1) {
        for (subject, spent) in subjects.iter_mut().zip(&mut spent) {
            if *spent > ENOUGH || row.failed(subject.who) {
                continue;
            }
            let begun = Instant::now();
            let outcome = one_run(case, subject, inputs, run);
            *spent += begun.elapsed();
            say(&match &outcome {
                Ok(sample) => format!("{:<16} {:<12} {sample}", case.name(), subject.who.name()),
                Err(error) => format!("{:<16} {:<12} {error}", case.name(), subject.who.name()),
            });
            row.add(subject.who, outcome);
        }
    }
    Ok(row)
}

fn one_run(case: Case, subject: &mut Subject, inputs: &Inputs, run: u32) -> Result<Sample, Error> {
    if run == 0 || case.needs_empty_state() {
        subject.start_afresh()?;
    }
    // A tool runs differently often than another: the number must not repeat for any of them.
    for build in case.before(inputs, run) {
        subject.build_untimed(&build)?;
    }
    case.change_input(inputs, run)?;
    measure::settle();
    let sample = subject.measure(&case.timed(inputs, run))?;
    inputs.clear_outputs()?;
    Ok(sample)
}

/// The release build beside us, unless told otherwise.
fn kiln_binary(named: Option<&Path>) -> Result<PathBuf, Error> {
    let path = match named {
        Some(path) => path.to_owned(),
        None => {
            let own = std::env::current_exe().map_err(Error::io("finding", Path::new("xtask")))?;
            let target = own.parent().and_then(Path::parent).map(Path::to_owned);
            target.unwrap_or_default().join("release/kiln")
        }
    };
    path.canonicalize().map_err(|_| Error::NoKiln(path))
}

/// Where everything is kept; removed afterwards.
struct Dir {
    path: PathBuf,
}

impl Dir {
    /// A new one within `parent`, as what another run left would be measured, too.
    fn new(parent: Option<PathBuf>) -> Result<Dir, Error> {
        let parent = parent.unwrap_or_else(|| PathBuf::from("/var/tmp"));
        let path = parent.join(format!("kiln-bench.{}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(Error::io("making", &path))?;
        let path = path.canonicalize().map_err(Error::io("finding", &path))?;
        Ok(Dir { path })
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        // Nobody is left to tell, and the name says what it was.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// Words for the person who waits. Without standard output there is nobody.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}");
    let _ = out.flush();
}
