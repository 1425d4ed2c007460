//! Feeds a target: the corpus, the seeds, then what the mutator makes of both.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

use testkit::dice::Dice;

use crate::Target;
use crate::cover::Coverage;
use crate::meter::Meter;
use crate::mutate::Mutator;

/// How long to go on, and from where. The corpus is played whole.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// When there are enough mutated inputs.
    pub until: Until,
    /// Where the mutator's dice begin.
    pub seed: u64,
}

/// When to stop making inputs.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// After so many: the same ones each time, on any machine.
    Made(usize),
    /// After this time.
    Passed(Duration),
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Files of the kept corpus.
    pub kept: usize,
    /// Inputs the mutator made.
    pub made: usize,
    /// Edges of the program that were seen; 0 when it was built without counters.
    pub edges: usize,
    /// The most bytes that one input had allocated at a time.
    pub memory: usize,
    /// The most processor time one input took.
    pub slowest: Duration,
}

/// The most processor time for one input, in a program built without optimisation.
const TIME: Duration = Duration::from_secs(10);
/// An input that takes longer than this by the clock will never end.
const HANG: Duration = Duration::from_secs(120);

/// One target at a time: memory and processor time are those of the whole program.
static ALONE: Mutex<()> = Mutex::new(());
/// What panicked since the input began, in any thread.
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());
/// The input being played and since when, for the watchdog.
static PLAYING: Mutex<Option<(Instant, &'static str, Vec<u8>)>> = Mutex::new(None);

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Plays a target. The error says what went wrong and where the input was put.
pub fn run(target: &Target, budget: Budget) -> Result<Outcome, String> {
    let _alone = lock(&ALONE);
    watch();
    let mut outcome = Outcome::default();
    let mut coverage = Coverage::default();
    let mut pool = Vec::new();
    for (path, input) in corpus(target.name) {
        outcome.kept += 1;
        play(target, &input, &mut outcome)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        coverage.is_new();
        pool.push(input);
    }
    for input in (target.seeds)() {
        play(target, &input, &mut outcome).map_err(|error| saved(target, &input, &error))?;
        coverage.is_new();
        pool.push(input);
    }
    let mut mutator = Mutator {
        dice: Dice::new(budget.seed),
        shape: target.shape,
        words: target.words,
        longest: target.longest,
    };
    let begin = Instant::now();
    let enough = |made: usize| match budget.until {
        Until::Made(count) => made >= count,
        Until::Passed(time) => begin.elapsed() >= time,
    };
    while !enough(outcome.made) {
        let input = mutator.make(&pool);
        if let Err(error) = play(target, &input, &mut outcome) {
            let smallest = smaller(target, input);
            return Err(saved(target, &smallest, &error));
        }
        outcome.made += 1;
        if Coverage::is_there() && coverage.is_new() {
            pool.push(input);
        }
    }
    outcome.edges = coverage.edges;
    Ok(outcome)
}

/// The kept inputs of a target, by name.
fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target);
    let mut paths: Vec<PathBuf> = std::fs::read_dir(&dir)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    paths.sort();
    paths
        .into_iter()
        .filter_map(|path| Some((path.clone(), std::fs::read(&path).ok()?)))
        .collect()
}

fn play(target: &Target, input: &[u8], outcome: &mut Outcome) -> Result<(), String> {
    lock(&PANICS).clear();
    Coverage::reset();
    *lock(&PLAYING) = Some((Instant::now(), target.name, input.to_vec()));
    let meter = Meter::start();
    let ended = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    let (memory, time) = (meter.peak(), meter.time());
    *lock(&PLAYING) = None;
    let panics = std::mem::take(&mut *lock(&PANICS));
    outcome.memory = outcome.memory.max(memory);
    outcome.slowest = outcome.slowest.max(time);
    if ended.is_err() || !panics.is_empty() {
        return Err(format!("panic: {}", panics.join("; ")));
    }
    if memory > target.memory {
        return Err(format!("{memory} bytes were allocated at one time"));
    }
    if time > TIME {
        return Err(format!("it took {time:?}"));
    }
    Ok(())
}

/// Leaves out what is not needed for the fault, for a while.
fn smaller(target: &Target, mut input: Vec<u8>) -> Vec<u8> {
    let begin = Instant::now();
    let mut piece = input.len() / 2;
    while piece > 0 {
        let mut at = 0;
        while at < input.len() {
            if begin.elapsed() > Duration::from_secs(20) {
                return input;
            }
            let mut less = input.clone();
            less.drain(at..(at + piece).min(input.len()));
            if play(target, &less, &mut Outcome::default()).is_err() {
                input = less;
            } else {
                at += piece;
            }
        }
        piece /= 2;
    }
    input
}

/// Puts an input where a person finds it, and says so.
fn saved(target: &Target, input: &[u8], error: &str) -> String {
    let dir = std::env::temp_dir().join("kiln-fuzz");
    let path = dir.join(format!(
        "{}-{}",
        target.name,
        &oci::Digest::of(input).hex()[..12]
    ));
    let written = std::fs::create_dir_all(&dir).and_then(|()| std::fs::write(&path, input));
    let place = match written {
        Ok(()) => format!(
            "the input is in {}; a fault that is understood goes to tests/fuzz/corpus/{}",
            path.display(),
            target.name
        ),
        Err(error) => format!("the input could not be kept: {error}"),
    };
    let start = String::from_utf8_lossy(&input[..input.len().min(300)]).into_owned();
    format!("{}: {error}\n{place}\n{start:?}", target.name)
}

/// Notes panics of all threads, and ends the program when an input hangs: a hanging thread
/// cannot be stopped in another way.
fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if lock(&PLAYING).is_some() {
                lock(&PANICS).push(info.to_string());
            } else {
                before(info);
            }
        }));
        std::thread::spawn(|| {
            loop {
                std::thread::sleep(Duration::from_secs(1));
                let playing = lock(&PLAYING).clone();
                if let Some((since, name, input)) = playing
                    && since.elapsed() > HANG
                {
                    let target = crate::all().into_iter().find(|t| t.name == name);
                    let target = target.expect("only known targets are played");
                    let text = saved(&target, &input, "it does not end");
                    #[expect(clippy::print_stderr, reason = "the last words before the end")]
                    {
                        eprintln!("{text}");
                    }
                    std::process::abort();
                }
            }
        });
    });
}
